"""Scales of quantized tensors go in, the integers and tables that kernels compute with come out, bit for bit those of
TensorFlow Lite Micro or of XNNPACK.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from edgeopt.c99.call import Unsupported
from edgeopt.tflite.model import Tensor

INT8 = (-128, 127)
_ONE = 2**31 - 1
# Of TensorFlow Lite's multipliers.
_MOST_SHIFT = 30


def scale(tensor: Tensor) -> np.float32:
    """Returns the scale of a tensor.

    Raises:
        Unsupported: it has none.
    """
    if tensor.quantization is None:
        raise Unsupported(f"the {tensor.dtype} tensor {tensor.name!r} without a scale")
    if tensor.is_per_channel:
        raise Unsupported(f"the {tensor.dtype} tensor {tensor.name!r} with a scale per channel")
    return np.float32(tensor.quantization.scales[0])


def zero_point(tensor: Tensor) -> int:
    """Returns the zero point; 0 where a tensor is not quantized."""
    return tensor.quantization.zero_points[0] if tensor.quantization is not None else 0


def multiplier(real: float) -> tuple[int, int]:
    """Returns (m, s) with real = m / 2^31 * 2^s and m in [2^30, 2^31), as TensorFlow Lite's QuantizeMultiplier.

    Raises:
        Unsupported: it is too large for any kernel.
    """
    if real == 0:
        return 0, 0
    fraction, shift = math.frexp(real)
    fixed = math.floor(fraction * 2**31 + 0.5)
    if fixed == 2**31:
        fixed, shift = fixed // 2, shift + 1
    if shift > _MOST_SHIFT:
        raise Unsupported(f"scales whose product over the output's is {real:g}")
    return (0, 0) if shift < -31 else (fixed, shift)


def scales(reals: np.ndarray, rounding: str) -> dict[str, np.ndarray]:
    """Returns the fields of C's `scales_t` for real multipliers, one for each channel."""
    if rounding == "xnnpack":
        return {"scale": reals.astype(np.float32)}
    pairs = [multiplier(float(real)) for real in reals]
    return {
        "multiplier": np.array([m for m, _ in pairs], np.int32),
        "shift": np.array([s for _, s in pairs], np.int8),
    }


def activation_range(activation: str, output: Tensor, rounding: str) -> tuple[int, int]:
    """Returns the least and greatest int8 of a fused activation.

    Raises:
        KeyError: no kernel fuses it.
    """
    low, high = REAL_RANGES[activation]
    least, greatest = INT8
    if low is not None:
        least = max(least, _quantized(low, output, rounding))
    if high is not None:
        greatest = min(greatest, _quantized(high, output, rounding))
    return least, greatest


# Of the activations that are clamps.
REAL_RANGES: dict[str, tuple[float | None, float | None]] = {
    "NONE": (None, None),
    "RELU": (0.0, None),
    "RELU_N1_TO_1": (-1.0, 1.0),
    "RELU6": (0.0, 6.0),
}


def _quantized(real: float, tensor: Tensor, rounding: str) -> int:
    """Returns `real` as a quantized number, not clamped: halves away from zero, or XNNPACK's sum to even."""
    quotient = np.float32(real) / scale(tensor)
    if rounding == "xnnpack":
        return int(np.rint(quotient + np.float32(zero_point(tensor))))
    return zero_point(tensor) + away(float(quotient))


def away(value: float) -> int:
    """Rounds to the nearest integer, halves away from zero."""
    return math.floor(value + 0.5) if value >= 0 else math.ceil(value - 0.5)


def table(function: Callable[[int], int]) -> np.ndarray:
    """Returns int8 [256]: the clamped results for -128 … 127."""
    return np.array([min(max(function(q), INT8[0]), INT8[1]) for q in range(-128, 128)], np.int8)


def multiply_high(a: int, b: int) -> int:
    """Returns the high half of 2ab, rounded (gemmlowp's SaturatingRoundingDoublingHighMul)."""
    return (a * b + 2**30) >> 31


def divide_by_power(value: int, exponent: int) -> int:
    """Returns value / 2^exponent, halves away from zero (gemmlowp's RoundingDivideByPOT)."""
    mask = (1 << exponent) - 1
    return (value >> exponent) + ((value & mask) > (mask >> 1) + (value < 0))


def multiply_twice_rounded(value: int, fixed: int, shift: int) -> int:
    """Returns value * fixed / 2^31 * 2^shift as TensorFlow Lite's MultiplyByQuantizedMultiplier."""
    return divide_by_power(multiply_high(value << max(shift, 0), fixed), max(-shift, 0))


def softmax_exps(input_scale: float, beta: float) -> np.ndarray:
    """Returns int32 [256]: exp(-d * scale * beta) as 0.31 fixed point, by gemmlowp's exp_on_negative_values."""
    real = min(float(beta) * float(input_scale) * 2 ** (31 - 5), float(_ONE))
    fixed, shift = multiplier(real)
    if shift <= 0:
        raise Unsupported(f"SOFTMAX with beta {beta:g} of values of scale {input_scale:g}")
    radius = math.floor(31 * 2 ** (31 - 5) / 2**shift)
    return np.array(
        [exp_of_negative(multiply_high(-d << shift, fixed), integer_bits=5) if d <= radius else 0 for d in range(256)],
        np.int32,
    )


# exp(-2^k) as 0.31 fixed point, for k from -2 on.
_EXP_POWERS = (1672461947, 1302514674, 790015084, 290630308, 39332535, 720401, 242)


def exp_of_negative(value: int, *, integer_bits: int) -> int:
    """Returns exp of a fixed-point number <= 0 as 0.31 fixed point (gemmlowp's exp_on_negative_values)."""
    if value == 0:
        return _ONE
    fraction_bits = 31 - integer_bits
    quarter = 1 << (fraction_bits - 2)
    reduced = (value & (quarter - 1)) - quarter
    remainder = reduced - value
    # Taylor around -1/8, on [-1/4, 0).
    x = (reduced << integer_bits) + (1 << 28)
    x2 = multiply_high(x, x)
    x3, x4 = multiply_high(x2, x), multiply_high(x2, x2)
    tail = divide_by_power(multiply_high(divide_by_power(x4, 2) + x3, 715827883) + x2, 1)
    result = 1895147668 + multiply_high(1895147668, x + tail)
    for k, power in enumerate(_EXP_POWERS[: integer_bits + 2]):
        if remainder & (1 << (fraction_bits - 2 + k)):
            result = multiply_high(result, power)
    return result


def one_over_one_plus(x: int, *, minus: bool = False) -> int:
    """Returns 1 / (1 + x), or (1 - x) / (1 + x), for x in [0, 1], all 0.31 fixed point: three Newton steps."""
    half = (x + _ONE + 1) >> 1
    r = 1515870810 + multiply_high(half, -1010580540)
    for _ in range(3):
        r += _saturated(multiply_high(r, (1 << 29) - multiply_high(half, r)) * 4)
    return _saturated((r - (1 << 29)) * 4) if minus else _saturated(r * 2)


def _saturated(value: int) -> int:
    return min(max(value, -_ONE - 1), _ONE)
