"""The quantization schemes: a name goes in, all that conversion has to know comes out.

Schemes are called by what runs on the device, not by the converter's flags: dynamic-range and full-integer
models both hold int8 weights, and only the second computes without floats.
"""

from __future__ import annotations

from edgeopt.errors import named
from edgeopt.vocabulary import Scheme

# Weights with fewer elements stay in float in dynamic range: their quantization would cost more than it saves.
SMALLEST_DYNAMIC = 1024
# Layers with fewer stay at eight bits in schemes below, unless asked: half a kilobyte at most is saved.
SMALLEST_LOW = 1024
# Numbers in a row that may share a scale; LiteRT's kernels know no others.
BLOCKS = (32, 64, 128, 256)

SCHEMES: dict[str, Scheme] = {
    scheme.name: scheme
    for scheme in (
        Scheme(
            "float32", "float32", "float32", "float32", "float weights and arithmetic: the reference", "unquantized"
        ),
        Scheme(
            "float16",
            "float16",
            "float32",
            "float32",
            "half the size; weights are widened when the file is loaded, a GPU computes in float16",
            "tensorflow-graph",
        ),
        Scheme(
            "dynamic",
            "int8",
            "int8",
            "float32",
            "int8 weights, activations quantized at each inference (dynamic range); needs no data",
            "tensorflow-graph",
            "channel",
            algorithm="min-max",
            dynamic=True,
        ),
        Scheme(
            "int8",
            "int8",
            "int8",
            "int8",
            "integers only, int8 inputs and outputs: for microcontrollers and NPUs",
            "tensorflow-static",
            "channel",
            algorithm="min-max",
            needs_calibration=True,
        ),
        Scheme(
            "int8-float-io",
            "int8",
            "int8",
            "float32",
            "int8 inside, float32 inputs and outputs: a drop-in for the float model",
            "tensorflow-static",
            "channel",
            algorithm="min-max",
            needs_calibration=True,
        ),
        Scheme(
            "int8-per-tensor",
            "int8",
            "int8",
            "int8",
            "as int8 with one scale for all weights of a layer: for accelerators that know no other, less accurate",
            "tensorflow-static",
            "tensor",
            algorithm="min-max",
            needs_calibration=True,
            by_default=False,
        ),
        Scheme(
            "int16x8",
            "int8",
            "int16",
            "float32",
            "int8 weights, int16 activations: nearly float accuracy, slower kernels",
            "tensorflow-16x8",
            "channel",
            algorithm="min-max",
            needs_calibration=True,
        ),
        Scheme(
            "int4",
            "int4",
            "int8",
            "int8",
            "as int8 with weights of four bits, but for layers that lose too much by it: half the file",
            "low-bits",
            "channel",
            algorithm="mse",
            needs_calibration=True,
            by_default=False,
        ),
        Scheme(
            "int4x16",
            "int4",
            "int16",
            "float32",
            "weights of four bits, int16 activations: as small as int4, slower kernels",
            "low-bits-16x8",
            "channel",
            algorithm="mse",
            needs_calibration=True,
            by_default=False,
        ),
        Scheme(
            "int4-weights",
            "int4",
            "float32",
            "float32",
            "weights of four bits, widened at each inference; needs no data",
            "low-bits",
            "channel",
            algorithm="mse",
            by_default=False,
        ),
        *(
            Scheme(
                f"int4-block{block}",
                "int4",
                "int8",
                "float32",
                f"weights of four bits with a scale for {block} in a row of a Dense layer, activations as in dynamic; "
                "needs no data",
                "ai-edge-quantizer",
                "channel",
                f"block:{block}",
                algorithm="min-max",
                dynamic=True,
                by_default=False,
            )
            for block in BLOCKS
        ),
        Scheme(
            "int3",
            "int4",
            "int8",
            "int8",
            "as int4 with eight values only: plain C packs them into three bits",
            "low-bits",
            "channel",
            algorithm="mse",
            needs_calibration=True,
            by_default=False,
            bits=3,
        ),
        Scheme(
            "int2",
            "int2",
            "int8",
            "int8",
            "as int4 with four values; where no kernel takes two bits they are stored in four: for models that were "
            "trained for it",
            "low-bits",
            "channel",
            algorithm="mse",
            needs_calibration=True,
            by_default=False,
        ),
    )
}

# What is made where no scheme is named.
DEFAULTS = tuple(scheme.name for scheme in SCHEMES.values() if scheme.by_default)


def scheme(name: str) -> Scheme:
    """Returns the scheme called `name`.

    Raises:
        ConfigError: there is none of that name.
    """
    return named(SCHEMES, name, "a quantization scheme")
