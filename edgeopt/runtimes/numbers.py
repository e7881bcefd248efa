"""Real values go in, a tensor's stored integers come out, and back: the arithmetic of TensorFlow Lite."""

from __future__ import annotations

import numpy as np

from edgeopt.errors import DataError
from edgeopt.vocabulary import Quantization, TensorSpec


def quantize(array: np.ndarray, spec: TensorSpec) -> np.ndarray:
    """Returns `array` as the tensor `spec` stores it.

    q = round(x / scale) + zero_point in float32, ties away from zero, saturated to the dtype: AffineQuantize of
    TensorFlow Lite (kernels/internal/reference/quantize.h). Arrays that have the tensor's dtype pass unchanged, and
    tensors without a scale (float, or indices) only change the dtype.

    Raises:
        DataError: a NaN has no integer, or real numbers are given for indices.
    """
    array = np.asarray(array)
    dtype = np.dtype(spec.dtype)
    if array.dtype == dtype:
        return array
    if spec.quantization is None or dtype.kind == "f":
        if dtype.kind in "iu" and array.dtype.kind == "f" and not np.array_equal(array, np.trunc(array)):
            raise DataError(
                f"Expected whole numbers for the {spec.dtype} input {spec.name!r}, which has no scale, got fractions. "
                "Try a model whose input is quantized or float."
            )
        return array.astype(dtype)
    scales, zero_points = _broadcast(spec.quantization, array.ndim)
    ratio = np.divide(array, scales, dtype=np.float32)
    if np.isnan(ratio).any():
        raise DataError(f"Expected numbers for the {spec.dtype} tensor {spec.name!r}, got NaN. Try cleaning the data.")
    # The largest number under a half: adding it and truncating rounds ties away from zero, in place.
    ratio += np.copysign(np.nextafter(np.float32(0.5), np.float32(0)), ratio)
    np.trunc(ratio, out=ratio)
    if dtype.itemsize > 2:
        ratio = ratio.astype(np.float64)
    ratio += zero_points
    limits = np.iinfo(dtype)
    return np.clip(ratio, limits.min, limits.max, out=ratio).astype(dtype)


def dequantize(array: np.ndarray, spec: TensorSpec) -> np.ndarray:
    """Returns the real values, float32, of what the tensor `spec` stores; tensors without a scale pass unchanged."""
    array = np.asarray(array)
    if spec.quantization is None or array.dtype.kind == "f":
        return array
    scales, zero_points = _broadcast(spec.quantization, array.ndim)
    return (array.astype(np.float32) - zero_points) * scales


def _broadcast(quantization: Quantization, dimensions: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns scales and zero points as float32 arrays that broadcast along the quantized axis."""
    shape = [1] * dimensions
    if quantization.axis is not None and len(quantization.scales) > 1:
        shape[quantization.axis] = len(quantization.scales)
    elif dimensions == 0:
        shape = []
    scales = np.asarray(quantization.scales, np.float32).reshape(shape)
    return scales, np.asarray(quantization.zero_points, np.float32).reshape(shape)
