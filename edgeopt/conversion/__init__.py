"""A loaded model and a scheme go in, the bytes of a `.tflite` come out.

A model is lowered once (`lowering`), to a float file with a signature and a fixed batch, and that file is calibrated
once (`calibrating`). Each scheme names the quantizer that makes it (`quantizers`), and whatever a quantizer made is
compared with what the scheme says (`holding`). `isolation` does all this in a worker.
"""

from __future__ import annotations

from edgeopt.conversion.converter import Converter, ConvertOptions, ModelSummary
from edgeopt.conversion.isolation import IsolatedConverter, convert_for

__all__ = ["ConvertOptions", "Converter", "IsolatedConverter", "ModelSummary", "convert_for"]
