"""What runs a converted file: a file and a runtime's name go in, an open session comes out.

Every runtime is one module (see `RuntimeModule`) and one row of the table below, which is all that is known of it
elsewhere: what it takes and what it can do are asked of its row, never its name.
"""

from __future__ import annotations

import abc
import contextlib
import functools
import importlib
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from edgeopt import formats, workers
from edgeopt.errors import ConfigError, EdgeoptError, ModelError, UnavailableError, suggestion
from edgeopt.vocabulary import Availability, Footprint, OperatorTime, TensorSpec

if TYPE_CHECKING:
    import numpy as np

    from edgeopt.formats.contract import FileFacts
    from edgeopt.tflite.stream import Stream

# What a runtime may be able to do, and what is said of one that cannot.
ABILITIES: dict[str, str] = {
    "time": "measures no time",
    "profile": "gives no times of single operators",
    "tensors": "keeps no activations",
    "footprint": "measures no flash and RAM",
    "resize": "takes the batch size of the file alone",
    "series": "runs a batch at once",
    "threads": "has one thread",
    "delegates": "loads no external delegates",
}


_HALF_TOLERANCE = 1e-2


@dataclass(frozen=True)
class Family:
    """Kernels that round alike, so that their integer outputs are equal; those of two families are compared.

    Attributes:
        name: as rows of RUNTIMES say it.
        float_tolerance, quantized_tolerance: of `parity.relative_difference` to the reference, for files that store
            floats alone and for others: families round differently, by design, up to 0.03 on real int8 models. A
            runtime that misreads a file is off by 1, and by 0.14 at least where all that the outputs tell apart is
            little, as in a network that has not been trained.
    """

    name: str
    float_tolerance: float = 1e-3
    quantized_tolerance: float = 0.1

    def tolerance(self, facts: FileFacts) -> float:
        """Returns the tolerance for a file; what computes in float16 rounds to ten bits at each operator."""
        if facts.is_quantized:
            return self.quantized_tolerance
        return max(self.float_tolerance, _HALF_TOLERANCE) if facts.in_half else self.float_tolerance


FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        Family("xnnpack"),
        Family("builtin"),
        Family("reference"),
        Family("tflm"),
        Family("mlas"),
        Family("tvm"),
        # float16 where the GPU has it, and integers computed in floats.
        Family("gpu", float_tolerance=1e-2),
        # Its matrix products of floats are TF32's, of ten bits.
        Family("tensorrt", float_tolerance=1e-2),
    )
}


@dataclass(frozen=True)
class Runtime:
    """A row of RUNTIMES.

    Attributes:
        name: as in `--runtime`.
        module: a RuntimeModule.
        package: what it comes with: rows of one package share a worker process.
        family: key of FAMILIES.
        summary: one line for help and docs.
        can: keys of ABILITIES. Those with "series" run the samples of a batch one after another, so that a batch is
            its samples by construction and the largest is the quickest.
        takes: keys of `formats.FORMATS`.
        accelerator: what computes: "cpu", or a processor that is simulated.
        by_default: whether it is tried without being asked for; one that wants tools and seconds is not.
        is_reference: whether others that take the same format are compared with it.
        stand_in: the runtime whose activations are shown for this one, where it keeps none.
        eight_bits: operators whose weights have to have eight bits, where each channel has a scale of its own.
    """

    name: str
    module: str
    package: str
    family: str
    summary: str
    can: frozenset[str] = frozenset()
    takes: tuple[str, ...] = ("tflite",)
    accelerator: str = "cpu"
    by_default: bool = True
    is_reference: bool = False
    stand_in: str = ""
    eight_bits: frozenset[str] = frozenset()

    def cannot(self, ability: str) -> UnavailableError:
        """Returns the error of asking for what it is not able to do."""
        able = [row.name for row in RUNTIMES.values() if ability in row.can and set(row.takes) & set(self.takes)]
        advice = f" Try --runtime {' or '.join(able)}." if able else ""
        return UnavailableError(f"{self.name} {ABILITIES[ability]}.{advice}")

    def refuses_shape(self, spec: TensorSpec, shapes: Mapping[str, tuple[int, ...]], why: str = "") -> ModelError:
        """Returns the error of giving an input a shape that it cannot have."""
        reason = f" ({why})" if why else ""
        taken = ", ".join("any" if n is None else str(n) for n in spec.shape)
        return ModelError(
            f"{self.name} takes [{taken}] as the input {spec.name!r}, got {list(shapes[spec.name])}{reason}. "
            "Try data or --shape of that size, or --batch-size 1 where the first dimension differs."
        )


