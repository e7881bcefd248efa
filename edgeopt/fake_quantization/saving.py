"""A fake-quantized model goes in, a SavedModel folder with its rounded weights and trained ranges comes out."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgeopt import graph
from edgeopt.fake_quantization.preparation import RANGE
from edgeopt.frameworks import load

SIGNATURE = "serving_default"


def save_fake_quantized(model: Any, path: Path | str) -> None:
    """Writes a fake-quantized tf_keras model as a SavedModel that holds no code.

    Its weights are rounded already; its activations are rounded by TensorFlow's own operations, in constant ranges.
    """
    tf = load("tensorflow")
    path = Path(path)
    names = [name.removesuffix(RANGE) for name, _ in graph.output_names(model)]
    frozen = Frozen(model)
    specs = [tf.TensorSpec(t.shape, t.dtype, name=graph.legal_name(n)) for n, t in graph.input_names(model)]
    function = tf.function(lambda *tensors: dict(zip(names, frozen(*tensors))), autograph=False)
    module = tf.Module()
    concrete = function.get_concrete_function(*specs)
    module.variables_of_the_graph = list(concrete.variables)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        tf.saved_model.save(module, str(Path(folder) / "model"), signatures={SIGNATURE: concrete})
        if path.exists():
            shutil.rmtree(path)
        (Path(folder) / "model").rename(path)


class Frozen:
    """A fake-quantized model as a function of its inputs that computes in inference what the model computes."""

    def __init__(self, model: Any) -> None:
        from edgeopt.fake_quantization import layers

        self._model = model
        wrappers = {id(call.layer): call for call in graph.own_calls(model) if layers.is_wrapper(call.layer)}
        self._made = {key: _frozen(call.layer, call.args[0].shape) for key, call in wrappers.items()}

    def __call__(self, *inputs: Any) -> list[Any]:
        """Returns the outputs, in the order of `graph.output_names`."""
        return graph.walk(self._model, inputs, self._step)

    def _step(self, call: graph.Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        layer = self._made.get(id(call.layer), call.layer)
        if graph.takes_training(layer):
            kwargs["training"] = False
        return layer(*args, **kwargs)


def _frozen(wrapper: Any, shape: Any) -> Callable[..., Any]:
    """Returns what a wrapper computes in inference: a rounding, or the layer it holds with its weights rounded."""
    from edgeopt.fake_quantization import layers

    limits = layers.range_of(wrapper)
    if limits is not None:
        rounding = load("tensorflow").quantization.fake_quant_with_min_max_args
        return lambda tensor: rounding(tensor, *limits, name=f"{wrapper.name}/FakeQuant")
    layer = graph.clone(wrapper.layer)
    layer._name = wrapper.layer.name
    layer.build(shape)
    for name, variable, axes in layers.weights_of(wrapper):
        getattr(layer, name).assign(layers.rounded(variable, axes))
    if getattr(layer, "use_bias", False):
        layer.bias.assign(wrapper.layer.bias)
    return layer
