"""A model, samples and a cut go in; the model that makes up for the cut, without training, comes out.

Layer by layer, from the front, on what really arrives there after the layers before it were cut and re-fitted: what
reads channels linearly is solved anew for the least mean square to what it computed in the whole model, after He et
al., "Channel Pruning for Accelerating Very Deep Neural Networks" (arXiv 1707.06168); the statistics of batch
normalizations become those of the samples. All samples pass a layer before the next one is looked at, so that one pass
does. No labels are needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edgeopt import frameworks, graph, progress
from edgeopt.chance import generator
from edgeopt.errors import DataError
from edgeopt.shrinking.channels import Channels, Cut
from edgeopt.shrinking.masks import called
from edgeopt.shrinking.moments import Moments, Pairs, best_ridge, without
from edgeopt.shrinking.readers import Reader, columns, places_of, readers
from edgeopt.shrinking.rules import kind_of

# Of activations that are held at a time, of matrices of moments, and of what layers computed in the whole model.
_HELD_BYTES, _MOMENTS_BYTES, _TARGET_BYTES = 2**30, 2**30, 2**29
# Rows of a block of moments, from the largest that is tried.
_BLOCKS = (4608, 2304, 1152, 576, 288)
# Positions that a layer is fitted on: so many, and so many for each of its rows.
POSITIONS, _FOR_A_ROW = 16_384, 4
# Numbers of X that are made at a time.
_CHUNK = 2**22
# Values that the statistics of a normalization are estimated from, at least.
_FEWEST_VALUES = 256
_NORMALIZATIONS = ("BatchNormalization", "SyncBatchNormalization")


@dataclass(frozen=True, eq=False)
class Refitted:
    """A model that makes up for a cut.

    Attributes:
        channels: of a model of the old shape, in which what the cut leaves out is still there, but read no more.
        answers: what it answers to the samples without it, one array for each output.
        notes: what is worth saying.
    """

    channels: Channels
    answers: tuple[np.ndarray, ...]
    notes: tuple[str, ...]


class Refitter:
    """What the layers of a whole model compute of samples, to be computed again after a cut.

    Args:
        channels: of the whole model.
        inputs: real samples, one array for each input; as many of them are taken as memory allows.
        positions: places of maps, over all samples, that a layer is fitted on.
        seed: of which places these are.

    Attributes:
        moments: of what each layer reads, by its name; those are left out that are too large even in blocks.
        answers: of the whole model.
        samples: how many are taken.

    Raises:
        DataError: there are no samples.
    """

    def __init__(
        self, channels: Channels, inputs: Sequence[np.ndarray], *, positions: int = POSITIONS, seed: int = 0
    ) -> None:
        if not len(inputs[0]):
            raise DataError("Expected samples to re-fit layers on, got none. Try data with a train split.")
        self.samples = int(min(len(inputs[0]), max(2, _HELD_BYTES // (4 * _most_held(channels)))))
        self._inputs = [value[: self.samples] for value in inputs]
        self._seed = seed
        self.moments: dict[str, Moments] = {}
        self._places: dict[str, np.ndarray | None] = {}
        self._targets: dict[str, np.ndarray] = {}
        self._scratch: tuple[Channels, Channels, list[np.ndarray]] | None = None
        several = readers(channels)
        outputs = sum(reader.matrix().shape[1] for reader in several)
        self._positions = max(1, min(positions, _TARGET_BYTES // (4 * max(outputs, 1))))
        self.answers = self._watched(channels, several)

    def _watched(self, channels: Channels, several: Sequence[Reader]) -> tuple[np.ndarray, ...]:
        """Lets the samples pass the whole model, and notes what its readers read and compute."""
        limit = _block_limit([len(reader.units) for reader in several])
        of_call = {number: reader for reader in several for number in reader.calls} if limit else {}
        sums: dict[str, list[Any]] = {}

        def step(number: int, args: tuple[Any, ...], kwargs: dict[str, Any], _: Any) -> Any:
            call = channels.calls[number]
            if number in of_call:
                self._note(of_call[number], args[0], tuple(call.outputs[0].shape), limit or 0, sums)
            kwargs = {**kwargs, "training": False} if graph.takes_training(call.layer) else kwargs
            return call.layer(*args, **kwargs)

        answers = _passed(channels, self._inputs, step, "measuring what layers read")
        for reader in several if limit else ():
            blocks, grams, total, count = sums[reader.name]
            found = tuple((rows, gram / count) for rows, gram in zip(blocks, grams))
            self.moments[reader.name] = Moments(reader, found, total / count, count)
        return answers

    def _note(self, reader: Reader, value: Any, shape: tuple[int, ...], limit: int, sums: dict[str, list[Any]]) -> None:
        rows = len(reader.units)
        self._places[reader.name] = self._drawn(reader, places_of(reader.layer, tuple(value.shape[:1]) + shape[1:]))
        if reader.name not in sums:
            blocks = np.array_split(np.arange(rows), -(-rows // limit))
            sums[reader.name] = [blocks, [np.zeros((len(b), len(b))) for b in blocks], np.zeros(rows), 0]
        blocks, grams, _, _ = held = sums[reader.name]
        matrix = reader.matrix().astype(np.float32)
        # What a layer computes at one call depends on what the other calls make of it: those are fitted on moments.
        alone = len(reader.calls) == 1
        made = []
        for x in self._columns(reader.layer, reader.name, value):
            if alone:
                made.append(x.astype(np.float32) @ matrix)
            for rows_, gram in zip(blocks, grams):
                part = x if len(blocks) == 1 else x[:, rows_]
                gram += part.T @ part
            held[2] = held[2] + x.sum(0)
            held[3] += len(x)
        if alone:
            self._targets[reader.name] = np.concatenate(made)

    def _drawn(self, reader: Reader, there: int) -> np.ndarray | None:
        """Returns which places of each sample are taken, [samples, places]; None where all are."""
        wanted = -(-max(self._positions, _FOR_A_ROW * len(reader.units)) // self.samples)
        if wanted >= there:
            return None
        chance = generator(self._seed, f"places of {reader.name}")
        return chance.integers(0, there, (self.samples, wanted))

    def _columns(self, layer: Any, name: str, value: Any) -> Iterator[np.ndarray]:
        """Yields X in chunks, [positions, rows], float64."""
        places = self._places[name]
        taken = columns(layer, tuple(value.shape))
        start, size = 0, 1
        while start < self.samples:
            part = None if places is None else places[start : start + size]
            made = np.asarray(taken(value[start : start + size], part), np.float64)
            yield made
            start += size
            # Halves are taken in turns: two chunks at the least.
            size = int(np.clip(_CHUNK * size // max(made.size, 1), 1, -(-self.samples // 8)))

    def fit(self, channels: Channels, cut: Cut, *, refit: bool = True) -> Refitted:
        """Returns a model that makes up for a cut; what it returned before is changed.

        Args:
            channels: of the whole model, or of it without some blocks.
            cut: of these.
            refit: whether layers are solved anew; else only statistics of normalizations are estimated.
        """
        scratch = self._copied(channels)
        gates = frameworks.load("tensorflow").constant(scratch.kept(cut)[None], "float32")
        kept = scratch.kept(cut)
        own = {reader.name: reader for reader in readers(scratch) if reader.name in self.moments} if refit else {}
        of_call = {number: reader for reader in own.values() for number in reader.calls}
        known = {call.name for call in channels.calls}
        whole = all(name in known for name in self.moments)
        notes: list[str] = []
        solved: set[str] = set()

        def step(number: int, args: tuple[Any, ...], kwargs: dict[str, Any], changed: bool) -> Any:
            call = scratch.calls[number]
            affected = changed or not whole or _cuts(scratch, number, kept)
            if affected and number in of_call and call.name not in solved:
                notes.extend(self._solve(of_call[number], args[0], kept))
                solved.add(call.name)
            elif affected and kind_of(call.layer) in _NORMALIZATIONS and call.name not in solved:
                _normalize(call.layer, args[0])
                solved.add(call.name)
            return _Made(called(scratch, number, args, kwargs, gates), affected)

        answers = _passed(scratch, self._inputs, step, "")
        return Refitted(scratch, answers, tuple(notes))

    def _copied(self, channels: Channels) -> Channels:
        """Returns the channels of a copy of the model, with the model's weights."""
        if self._scratch is None or self._scratch[0] is not channels:
            copied = Channels(graph.flatten(channels.model))
            self._scratch = (channels, copied, copied.model.get_weights())
        _, copied, weights = self._scratch
        copied.model.set_weights(weights)
        return copied

    def _solve(self, reader: Reader, value: Any, kept: np.ndarray) -> Iterator[str]:
        """Sets a reader's weights to those that compute what it computed in the whole model; yields what to say."""
        layer, stays = reader.layer, kept[reader.units]
        rows = np.flatnonzero(stays)
        before = reader.matrix()
        target = self._targets.get(reader.name)
        if target is None or len(rows) > _BLOCKS[0] or not len(rows):
            made, shift = without(replace(self.moments[reader.name], reader=reader), kept)
        else:
            halves = (Pairs(len(rows), before.shape[1]), Pairs(len(rows), before.shape[1]))
            start = 0
            for number, x in enumerate(self._columns(layer, reader.name, value)):
                halves[number % 2].add(x[:, rows], target[start : start + len(x)].astype(np.float64))
                start += len(x)
            ridge = best_ridge(halves, before[rows], shifts=reader.shifts)
            both = halves[0] + halves[1]
            made = np.zeros_like(before)
            made[rows] = both.solved(before[rows], ridge, shifts=reader.shifts)
            x_mean, y_mean = both.means()
            shift = y_mean - x_mean @ made[rows]
            if both.count < len(rows):
                yield (
                    f"{reader.name}: {both.count} positions of samples for {len(rows)} weights of each output: held to "
                    f"what they were, with a ridge of {ridge:g}"
                )
        weights = layer.get_weights()
        weights[reader.index] = reader.kernel(made, weights[reader.index].shape)
        if reader.bias is not None:
            weights[reader.bias] = weights[reader.bias] + shift
        elif reader.normalized is not None:
            reader.normalized.moving_mean.assign_sub(shift)
        layer.set_weights(weights)


