"""A fake-quantized model goes in; a function that computes it with each rounding on or off comes out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edgeopt.fake_quantization.preparation import RANGE
from edgeopt.fake_quantization.replacing import Replaced, keeping_masks, without_rounding
from edgeopt.frameworks import load


class Switched(Replaced):
    """A model that `prepare` made, as a function of its inputs in inference; at first nothing is rounded.

    Attributes:
        switches: for each rounding a scalar variable, 0 off and 1 on, by the name of the layer whose weights or whose
            output it rounds; one switch may turn both.
    """

    def __init__(self, model: Any) -> None:
        self.switches: dict[str, Any] = {}
        super().__init__(model, self._switched)

    def _switched(self, wrapper: Any, shape: Any) -> Callable[..., Any]:
        from edgeopt.fake_quantization import layers

        tf = load("tensorflow")
        limits = layers.range_of(wrapper)
        name = wrapper.layer.name if limits is None else wrapper.name.removesuffix(RANGE)
        on = self.switches.setdefault(name, tf.Variable(0.0, trainable=False))
        if limits is not None:
            rounding = tf.quantization.fake_quant_with_min_max_args
            return keeping_masks(lambda tensor: tf.where(on > 0, rounding(tensor, *limits), tensor))
        layer = without_rounding(wrapper, shape)

        def computed(tensor: Any) -> Any:
            for attribute, variable, rounded in layers.rounded_weights(wrapper):
                setattr(layer, attribute, tf.where(on > 0, rounded(), variable))
            return layer(tensor)

        return computed
