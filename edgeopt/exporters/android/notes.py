"""What an Android library reads in the file: a Source goes in, its metadata and remarks on them come out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgeopt.data.preprocessing import preprocess
from edgeopt.exporters.contract import Source
from edgeopt.exporters.edges import picture
from edgeopt.runtimes.numbers import quantize
from edgeopt.tflite.metadata import ModelNote, TensorNote
from edgeopt.vocabulary import Preprocessing, TensorSpec

if TYPE_CHECKING:
    from edgeopt.tflite.model import TFLiteModel

_LABELS = "labels.txt"


def note(source: Source, model: TFLiteModel) -> tuple[ModelNote, tuple[str, ...]]:
    """Returns the metadata of `model`, the file that ships, and what their reader should know.

    The preprocessing, (value * scale - mean) / std, is written as (value - mean / scale) / (std / scale).
    """
    steps, color = source.preprocessing, picture(source, model)
    mean = tuple(value / steps.scale for value in steps.mean)
    std = tuple(value / steps.scale for value in steps.std)
    normalized = [spec.dtype == "float32" or spec.quantization is not None for spec in model.inputs]
    inputs = tuple(
        TensorNote(spec.name, mean=mean if says else (), std=std if says else (), color=color)
        for spec, says in zip(model.inputs, normalized)
    )
    labels = [source.classes if i == 0 else () for i in range(len(model.outputs))]
    outputs = tuple(
        TensorNote(spec.name, labels=names, label_file=_LABELS if names else "")
        for spec, names in zip(model.outputs, labels)
    )
    remarks = []
    if color and model.inputs[0].dtype == "uint8":
        off = _worst_pixel(steps, model.inputs[0])
        if off > 1:
            remarks.append(
                f"MediaPipe Tasks writes raw pixels into a uint8 input, where this model would have values up to {off} "
                "away; --io float32 gives it a file that it normalizes for"
            )
    return ModelNote(source.name, "Exported by edgeopt", "1", inputs, outputs), tuple(remarks)


def _worst_pixel(steps: Preprocessing, spec: TensorSpec) -> int:
    """Returns how far the stored value of a pixel lies from the pixel itself, at most."""
    channels = spec.shape[-1] or 1
    pixels = np.repeat(np.arange(256, dtype=np.float32)[:, None], channels, axis=1).reshape(1, 16, 16, channels)
    plain = Preprocessing(None, steps.scale, steps.mean, steps.std)
    stored = quantize(preprocess(pixels, plain), spec)
    return int(np.abs(stored.astype(np.int32) - pixels.astype(np.int32)).max())
