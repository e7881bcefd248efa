"""A float file, a quantized one and samples go in; files in which one layer alone computes otherwise come out.

They are float files: weights hold what integers stand for, and what the layer writes goes through the integers of the
quantized file (`tflite.simulating`). What a choice costs is then told by any measure of whole files.
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from edgeopt.data import Part
from edgeopt.repairing.holding_out import divided
from edgeopt.rounding.adaround import Activation
from edgeopt.rounding.arrivals import BATCH, arrivals
from edgeopt.rounding.evidence import gather
from edgeopt.rounding.fitting import Rounded, Use, error, fit
from edgeopt.rounding.grid import Grid
from edgeopt.rounding.layout import Layout, layout
from edgeopt.tflite.activations import computed, matched
from edgeopt.tflite.model import Operator, Tensor, TFLiteModel
from edgeopt.tflite.pairing import Pair, pair_weights
from edgeopt.tflite.simulating import Rounding, simulated
from edgeopt.vocabulary import Quantization

# What the covariance of a layer's inputs may take; beyond it weights are rounded to the nearest.
_MOST_COLUMNS = 4096
# From so many bits on weights have one scale for each channel, whatever the file has below.
_CHANNEL_BITS = 8
# Where a converter leaves the name of the layer: "net/conv2d/Conv2D".
_OWN = re.compile(r"(Conv2D|convolution|depthwise|MatMul|Tensordot|conv2d_transpose)\d*$")
# What signatures make of the names of inputs and outputs.
_BORDER = re.compile(r"^serving_default_|:\d+$")
_NAMELESS = "StatefulPartitionedCall"


@dataclass(frozen=True)
class Choice:
    """What a layer may become.

    Attributes:
        name: as tables and stores call it.
        bits: of its weights; None where they stay floats.
        wide: what it writes has 16 bits, not those of the quantized file.
        zeros: share of its smallest weights that are zero.
        width: share of its channels that are left; the others, which vary least, become their mean (mean replacement:
            Evci, Le Roux, Castro & Bottou, "Mean Replacement Pruning", 2018).
        others: it stays as it is, and all others are as with 8 bits.
    """

    name: str
    bits: int | None = None
    wide: bool = False
    zeros: float = 0.0
    width: float = 1.0
    others: bool = False


CHOICES: dict[str, Choice] = {
    choice.name: choice
    for choice in (
        Choice("int8", bits=8),
        Choice("int4", bits=4),
        Choice("int16", bits=8, wide=True),
        Choice("float", others=True),
    )
}

# Float, between layers of integers: what it writes is theirs.
BETWEEN = Choice("float between integers")


def zeros(share: float) -> Choice:
    """Returns the choice of so many zeros, 0 to 1."""
    return Choice(f"{100 * share:g}% zeros", zeros=share)


def width(share: float) -> Choice:
    """Returns the choice of so many channels left, 0 to 1."""
    return Choice(f"{100 * share:g}% width", width=share)


@dataclass(frozen=True)
class Place:
    """Something that may compute otherwise.

    Attributes:
        name: of the tensor that it writes, in the quantized file; of an input where it is one.
        layer: the layer's own name, as far as the tensor's tells it.
        kind: its operator; "INPUT".
        uses: the layers that compute with one weight tensor; empty where there are no weights.
        rounded: index of a tensor of the float file → the integers that the quantized file has there.
        inner: whether another layer reads what it writes.
    """

    name: str
    layer: str
    kind: str
    uses: tuple[Pair, ...]
    rounded: Mapping[int, Rounding]
    inner: bool = False


class Alone:
    """A network whose layers are changed one at a time.

    Attributes:
        places: in the order in which they compute.
        held: the samples that nothing was fitted on.

    Args:
        floating, quantized: the two files.
        samples: as the float file takes them; labels are not looked at.
        seed: of every random choice.

    Raises:
        DataError: there are too few samples.
        ModelError: a file cannot be read.
    """

    def __init__(self, floating: bytes, quantized: bytes, samples: Part, *, seed: int = 0) -> None:
        self._content, self._seed = floating, seed
        self._fit, self.held = divided(samples, "sensitivities")
        self._pairing = pair_weights(floating, quantized)
        self._floating = self._pairing.floating
        self.places = tuple(_named(_places(self._pairing.floating, self._pairing.quantized, self._pairing.pairs)))
        self._changes: dict[tuple[str, Choice], _Change] = {}

    def can(self, place: Place, choice: Choice) -> bool:
        """Whether a choice means anything at a place."""
        if choice.width < 1:
            return bool(place.uses) and place.inner
        return bool(place.uses) or not choice.zeros

    def file(self, place: Place, choice: Choice) -> bytes:
        """Returns the float file with one place alone as chosen."""
        if choice.others:
            return self._made([self._change(other, CHOICES["int8"]) for other in self.places if other is not place])
        return self._made([self._change(place, choice)])

    def together(self, choice: Choice) -> bytes:
        """Returns the float file with all places as chosen at once; of what spares one, with none spared."""
        if choice.others:
            return self._made([self._change(place, CHOICES["int8"]) for place in self.places])
        return self._made([self._change(place, choice) for place in self.places if self.can(place, choice)])

    def _made(self, changes: Sequence[_Change]) -> bytes:
        return simulated(
            self._content,
            weights={index: values for change in changes for index, values in change.weights.items()},
            biases={index: values for change in changes for index, values in change.biases.items()},
            rounded={index: how for change in changes for index, how in change.rounded.items()},
        )

    def _change(self, place: Place, choice: Choice) -> _Change:
        """Returns what a choice changes; computed once, as it is needed alone and with all others."""
        key = place.name, choice
        if key not in self._changes:
            self._changes[key] = self._computed(place, choice)
        return self._changes[key]

    def _computed(self, place: Place, choice: Choice) -> _Change:
        if choice.width < 1:
            return self._narrowed(place, choice.width)
        if choice.zeros:
            weights = self._pairing.float_weights(place.uses[0])
            return _Change({self._weight(place): without_smallest(weights, choice.zeros)})
        rounded = {index: _wide(how) if choice.wide else how for index, how in place.rounded.items()}
        if not place.uses or choice.bits is None:
            return _Change(rounded=rounded)
        return replace(self._rounded(place, choice.bits), rounded=rounded)

    def _weight(self, place: Place) -> int:
        return place.uses[0].floating.weight.index

    def _rounded(self, place: Place, bits: int) -> _Change:
        """Returns weights of so many bits; below eight they are chosen by what the layer computes."""
        pair = place.uses[0]
        real = self._pairing.float_weights(pair)
        grid, stored = Grid.of(bits), self._pairing.stored(pair)
        axis, block = stored.axis, stored.block if bits < _CHANNEL_BITS else 0
        lies = [_layout(self._floating, one) for one in place.uses]
        if bits >= _CHANNEL_BITS or any(one is None or one.groups * one.columns**2 > _MOST_COLUMNS**2 for one in lies):
            channels = np.moveaxis(real, pair.floating.axis, 0)
            rows = channels.reshape(1, len(channels), -1)
            steps = grid.widest(rows, block) if axis is not None else grid.widest(rows.reshape(1, 1, -1))
            values = (grid.nearest(rows, steps) * steps).reshape(channels.shape)
            return _Change({self._weight(place): np.moveaxis(values, 0, pair.floating.axis).astype(np.float32)})
        known = [one for one in lies if one is not None]
        weights = known[0].matrix(real).astype(np.float64)
        found = self._fitted(place, known, weights, grid, together=axis is None, block=block)
        return _Change(
            {self._weight(place): known[0].stored(found.values).astype(np.float32)},
            {one.floating.operator.index: bias.reshape(-1) for one, bias in zip(place.uses, found.biases)},
        )

    def _fitted(
        self,
        place: Place,
        lies: Sequence[Layout],
        weights: np.ndarray,
        grid: Grid,
        *,
        together: bool,
        block: int,
    ) -> Rounded:
        """Returns the better of GPTQ's integers and the nearest ones, on samples that neither has seen."""
        pairs = [replace(pair, quantized=pair.floating) for pair in place.uses]
        uses = [
            Use(_bias(self._pairing.float_bias(pair), one), Activation.named(_fused(pair.floating.operator)))
            for pair, one in zip(place.uses, lies)
        ]
        evidence = gather(
            self._content,
            self._content,
            list(zip(pairs, lies)),
            self._fit,
            self.held,
            with_rows=False,
            seed=self._seed,
        )
        found = [
            fit(
                weights,
                uses,
                evidence,
                grid,
                method=method,
                together=together,
                block=block,
                iterations=0,
                seed=self._seed,
            )
            for method in ("gptq", "nearest")
        ]
        held = [one.held for one in evidence]
        return min(found, key=lambda one: error(one.values, one.biases, uses, held))

    def _narrowed(self, place: Place, share: float) -> _Change:
        """Returns weights without the channels that vary least, which give their mean."""
        weights, biases = {}, {}
        for pair in place.uses:
            means, spreads = self._written[pair.floating.operator.outputs[0]]
            gone = np.argsort(spreads, kind="stable")[: len(spreads) - max(1, round(share * len(spreads)))]
            channels = np.moveaxis(self._pairing.float_weights(pair).copy(), pair.floating.axis, 0)
            channels[gone] = 0
            bias = self._pairing.float_bias(pair)
            bias = np.zeros(len(channels)) if bias is None else bias.copy()
            bias[gone] = means[gone]
            weights[pair.floating.weight.index] = np.moveaxis(channels, 0, pair.floating.axis)
            biases[pair.floating.operator.index] = bias
        return _Change(weights, biases)

    @functools.cached_property
    def _written(self) -> dict[int, tuple[np.ndarray, np.ndarray]]:
        """Returns mean and variance of each channel that a layer writes, by the tensor's index, in one pass."""
        wanted = sorted({pair.floating.operator.outputs[0] for place in self.places for pair in place.uses})
        counts = dict.fromkeys(wanted, 0)
        sums = {index: np.zeros((2, self._floating.main.tensors[index].shape[-1])) for index in wanted}
        with arrivals(self._content, wanted) as session:
            for batch in self._fit.batches(BATCH):
                for index, values in zip(wanted, session.values(batch.inputs)):
                    flat = values.reshape(-1, values.shape[-1]).astype(np.float64)
                    counts[index] += len(flat)
                    sums[index] += flat.sum(0), np.square(flat).sum(0)
        means = {index: sums[index] / counts[index] for index in wanted}
        return {index: (mean, squares - mean**2) for index, (mean, squares) in means.items()}


