"""ai-edge-quantizer, from the float file: weights below float32, activations as they were."""

from __future__ import annotations

from typing import Any

from edgeopt import frameworks
from edgeopt.conversion.eight_bits import layer_name
from edgeopt.conversion.quantizers.contract import Quantizer, Source
from edgeopt.errors import ConfigError
from edgeopt.schemes import BLOCKS, SMALLEST_DYNAMIC
from edgeopt.tflite.constants import with_small_constants
from edgeopt.tflite.lookups import with_lookups
from edgeopt.tflite.reader import read
from edgeopt.tflite.rewrite import with_truthful_versions
from edgeopt.tflite.stored_weights import layers
from edgeopt.vocabulary import Scheme

# Names of algorithms in a scheme → ai-edge-quantizer's.
ALGORITHMS = {"": "float_casting", "min-max": "min_max_uniform_quantize", "mse": "MSE"}
_GRANULARITIES = {"": "CHANNELWISE", "tensor": "TENSORWISE", "channel": "CHANNELWISE", "block": "BLOCKWISE_"}


def make(source: Source, scheme: Scheme) -> bytes:
    """Returns the float file with its weights as `scheme` says.

    Raises:
        ConfigError: the rows of a Dense layer do not divide into the scheme's groups.
    """
    _require_groups(source.float_file, scheme)
    content, rules = source.float_file, [_rule(scheme, "*", scheme.granularity)]
    if scheme.granularity_of_dense != scheme.granularity:
        rules.append(_rule(scheme, "FULLY_CONNECTED", scheme.granularity_of_dense))
        # The quantized form of a GATHER knows one scale for a whole table.
        content = with_lookups(content)
        rules.append(_rule(scheme, "EMBEDDING_LOOKUP", scheme.granularity_of_dense))
    work = frameworks.load("ai_edge_quantizer").Quantizer(content)
    work.load_quantization_recipe(rules)
    # It writes version 1 for every operator, and a runtime that is too old for the file would compute garbage
    # instead of refusing it.
    made = bytes(work.quantize().quantized_model)
    if scheme.granularity_of_dense != scheme.granularity:
        made = with_small_constants(made, least=SMALLEST_DYNAMIC)
    return with_truthful_versions(made)


def _require_groups(content: bytes, scheme: Scheme) -> None:
    kind, _, size = scheme.granularity_of_dense.partition(":")
    if kind != "block":
        return
    dense = [
        layer
        for layer in layers(read(content))
        if layer.operator.name == "FULLY_CONNECTED" and layer.weight.elements >= SMALLEST_DYNAMIC
    ]
    if unfit := [layer for layer in dense if layer.weight.shape[1] % int(size)]:
        fit = [str(block) for block in BLOCKS if not any(layer.weight.shape[1] % block for layer in dense)]
        rows = " and ".join(str(length) for length in sorted({layer.weight.shape[1] for layer in unfit}))
        way = f"a scheme with groups of {', '.join(fit)}, which divide all" if fit else "int4-weights, without groups"
        raise ConfigError(
            f"Expected Dense layers whose rows divide into groups of {size} for {scheme.name}, got rows of {rows}, as "
            f"of {layer_name(unfit[0])!r}. Try {way}."
        )


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
