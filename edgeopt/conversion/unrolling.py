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
    names = ", ".join(dict.fromkeys(repr(layer.name) for layer in looping))
    _prove(model.keras, keras, shapes, names)
    return replace(model, keras=keras, notes=(f"unrolled, as no quantizer takes its loop: {names}",))


def _can_unroll(layer: Any) -> bool:
    config = layer.get_config()
    own = type(layer).__module__.startswith("tf_keras.")
    return own and (_is_convolutional(layer) or graph.with_unroll(config) != config)


def _is_convolutional(layer: Any) -> bool:
    """Whether it is a ConvLSTM, which Keras cannot unroll."""
    return type(layer).__name__.startswith("ConvLSTM")


def _without_loop(layer: Any) -> graph.Replacement | None:
    if not _can_unroll(layer):
        return None
    if _is_convolutional(layer):
        return graph.Replacement(_steps()(layer))
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


@functools.cache
def _steps() -> Any:
    """Returns the class of recurrent layers whose cell is called for one step after the other."""
    tf, keras = load("tensorflow"), load("tf_keras")

    class Steps(keras.layers.Layer):  # type: ignore[name-defined]
        def __init__(self, original: Any) -> None:
            super().__init__(name=original.name)
            self.inner, self._values = graph.clone(original), original.get_weights()

        def build(self, shape: Any) -> None:
            self.inner.build(shape)
            graph.set_weights(self.inner, self._values)
            start = self.inner.get_initial_state(tf.zeros((1, 1, *shape[2:])))
            self._shapes = [tuple(one.shape[1:]) for one in tf.nest.flatten(start)]
            super().build(shape)

        def call(self, inputs: Any) -> Any:
            if inputs.shape[1] is None:
                raise ValueError("it cannot unroll a free number of steps")
            batch = inputs.shape[0] or tf.shape(inputs)[0]
            states, order = [tf.zeros((batch, *shape)) for shape in self._shapes], range(inputs.shape[1])
            outputs = []
            for number in reversed(order) if self.inner.go_backwards else order:
                output, states = self.inner.cell(inputs[:, number], states)
                outputs.append(output)
            found = tf.stack(outputs, axis=1) if self.inner.return_sequences else outputs[-1]
            return [found, *states] if self.inner.return_state else found

    return Steps


def _prove(original: Any, rebuilt: Any, shapes: Sequence[Sequence[int | None]], names: str) -> None:
    inputs = proof.generated_inputs(original, image_size=2, length=2, shapes=shapes)
    before, after = (proof.outputs_of(network, inputs) for network in (original, rebuilt))
    worst = max(keras_bridge.relative_difference(x, y) for x, y in zip(before, after))
    if worst > proof.TOLERANCE:
        raise ConversionError(
            f"Expected the same outputs from the loops of {names} and from their steps in a row, got a difference of "
            f"{worst:.2g} of their range. Try --scheme dynamic or float16, which keep the loops."
        )


def _shape_option(model: LoadedModel) -> str:
    spec = next((s for s in model.inputs if None in s.shape[1:]), model.inputs[0])
    return f"--shape {spec.name}={','.join(str(size or ('1' if i == 0 else 'N')) for i, size in enumerate(spec.shape))}"
