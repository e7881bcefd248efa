"""A target as a value: what a data file says of a device, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgeopt import runtimes
from edgeopt.choices import Choices, option
from edgeopt.compilers import COMPILERS
from edgeopt.errors import ConfigError, suggestion
from edgeopt.schemes import SCHEMES

KINDS = ("microcontroller", "npu", "board", "phone", "browser", "host")
# What an operator computes with: its activations and, where those differ, its weights.
ARITHMETICS = ("float32", "float16", "dynamic", "int8", "int16x8", "int4")
# Of older files; what a target does not say of them is not known.
OLD_ARITHMETICS = ("uint8",)
TECHNIQUES = ("sparsity", "clusters", "int4", "int16x8")
# cycles: from published figures; compiler: by its model of the hardware; measured: here; adb: on a phone that is
# plugged in; none: not known.
LATENCY_KINDS = ("cycles", "compiler", "measured", "adb", "none")


@dataclass(frozen=True, kw_only=True)
class Source(Choices):
    """A public document, and what was taken from it.

    Raises:
        ConfigError: the address is none.
    """

    title: str = option("", "What it is called.")
    url: str = option("", "Where it is.")
    says: str = option("", "What was taken from it.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.title or not self.says:
            raise ConfigError("Expected a title and what the document says. Try title: … and says: ….")
        if not self.url.startswith("https://"):
            raise ConfigError(f"Expected an address that begins with https:// as url, got {self.url!r}.")


@dataclass(frozen=True, kw_only=True)
class LatencyModel(Choices):
    """How the time of an inference is found.

    Attributes:
        float32, int8, int16x8: cycles of one multiply-accumulate by operator name.

    Raises:
        ConfigError: a key that this kind of model needs is missing.
    """

    kind: str = option("none", "How it is found.", choices=LATENCY_KINDS)
    clock_hz: int | None = option(None, "Of the core that the cycles are of.", low=1)
    float32: Mapping[str, float] = option({}, "Cycles for a multiply-accumulate, by operator.", above=0)
    int8: Mapping[str, float] = option({}, "The same for int8.", above=0)
    int16x8: Mapping[str, float] = option({}, "The same for int8 weights and int16 activations.", above=0)
    derivation: str = option("", "How the numbers come from the sources, and how far off they are.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kind == "cycles" and not (self.clock_hz and self.derivation and (self.int8 or self.float32)):
            raise ConfigError("Expected clock_hz, derivation and int8 or float32 with kind: cycles.")


@dataclass(frozen=True, kw_only=True)
class Target(Choices):
    """A device, or a class of devices, that models are made for.

    Attributes:
        name: of the data file.
        well, runs, refused: of ARITHMETICS → why.
        flash_bytes, ram_bytes: None where they limit nothing.

    Raises:
        ConfigError: a value cannot be used, or something is missing.
    """

    name: str = ""
    summary: str = option("", "One line: what it is.")
    kind: str = option("", "What sort of device.", choices=KINDS)
    board: str = option("", "The chip or board whose memories these are, where the core itself has none.")
    flash_bytes: int | None = option(None, "For the model and the program.", low=1)
    ram_bytes: int | None = option(None, "For activations, the program and everything else.", low=1)
    runtimes: tuple[str, ...] = option((), "What runs models there.", metavar="NAME[==VERSION]")
    processor: str = option("", "What compiled code is for there, as LLVM names it.", metavar="TRIPLE/CPU")
    compiler: str = option("", "What makes the file that runs there, where a converter's does not.")
    compiler_settings: Mapping[str, str] = option({}, "What it is told.")
    best_scheme: str = option("", "What to begin with.", choices=tuple(SCHEMES))
    well: Mapping[str, str] = option({}, "What it computes with fast, and why.")
    runs: Mapping[str, str] = option({}, "What it computes with slowly, and why.")
    refused: Mapping[str, str] = option({}, "What it cannot compute with, and why.")
    operators: tuple[str, ...] = option((), "What it has fast kernels for.")
    others: str = option("", "What becomes of all other operators; without it they run where its runtimes have them.")
    fixed_shapes: bool = option(False, "Every dimension has to be told in the file.")
    inner_dimensions: int | None = option(None, "Only so many dimensions of a tensor, the last, may exceed 1.", low=1)
    techniques: Mapping[str, str] = option({}, "What sparsity, clusters, int4 and int16x8 bring there, and why.")
    latency: LatencyModel = option(LatencyModel(), "How the time of an inference is found.")  # noqa: RUF009 - frozen
    sources: tuple[Source, ...] = option((), "Public documents, and what was taken from each.")
    notes: tuple[str, ...] = option((), "What else to know.")

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in ("summary", "kind", "best_scheme", "sources"):
            if not getattr(self, key):
                raise ConfigError(f"Expected {key}, got nothing. Try the data file of another target as a pattern.")
        said = [name for key in ("well", "runs", "refused") for name in getattr(self, key)]
        for names, known in ((said, (*ARITHMETICS, *OLD_ARITHMETICS)), (self.techniques, TECHNIQUES)):
            for name in names:
                if name not in known:
                    raise ConfigError(f"Expected one of {', '.join(known)}, got {name!r}.{suggestion(name, known)}")
        for name in ARITHMETICS:
            if said.count(name) != 1:
                raise ConfigError(f"Expected {name} in one of well, runs and refused, got it in {said.count(name)}.")
        if missing := [name for name in TECHNIQUES if name not in self.techniques]:
            raise ConfigError(f"Expected {', '.join(missing)} under techniques, got nothing.")
        for name in self.runtimes:
            runtimes.parse(name)
        self._require_compiler()
        if self.latency.kind == "measured" and not self.runtimes:
            raise ConfigError("Expected a runtime to measure latencies on, got none. Try runtimes: [litert].")

    def _require_compiler(self) -> None:
        """Raises ConfigError where there is no such compiler, or it is not told exactly what it needs."""
        # The others make files of any scheme for no device.
        names = [name for name, row in COMPILERS.items() if not row.sources]
        known = " or ".join(names)
        if self.compiler and self.compiler not in names:
            raise ConfigError(f"Expected {known} as compiler, got {self.compiler!r}.{suggestion(self.compiler, names)}")
        if not self.compiler and (self.compiler_settings or self.latency.kind == "compiler"):
            raise ConfigError(f"Expected a compiler whose settings or figures these are, got none. Try {known}.")
        wanted = COMPILERS[self.compiler].settings if self.compiler else ()
        if set(self.compiler_settings) != set(wanted):
            got = ", ".join(self.compiler_settings) or "nothing"
            raise ConfigError(f"Expected {', '.join(wanted)} as compiler_settings of {self.compiler}, got {got}.")
