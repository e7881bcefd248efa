"""A flat float model and samples go in, one that computes with simulated int8 comes out; it is saved and loads again.

Weights are rounded to the grid that the converter will use: int8, symmetric, a scale for each output channel.
Activations are rounded at the borders of what a runtime computes in one operator (a convolution with its bias,
BatchNormalization and ReLU, say), to ranges that start from calibration and move with training. What has no form that
can be trained in int8 keeps its float inside, and the converter quantizes it after training.

Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference"
(arXiv 1712.05877).
"""

from __future__ import annotations

from edgeopt.fake_quantization.preparation import Prepared, is_fake_quantized, prepare
from edgeopt.fake_quantization.roles import channels_of, weights_of
from edgeopt.fake_quantization.saving import save_fake_quantized

__all__ = ["Prepared", "channels_of", "is_fake_quantized", "prepare", "save_fake_quantized", "weights_of"]
