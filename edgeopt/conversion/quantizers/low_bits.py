"""Weights below eight bits in a file that another quantizer made with eight: activations stay as they were calibrated.

TensorFlow's calibration is the better one (ai-edge-quantizer's is a moving average); its quantizer knows eight bits.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edgeopt.conversion import eight_bits
from edgeopt.conversion.quantizers import ai_edge, tensorflow_16x8, tensorflow_static
from edgeopt.conversion.quantizers.contract import Quantizer, Source
from edgeopt.tflite.model import TFLiteModel
from edgeopt.tflite.pairing import pair_weights
from edgeopt.tflite.stored_weights import Layer, layers, other_readers, stored_bias, stored_weights, with_weights
from edgeopt.tflite.weight_grid import ALGORITHMS, TRAINED, nearest, on_grid
from edgeopt.vocabulary import Scheme

# Who makes the file with eight bits, by the activations.
_MAKERS = {"int8": tensorflow_static.make, "int16": tensorflow_16x8.make, "float32": ai_edge.make}
# The most steps that a bias may have: half of what its integers hold.
_BIAS_STEPS = 2.0**30


def make(source: Source, scheme: Scheme) -> bytes:
    """Returns the file of eight bits with weights in as few as `scheme` says, but for the layers that it keeps."""
    content = _MAKERS[scheme.activations](source, replace(scheme, weights="int8", bits=0, algorithm="min-max"))
    pairing = pair_weights(source.float_file, content)
    model = pairing.quantized
    floats = {pair.quantized.weight.index: pairing.float_weights(pair) for pair in pairing.pairs}
    trained = scheme.algorithm == TRAINED
    kept = {} if trained else eight_bits.kept(model, scheme)
    new = {}
    for layer in layers(model):
        stored = stored_weights(model, layer)
        if layer.operator.index in kept or stored is None:
            continue
        granularity = scheme.granularity_of_dense if layer.operator.name == "FULLY_CONNECTED" else scheme.granularity
        axis = layer.axis if granularity == "channel" else None
        # What has no counterpart in the float file is rounded twice.
        real = floats.get(layer.weight.index, stored.dequantized)
        if trained and (other_readers(model, layer) or not on_grid(real, scheme.weight_bits, axis=axis)):
            continue
        new[layer.weight.index] = nearest(
            real,
            scheme.weight_bits,
            axis=axis,
            algorithm=scheme.algorithm,
            stored_bits=eight_bits.stored_bits(layer, scheme),
            least_scales=_least_scales(model, layer, granularity),
        )
    biases = {p.quantized.operator.index: bias for p in pairing.pairs if (bias := pairing.float_bias(p)) is not None}
    changed = {p.quantized.operator.index for p in pairing.pairs if p.quantized.weight.index in new}
    return with_weights(content, new, {index: bias for index, bias in biases.items() if index in changed})


def _least_scales(model: TFLiteModel, layer: Layer, granularity: str) -> np.ndarray | float:
    """Returns what the scales of a layer's weights have to be at least, so that its bias fits into four bytes."""
    bias, activations = stored_bias(model, layer), layer.activations.quantization
    if bias is None or layer.bias is None or layer.bias.dtype != "int32" or activations is None:
        return 0.0
    least = np.abs(bias) / (activations.scales[0] * _BIAS_STEPS)
    return least if granularity == "channel" else least.max(initial=0.0)


QUANTIZER = Quantizer(
    "edgeopt's own, from the file with eight bits",
    make,
    {
        "weights": ("int4", "int2"),
        "activations": ("int8", "float32"),
        "granularity": ("tensor", "channel"),
        "symmetric": (True,),
        "dynamic": (False,),
        "algorithm": tuple(ALGORITHMS),
    },
    avoids=tensorflow_static.QUANTIZER.avoids,
)
# Another row for what the other quantizer avoids.
QUANTIZER_16X8 = replace(
    QUANTIZER,
    summary="edgeopt's own, from the file with eight bits and int16 activations",
    makes={**QUANTIZER.makes, "activations": ("int16",)},
    avoids=tensorflow_16x8.QUANTIZER.avoids,
)