_LITERT = frozenset({"time", "profile", "tensors", "resize", "threads"})

RUNTIMES: dict[str, Runtime] = {
    runtime.name: runtime
    for runtime in (
        Runtime(
            "litert",
            "edgeopt.runtimes.litert",
            "litert",
            "xnnpack",
            "LiteRT with XNNPACK, its default",
            # A delegate keeps no activations.
            _LITERT - {"tensors"} | {"delegates"},
            stand_in="litert-builtin",
        ),
        Runtime(
            "litert-builtin",
            "edgeopt.runtimes.litert",
            "litert",
            "builtin",
            "LiteRT's own optimized kernels",
            _LITERT,
            is_reference=True,
        ),
        Runtime(
            "litert-reference",
            "edgeopt.runtimes.litert",
            "litert",
            "reference",
            "LiteRT's reference kernels",
            _LITERT,
        ),
        Runtime(
            "litert-gpu",
            "edgeopt.runtimes.litert_gpu",
            "litert-gpu",
            "gpu",
            "LiteRT's CompiledModel on a GPU, through WebGPU and Vulkan",
            frozenset({"time", "resize", "series"}),
            accelerator="gpu",
            by_default=False,
        ),
        Runtime(
            "tflite-runtime",
            "edgeopt.runtimes.tflite_runtime",
            "tflite_runtime",
            "builtin",
            "the older interpreter package of many devices",
            _LITERT | {"delegates"},
        ),
        Runtime(
            "tflm",
            "edgeopt.runtimes.tflm",
            "tflite_micro",
            "tflm",
            "TensorFlow Lite for Microcontrollers",
            frozenset({"time", "tensors"}),
            eight_bits=frozenset({"FULLY_CONNECTED"}),
        ),
        Runtime(
            "onnxruntime",
            "edgeopt.runtimes.onnxruntime",
            "onnxruntime",
            "mlas",
            "ONNX Runtime on the CPU",
            frozenset({"time", "profile", "tensors", "resize", "threads"}),
            takes=("onnx",),
        ),
        *(
            Runtime(
                f"onnxruntime-{name}",
                "edgeopt.runtimes.onnxruntime",
                "onnxruntime",
                "gpu",
                f"ONNX Runtime with its provider for {hardware}",
                frozenset({"time", "profile", "resize"}),
                takes=("onnx",),
                accelerator=accelerator,
                by_default=False,
            )
            for name, accelerator, hardware in (
                ("cuda", "nvidia-gpu", "NVIDIA GPUs"),
                ("openvino", "intel", "Intel's CPUs, GPUs and NPUs (OpenVINO)"),
                ("directml", "gpu", "GPUs under Windows (DirectML)"),
                ("coreml", "apple", "Apple's GPUs and NPUs (Core ML)"),
            )
        ),
        Runtime(
            "tvm",
            "edgeopt.runtimes.tvm",
            "tvm",
            "tvm",
            "TVM's runtime, for libraries that it compiled; those for ARM64 in QEMU",
            frozenset({"time", "resize", "series"}),
            takes=("tvm",),
        ),
        Runtime(
            "tensorrt",
            "edgeopt.runtimes.tensorrt",
            "tensorrt",
            "tensorrt",
            "TensorRT on an NVIDIA GPU",
            frozenset({"time"}),
            takes=("tensorrt",),
            accelerator="nvidia-gpu",
        ),
        *(
            Runtime(
                f"qemu-cortex-{core}",
                "edgeopt.runtimes.qemu",
                "qemu",
                "tflm",
                f"plain C99 of the model on a Cortex-{core.upper()} that QEMU simulates",
                frozenset({"footprint", "resize", "series"}),
                accelerator=f"cortex-{core}",
                by_default=False,
                stand_in="tflm",
            )
            for core in ("m3", "m4", "m7", "m55")
        ),
    )
}

