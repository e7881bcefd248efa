"""Tables and how to read them go in; Parts that stream preprocessed batches, and the Dataset of four, come out."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from edgeopt.data.labels import Labels
from edgeopt.data.preprocessing import describe_preprocessing, preprocess, resize_nearest
from edgeopt.data.table import Described, Table, combined, content_hash, joined, pick, table_of
from edgeopt.errors import ConfigError, DataError
from edgeopt.vocabulary import Batch, Preprocessing, TensorSpec

# A part of a costly source (compressed, or to be decoded) is held in memory once it was read, if it is this small.
HOLD_BYTES = 64 << 20
# A larger one that can only be streamed is shuffled through a buffer of this size.
SHUFFLE_BYTES = 16 << 20


@dataclass(frozen=True)
class Bound:
    """An input of a model and the input of the data that feeds it, in the model's shape and dtype."""

    name: str
    source: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True, eq=False, repr=False)
class Part(Described):
    """Some samples of a table, preprocessed as they are read. It holds a description and pickles as one.

    Attributes:
        table: where the raw samples are.
        rows: row numbers in the part's order, int64 [N]; None for the whole table.
        preprocessing: applied to every input, except to whole numbers of 32 or 64 bits (indices, tokens) where
            there are several inputs.
        labels: what the labels are.
        bound: the model inputs that the batches are for; empty for the data's own names and shapes.
        output: the output whose labels the batches bring, where each has its own; "" for all of them.
    """

    table: Table
    rows: np.ndarray | None = None
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    labels: Labels = field(default_factory=Labels)
    bound: tuple[Bound, ...] = ()
    output: str = ""

    def __len__(self) -> int:
        return len(self.table) if self.rows is None else len(self.rows)

    def __repr__(self) -> str:
        """Returns what it is in one line."""
        inputs = ", ".join(f"{spec.name} {spec.dtype}{list(spec.shape)}" for spec in self.specs)
        return f"Part({len(self)} samples of {inputs})"

    @property
    def has_labels(self) -> bool:
        """Whether batches carry labels."""
        return self.labels.kind != "none"

    @property
    def has_weights(self) -> bool:
        """Whether batches say how much each sample counts."""
        return self.table.weighted

    @property
    def classes(self) -> int | None:
        """How many classes the labels tell apart; None where they are not class numbers."""
        return self.labels.classes

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, where known."""
        return self.labels.class_names

    @property
    def specs(self) -> tuple[TensorSpec, ...]:
        """Inputs of the batches: names, shapes of one sample (no batch dimension), dtypes after preprocessing."""
        if self.bound:
            return tuple(TensorSpec(b.name, b.shape, b.dtype) for b in self.bound)
        return self.own_specs

    @property
    def own_specs(self) -> tuple[TensorSpec, ...]:
        """The same under the data's own names and shapes, whatever the part is bound to."""
        specs = []
        for spec in self.table.inputs:
            shape, steps = spec.shape, self._steps(spec)
            if steps.resize and len(shape) in (2, 3):
                shape = (*steps.resize, *shape[2:])
            specs.append(TensorSpec(spec.name, shape, steps.dtype))
        return tuple(specs)

    def of_output(self, name: str) -> Part:
        """Returns the part with the labels of one output alone; labels without a name are every output's."""
        if not self.labels.outputs:
            return self
        return replace(self, labels=self.labels.outputs.get(name, Labels()), output=name)

    def ids(self) -> np.ndarray | None:
        """Returns the class numbers of all samples, int64 [N] in the part's order, without reading an input.

        Where several outputs have labels they are those of the first that has classes.
        """
        each = (self.labels, *self.labels.outputs.values())
        ids = next((one.ids for one in each if one.ids is not None), None)
        return ids if ids is None or self.rows is None else ids[self.rows]

    def batches(
        self,
        batch_size: int,
        *,
        shuffle: bool = False,
        seed: int = 0,
        repeat: bool = False,
        drop_remainder: bool = False,
    ) -> Iterator[Batch]:
        """Yields the samples, preprocessed, each exactly once per epoch.

        The order is the part's; that of a large part of a source that can only be streamed is the source's.

        Args:
            batch_size: samples per batch; the last one of an epoch may hold fewer.
            shuffle: in another order each epoch: of all samples, or, where a large source can only be streamed, of
                a buffer of SHUFFLE_BYTES.
            seed: of the order; the same seed gives the same batches.
            repeat: start anew after each epoch, without end.
            drop_remainder: leave an incomplete last batch out.

        Raises:
            ConfigError: `batch_size` is no positive number.
            DataError: a sample cannot be read.
        """
        if batch_size < 1:
            raise ConfigError(f"Expected a batch size of at least 1, got {batch_size}. Try 32.")
        epochs = itertools.count() if repeat else range(1)
        for epoch in epochs if len(self) >= (batch_size if drop_remainder else 1) else ():
            chaos = np.random.default_rng((seed, epoch)) if shuffle else None
            for raw in self._raw_batches(batch_size, chaos):
                if len(raw) == batch_size or not drop_remainder:
                    yield self._finished(raw)

    def take(self, count: int, *, seed: int = 0) -> Part:
        """Returns `count` of the samples (or all, if there are fewer) in a seeded order.

        Where labels are class numbers the classes alternate, so that each is there as often as its samples allow.
        """
        chosen = balanced_order(len(self), self.ids(), seed=seed)[:count]
        return self.subset(chosen)

    def head(self, count: int) -> Part:
        """Returns the first `count` samples: the cheap choice where the source can only be streamed."""
        return self.subset(np.arange(min(count, len(self))))

    def subset(self, numbers: np.ndarray) -> Part:
        """Returns the samples with these numbers, counted within this part, in this order."""
        return replace(self, rows=numbers.astype(np.int64) if self.rows is None else self.rows[numbers])

    def arrays(self) -> Batch:
        """Returns all samples as one batch: for small parts."""
        if found := list(self.batches(4096)):
            return joined(found)
        empty = {s.name: np.empty((0, *(n or 0 for n in s.shape)), s.dtype) for s in self.specs}
        several = {name: np.empty(0, np.int64) for name in self.labels.outputs}
        return Batch(empty, np.empty(0, np.int64) if self.has_labels and not several else None, several)

    def raw_arrays(self) -> Batch:
        """Returns all samples as one batch, as they are in the source: for small parts that hold any."""
        return joined(list(self._raw_batches(4096, None)))

    def digest(self) -> str:
        """Returns a hash of the content of these samples and of all that is done to them."""
        rows = "" if self.rows is None else np.ascontiguousarray(self.rows).tobytes().hex()
        kinds = repr((self.labels.kind, {name: one.kind for name, one in self.labels.outputs.items()}, self.output))
        return combined(self.table.digest(), rows, repr(self.preprocessing), kinds, repr(self.bound))

    @property
    def reads_any_row(self) -> bool:
        """Whether any sample can be read without reading those before it."""
        return self.table.random_access or self._fits

    @property
    def shuffled_rows(self) -> int:
        """How many samples are mixed at a time when the part is shuffled."""
        return len(self) if self.reads_any_row else max(2, SHUFFLE_BYTES // self.table.sample_bytes)

    @property
    def _fits(self) -> bool:
        return len(self) * self.table.sample_bytes <= HOLD_BYTES

    @functools.cached_property
    def _held(self) -> Table:
        if self.table.random_access:
            return table_of(
                joined([self._raw(numbers) for numbers in np.array_split(self.source_rows, -(-len(self) // 256))])
            )
        found = joined(list(self._scan()))
        places = np.argsort(np.argsort(self.source_rows, kind="stable"), kind="stable")
        return table_of(pick(found, places))

    @property
    def source_rows(self) -> np.ndarray:
        """Row numbers in the source, int64 [N] in the part's order."""
        return np.arange(len(self.table)) if self.rows is None else self.rows

    def _raw(self, rows: np.ndarray) -> Batch:
        return self._labelled(self.table.rows(rows), rows)

    def _labelled(self, raw: Batch, rows: np.ndarray) -> Batch:
        if self.labels.outputs:
            each = {
                name: one.ids[rows] if one.ids is not None else raw.several[name]
                for name, one in self.labels.outputs.items()
                if one.kind != "none"
            }
            return replace(raw, labels=None, several=each)
        if self.labels.ids is not None:
            return replace(raw, labels=self.labels.ids[rows], several={})
        return raw.of_output(self.output) if self.labels.kind == "values" else replace(raw, labels=None, several={})

    def _scan(self) -> Iterator[Batch]:
        """Yields the wanted rows in one pass over the source, in its order."""
        wanted = np.sort(self.source_rows)
        first = 0
        for chunk in self.table.stream():
            low, high = np.searchsorted(wanted, (first, first + len(chunk)))
            if high > low:
                rows = wanted[low:high]
                yield self._labelled(pick(chunk, rows - first), rows)
            first += len(chunk)
            if high == len(wanted):
                return

    def _raw_batches(self, batch_size: int, chaos: np.random.Generator | None) -> Iterator[Batch]:
        source = self._held if self.table.costly and self._fits else None
        if source is None and not self.table.random_access:
            yield from _rebatched(self._streamed(chaos), batch_size)
            return
        order = np.arange(len(self)) if chaos is None else chaos.permutation(len(self))
        for start in range(0, len(order), batch_size):
            numbers = order[start : start + batch_size]
            yield source.rows(numbers) if source is not None else self._raw(self.source_rows[numbers])

    def _streamed(self, chaos: np.random.Generator | None) -> Iterator[Batch]:
        if chaos is None:
            yield from self._scan()
            return
        capacity = self.shuffled_rows
        pool: list[Batch] = []
        for chunk in self._scan():
            pool.append(chunk)
            if sum(map(len, pool)) >= capacity:
                mixed = joined(pool)
                order = chaos.permutation(len(mixed))
                yield pick(mixed, order[: len(order) // 2])
                pool = [pick(mixed, order[len(order) // 2 :])]
        if pool:
            mixed = joined(pool)
            yield pick(mixed, chaos.permutation(len(mixed)))

    def _steps(self, spec: TensorSpec) -> Preprocessing:
        kind = np.dtype(spec.dtype)
        if len(self.table.inputs) > 1 and kind.kind in "iu" and kind.itemsize >= 4:
            return Preprocessing(dtype=spec.dtype)
        return self.preprocessing

    def _finished(self, raw: Batch) -> Batch:
        done = {spec.name: preprocess(raw.inputs[spec.name], self._steps(spec)) for spec in self.table.inputs}
        if self.bound:
            done = {b.name: _cast(done[b.source], b) for b in self.bound}
        labels = next(iter(done.values())) if self.labels.kind == "inputs" else self._label(raw, raw.labels)
        several = {name: array for name, found in raw.several.items() if (array := self._label(raw, found)) is not None}
        return Batch(done, labels, several, None if raw.weights is None else _checked_weights(raw.weights))

    def _label(self, raw: Batch, labels: np.ndarray | None) -> np.ndarray | None:
        """Returns labels as a model takes them, masks resized as the pictures that they belong to."""
        size = self.preprocessing.resize
        if labels is None or labels.dtype.kind == "f":
            return labels if labels is None else labels.astype(np.float32, copy=False)
        if size is None or labels.ndim < 3 or labels.shape[1:3] == size:
            return labels
        if all(array.ndim != 4 or array.shape[1:3] != labels.shape[1:3] for array in raw.inputs.values()):
            return labels
        return np.moveaxis(resize_nearest(np.moveaxis(labels, (1, 2), (-2, -1)), size), (-2, -1), (1, 2))


@dataclass(frozen=True)
class Origin:
    """Where samples came from: the role ("data", "train", "calibration"), the kind of source, how it was named."""

    role: str
    kind: str
    name: str
    path: str | None = None

    def sha256(self, dataset: Dataset) -> str:
        """Returns the hash of the file or folder, or where there is none of the samples that came of it."""
        if self.path:
            return content_hash(self.path)
        parts = [dataset.calibration] if self.role == "calibration" else [dataset.training, dataset.validation]
        return combined(*(part.table.digest() for part in parts))


@dataclass(frozen=True, eq=False, repr=False)
class Dataset(Described):
    """The four parts that a run needs, no two of which share a sample, and what is to be said about them.

    (But that calibration is a choice of training samples, where no others are named.)

    Attributes:
        calibration: sets the ranges of quantized activations.
        training: trains and fine-tunes.
        validation: what every printed accuracy was measured on.
        tuning: what choices are made on; may be empty, see `tuning.divided`.
        origins: where they came from.
        notes: how the parts were made, for people.
        seed: of the splits.
    """

    calibration: Part
    training: Part
    validation: Part
    tuning: Part
    origins: tuple[Origin, ...] = ()
    notes: tuple[str, ...] = ()
    seed: int = 0

    def __repr__(self) -> str:
        """Returns what it is in one line; the arrays it may hold would fill a notebook."""
        counts = ", ".join(f"{len(part)} {name}" for name, part in self.parts.items())
        return f"Dataset({', '.join(origin.name for origin in self.origins)}: {counts})"

    @property
    def parts(self) -> Mapping[str, Part]:
        """The parts by name."""
        return {
            "calibration": self.calibration,
            "training": self.training,
            "tuning": self.tuning,
            "validation": self.validation,
        }

    @property
    def deciding(self) -> Part:
        """What is chosen among files is chosen on: the tuning part, or where there is none the validation part."""
        return self.tuning if len(self.tuning) else self.validation

    def without_validation(self) -> Dataset:
        """Returns what a step may see: all but the samples that its outcome is scored on."""
        return replace(self, validation=self.validation.head(0))

    def fingerprint(self) -> str:
        """Returns a hash of the content of all parts, never of names' or files' times: a cache key."""
        return combined(*(f"{name}:{part.digest()}" for name, part in self.parts.items()))

    def describe(self) -> dict[str, Any]:
        """Returns what a report says about the data, in plain values."""
        origins = [
            {"role": origin.role, "kind": origin.kind, "path": origin.name, "sha256": origin.sha256(self)}
            for origin in self.origins
        ]
        some = next((p for p in (self.validation, self.training, self.calibration) if len(p)), self.calibration)
        return {
            "path": origins[0]["path"] if origins else None,
            "sha256": origins[0]["sha256"] if origins else self.fingerprint(),
            "sources": origins,
            "inputs": [{"name": s.name, "shape": list(s.shape), "dtype": s.dtype} for s in some.specs],
            "samples": {name: len(part) for name, part in self.parts.items()},
            "labels": some.labels.kind,
            "classes": some.classes,
            "class_names": list(some.class_names),
            "preprocessing": describe_preprocessing(some.preprocessing),
            "seed": self.seed,
            "notes": list(self.notes),
        }


def fingerprint(dataset: Dataset) -> str:
    """Returns `dataset.fingerprint()`."""
    return dataset.fingerprint()


def share_of_each_class(part: Part, share: float, *, seed: int) -> np.ndarray:
    """Returns a mask [N] of that share of a part's samples, drawn: the same of each class, to within a sample."""
    count = len(part)
    found = part.ids()
    ids = np.zeros(count, np.int64) if found is None else found
    order = balanced_order(count, None, seed=seed)
    sizes = np.unique(ids, return_counts=True, return_inverse=True)
    chosen = (ranks_in_class(ids[order]) + 0.5) / sizes[2][sizes[1].ravel()][order] < share
    if 0 < share < 1 and count > 1 and not chosen.any():
        chosen[0] = True  # classes too small to be divided
    mask = np.zeros(count, bool)
    mask[order[chosen]] = True
    return mask


def balanced_order(count: int, ids: np.ndarray | None, *, seed: int) -> np.ndarray:
    """Returns all numbers below `count` in a seeded order in which the classes of `ids` alternate."""
    order = np.random.default_rng(seed).permutation(count)
    if ids is None or not count:
        return order
    return order[np.argsort(ranks_in_class(ids[order]), kind="stable")]


def ranks_in_class(ids: np.ndarray) -> np.ndarray:
    """Returns for each element how many of the same class come before it."""
    order = np.argsort(ids, kind="stable")
    grouped = ids[order]
    ranks = np.empty(len(ids), np.int64)
    ranks[order] = np.arange(len(ids)) - np.searchsorted(grouped, grouped)
    return ranks


def _rebatched(chunks: Iterator[Batch], batch_size: int) -> Iterator[Batch]:
    waiting: list[Batch] = []
    for chunk in chunks:
        waiting.append(chunk)
        if sum(map(len, waiting)) < batch_size:
            continue
        whole = joined(waiting)
        full = len(whole) - len(whole) % batch_size
        for start in range(0, full, batch_size):
            yield pick(whole, slice(start, start + batch_size))
        waiting = [pick(whole, slice(full, None))] if full < len(whole) else []
    if waiting:
        yield joined(waiting)


def _checked_weights(weights: np.ndarray) -> np.ndarray:
    found = weights.astype(np.float32)
    if not np.isfinite(found).all() or found.min(initial=0) < 0:
        odd = found[~np.isfinite(found) | (found < 0)][0]
        raise DataError(
            f"Expected weights of samples from 0, got {odd:g}. Try 0 for samples that are not to count, 1 for others."
        )
    return found


def _cast(array: np.ndarray, bound: Bound) -> np.ndarray:
    array = array.reshape(len(array), *bound.shape)
    wanted = np.dtype(bound.dtype)
    if array.dtype == wanted:
        return array
    cast = array.astype(wanted)
    if wanted.kind in "iu" and not np.array_equal(cast, array):
        raise DataError(
            f"Expected whole numbers that fit {wanted} as input {bound.name!r}, got values from {array.min():g} to "
            f"{array.max():g}. Try the data without --scale, --mean and --std."
        )
    return cast
