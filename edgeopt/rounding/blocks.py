"""A float file, its rounded one and samples go in; the rounded one with integers chosen block by block comes out.

A block is what lies between two places where a network is one tensor wide: the layers up to the addition that ends a
branch, or two layers in a row. Its weights go up or down together, so that what one rounds badly another makes up for,
while the block computes with the integers of its activations, gradients passing through the rounding (BRECQ: Li et al.
2021, arXiv 2102.05426). Each block gets what really arrives.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeopt.data import Part
from edgeopt.frameworks import load
from edgeopt.rounding.arrivals import BATCH, arrivals
from edgeopt.rounding.fitting import Rounded
from edgeopt.rounding.grid import Grid
from edgeopt.rounding.layout import LINEAR, Layout
from edgeopt.tflite.activations import computed, matched
from edgeopt.tflite.model import Operator, Subgraph
from edgeopt.tflite.reader import read

# What a block may compute with, and the activation functions behind it.
_ADD = "ADD"
_KNOWN = {*LINEAR, _ADD}
_FUSED = ("NONE", "RELU", "RELU6")
# Layers of a block that no addition ends.
_MOST_LAYERS = 2
# What is held of a block's inputs and outputs; with fewer samples than these nothing is chosen.
_HELD_BYTES, _FEWEST = 256 << 20, 32
# Of AdaRound: how far the sigmoid is stretched, the penalty's weight, its exponent, and how long there is none.
_LOW, _HIGH = -0.1, 1.1
_PENALTY, _EXPONENTS, _WARM_UP = 1e-3, (20.0, 2.0), 0.2
# Of what decides up or down, and of biases and scales; Adam.
_RATE, _FINE_RATE = 1e-2, 1e-3


@dataclass(frozen=True)
class Weights:
    """What a layer has to choose.

    Attributes:
        real: of the float layer, [groups, rows, columns].
        now: what was chosen so far.
        lies, grid: how they lie, and the integers that there are.
        zeros: which have to stay 0; None for none.
        own_scales: whether each row has a scale of its own.
        fixed: it stays as it is.
    """

    real: np.ndarray
    now: Rounded
    lies: Layout
    grid: Grid
    zeros: np.ndarray | None = None
    own_scales: bool = True
    fixed: bool = False


def blocks(graph: Subgraph, chosen: Collection[int]) -> Iterator[tuple[Operator, ...]]:
    """Yields the blocks of a graph in which operators of `chosen` (by index) are, and nothing that is not known."""
    readers: dict[int, list[int]] = {}
    for operator in graph.operators:
        for index in operator.inputs:
            if index >= 0 and not graph.tensors[index].is_constant:
                readers.setdefault(index, []).append(operator.index)
    block: list[Operator] = []
    live = set(graph.inputs)
    for operator in graph.operators:
        block.append(operator)
        live = {i for i in {*live, *operator.outputs} if any(at > operator.index for at in readers.get(i, ()))}
        if len(live) > 1:
            continue
        forks = any(len(readers[index]) > 1 for index in live)
        layers = sum(one.name in LINEAR for one in block)
        if operator.name == _ADD or forks or layers >= _MOST_LAYERS or not _is_known(graph, operator):
            if all(_is_known(graph, one) for one in block) and any(one.index in chosen for one in block):
                yield tuple(block)
            block = []


def computable(lies: Layout) -> bool:
    """Whether TensorFlow has gradients of such a layer on CPUs: no groups, no dilation, strides alike."""
    plain = lies.dilation == (1, 1) and lies.strides[0] == lies.strides[1]
    return plain and (lies.groups == 1 or lies.depthwise)


def _is_known(graph: Subgraph, operator: Operator) -> bool:
    fused = operator.options.get("fused_activation_function", "NONE") or "NONE"
    moving = [i for i in operator.inputs if i >= 0 and not graph.tensors[i].is_constant]
    made = graph.result(operator)
    if made is None:
        return False
    one_scale = made.quantization is not None and len(made.quantization.scales) == 1
    sound = made.dtype == "float32" or (made.dtype in ("int8", "int16") and one_scale)
    inputs = 2 if operator.name == _ADD else 1
    return sound and operator.name in _KNOWN and fused in _FUSED and len(moving) == inputs


def reconstruct(
    floating: bytes,
    content: bytes,
    block: Sequence[Operator],
    weights: Mapping[int, Weights],
    fit: Part,
    held: Part,
    *,
    iterations: int,
    seed: int,
) -> tuple[Mapping[int, Rounded], float, float] | None:
    """Returns new weights of those of a block's layers that may change, and its error before and after.

    The error is squared, as a share of the variance, on samples that were not fitted on. None where the float file has
    no such output, or too few samples fit into memory.

    Args:
        floating, content: the float file, and the rounded one.
        block: of the rounded file's main graph.
        weights: of each of its operators with weights, by index.
        fit, held: samples.
        iterations: steps of Adam.
        seed: of the choice of samples.
    """
    model, real = read(content), read(floating)
    graph = model.main
    made = {index for operator in block for index in operator.outputs}
    starts = sorted({i for o in block for i in o.inputs if i >= 0 and not graph.tensors[i].is_constant} - made)
    end = block[-1].outputs[0]
    names = {theirs: ours for ours, theirs in matched(computed(real), computed(model)).items()}
    wanted = next((t.index for t in computed(real) if t.name == names.get(graph.tensors[end].name)), None)
    bytes_each = 4 * sum(graph.tensors[index].elements for index in (*starts, end))
    most = _HELD_BYTES // max(1, bytes_each)
    if wanted is None or most < _FEWEST:
        return None
    given, told = zip(*(_seen(floating, content, starts, wanted, part.take(most)) for part in (fit, held)))
    net = _Block(graph, block, starts, weights, float(np.var(told[0])) or 1.0)
    before = net.error(given[1], told[1])
    net.learn(given[0], told[0], iterations=iterations, seed=seed)
    return net.rounded(), before, net.error(given[1], told[1])


def _seen(
    floating: bytes, content: bytes, starts: Sequence[int], wanted: int, part: Part
) -> tuple[list[np.ndarray], np.ndarray]:
    """Returns what a block gets of samples, and what it should give."""
    given, told = [], []
    with arrivals(content, starts) as arriving, arrivals(floating, [wanted]) as real:
        for batch in part.batches(BATCH):
            given.append(arriving.values(batch.inputs))
            told += real.values(batch.inputs)
    return [np.concatenate(each) for each in zip(*given)], np.concatenate(told)


class _Layer:
    """The weights of one layer as they are learned."""

    def __init__(self, weights: Weights) -> None:
        tf = load("tensorflow")
        self.known, now = weights, weights.now
        below = now.integers <= weights.real / now.steps
        self.floor = np.where(below, now.integers, now.integers - 1)
        # Half way between where the weight lies and the integer that was chosen.
        share = np.clip(0.5 * (np.clip(weights.real / now.steps - self.floor, 0, 1) + ~below), 0.01, 0.99)
        self.state = tf.Variable(np.log((share - _LOW) / (_HIGH - share)).astype(np.float32))
        self.bias = tf.Variable(now.biases[0].reshape(-1).astype(np.float32))
        self.scale = tf.Variable(np.zeros((*now.steps.shape[:2], 1), np.float32), trainable=weights.own_scales)
        self.learned = False

    @property
    def free(self) -> bool:
        """Whether there is something to learn."""
        return not self.known.fixed

    @property
    def share(self) -> Any:
        """How far up each weight goes, 0 to 1."""
        tf = load("tensorflow")
        return tf.clip_by_value(tf.sigmoid(self.state) * (_HIGH - _LOW) + _LOW, 0.0, 1.0)

    def rounded(self) -> Rounded:
        """Returns what was learned, as integers; before that what there was."""
        if not self.learned:
            return self.known.now
        highest = self.known.grid.highest
        integers = np.clip(self.floor + (self.state.numpy() >= 0), -highest, highest)
        integers = integers if self.known.zeros is None else np.where(self.known.zeros, 0.0, integers)
        steps = self.known.now.steps * np.exp(self.scale.numpy().astype(np.float64))
        bias = self.bias.numpy().astype(np.float64).reshape(self.known.now.biases[0].shape)
        return Rounded(integers, steps, (bias,))

    def values(self, *, soft: bool) -> Any:
        """Returns the weights, output channels first."""
        tf, lies, highest = load("tensorflow"), self.known.lies, self.known.grid.highest
        if soft and self.free:
            integers = tf.clip_by_value(self.floor.astype(np.float32) + self.share, -highest, highest)
            if self.known.zeros is not None:
                integers = tf.where(self.known.zeros, 0.0, integers)
            found = integers * self.known.now.steps.astype(np.float32) * tf.exp(self.scale)
        else:
            found = tf.constant(self.rounded().values.astype(np.float32))
        return tf.reshape(found, [-1, *(n for axis, n in enumerate(lies.shape) if axis != lies.axis)])


class _Block:
    """A block as TensorFlow computes it.

    Args:
        graph, block, starts, weights: see `reconstruct`.
        spread: variance of what it should give.
    """

    def __init__(
        self,
        graph: Subgraph,
        block: Sequence[Operator],
        starts: Sequence[int],
        weights: Mapping[int, Weights],
        spread: float,
    ) -> None:
        self._graph, self._block, self._starts, self._spread = graph, block, starts, spread
        self._layers = {index: _Layer(known) for index, known in weights.items()}

    def rounded(self) -> Mapping[int, Rounded]:
        """Returns the weights of each layer that may change, by its operator."""
        return {index: layer.rounded() for index, layer in self._layers.items() if layer.free}

    def error(self, given: Sequence[np.ndarray], told: np.ndarray) -> float:
        """Returns the squared error with integers, as a share of the variance."""
        off = 0.0
        for start in range(0, len(told), BATCH):
            piece = slice(start, start + BATCH)
            made = self._run([values[piece] for values in given], soft=False).numpy()
            off += float(np.sum(np.square(made - told[piece], dtype=np.float64)))
        return off / told.size / self._spread

    def learn(self, given: Sequence[np.ndarray], told: np.ndarray, *, iterations: int, seed: int) -> None:
        """Decides of each weight whether it goes up or down."""
        tf, keras = load("tensorflow"), load("tf_keras")
        layers = [layer for layer in self._layers.values() if layer.free]
        if not layers:
            return
        states = [layer.state for layer in layers]
        fine = [v for layer in layers for v in (layer.bias, layer.scale) if v.trainable]
        coarse_optimizer, fine_optimizer = keras.optimizers.Adam(_RATE), keras.optimizers.Adam(_FINE_RATE)
        coarse_optimizer.build(states)
        fine_optimizer.build(fine)

        @tf.function
        def step(inputs: Any, wanted: Any, exponent: Any, weight: Any) -> None:
            with tf.GradientTape() as tape:
                off = tf.reduce_mean(tf.square(self._run(inputs, soft=True) - wanted)) / self._spread
                shares = [layer.share for layer in layers]
                undecided = tf.add_n([tf.reduce_sum(1 - tf.abs(2 * share - 1) ** exponent) for share in shares])
                loss = off + weight * undecided
            gradients = tape.gradient(loss, [*states, *fine])
            coarse_optimizer.apply_gradients(zip(gradients[: len(states)], states))
            fine_optimizer.apply_gradients(zip(gradients[len(states) :], fine))

        random = np.random.default_rng(seed)
        for done in range(iterations):
            rows = random.integers(0, len(told), min(BATCH, len(told)))
            past = max(0.0, (done / iterations - _WARM_UP) / (1 - _WARM_UP))
            exponent = _EXPONENTS[1] + (_EXPONENTS[0] - _EXPONENTS[1]) * 0.5 * (1 + np.cos(past * np.pi))
            weight = tf.constant(_PENALTY if past else 0.0, tf.float32)
            step([tf.constant(values[rows]) for values in given], told[rows], tf.constant(exponent, tf.float32), weight)
        for layer in layers:
            layer.learned = True

    def _run(self, inputs: Sequence[Any], *, soft: bool) -> Any:
        """Returns what the block gives."""
        known = dict(zip(self._starts, inputs))
        for operator in self._block:
            moving = [known[index] for index in operator.inputs if index in known]
            result = operator.outputs[0]
            made = moving[0] + moving[1] if operator.name == _ADD else self._multiplied(operator, moving[0], soft=soft)
            known[result] = self._stored(result, _activated(operator, made))
        return known[self._block[-1].outputs[0]]

    def _multiplied(self, operator: Operator, inputs: Any, *, soft: bool) -> Any:
        tf, layer = load("tensorflow"), self._layers[operator.index]
        weights, options = layer.values(soft=soft), operator.options
        if operator.name == "FULLY_CONNECTED":
            flat = tf.reshape(inputs, [-1, weights.shape[1]])
            made = tf.linalg.matmul(flat, weights, transpose_b=True) + layer.bias
            return tf.reshape(made, [-1, *self._graph.tensors[operator.outputs[0]].shape[1:]])
        strides = [1, options["stride_h"], options["stride_w"], 1]
        if operator.name == "CONV_2D":
            filters = tf.transpose(weights, [1, 2, 3, 0])
            return tf.nn.conv2d(inputs, filters, strides, options["padding"]) + layer.bias
        # Stored [1, height, width, channels].
        _, _, height, width = weights.shape
        filters = tf.reshape(tf.transpose(weights, [2, 3, 1, 0]), [height, width, inputs.shape[-1], -1])
        return tf.nn.depthwise_conv2d(inputs, filters, strides, options["padding"]) + layer.bias

    def _stored(self, index: int, values: Any) -> Any:
        """Returns values as the integers of a tensor hold them; gradients pass within its range."""
        tf, tensor = load("tensorflow"), self._graph.tensors[index]
        if tensor.quantization is None:
            return values
        (step,), (zero,) = tensor.quantization.scales, tensor.quantization.zero_points
        low, high = np.iinfo(tensor.dtype).min, np.iinfo(tensor.dtype).max
        inside = tf.clip_by_value(values, (low - zero) * step, (high - zero) * step)
        return inside + tf.stop_gradient(tf.round(inside / step) * step - inside)


def _activated(operator: Operator, values: Any) -> Any:
    tf = load("tensorflow")
    fused = operator.options.get("fused_activation_function", "NONE")
    return {"RELU": tf.nn.relu, "RELU6": tf.nn.relu6}.get(fused, tf.identity)(values)
