"""A float file and its quantized one go in; how far each channel is off on average, and its mending, come out.

Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", 2019 (arXiv 1906.04721), section
4.2. With samples (their appendix D) layer by layer, with those before it corrected; without any by what the inputs of
each layer are known to be on average.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeopt import files, progress
from edgeopt.errors import ModelError
from edgeopt.repairing.ranges import Range
from edgeopt.repairing.running import activations, outputs
from edgeopt.repairing.scales import range_of
from edgeopt.tflite.model import TFLiteModel
from edgeopt.tflite.pairing import Pair, Pairing, pair_weights
from edgeopt.tflite.reader import read
from edgeopt.tflite.rewrite import changed, forget_unused_codes
from edgeopt.tflite.stored_weights import Layer, layers, stored_bias, with_weights
from edgeopt.windows import missing_for_same

if TYPE_CHECKING:
    from edgeopt.data import Part

# A channel of which fewer outputs follow its bias is corrected as if so many did.
_LEAST_MOVED = 0.25
# What fused activations leave.
_ACTIVATION_ENDS = {"RELU": (0.0, np.inf), "RELU6": (0.0, 6.0), "RELU_N1_TO_1": (-1.0, 1.0)}


@dataclass(frozen=True)
class Correction:
    """What became of the bias of one layer.

    Attributes:
        layer: name of the tensor that it writes.
        kind: its operator.
        off: mean difference of the outputs, float minus quantized, a channel each: float64 [channels].
        doubt: its standard error; 0 where it was not taken of samples.
        bias: what was added to the bias: 0 where the difference is less than its doubt.
        reason: why it was left alone, "" where it was not.
    """

    layer: str
    kind: str
    off: np.ndarray
    doubt: np.ndarray
    bias: np.ndarray
    reason: str = ""

    @property
    def words(self) -> str:
        """In words: how many channels, and how far at most."""
        return f"{np.count_nonzero(self.bias)} of {self.bias.size} channels, by up to {np.abs(self.bias).max():.3g}"


def corrected(float_file: Path, converted: Path, part: Part, folder: Path) -> tuple[bytes, tuple[Correction, ...]]:
    """Returns the quantized file with the means of its layers' outputs where the float file's are.

    Args:
        float_file, converted: the model in float32, and quantized.
        part: samples to take means over.
        folder: for the files that end with the layer at hand.
    """
    content = converted.read_bytes()
    pairing = pair_weights(float_file.read_bytes(), content)
    floating = _float_outputs(float_file, pairing, part)
    found = []
    for pair in progress.track(pairing.pairs, "correcting biases", len(pairing.pairs)):
        content, one = _moved(content, pair, _correction(content, pair, floating, part, folder / "layer.tflite"))
        found.append(one)
    return content, tuple(found)


def corrected_by(
    float_file: Path, converted: Path, inputs: Callable[[np.ndarray], np.ndarray | None]
) -> tuple[bytes, tuple[Correction, ...]]:
    """Returns the quantized file with its biases moved by what the rounding of weights makes of their inputs' means.

    Args:
        float_file, converted: the model in float32, and quantized.
        inputs: from a layer's weights in the float file to the mean of each of its input channels; None where that is
            not known.
    """
    content = converted.read_bytes()
    pairing = pair_weights(float_file.read_bytes(), content)
    found = []
    for pair in pairing.pairs:
        content, one = _moved(content, pair, _expected(pairing, pair, inputs(pairing.float_weights(pair))))
        found.append(one)
    return content, tuple(found)


def _moved(content: bytes, pair: Pair, one: Correction) -> tuple[bytes, Correction]:
    """Returns a file with a correction in it, and the correction, or why its layer was left alone."""
    if one.reason or not one.bias.any():
        return content, one
    layer = _layer(content, pair)
    bias = stored_bias(read(content), layer)
    try:
        return with_weights(content, {}, {layer.operator.index: (0.0 if bias is None else bias) + one.bias}), one
    except ModelError as error:
        return content, replace(one, bias=np.zeros_like(one.bias), reason=str(error))


def _expected(pairing: Pairing, pair: Pair, inputs: np.ndarray | None) -> Correction:
    """Returns how far a layer is off, by the means of its inputs."""
    layer, nothing = pair.quantized, np.zeros(pair.quantized.weight.shape[pair.quantized.axis])
    if inputs is None:
        why = "what reaches it on average is not known"
        return Correction(pair.name, layer.operator.name, nothing, nothing, nothing, why)
    apart = pairing.float_weights(pair).astype(np.float64) - pairing.stored(pair).dequantized
    if layer.operator.name != "FULLY_CONNECTED":
        apart = apart * _seen(pairing.quantized, layer)[None, :, :, None]
    # Of a depthwise layer each channel makes some.
    means = np.repeat(inputs, apart.shape[-1] // inputs.size)
    off = (apart * means).sum(tuple(axis for axis in range(apart.ndim) if axis != layer.axis))
    return Correction(pair.name, layer.operator.name, off, nothing, off)


def _seen(model: TFLiteModel, layer: Layer) -> np.ndarray:
    """Returns at which share of the outputs each weight of a window meets the map and not its padding: [h, w]."""
    options, window = layer.operator.options, layer.weight.shape[1:3]
    result = model.main.tensors[layer.operator.outputs[0]]
    shares = []
    for axis, (name, taps) in enumerate(zip("hw", window), start=1):
        size, places = layer.activations.shape[axis], result.shape[axis]
        if min(size, places) < 1:  # free
            shares.append(np.ones(taps))
            continue
        step, apart = options.get(f"stride_{name}", 1), options.get(f"dilation_{name}_factor", 1)
        reach = (taps - 1) * apart + 1
        added = missing_for_same(size, reach, step) if options.get("padding") == "SAME" else 0
        at = np.arange(places)[:, None] * step + np.arange(taps) * apart - added // 2
        shares.append(((at >= 0) & (at < size)).mean(0))
    return np.outer(*shares)


def shrunk(off: np.ndarray, doubt: np.ndarray) -> np.ndarray:
    """Returns what of a mean difference is worth correcting: nothing below its standard error.

    The positive part of James and Stein's shrinkage, for each channel: d (1 - s²/d²).
    """
    share = 1 - np.divide(doubt**2, off**2, out=np.ones_like(off), where=off != 0)
    return off * np.maximum(share, 0.0)


def _correction(content: bytes, pair: Pair, floating: Mapping[str, _Outputs], part: Part, file: Path) -> Correction:
    """Returns how far a layer is off in the file as it is now."""
    layer = _layer(content, pair)
    nothing = np.zeros(layer.weight.shape[layer.axis])
    reasons = {
        "its activation is not the float file's": _activation(pair.quantized) != _activation(pair.floating),
        "the float file shows no such tensor": pair.floating.name not in floating,
    }
    why = next((reason for reason, there in reasons.items() if there), "")
    if not why:
        files.atomic_write(file, ending_with(content, layer))
        batches = (next(iter(batch.values())) for batch in outputs(file, part))
        ours, theirs = _Outputs.of(batches, _ends(read(content), layer)), floating[pair.floating.name]
        if ours.means.shape != theirs.means.shape:
            why = "its outputs have another shape than the float file's"
    if why:
        return Correction(pair.name, layer.operator.name, nothing, nothing, nothing, why)
    apart = theirs.means - ours.means
    off, doubt = apart.mean(0), apart.std(0, ddof=1) / np.sqrt(len(apart))
    # The share that moves is between that of where outputs are and of where they shall be.
    moved = np.maximum((ours.moved + theirs.moved) / 2, _LEAST_MOVED)
    return Correction(pair.name, layer.operator.name, off, doubt, shrunk(off, doubt) / moved)


@dataclass(frozen=True)
class _Outputs:
    """The outputs of a layer, channel by channel.

    Attributes:
        means: of each sample, float64 [samples, channels].
        moved: share of each channel's outputs that its bias moves: what an activation or the integers cut off stays.
    """

    means: np.ndarray
    moved: np.ndarray

    @classmethod
    def of(cls, batches: Iterable[np.ndarray], ends: Range) -> _Outputs:
        means, inside = [], []
        for values in batches:
            rows = values.reshape(len(values), -1, values.shape[-1])
            means.append(rows.mean(1, dtype=np.float64))
            inside.append(((rows > ends[0]) & (rows < ends[1])).mean(1))
        return cls(np.concatenate(means), np.concatenate(inside).mean(0))


def _float_outputs(float_file: Path, pairing: Pairing, part: Part) -> dict[str, _Outputs]:
    """Returns the outputs of each layer in the float file, by name, in one pass."""
    ends = {pair.floating.name: _ends(pairing.quantized, pair.quantized) for pair in pairing.pairs}
    found: dict[str, list[_Outputs]] = {}
    for batch in activations(float_file, part):
        for name in ends.keys() & batch.keys():
            found.setdefault(name, []).append(_Outputs.of([batch[name]], ends[name]))
    return {
        name: _Outputs(np.concatenate([one.means for one in some]), _weighted(some)) for name, some in found.items()
    }


def _weighted(some: Sequence[_Outputs]) -> np.ndarray:
    return np.average([one.moved for one in some], axis=0, weights=[len(one.means) for one in some])


def _ends(model: TFLiteModel, layer: Layer) -> Range:
    """Returns between which numbers the outputs of a quantized layer follow its bias."""
    low, high = _ACTIVATION_ENDS.get(_activation(layer), (-np.inf, np.inf))
    result = model.main.tensors[layer.operator.outputs[0]]
    if result.is_float or result.quantization is None:
        return low, high
    held, half = range_of(result), result.quantization.scales[0] / 2
    return max(low, held[0]) + half, min(high, held[1]) - half


def _layer(content: bytes, pair: Pair) -> Layer:
    """Returns the layer of a pair in a file that was written anew since."""
    return next(one for one in layers(read(content)) if one.operator.index == pair.quantized.operator.index)


def _activation(layer: Layer) -> Any:
    return layer.operator.options.get("fused_activation_function", "NONE")


def ending_with(content: bytes, layer: Layer) -> bytes:
    """Returns a file that computes no more than the outputs of a layer."""

    def change(parsed: Any, schema: Any) -> None:
        graph = parsed.subgraphs[0]
        graph.operators = graph.operators[: layer.operator.index + 1]
        graph.outputs = [graph.operators[-1].outputs[0]]
        parsed.signatureDefs = None
        forget_unused_codes(parsed)

    return changed(content, change)
