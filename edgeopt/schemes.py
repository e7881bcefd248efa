"""The quantization schemes: a name goes in, the dtypes that run come out.

Schemes are called by what runs on the device, not by the converter's flags: dynamic-range and full-integer
models both hold int8 weights, and only the second computes without floats.
"""

from __future__ import annotations

from edgeopt.errors import named
from edgeopt.vocabulary import Scheme

SCHEMES: dict[str, Scheme] = {
    scheme.name: scheme
    for scheme in (
        Scheme("float32", "float32", "float32", "float32", "float weights and arithmetic: the reference"),
        Scheme(
            "float16",
            "float16",
            "float32",
            "float32",
            "half the size; weights are widened when the file is loaded, a GPU computes in float16",
        ),
        Scheme(
            "dynamic",
            "int8",
            "int8",
            "float32",
            "int8 weights, activations quantized at each inference (dynamic range); needs no data",
            dynamic=True,
        ),
        Scheme(
            "int8",
            "int8",
            "int8",
            "int8",
            "integers only, int8 inputs and outputs: for microcontrollers and NPUs",
            needs_calibration=True,
        ),
        Scheme(
            "int8-float-io",
            "int8",
            "int8",
            "float32",
            "int8 inside, float32 inputs and outputs: a drop-in for the float model",
            needs_calibration=True,
        ),
        Scheme(
            "int16x8",
            "int8",
            "int16",
            "float32",
            "int8 weights, int16 activations: nearly float accuracy, slower kernels",
            needs_calibration=True,
        ),
    )
}


def scheme(name: str) -> Scheme:
    """Returns the scheme called `name`.

    Raises:
        ConfigError: there is none of that name.
    """
    return named(SCHEMES, name, "a quantization scheme")