@dataclass(frozen=True)
class _Change:
    """What `simulated` takes."""

    weights: Mapping[int, np.ndarray] = field(default_factory=dict)
    biases: Mapping[int, np.ndarray] = field(default_factory=dict)
    rounded: Mapping[int, Rounding] = field(default_factory=dict)


def without_smallest(values: np.ndarray, share: float) -> np.ndarray:
    """Returns weights with a share of them, the smallest, set to zero."""
    order = np.argsort(np.abs(values), axis=None)
    pruned = values.copy().reshape(-1)
    pruned[order[: round(share * values.size)]] = 0
    return pruned.reshape(values.shape)


# --- places -----------------------------------------------------------------------------------------------------------


def _places(floating: TFLiteModel, quantized: TFLiteModel, pairs: Sequence[Pair]) -> Iterator[Place]:
    """Yields inputs, layers with weights, and operators whose outputs the quantized file rounds anew."""
    names = matched(computed(floating), computed(quantized))
    theirs = {tensor.name: tensor for tensor in quantized.main.tensors}
    of = {pair.floating.operator.index: pair for pair in pairs}
    sharing: dict[int, list[Pair]] = {}
    for pair in pairs:
        sharing.setdefault(pair.floating.weight.index, []).append(pair)
    for ours, other in zip(floating.main.inputs, quantized.main.inputs):
        given = quantized.main.tensors[other]
        if (how := _integers(quantized, given)) is not None:
            yield Place(given.name, _layer_name(floating.main.tensors[ours].name), "INPUT", (), {ours: how})
    for operator in floating.main.operators:
        own = of.get(operator.index)
        if own is not None:
            uses = sharing[own.floating.weight.index]
            if own is uses[0]:
                yield _with_weights(floating, quantized, uses, of)
            continue
        made = [floating.main.tensors[index] for index in operator.outputs]
        if len(made) == 1 and made[0].name in names:
            result = theirs[names[made[0].name]]
            how = _integers(quantized, result)
            if how is not None and not _hands_on(quantized, result, how):
                yield Place(result.name, _layer_name(made[0].name), operator.name, (), {made[0].index: how})


