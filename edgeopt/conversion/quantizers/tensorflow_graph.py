"""TensorFlow's converter, from the graph: float16 weights, and dynamic range."""

from __future__ import annotations

import copy
import functools
from pathlib import Path
from typing import Any

from edgeopt import frameworks
from edgeopt.conversion.quantizers.contract import Quantizer, Source
from edgeopt.vocabulary import Scheme

SIGNATURE = "serving_default"


def make(source: Source, scheme: Scheme) -> bytes:
    """Returns the graph in `scheme`."""
    assert source.plain_graph is not None
    return convert(source.plain_graph, scheme)


def convert(graph: Path, scheme: Scheme | None = None) -> bytes:
    """Returns the SavedModel at `graph` as a `.tflite`, in float where no scheme is given."""
    tf = frameworks.load("tensorflow")
    converter = copy.copy(_opened(graph))
    if scheme is not None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if scheme.weights == "float16":
            converter.target_spec = tf.lite.TargetSpec(supported_types=[tf.float16])
        converter._experimental_disable_per_channel = scheme.granularity == "tensor"
        per_tensor_dense = scheme.granularity_of_dense == "tensor"
        converter._experimental_disable_per_channel_quantization_for_dense_layers = per_tensor_dense
    return bytes(converter.convert())


@functools.lru_cache(maxsize=2)
def _opened(graph: Path) -> Any:
    """Returns the converter of a SavedModel: to read that takes a third of a conversion, and all schemes share it."""
    tf = frameworks.load("tensorflow")
    return tf.lite.TFLiteConverter.from_saved_model(str(graph), signature_keys=[SIGNATURE])


QUANTIZER = Quantizer(
    "TensorFlow's converter, from the graph",
    make,
    {
        "weights": ("float16", "int8"),
        "dynamic": (True, False),
        "needs_calibration": (False,),
        "granularity": ("", "tensor", "channel"),
        "symmetric": (True,),
        "algorithm": ("", "min-max"),
    },
    without_graph="ai-edge-quantizer",
)
