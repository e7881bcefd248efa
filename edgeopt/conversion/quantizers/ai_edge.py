"""ai-edge-quantizer, from the float file: weights below float32, activations as they were."""

from __future__ import annotations

from typing import Any

from edgeopt import frameworks
from edgeopt.conversion.quantizers.contract import Quantizer, Source
from edgeopt.schemes import SMALLEST_DYNAMIC
from edgeopt.tflite.rewrite import with_truthful_versions
from edgeopt.vocabulary import Scheme

# Names of algorithms in a scheme → ai-edge-quantizer's.
ALGORITHMS = {"": "float_casting", "min-max": "min_max_uniform_quantize", "mse": "MSE"}
_GRANULARITIES = {"": "CHANNELWISE", "tensor": "TENSORWISE", "channel": "CHANNELWISE", "block": "BLOCKWISE_"}


def make(source: Source, scheme: Scheme) -> bytes:
    """Returns the float file with its weights as `scheme` says."""
    work = frameworks.load("ai_edge_quantizer").Quantizer(source.float_file)
    rules = [_rule(scheme, "*", scheme.granularity)]
    if scheme.granularity_of_dense != scheme.granularity:
        rules.append(_rule(scheme, "FULLY_CONNECTED", scheme.granularity_of_dense))
    work.load_quantization_recipe(rules)
    # It writes version 1 for every operator, and a runtime that is too old for the file would compute garbage
    # instead of refusing it.
    return with_truthful_versions(bytes(work.quantize().quantized_model))


def _rule(scheme: Scheme, operation: str, granularity: str) -> dict[str, Any]:
    """Returns one rule of a recipe, set as TensorFlow's converter does: small tensors stay as they are."""
    kind, _, size = granularity.partition(":")
    floating = scheme.weights.startswith("float")
    return {
        "regex": ".*",
        "operation": operation,
        "algorithm_key": ALGORITHMS[scheme.algorithm],
        "op_config": {
            "weight_tensor_config": {
                "num_bits": scheme.weight_bits,
                "symmetric": scheme.symmetric,
                "granularity": _GRANULARITIES[kind] + size,
                "dtype": "FLOAT" if floating else "INT",
                "block_size": 0,
            },
            "compute_precision": "INTEGER" if scheme.dynamic else "FLOAT",
            "explicit_dequantize": not scheme.dynamic,
            "skip_checks": False,
            "min_weight_elements": SMALLEST_DYNAMIC if scheme.dynamic else 0,
        },
    }


QUANTIZER = Quantizer(
    "ai-edge-quantizer, from the float file",
    make,
    {
        "weights": ("float16", "int8", "int4", "int2"),
        "inputs": ("float32",),
        "needs_calibration": (False,),
        "granularity": ("", "tensor", "channel", "block"),
        "symmetric": (True,),
        "algorithm": tuple(ALGORITHMS),
    },
)
