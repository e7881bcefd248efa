"""A `.tflite` file goes in before any project is made of it; what an app can call, and whether pictures, comes out."""

from __future__ import annotations

from edgeopt.errors import ModelError
from edgeopt.exporters.contract import Source
from edgeopt.tflite.model import BITS, TFLiteModel

_COLORS = {1: "grayscale", 3: "rgb"}


def require_callable(model: TFLiteModel, name: str) -> None:
    """Raises ModelError where an input cannot be filled, an output is not computed, or the operators are TensorFlow's.

    Args:
        model: the file.
        name: what the message calls it.
    """
    flex = [code.name for code in model.codes if code.custom and code.name.startswith("Flex")]
    if flex:
        raise ModelError(
            f"Expected operators of TensorFlow Lite, got {', '.join(flex)} of TensorFlow itself in {name}, which no "
            "app carries. Try converting without SELECT_TF_OPS: edgeopt convert names the layers that need them."
        )
    graph = model.main
    computed = {index for operator in graph.operators for index in operator.outputs}
    for side, specs, tensors in (("input", model.inputs, graph.inputs), ("output", model.outputs, graph.outputs)):
        if not specs:
            raise ModelError(f"Expected at least one {side}, got none in {name}. Try a model that has one.")
        for spec, index in zip(specs, tensors):
            why = ""
            if spec.dtype not in BITS or spec.dtype.startswith("complex"):
                why = f"it holds {spec.dtype}: an app fills and reads numbers"
            elif 0 in spec.shape:
                why = f"it holds nothing: its shape is {list(spec.shape)}"
            elif tensors.count(index) > 1:
                why = f"it is the same tensor as another {side}"
            elif sum(other.name == spec.name for other in specs) > 1:
                why = f"another {side} has the same name"
            elif side == "output" and index in graph.inputs:
                why = "it is an input: nothing computes it"
            elif side == "output" and index not in computed:
                why = "it is a constant, or nothing computes it"
            if why:
                raise ModelError(
                    f"Expected an {side} that an app can use, got {spec.name!r} of {name}: {why}. "
                    f"Try a model without this {side}."
                )


def picture(source: Source, model: TFLiteModel) -> str:
    """Returns "rgb" or "grayscale" where the model's one input is a picture, "" where it is not.

    A single channel is one where the data are resized, which only pictures are: spectrograms have that shape too.
    """
    shape = model.inputs[0].shape if len(model.inputs) == 1 else ()
    if len(shape) != 4 or None in shape[1:]:
        return ""
    found = _COLORS.get(shape[3] or 0, "")
    return found if found == "rgb" or source.preprocessing.resize else ""