@dataclass(frozen=True)
class _Made:
    """What a call made, and whether it is another than in the whole model."""

    outputs: Any
    changed: bool = False


def _passed(
    channels: Channels,
    inputs: Sequence[np.ndarray],
    step: Callable[[int, tuple[Any, ...], dict[str, Any], bool], Any],
    task: str,
) -> tuple[np.ndarray, ...]:
    """Lets all samples pass the calls in turn, and returns the outputs; what nothing needs any more is let go.

    `step(number, args, kwargs, changed)` makes the call of that number, with whether an argument is changed.
    """
    tf = frameworks.load("tensorflow")
    left = _readings(channels)
    values = {id(tensor): tf.constant(x) for (_, tensor), x in zip(graph.input_names(channels.model), inputs)}
    changed: set[int] = set()
    numbers = range(len(channels.calls))
    for number in progress.track(numbers, task, len(numbers)) if task else numbers:
        call = channels.calls[number]
        given = [leaf for leaf in graph.leaves((call.args, dict(call.kwargs))) if id(leaf) in values]
        args, kwargs = graph.map_leaves(lambda leaf: values.get(id(leaf), leaf), (call.args, dict(call.kwargs)))
        made = step(number, args, kwargs, any(id(leaf) in changed for leaf in given))
        made = made if isinstance(made, _Made) else _Made(made)
        for tensor, value in zip(call.outputs, graph.leaves(made.outputs)):
            values[id(tensor)] = value
            changed |= {id(tensor)} if made.changed else set()
        for leaf in {id(leaf) for leaf in given}:
            left[leaf] -= 1
            if not left[leaf]:
                del values[leaf]
    return tuple(np.asarray(values[id(tensor)]) for _, tensor in graph.output_names(channels.model))


