"""Scales of a function of one int8 go in, its table of 256 results comes out, rounded as TFLM or XNNPACK do it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from edgeopt.c99.call import Unsupported
from edgeopt.c99.quantization import (
    INT8,
    away,
    divide_by_power,
    exp_of_negative,
    multiplier,
    multiply_twice_rounded,
    one_over_one_plus,
    table,
)

_ONE = 2**31 - 1


@dataclass(frozen=True)
class Scaling:
    """Scales and zero points of an input and an output."""

    input_scale: np.float32
    input_zero: int
    output_scale: np.float32
    output_zero: int

    @property
    def ratio(self) -> float:
        """Input scale / output scale, in double precision."""
        return float(self.input_scale) / float(self.output_scale)


def from_real(function: Callable[[float], float], scaling: Scaling) -> np.ndarray:
    """XNNPACK's tables: float32 in between, rounded once, halves to even."""

    def one(q: int) -> int:
        real = np.float32(function(float(np.float32(q - scaling.input_zero) * scaling.input_scale)))
        return int(np.rint(real / scaling.output_scale)) + scaling.output_zero

    return table(one)


def logistic(scaling: Scaling) -> np.ndarray:
    """TFLM's logistic, whose output has scale 1/256 and zero point -128."""

    def one(value: int) -> int:
        positive = one_over_one_plus(exp_of_negative(-abs(value), integer_bits=4))
        result = positive if value > 0 else _ONE - positive if value < 0 else 1 << 30
        return divide_by_power(result, 23) - 128

    return _within_radius(one, scaling)


def tanh(scaling: Scaling) -> np.ndarray:
    """TFLM's hyperbolic tangent, whose output has scale 1/128 and zero point 0."""

    def one(value: int) -> int:
        # tanh(x) = (1 - e) / (1 + e), e = exp(-2x): one integer bit more for the same digits.
        e = exp_of_negative(-abs(value), integer_bits=5)
        quotient = one_over_one_plus(e, minus=True)
        return divide_by_power(quotient if value > 0 else -quotient if value < 0 else 0, 24)

    return _within_radius(one, scaling)


def _within_radius(function: Callable[[int], int], scaling: Scaling) -> np.ndarray:
    """Brings inputs to 4.27 fixed point; those too far from zero saturate."""
    fixed, shift = multiplier(float(scaling.input_scale) * 2**27)
    radius = math.floor(15 * 2**27 / 2**shift)

    def one(q: int) -> int:
        value = q - scaling.input_zero
        if abs(value) >= radius:
            return 127 if value > 0 else -128
        return function(multiply_twice_rounded(value, fixed, shift))

    return table(one)


def hard_swish(scaling: Scaling) -> np.ndarray:
    """TensorFlow Lite's hard swish in int16 steps, the same in all its kernels."""
    fine = float(scaling.input_scale) / 128
    output_multiplier, output_shift = _narrow(fine / float(scaling.output_scale))
    gate_multiplier, gate_shift = _narrow(fine / (3 / 32768))
    if output_shift > 0:
        raise Unsupported(f"HARD_SWISH from scale {scaling.input_scale:g} to {scaling.output_scale:g}")

    def one(q: int) -> int:
        value = (q - scaling.input_zero) * 128
        scaled = _high16(value, output_multiplier)
        gate = value
        if gate_shift > 0:
            gate = _saturated16(gate << (gate_shift - 1))
        gate = _high16(gate, gate_multiplier)
        if gate_shift > 0:
            gate = _saturated16(gate << 1)
        elif gate_shift < 0:
            gate = divide_by_power(gate, -gate_shift)
        gate = (gate + (1 << 15)) >> 1
        product = gate * scaled >> 15 if gate * scaled >= 0 else -(-gate * scaled >> 15)
        return divide_by_power(_saturated16(product), -output_shift) + scaling.output_zero

    return table(one)


def _narrow(real: float) -> tuple[int, int]:
    fixed, shift = multiplier(real)
    return min((fixed + (1 << 15)) >> 16, 32767), shift


def _saturated16(value: int) -> int:
    return min(max(value, -32768), 32767)


def _high16(a: int, b: int) -> int:
    return _saturated16((a * b + 2**14) >> 15)


def requantize(scaling: Scaling) -> np.ndarray:
    """TFLM's int8 to int8."""
    fixed, shift = multiplier(scaling.ratio)
    return table(
        lambda q: multiply_twice_rounded(q - scaling.input_zero, fixed, shift) + scaling.output_zero,
    )


def recoded(scaling: Scaling, source: str, target: str) -> np.ndarray:
    """Between int8 and uint8, which kernels of both families round twice; the table is by the input's byte as int8."""
    fixed, shift = multiplier(scaling.ratio)
    low, high = (0, 255) if target == "uint8" else INT8

    def one(byte: int) -> int:
        q = byte % 256 if source == "uint8" else byte
        value = multiply_twice_rounded(q - scaling.input_zero, fixed, shift) + scaling.output_zero
        return min(max(value, low), high) % 256

    return np.array([one(byte) for byte in range(-128, 128)], np.uint8).view(np.int8)


def requantize_once(scaling: Scaling) -> np.ndarray:
    """XNNPACK's int8 to int8: a multiplier of 8 fractional bits, halves upward."""
    fixed = int(np.rint(np.float32(256) * (scaling.input_scale / scaling.output_scale)))
    return table(lambda q: ((q - scaling.input_zero) * fixed + 128 >> 8) + scaling.output_zero)


def leaky_relu(scaling: Scaling, alpha: float) -> np.ndarray:
    """TFLM's leaky ReLU."""
    positive = multiplier(scaling.ratio)
    negative = multiplier(float(scaling.input_scale * np.float32(alpha)) / float(scaling.output_scale))

    def one(q: int) -> int:
        value = q - scaling.input_zero
        return multiply_twice_rounded(value, *(positive if value >= 0 else negative)) + scaling.output_zero

    return table(one)


def leaky_relu_once(scaling: Scaling, alpha: float) -> np.ndarray:
    """XNNPACK's leaky ReLU: multipliers of 8 fractional bits, halves upward."""
    ratio = scaling.input_scale / scaling.output_scale
    positive = int(np.rint(np.float32(256) * ratio))
    negative = int(np.rint(np.float32(256) * (ratio * np.float32(alpha))))

    def one(q: int) -> int:
        value = q - scaling.input_zero
        return (value * (positive if value >= 0 else negative) + 128 >> 8) + scaling.output_zero

    return table(one)


def relu(scaling: Scaling, high: float | None) -> np.ndarray:
    """ReLU and ReLU6 as TFLM and LiteRT have them: clamped after rounding twice."""
    fixed, shift = multiplier(scaling.ratio)
    least = max(scaling.output_zero, -128)
    most = 127 if high is None else scaling.output_zero + away(float(np.float32(high) / scaling.output_scale))

    def one(q: int) -> int:
        value = multiply_twice_rounded(q - scaling.input_zero, fixed, shift) + scaling.output_zero
        return min(max(value, least), most)

    return table(one)
