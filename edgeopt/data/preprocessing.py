"""Raw samples and a Preprocessing go in, what the model sees comes out: an optional resize, then affine steps."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np

from edgeopt.errors import ConfigError, DataError
from edgeopt.vocabulary import Preprocessing

_DTYPES = ("float32", "float16", "uint8", "int8", "int16", "int32", "int64")


def preprocess(array: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    """Applies the steps to a batch of raw samples.

    ((resized * scale) - mean) / std, in float32, then cast; integer dtypes are rounded and clipped.

    Args:
        array: [N, ...]; images are [N, height, width, channels], or [N, height, width].

    Raises:
        DataError: `mean` or `std` has neither one value nor one per channel.
    """
    if preprocessing.resize and array.ndim in (3, 4) and array.shape[1:3] != preprocessing.resize:
        pictures = array if array.ndim == 4 else array[..., np.newaxis]  # grayscale ones may lack their channel
        resized = resize_bilinear(pictures, preprocessing.resize)
        array = resized if array.ndim == 4 else resized[..., 0]
    dtype = np.dtype(preprocessing.dtype)
    if replace(preprocessing, resize=None).is_identity and (dtype.kind == "f" or array.dtype == dtype):
        return array.astype(dtype, copy=False)
    values = array.astype(np.float32)
    if preprocessing.scale != 1.0:
        values *= np.float32(preprocessing.scale)
    if set(preprocessing.mean) != {0.0}:
        values -= _per_channel("mean", preprocessing.mean, values)
    if set(preprocessing.std) != {1.0}:
        values /= _per_channel("std", preprocessing.std, values)
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        values = np.clip(np.rint(values), limits.min, limits.max)
    return values.astype(dtype, copy=False)


def resize_bilinear(images: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes images as `tf.image.resize` does by default: two taps a direction, half-pixel centres, no smoothing.

    Args:
        images: [N, height, width, channels] of any dtype.
        size: height and width of the result.

    Returns:
        float32 [N, *size, channels].
    """
    top, bottom, down = _taps(images.shape[1], size[0])
    left, right, across = _taps(images.shape[2], size[1])
    across = across[:, None]

    def line(rows: np.ndarray) -> np.ndarray:
        picked = images[:, rows].astype(np.float32)
        first = picked[:, :, left]
        return first + (picked[:, :, right] - first) * across

    upper = line(top)
    return upper + (line(bottom) - upper) * down[:, None, None]


def resize_nearest(classes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes class numbers, whose mean is another class: each pixel takes what lies at its centre.

    Args:
        classes: [..., height, width].
        size: height and width of the result.
    """
    rows, columns = (
        ((np.arange(wanted) + 0.5) * (found / wanted)).astype(np.int64)
        for found, wanted in zip(classes.shape[-2:], size)
    )
    return classes[..., rows[:, None], columns]


def parse_preprocessing(
    *,
    scale: str | float | None = None,
    mean: str | None = None,
    std: str | None = None,
    resize: str | None = None,
    dtype: str | None = None,
) -> Preprocessing:
    """Reads the options of the command line.

    Args:
        scale: a number or a fraction, as "1/255".
        mean, std: one number, or one per channel, as "0.5,0.5,0.5"; fractions are understood too.
        resize: height and width, as "96x128", or one number for both.
        dtype: what the model receives.

    Raises:
        ConfigError: one of them cannot be read; the message names it.
    """
    default = Preprocessing()
    deviations = default.std if std is None else _numbers("--std", std)
    if 0.0 in deviations:
        raise ConfigError(
            f"Expected deviations other than 0 as --std, got {std}. Try 1 where nothing is to be divided."
        )
    if dtype is not None and dtype not in _DTYPES:
        raise ConfigError(f"Expected one of {', '.join(_DTYPES)} as the data's dtype, got {dtype!r}. Try float32.")
    return Preprocessing(
        resize=None if resize is None else _size(resize),
        scale=default.scale if scale is None else _number("--scale", str(scale)),
        mean=default.mean if mean is None else _numbers("--mean", mean),
        std=deviations,
        dtype=dtype or default.dtype,
    )


def describe_preprocessing(preprocessing: Preprocessing) -> str:
    """Returns the steps as one sentence, for reports."""
    steps = []
    if preprocessing.resize:
        steps.append(f"resize to {preprocessing.resize[0]}x{preprocessing.resize[1]} (bilinear)")
    if preprocessing.scale != 1.0:
        steps.append(f"multiply by {preprocessing.scale:.8g}")
    if set(preprocessing.mean) != {0.0}:
        steps.append(f"subtract {_listed(preprocessing.mean)}")
    if set(preprocessing.std) != {1.0}:
        steps.append(f"divide by {_listed(preprocessing.std)}")
    return f"{', '.join(steps) or 'values as they are'}, as {preprocessing.dtype}"


def _taps(length: int, wanted: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    centres = (np.arange(wanted, dtype=np.float32) + np.float32(0.5)) * np.float32(length / wanted) - np.float32(0.5)
    floors = np.floor(centres)
    lower = np.maximum(floors, 0).astype(np.intp)
    upper = np.minimum(np.ceil(centres), length - 1).astype(np.intp)
    return lower, upper, centres - floors


def _per_channel(name: str, values: tuple[float, ...], array: np.ndarray) -> np.ndarray:
    channels = array.shape[-1]
    if len(values) not in (1, channels):
        raise DataError(
            f"Expected 1 or {channels} values as {name}, one per channel of samples {array.shape[1:]}, "
            f"got {len(values)}. Try --{name} with {channels} numbers."
        )
    return np.asarray(values, np.float32)


def _number(option: str, text: str) -> float:
    try:
        numerator, _, denominator = text.partition("/")
        return float(numerator) / float(denominator or 1)
    except (ValueError, ZeroDivisionError):
        raise ConfigError(f"Expected a number or a fraction as {option}, got {text!r}. Try {option} 1/255.") from None


def _numbers(option: str, text: str) -> tuple[float, ...]:
    return tuple(_number(option, part) for part in str(text).split(","))


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"\s*(\d+)\s*(?:[xX,]\s*(\d+)\s*)?", text)
    height, width = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not (0 < height <= 65535 and 0 < width <= 65535):
        raise ConfigError(f"Expected height and width as --resize, got {text!r}. Try --resize 96x96.")
    return height, width


def _listed(values: tuple[float, ...]) -> str:
    return (
        " ".join(f"{value:.8g}" for value in values)
        if len(values) == 1
        else f"({', '.join(f'{v:.8g}' for v in values)})"
    )
