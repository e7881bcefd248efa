"""A loaded model with recurrent layers goes in; the same network without loops, step after step, comes out.

TensorFlow's quantizers die on a loop, and know no 16x8 form of the fused LSTM.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from edgeopt import graph, keras_bridge
from edgeopt.errors import ConversionError
from edgeopt.frameworks import load
from edgeopt.loading import proof

if TYPE_CHECKING:
    from edgeopt.loading import LoadedModel


def unrolled(model: LoadedModel) -> LoadedModel | None:
    """Returns the model with its recurrent layers unrolled; None where it has no layers that can be.

    The two are proven to compute the same, within 1e-5 of the outputs' range.

    Raises:
        ConversionError: a layer's time steps are free.
    """
    if model.keras is None:
        return None
    looping = [call.layer for call in graph.flat_calls(model.keras) if _can_unroll(call.layer)]
    if not looping:
        return None
    shapes = [spec.shape for spec in model.inputs]
    try:
        keras = graph.rebuild(model.keras, _without_loop, shapes=shapes)
    # What a layer says of time steps that it does not know.
    except ValueError as error:
        if "unroll" not in str(error).lower():
            raise
        raise ConversionError(
            f"Expected fixed time steps, got a free number of them: the loop of {looping[0].name!r} can be quantized "
            f"only when it is unrolled. Try {_shape_option(model)}, data of one length, or --scheme dynamic or float16."
        ) from error
    _prove(model.keras, keras, shapes)
    names = ", ".join(dict.fromkeys(repr(layer.name) for layer in looping))
    return replace(model, keras=keras, notes=(f"unrolled, as no quantizer takes its loop: {names}",))


def _can_unroll(layer: Any) -> bool:
    config = layer.get_config()
    return type(layer).__module__.startswith("tf_keras.") and graph.with_unroll(config) != config


def _without_loop(layer: Any) -> graph.Replacement | None:
    if not _can_unroll(layer):
        return None
    config = graph.with_unroll(layer.get_config())
    both_ways = type(layer) is load("tf_keras").layers.Bidirectional and layer.return_sequences
    kind = _masked_both_ways() if both_ways and not layer.return_state else type(layer)
    return graph.Replacement(kind.from_config(config), layer.get_weights())


@functools.cache
def _masked_both_ways() -> Any:
    """Returns a Bidirectional that leaves padded steps out by its own mask.

    Keras' unrolled steps, read from the last to the first, zero those of the mask read from the first to the last.
    """
    keras = load("tf_keras")

    class MaskedBidirectional(keras.layers.Bidirectional):  # type: ignore[name-defined]
        def __init__(self, *args: Any, **settings: Any) -> None:
            super().__init__(*args, **settings)
            self.forward_layer.zero_output_for_mask = False
            self.backward_layer.zero_output_for_mask = False

        def call(self, inputs: Any, mask: Any = None, **settings: Any) -> Any:
            found = super().call(inputs, mask=mask, **settings)
            return found if mask is None else found * load("tensorflow").cast(mask, found.dtype)[..., None]

    return MaskedBidirectional


def _prove(original: Any, rebuilt: Any, shapes: Sequence[Sequence[int | None]]) -> None:
    inputs = proof.generated_inputs(original, image_size=2, length=2, shapes=shapes)
    before, after = (proof.outputs_of(network, inputs) for network in (original, rebuilt))
    worst = max(keras_bridge.relative_difference(x, y) for x, y in zip(before, after))
    if worst > proof.TOLERANCE:
        raise ConversionError(
            f"Expected the same outputs from loops and from their steps in a row, got a difference of {worst:.2g} of "
            "their range. Try --scheme dynamic or float16, which keep the loops."
        )


def _shape_option(model: LoadedModel) -> str:
    spec = next((s for s in model.inputs if None in s.shape[1:]), model.inputs[0])
    return f"--shape {spec.name}={','.join(str(size or ('1' if i == 0 else 'N')) for i, size in enumerate(spec.shape))}"