def _readings(channels: Channels) -> dict[int, int]:
    """Returns for each tensor by id how many calls read it, and one more where it is an output of the model."""
    found: dict[int, int] = {}
    for call in channels.calls:
        for tensor in {id(leaf) for leaf in graph.leaves((call.args, dict(call.kwargs)))}:
            found[tensor] = found.get(tensor, 0) + 1
    for _, tensor in graph.output_names(channels.model):
        found[id(tensor)] = found.get(id(tensor), 0) + 1
    return found


def _most_held(channels: Channels) -> int:
    """Returns how many numbers of a sample are held at a time, at most, as the calls are made in turn."""
    left, sizes = _readings(channels), {}
    for _, tensor in graph.input_names(channels.model):
        sizes[id(tensor)] = _numbers(tensor)
    most = sum(sizes.values())
    for call in channels.calls:
        sizes.update((id(tensor), _numbers(tensor)) for tensor in call.outputs)
        # A call may need room for a copy of what it reads.
        given = {id(leaf) for leaf in graph.leaves((call.args, dict(call.kwargs))) if id(leaf) in sizes}
        most = max(most, sum(sizes.values()) + sum(sizes[leaf] for leaf in given))
        for leaf in given:
            left[leaf] -= 1
            if not left[leaf]:
                del sizes[leaf]
    return most


def _numbers(tensor: Any) -> int:
    # Sizes that are free are those of the samples; this only bounds how many are taken.
    return int(np.prod([size or 64 for size in tuple(tensor.shape)[1:]]))


def _cuts(channels: Channels, number: int, kept: np.ndarray) -> bool:
    """Whether a call reads, or holds, channels that are gone."""
    several = [*channels.reads[number].values(), channels.inner[number]]
    return any(ids is not None and not kept[ids].all() for ids in several)


def _normalize(layer: Any, value: Any) -> None:
    """Sets the statistics of a batch normalization to those of what it gets, where there is enough of it."""
    tf = frameworks.load("tensorflow")
    axes = [axis for axis in range(len(value.shape)) if axis not in layer.axis]
    if int(np.prod([value.shape[axis] for axis in axes])) >= _FEWEST_VALUES:
        mean, variance = tf.nn.moments(value, axes)
        layer.moving_mean.assign(mean)
        layer.moving_variance.assign(variance)


def _block_limit(rows: Sequence[int]) -> int | None:
    fits = (limit for limit in _BLOCKS if sum(n * min(n, limit) for n in rows) * 8 <= _MOMENTS_BYTES)
    return next(fits, None)
