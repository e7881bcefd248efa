"""What a quantizer said when it refused or died goes in; words that a person can act on come out."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence

from edgeopt import frameworks
from edgeopt.errors import ConversionError
from edgeopt.vocabulary import Scheme
from edgeopt.workers import WorkerCrashed

# What becomes an operator where the sizes are known.
_OF_FIXED_SIZES = frozenset({"BroadcastTo", "Fill", "Pad", "Range", "Reshape", "Slice", "StridedSlice", "Tile"})
# MLIR names an operator and where in the model it stands: fused["Op:", "model/layer/Op@function"] … 'tf.Op' op is …
_NO_KERNEL = re.compile(r"'tf\.(\w+)' op is neither a custom op nor a flex op")
_PLACE = re.compile(r'fused\["(\w+):", "([^"@]+)[@"]')
_REFUSED = re.compile(r"'tfl?\.(\w+)' op (.+)")
_UNKNOWN = re.compile(r"Didn't find op for builtin opcode '(\w+)' version '(\d+)'")
_UNWRITTEN = re.compile(r"; ([\w ]+) \[Op:SaveV2\]")
_UNRANGED = re.compile(r"Max and min for dynamic tensors should be recorded .* Failed for tensor (\S+)")
_TELLING = re.compile(r"error|fail|abort|assert|fatal", re.IGNORECASE)
_LONGEST = 300


@contextlib.contextmanager
def in_words(scheme: Scheme) -> Iterator[None]:
    """Turns what a quantizer raises inside the block into a ConversionError."""
    refusals = (
        RuntimeError,
        ValueError,
        NotImplementedError,
        frameworks.load("tf_lite_convert").ConverterError,
        frameworks.load("tensorflow").errors.OpError,  # as when the disk is full
    )
    try:
        yield
    except refusals as error:
        raise ConversionError(f"The converter refused to make {scheme.name}: {gist(str(error))}") from error


def gist(complaint: str) -> str:
    """Returns what a converter's complaint says of the model, and what to try."""
    places = dict(_PLACE.findall(complaint))
    missing = dict.fromkeys(_NO_KERNEL.findall(complaint))
    if missing:
        named = ", ".join(f"{name} (of {layer_in(places[name])!r})" if name in places else name for name in missing)
        if missing.keys() <= _OF_FIXED_SIZES:
            return (
                f"TensorFlow Lite has no kernel of {named} for sizes that are left free, as the model uses it. Try "
                "--shape INPUT=SIZES, or a model without."
            )
        return f"TensorFlow Lite has no kernel of {named}, in any scheme. Try a model without."
    if unknown := _UNKNOWN.search(complaint):
        return f"it does not know {unknown[1]} in version {unknown[2]}. Try the model that this file was made from."
    if unwritten := _UNWRITTEN.search(complaint):
        return f"its temporary files cannot be written ({unwritten[1]}). Try TMPDIR=FOLDER, one with room for them."
    if unranged := _UNRANGED.search(complaint):
        name = unranged[1].rstrip(".").removeprefix("serving_default_").partition(":")[0]
        return (
            f"it wants a range of {name!r}, which is compared or computed with as it is, as a mask does, and has none. "
            "Try --scheme int8 or dynamic, or the layer without its mask."
        )
    if refused := _REFUSED.search(complaint):
        layers = (layer_in(place) for _, place in _PLACE.findall(complaint[: refused.start()]) if "/" in place)
        layer = next((f" (of {name!r})" for name in layers), "")
        return f"{refused[1]}{layer} {refused[2][:_LONGEST].rstrip('.')}. Try another --scheme."
    lines = [line.strip() for line in complaint.splitlines() if line.strip()]
    if not lines:
        return "it gave no reason. Try another --scheme."
    line = next((line for line in lines if "error:" in line), lines[0]).rpartition("error:")[2].strip()
    return f"{line[:_LONGEST].rstrip('.')}. Try another --scheme."


def layer_in(place: str) -> str:
    """Returns the layer in the name of an operation or tensor, "functional/dense/MatMul"; the name where none is."""
    parts = place.split(";")[0].split("/")
    if parts[-1].startswith(("PartitionedCall", "StatefulPartitionedCall")):
        return parts[0]
    return parts[1] if len(parts) > 2 else place


def crash_in_words(scheme: str, crash: WorkerCrashed, *, loops: Sequence[str], operators: Sequence[str]) -> str:
    """Returns the message for a converter that died.

    Args:
        scheme: the name of what it was making.
        loops: names of the layers that loop, or of the tensors that loops write.
        operators: what the float file holds, by name.
    """
    told = [line.strip() for line in crash.log.splitlines() if _TELLING.search(line)]
    reason = f"; it wrote: {told[-1][:_LONGEST]}" if told else ", without a reason"
    if loops:
        named = ", ".join(repr(name) for name in loops)
        cause = f"The model loops (WHILE) in {named}, which no quantizer takes"
        remedy = "--scheme float16 or dynamic, or the layer with unroll=True where it knows the word"
    else:
        cause = f"It holds {', '.join(operators)}" if operators else "Not even its float form could be made"
        remedy = "--scheme dynamic or float16"
    return f"The converter died ({crash.reason}) making {scheme}{reason}. {cause}. Try: {remedy}."
