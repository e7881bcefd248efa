"""A fake-quantized model goes in, a SavedModel folder with its rounded weights and trained ranges comes out."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgeopt import graph
from edgeopt.fake_quantization.preparation import RANGE
from edgeopt.fake_quantization.replacing import Replaced, keeping_masks, without_rounding
from edgeopt.frameworks import load

SIGNATURE = "serving_default"


def save_fake_quantized(model: Any, path: Path | str) -> None:
    """Writes a fake-quantized tf_keras model as a SavedModel that holds no code.

    Its weights are rounded already; its activations are rounded by TensorFlow's own operations, in constant ranges.
    """
    tf = load("tensorflow")
    path = Path(path)
    names = [name.removesuffix(RANGE) for name, _ in graph.output_names(model)]
    frozen = Replaced(model, _frozen)
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


def _frozen(wrapper: Any, shape: Any) -> Callable[..., Any]:
    """Returns what a wrapper computes in inference: a rounding, or the layer it holds with its weights rounded."""
    from edgeopt.fake_quantization import layers

    limits = layers.range_of(wrapper)
    if limits is not None:
        rounding = load("tensorflow").quantization.fake_quant_with_min_max_args
        return keeping_masks(lambda tensor: rounding(tensor, *limits, name=f"{wrapper.name}/FakeQuant"))
    layer = without_rounding(wrapper, shape)
    for name, _, rounded in layers.rounded_weights(wrapper):
        getattr(layer, name).assign(rounded())
    return layer
