"""A PyTorch module and inputs of it go in, a float `.tflite` that is proven against it comes out.

PyTorch and litert-torch want another NumPy than the frameworks here: they live in an environment of their own, which is
made on the first use, and what talks to them is `there.py`, run by its Python.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgeopt import files, parity, runtimes
from edgeopt.errors import ConfigError, ConversionError
from edgeopt.runtimes import FAMILIES
from edgeopt.showing.values import Shown
from edgeopt.tflite.model import printable
from edgeopt.tflite.reader import read
from edgeopt.torch_import import environment
from edgeopt.vocabulary import TensorSpec

_THERE = Path(__file__).parent / "there.py"
_RUNTIME = "litert-builtin"
_TIMEOUT_S = 3600


@dataclass(frozen=True)
class Imported(Shown):
    """A file that was made of a PyTorch module.

    Attributes:
        inputs, outputs: as the file declares them; pictures have their channels last.
        samples: how many of the function's inputs it was proven on.
        max_difference: from PyTorch's outputs, the largest of any output, as `parity.relative_difference` says.
        notes: what was done on the way.
    """

    file: Path
    sha256: str
    size_bytes: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    samples: int
    max_difference: float
    notes: tuple[str, ...]


def import_torch(
    function: str,
    output: Path | str,
    *,
    channels_last: bool = True,
    force: bool = False,
    python: Callable[[], Path] = environment.python,
) -> Imported:
    """Writes the PyTorch module that a function returns as a float `.tflite`, and proves the file on its inputs.

    Args:
        function: "package.module:function" of the working folder; it is called without arguments and returns the
            module in the state that ships and a list of its inputs, each a tensor or a tuple of them: one sample each.
        output: the file to write.
        channels_last: whether inputs and outputs of four dimensions become [N, height, width, channels].
        force: overwrite `output`.
        python: gives the interpreter that has PyTorch and litert-torch.

    Raises:
        ConfigError: `function` names nothing, or the file is there already.
        ConversionError: the module does not trace, or litert-torch refuses it, or the file computes something else.
        UnavailableError: the environment cannot be made.
    """
    output = Path(output)
    if ":" not in function:
        raise ConfigError(f"Expected package.module:function, got {function!r}. Try my_model:exported.")
    if output.suffix != ".tflite":
        raise ConfigError(f"Expected an output file ending in .tflite, got {output}. Try {output.stem}.tflite.")
    files.require_free(output, force=force)
    interpreter = python()
    with tempfile.TemporaryDirectory(prefix="edgeopt-") as name:
        folder = Path(name)
        said = _converted(interpreter, function, folder, channels_last=channels_last)
        made = folder / "model.tflite"
        with np.load(folder / "samples.npz") as kept:
            samples = {key: kept[key] for key in kept.files}
        difference, count = _proven(made, samples)
        content = made.read_bytes()
        files.atomic_write(output, content)
    model = read(content)
    return Imported(
        output,
        files.sha256(output),
        len(content),
        model.inputs,
        model.outputs,
        count,
        difference,
        tuple(map(str, said)),
    )


def _converted(python: Path, function: str, folder: Path, *, channels_last: bool) -> list[str]:
    """Has the other Python write model.tflite and samples.npz into `folder`, and returns what it noted."""
    command = [str(python), str(_THERE), function, str(folder), "last" if channels_last else "first"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        raise ConversionError(f"litert-torch did not end within {_TIMEOUT_S} s. Try a smaller module.") from None
    answer = folder / "answer.json"
    if not answer.is_file():
        last = next((line for line in reversed(done.stderr.splitlines()) if line.strip()), "it left no message")
        raise ConversionError(f"PyTorch's process died on {function}: {printable(last)}. Try a smaller module.")
    told = json.loads(answer.read_text())
    if told["error"]:
        kind = ConfigError if told["stage"] == "function" else ConversionError
        raise kind(f"{_EXPECTED[told['stage']]}, got {printable(told['error'])}. {_TRY[told['stage']]}")
    return list(told["notes"])


_EXPECTED = {
    "function": "Expected a function that returns a torch.nn.Module and a list of its inputs",
    "run": "Expected a module that runs on the inputs that its function returns",
    "convert": "Expected a module that torch.export traces and litert-torch converts",
}
_TRY = {
    "function": "Try: return model.eval(), [torch.zeros(1, 3, 32, 32)].",
    "run": "Try it in PyTorch first.",
    "convert": "Try a module without what depends on values, such as `if x.sum() > 0`.",
}


def _proven(file: Path, samples: dict[str, np.ndarray]) -> tuple[float, int]:
    """Returns how far a file is from PyTorch on the samples, and how many they are.

    Raises:
        ConversionError: too far.
    """
    count = len(samples["in0"])
    session = runtimes.isolated(file, runtimes.RUNTIMES[_RUNTIME])
    try:
        results = [
            session.run({spec.name: samples[f"in{i}"][n] for i, spec in enumerate(session.inputs)})
            for n in range(count)
        ]
        ours = {f"out{i}": [result[spec.name] for result in results] for i, spec in enumerate(session.outputs)}
    finally:
        session.close()
    theirs = {name: list(samples[name]) for name in ours}
    difference = parity.relative_difference(ours, theirs)
    if not difference <= FAMILIES["builtin"].float_tolerance:
        raise ConversionError(
            f"Expected the file to compute what PyTorch does on {count} samples, got outputs {difference:.2g} of their "
            "spread apart. Try module.eval() in the function, and inputs as the module will meet them."
        )
    return difference, count