def _with_weights(floating: TFLiteModel, quantized: TFLiteModel, uses: Sequence[Pair], of: Mapping[int, Pair]) -> Place:
    rounded = {}
    for pair in uses:
        how = _integers(quantized, quantized.main.tensors[pair.quantized.operator.outputs[0]])
        if how is not None:
            rounded[pair.floating.operator.outputs[0]] = how
    first = uses[0]
    inner = all(_is_read(floating, pair.floating.operator, of) for pair in uses)
    # An output's name is the signature's.
    weight = first.floating.weight.name
    layer = _layer_name(weight if any(map(_OWN.search, weight.split(";"))) else first.name)
    return Place(first.name, layer, first.floating.operator.name, tuple(uses), rounded, inner)


def _is_read(model: TFLiteModel, operator: Operator, of: Mapping[int, Pair]) -> bool:
    """Whether another layer reads what comes of an operator's outputs."""
    reached = set(operator.outputs)
    for later in model.main.operators[operator.index + 1 :]:
        if reached.intersection(later.inputs):
            if later.index in of:
                return True
            reached.update(later.outputs)
    return False


def _integers(model: TFLiteModel, tensor: Tensor) -> Rounding | None:
    """Returns the integers of an activation; of one that is a float at the file's border, those inside of it."""
    graph = model.main
    if tensor.is_float:
        near = [o.outputs[0] for o in graph.operators if o.name == "QUANTIZE" and tensor.index in o.inputs]
        near += [o.inputs[0] for o in graph.operators if o.name == "DEQUANTIZE" and tensor.index in o.outputs]
        tensor = graph.tensors[near[0]] if near else tensor
    one_scale = tensor.quantization is not None and len(tensor.quantization.scales) == 1
    if tensor.quantization is None or not one_scale or tensor.dtype not in ("int8", "int16"):
        return None
    return Rounding(tensor.dtype, tensor.quantization)


