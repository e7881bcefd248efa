"""A fake-quantized model goes in; a function that computes it with others in its wrappers' places comes out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edgeopt import graph


class Replaced:
    """A fake-quantized model as a function of its inputs, in inference.

    Args:
        model: what `prepare` made.
        replace: returns, for a wrapper and the shape of its input, what is computed in its place.
    """

    def __init__(self, model: Any, replace: Callable[[Any, Any], Callable[..., Any]]) -> None:
        from edgeopt.fake_quantization import layers

        self._model = model
        wrappers = {id(call.layer): call for call in graph.own_calls(model) if layers.is_wrapper(call.layer)}
        self._made = {key: replace(call.layer, call.args[0].shape) for key, call in wrappers.items()}

    def __call__(self, *inputs: Any) -> list[Any]:
        """Returns the outputs, in the order of `graph.output_names`."""
        return graph.walk(self._model, inputs, self._step)

    def _step(self, call: graph.Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        layer = self._made.get(id(call.layer), call.layer)
        if graph.takes_training(layer):
            kwargs["training"] = False
        return layer(*args, **kwargs)


def keeping_masks(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Returns `function` of a tensor, whose result carries the mask that came with it, as Keras's layers do."""

    def computed(tensor: Any) -> Any:
        result = function(tensor)
        if (mask := getattr(tensor, "_keras_mask", None)) is not None:
            result._keras_mask = mask
        return result

    return computed


def without_rounding(wrapper: Any, shape: Any) -> Any:
    """Returns the layer that a wrapper of weights holds, built anew with its bias; its weights are to be set."""
    layer = graph.clone(wrapper.layer)
    layer._name = wrapper.layer.name
    layer.build(shape)
    if getattr(layer, "use_bias", False):
        layer.bias.assign(wrapper.layer.bias)
    return layer