# Names that users know the same runtimes by.
ALIASES: dict[str, str] = {
    "ai-edge-litert": "litert",
    "tflite-micro": "tflm",
    "xnnpack": "litert",
    "ort": "onnxruntime",
}


@dataclass(frozen=True)
class Delegate:
    """An external delegate: a shared library and its options."""

    library: Path
    options: Mapping[str, str] = field(default_factory=dict)


class Session(abc.ABC):
    """A file opened on a runtime, its tensors allocated. What a runtime cannot do, its sessions refuse.

    Attributes:
        runtime: the row.
        file: what is open.
        inputs, outputs: by the names of the file's signature, or the tensors' own where it has none; shapes are
            those that `run` takes and gives now, and follow `resize` and `reshape`.
        threads: how many the runtime really uses.
        delegated_share: share of the file's operators (of its main graph) that the delegate took, 0 to 1: the
            external one where one was asked for, else the runtime's own (XNNPACK); None where it has none.
        delegated, undelegated: which operators those are, and which stayed, as "2 x CONV_2D".
    """

    runtime: Runtime
    file: Path
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    threads: int = 1
    delegated_share: float | None = None
    delegated: tuple[str, ...] = ()
    undelegated: tuple[str, ...] = ()

    @property
    def declared(self) -> tuple[TensorSpec, ...]:
        """The inputs as the file has them: None for what it leaves free."""
        return self.inputs

    @property
    def indices(self) -> frozenset[str]:
        """Names of the inputs of floats that the file looks up in a table."""
        return formats.facts(self.file).indices

    @abc.abstractmethod
    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Runs one batch from a fresh state. Arrays have the dtype and shape of `inputs`; outputs are copies."""

    def resize(self, batch_size: int) -> bool:
        """Sets the first dimension of every input; False (and unchanged) where the graph or runtime cannot.

        True was proven by running: outputs of the batch are those of its samples alone, integers bit for bit, floats
        within 1e-4 of the largest.
        """
        return all(bool(spec.shape) and spec.shape[0] == batch_size for spec in self.inputs)

    def reshape(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Sets the shapes of inputs, as far as the file leaves them free.

        Raises:
            ModelError: the graph or runtime does not take them.
        """
        if unlike := [spec for spec in self.inputs if spec.shape != shapes[spec.name]]:
            raise self.runtime.refuses_shape(unlike[0], shapes)

    def invocation(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Returns what one invocation of the file takes of a sample: all of it, unless the file reads steps."""
        return dict(inputs)

    def invoke_ns(self, inputs: Mapping[str, np.ndarray], *, runs: int) -> np.ndarray:
        """Sets the inputs once, in a fresh state, then times `runs` bare invocations: int64 nanoseconds [runs]."""
        raise self.runtime.cannot("time")

    def tensors(self) -> dict[str, np.ndarray]:
        """Every activation of the last run by tensor name (only when opened with keep_intermediates)."""
        raise self.runtime.cannot("tensors")

    def footprint(self, inputs: Mapping[str, np.ndarray]) -> Footprint:
        """Returns what the model takes of flash and RAM, and one inference of instructions."""
        raise self.runtime.cannot("footprint")

    def close(self) -> None:  # noqa: B027 (not every session holds something)
        """Frees it."""


class RuntimeModule(Protocol):
    """What the module of a runtime has; `profile` only where it can, `small_file` only where files are a machine's own.

    Attributes:
        INSTALL: what to type where it is missing.
    """

    INSTALL: str

    def version(self) -> str:
        """Returns the installed version, "" where there is none, without importing the runtime."""

    def load(self) -> None:
        """Imports what opening takes, so that opening can be timed alone; UnavailableError where it is missing."""

    def refusals(self, file: Path, version: str) -> tuple[str, ...]:
        """Returns why that version of it cannot load the file, without running it: as far as can be told."""

    def small_file(self) -> bytes:
        """Returns a file of one operator, float32 [1, 4]: y = x + x."""

    def open(
        self, file: Path, runtime: Runtime, *, threads: int, delegate: Delegate | None, keep_intermediates: bool
    ) -> Session:
        """Opens the file; see `open_session`. Only what `runtime` can do is asked for."""

    def profile(
        self,
        file: Path,
        runtime: Runtime,
        inputs: Mapping[str, np.ndarray],
        *,
        threads: int,
        delegate: Delegate | None,
    ) -> tuple[OperatorTime, ...]:
        """Returns the operators in the order they run, each with the median of its time."""


@dataclass(frozen=True)
class Request:
    """A parsed `--runtime NAME[==VERSION]`."""

    runtime: Runtime
    version: str | None = None


def parse(text: str) -> Request:
    """Parses "NAME" or "NAME==VERSION".

    Raises:
        ConfigError: no runtime has that name.
    """
    name, _, version = text.partition("==")
    name = ALIASES.get(name.strip(), name.strip())
    if name not in RUNTIMES:
        raise ConfigError(f"Expected a runtime, as NAME or NAME==VERSION, got {text!r}.{suggestion(name, RUNTIMES)}")
    return Request(RUNTIMES[name], version.strip() or None)


def releases(requests: Iterable[Request], *, form: str) -> tuple[str, ...]:
    """Returns the versions that are asked for of runtimes that take files of the format `form`."""
    return tuple(request.version for request in requests if request.version and form in request.runtime.takes)


def module(runtime: Runtime) -> RuntimeModule:
    """Returns the module of a runtime; importing it imports no heavy package."""
    return cast("RuntimeModule", importlib.import_module(runtime.module))


def to_try(asked: Iterable[Request], *, form: str) -> list[Request]:
    """Returns what a file of the format `form` is tried on: all that take it by default, and those asked for."""
    by_name = {request.runtime.name: request for request in asked}
    return [
        by_name.get(name, Request(row))
        for name, row in RUNTIMES.items()
        if name in by_name or (row.by_default and form in row.takes)
    ]


def reference_for(form: str) -> Runtime | None:
    """Returns the runtime that others are compared with on files of the format `form`, None where there is none."""
    return next((row for row in RUNTIMES.values() if row.is_reference and form in row.takes), None)


@contextlib.contextmanager
def as_reference_takes(file: Path) -> Iterator[Path]:
    """Lends a file as the reference of its format computes it rightly: as a rule the file itself.

    TensorFlow Lite's takes weights with a scale for each block, and computes garbage: it gets their numbers instead.

    Raises:
        ModelError: see `rewrite.without_blocks`.
    """
    from edgeopt.tflite.reader import read_once
    from edgeopt.tflite.rewrite import without_blocks

    takes_blocks = formats.format_of(file).name != "tflite" or not any(
        tensor.block_size for graph in read_once(file).subgraphs for tensor in graph.tensors
    )
    if takes_blocks:
        yield file
        return
    with tempfile.TemporaryDirectory() as folder:
        lent = Path(folder) / file.name
        lent.write_bytes(without_blocks(file.read_bytes()))
        yield lent


def main_for(form: str) -> Runtime:
    """Returns the runtime that files of the format `form` are scored and timed on where nobody says another.

    Raises:
        UnavailableError: no runtime takes such files.
    """
    found = next((row for row in RUNTIMES.values() if form in row.takes and "time" in row.can), None)
    if found is None:
        raise UnavailableError(f"Expected files that a runtime takes, got {form}, which none does. Try a .tflite.")
    return found


def refusals(file: Path, request: Request) -> tuple[str, ...]:
    """Returns why a runtime cannot load `file`, without it; empty where nothing speaks against it, or none is here.

    A request without a version means the installed one.
    """
    form = formats.format_of(file).name
    if form not in request.runtime.takes:
        return (f"{request.runtime.name} runs {' and '.join(request.runtime.takes)} files, this one is {form}",)
    version = request.version or module(request.runtime).version()
    return module(request.runtime).refusals(file, version) if version else ()


@functools.cache
def available(runtime: Runtime) -> Availability:
    """Says whether `runtime` works on this machine, by running a small model on it, in the package's worker."""
    try:
        worker, limits = workers.shared(runtime.package), workers.limits_of("trying")
        return worker.call("edgeopt.runtimes.probe:probe", runtime, timeout_s=limits.seconds)
    except workers.WorkerCrashed as crash:
        return Availability(False, f"it dies on this machine ({crash.reason})")


def open_session(
    file: Path,
    runtime: Runtime,
    *,
    threads: int = 1,
    delegate: Delegate | None = None,
    keep_intermediates: bool = False,
) -> Session:
    """Opens `file` in this process.

    Raises:
        ConfigError: `threads` is not a positive number.
        UnavailableError: the runtime or delegate is not to be had here, or the delegate takes nothing of the file;
            or the runtime is not able to do what is asked.
        ModelError: the runtime refuses the file; the message holds the runtime's own words.
    """
    if threads < 1:
        raise ConfigError(f"Expected a positive number of threads, got {threads}. Try --threads 1.")
    if delegate is not None and "delegates" not in runtime.can:
        raise runtime.cannot("delegates")
    if keep_intermediates and "tensors" not in runtime.can:
        raise runtime.cannot("tensors")
    try:
        session = module(runtime).open(
            file, runtime, threads=threads, delegate=delegate, keep_intermediates=keep_intermediates
        )
        session.file = file
        return _reading_whole(session, file)
    except ModelError as error:
        if device := _compiled_for(file):
            raise ModelError(
                f"Expected a file that a CPU computes, got {file.name}, which is compiled for {device}: {runtime.name} "
                f"has none. Try the file that it was compiled from; this one needs a device with {device}."
            ) from error
        raise


def _reading_whole(session: Session, file: Path) -> Session:
    """Returns a session that takes whole samples, also of a file that reads them step by step."""
    from edgeopt.runtimes.streaming import StreamSession

    stream = stream_in(file)
    return session if stream is None else StreamSession(session, stream)


def stream_in(file: Path) -> Stream | None:
    """Returns how a file reads samples step by step; None where it takes them whole.

    Raises:
        ModelError: it cannot be read, or what it says of itself is not so.
    """
    from edgeopt.tflite.reader import read_once
    from edgeopt.tflite.stream import stream_of

    return stream_of(read_once(file)) if formats.format_of(file).name == "tflite" else None


def _compiled_for(file: Path) -> str:
    """Returns whose commands a `.tflite` holds in place of operators, "" where it holds none."""
    from edgeopt.tflite.reader import read_once

    try:
        operators = [o.name for o in read_once(file).main.operators] if formats.format_of(file).name == "tflite" else []
    except EdgeoptError:
        return ""
    return next((device for name, device in _COMPILED.items() if name in operators), "")


# By the custom operator that stands for them.
_COMPILED = {"ethos-u": "an Ethos-U", "edgetpu-custom-op": "an Edge TPU"}


def isolated(
    file: Path,
    runtime: Runtime,
    *,
    threads: int = 1,
    delegate: Delegate | None = None,
    keep_intermediates: bool = False,
) -> Session:
    """Opens `file` in a worker process of its own, which `close` ends: a crash there is a ModelError here.

    Raises:
        ConfigError, UnavailableError, ModelError: as open_session; also when the runtime dies on the file.
    """
    from edgeopt.runtimes.isolation import IsolatedSession

    return IsolatedSession(file, runtime, threads=threads, delegate=delegate, keep_intermediates=keep_intermediates)