def _hands_on(model: TFLiteModel, tensor: Tensor, how: Rounding) -> bool:
    """Whether a tensor has the integers of what it is made of: then nothing is rounded."""
    maker = next(operator for operator in model.main.operators if tensor.index in operator.outputs)
    given = (model.main.tensors[index] for index in maker.inputs if index >= 0)
    return any(one.quantization == how.quantization and not one.is_constant for one in given)


def _wide(how: Rounding) -> Rounding:
    """Returns integers of 16 bits for the same range, symmetric as kernels want it."""
    if how.dtype == "int16":
        return how
    (scale,), (zero,) = how.quantization.scales, how.quantization.zero_points
    # A step more than int8 has: a probability of 1 lies there.
    largest = scale * max(128 - zero, zero + 128)
    return Rounding("int16", Quantization((largest / 32767,), (0,)))


def _named(places: Iterator[Place]) -> Iterator[Place]:
    """Yields places whose layers have names of their own: where two are alike, those of their tensors."""
    every = list(places)
    counts = Counter(place.layer for place in every)
    for place in every:
        yield place if counts[place.layer] == 1 else replace(place, layer=place.name)


def _layer_name(tensor: str) -> str:
    """Returns the layer's name that a converter put into a tensor's: "conv2d" of "net/relu;net/conv2d/Conv2D1"."""
    parts = _BORDER.sub("", tensor).split(";")
    own = next((part for part in parts if _OWN.search(part)), parts[-1])
    folders = own.split("/")
    return "output" if own == _NAMELESS else folders[-2] if len(folders) > 1 else own


def _layout(model: TFLiteModel, pair: Pair) -> Layout | None:
    return layout(model.main, pair.floating.operator, pair.floating.weight)


def _bias(bias: np.ndarray | None, lies: Layout) -> np.ndarray:
    values = np.zeros(lies.groups * lies.rows) if bias is None else bias
    return np.asarray(values, np.float64).reshape(lies.groups, lies.rows)


def _fused(operator: Operator) -> str:
    return str(operator.options.get("fused_activation_function", "NONE"))
