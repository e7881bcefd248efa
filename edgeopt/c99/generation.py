"""A TFLiteModel goes in, a Library comes out: its operators lowered, its memory planned, its C sources written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgeopt.c99 import source
from edgeopt.c99.call import Packing
from edgeopt.c99.layout import lay_out
from edgeopt.c99.lowering import PACKS, lower
from edgeopt.c99.memory import Placement
from edgeopt.errors import ConfigError, ModelError
from edgeopt.tflite.model import TFLiteModel
from edgeopt.vocabulary import TensorSpec

ROUNDINGS = ("tflm", "xnnpack")
# Offsets in C are int32.
_MOST_ARENA_BYTES = 2**31 - 1


@dataclass(frozen=True)
class Library:
    """C99 sources that compute one model.

    Attributes:
        files: content by path: "include/<name>.h", "src/<name>.c", "src/<name>_weights.c", "src/<name>_weights.h".
        arena_bytes: all memory that it writes, proven by `memory.prove`; the stack comes on top.
        scratch_bytes: the largest part of it that a kernel needs for itself.
        weights_bytes: const data, packed where it is.
        operators: their names in the order in which they run.
        plan: where each tensor lies, by offset.
        peak_operator: the first at which the arena reaches its full extent: "CONV_2D (operator 3)".
        packed: what packing did to each operator whose weights are packed, by name and place: "CONV_2D (operator 3)".
        left: what "always" would do and "auto" did not, by the same names.
        instructions: about how many an inference takes on a Cortex-M4 with nothing packed, of kernels with weights.
    """

    name: str
    files: Mapping[str, str]
    rounding: str
    arena_bytes: int
    scratch_bytes: int
    weights_bytes: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    operators: tuple[str, ...]
    plan: tuple[Placement, ...]
    peak_operator: str
    packed: Mapping[str, Packing]
    left: Mapping[str, Packing]
    instructions: int

    @property
    def more_instructions(self) -> float:
        """What packing adds to `instructions`, as a share of them."""
        return sum(row.more_instructions for row in self.packed.values()) / max(1, self.instructions)


def generate(model: TFLiteModel, *, name: str, rounding: str = "tflm", pack: str = "auto") -> Library:
    """Generates C99 that computes `model`; see the package for the header's interface.

    Args:
        model: int8 or float32 activations; one graph; batches of one where images are concerned.
        name: prefix of every symbol: an identifier of C in lower case that is no keyword.
        rounding: "tflm" computes what TensorFlow Lite Micro and CMSIS-NN compute, "xnnpack" what LiteRT does by default
            on a phone or computer; floats agree within the order of additions.
        pack: "auto" stores weights of at most 16 distinct values in 1 to 4 bits each where that is smaller and looking
            them up does not take too long, "always" where it is smaller, "never" nowhere.

    Raises:
        ConfigError: the rounding, the name or `pack` cannot be used.
        ModelError: it has operators, or forms of them, that this engine has not.
    """
    if rounding not in ROUNDINGS:
        raise ConfigError(f"Expected a rounding of {', '.join(ROUNDINGS)}, got {rounding!r}. Try --rounding tflm.")
    if not (name.isidentifier() and name.isascii() and name == name.lower()):
        raise ConfigError(f"Expected an identifier of C in lower case, got {name!r}. Try --name model.")
    if pack not in PACKS:
        raise ConfigError(f"Expected pack to be one of {', '.join(PACKS)}, got {pack!r}. Try --pack auto.")
    lowered = lower(model, rounding=rounding, pack=pack)
    if lowered.reasons:
        raise ModelError(
            f"Expected operators that the C99 engine has, got {'; '.join(lowered.reasons)}. "
            "Try --runtime tflm, or another scheme."
        )
    layout = lay_out(model, lowered)
    if layout.arena_bytes > _MOST_ARENA_BYTES:
        raise ModelError(
            f"Expected tensors that need 2 GiB at once, or less, got {layout.arena_bytes:,} bytes at "
            f"{layout.peak_operator}. Try a smaller input."
        )
    names = [f"{model.main.operators[origin].name} (operator {origin})" for origin in lowered.origins]
    program = source.write(model, layout, name=name, rounding=rounding)
    return Library(
        name=name,
        files=program.files,
        rounding=rounding,
        arena_bytes=layout.arena_bytes,
        scratch_bytes=max((call.scratch_bytes for call in lowered.calls), default=0),
        weights_bytes=program.weights_bytes,
        inputs=model.inputs,
        outputs=model.outputs,
        operators=tuple(model.main.operators[i].name for i in lowered.origins),
        plan=layout.placements,
        peak_operator=layout.peak_operator,
        packed={name: call.packing for name, call in zip(names, lowered.calls) if call.packing is not None},
        left={
            name: smallest
            for name, call, smallest in zip(names, lowered.calls, lowered.smallest)
            if smallest is not None and call.packing != smallest
        },
        instructions=sum(call.instructions for call in lowered.calls),
    )


def unsupported(model: TFLiteModel) -> tuple[str, ...]:
    """Returns why `generate` would refuse the model, each reason once: "CONV_2D in 2 groups"."""
    return lower(model, rounding="tflm", pack="never").reasons
