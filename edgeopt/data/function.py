"""`package.module:function` goes in, called without arguments; the arrays, batches or tf.data it gives come out."""

from __future__ import annotations

import functools
import hashlib
import itertools
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edgeopt import user_code
from edgeopt.data.arrays import open_source as open_arrays
from edgeopt.data.table import Options, Splits, Table, combined, joined, table_of
from edgeopt.errors import DataError, setting, suggestion
from edgeopt.vocabulary import Batch, TensorSpec

_ENDLESS = 10_000_000


def open_source(spec: str, options: Options) -> Splits:
    """Calls the function once and takes what it returns.

    - arrays, a pair (x, y), Keras' pair of pairs, or a dict named as in an `.npz`: used as they are;
    - an iterator or generator, or a `tf.data.Dataset`: streamed, by calling the function anew for every pass. It
      gives x, (x, y), a dict of inputs, (dict, y), or a list of inputs (a converter's `representative_dataset`),
      in batches; y may be a dict by output. Single samples are recognized by their label, a single number.

    The function is the user's own code: naming it is consent to run it. It is looked for in the working directory
    too.

    Raises:
        DataError: it is not found, fails, gives something else, or never ends.
    """
    result = _call(spec)
    if isinstance(result, (np.ndarray, Mapping, tuple, list)):
        return open_arrays(result, options)
    if not isinstance(result, Iterable):
        raise DataError(
            f"Expected arrays, batches or a tf.data.Dataset from {spec}, got {type(result).__name__}. "
            "Try returning (x, y)."
        )
    count, first = 0, None
    labels: dict[str, list[np.ndarray]] = {}
    small: set[str] = set()
    content = hashlib.sha256()
    for batch in _batches(spec, result):
        first = first or batch
        content.update(table_of(batch).digest().encode())
        count += len(batch)
        for name, array in _labels(batch).items():
            labels.setdefault(name, []).append(array if array.ndim <= 2 else _marks(array))
            small |= {name} if array.ndim <= 2 else set()
        if count > _ENDLESS:
            raise DataError(
                f"Expected an end of what {spec} gives, got {count} samples and more. Try without repeat()."
            )
    if first is None:
        raise DataError(f"Expected samples from {spec}, got none. Try calling it yourself.")
    specs = tuple(TensorSpec(name, array.shape[1:], array.dtype.name) for name, array in first.inputs.items())
    marks = {name: np.concatenate(each) for name, each in labels.items()}
    known = {name: each for name, each in marks.items() if name in small}
    return Splits({"all": FunctionTable(spec, count, specs, known, marks, content.hexdigest())})


@dataclass(frozen=True, eq=False)
class FunctionTable(Table):
    """Batches that a function gives anew at every pass.

    Attributes:
        function: "package.module:function".
        count: samples of a pass.
        specs: the inputs.
        labels: raw labels of all samples by output, "" the only one, where they are small.
        marks: what tells whether a pass has labels of the first one, in its order: themselves, or a checksum of each.
        first: hash of all that the first pass gave.
    """

    function: str
    count: int
    specs: tuple[TensorSpec, ...]
    labels: Mapping[str, np.ndarray]
    marks: Mapping[str, np.ndarray]
    first: str
    random_access = False

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:  # type: ignore[override]
        """What the function gives."""
        return self.specs

    def __len__(self) -> int:
        return self.count

    def stream(self) -> Iterator[Batch]:
        count = 0
        for batch in _batches(self.function, _call(self.function)):
            for name, array in _labels(batch).items():
                self._require_as_at_first(name, array, count)
            count += len(batch)
            yield batch
        if count != self.count:
            raise DataError(
                f"Expected {self.count} samples from {self.function} as at first, got {count}. "
                "Try a function that gives the same at every call."
            )

    def _require_as_at_first(self, name: str, array: np.ndarray, start: int) -> None:
        """Raises a DataError where labels of a pass are not those of the first one: samples have no other name."""
        first = self.marks.get(name, array[:0])[start : start + len(array)]
        now = array if array.ndim <= 2 else _marks(array)
        if first.shape == now.shape:
            other = (first != now) & ((first == first) | (now == now))  # a NaN is as it was
            if not other.any():
                return
            start += int(np.argmax(other.reshape(len(other), -1).any(1)))
        raise DataError(
            f"Expected the samples of {self.function} in one order at every call, got another label for sample "
            f"{start} than at first. Try a dataset without shuffle() (training shuffles), or with a seed in it, and "
            f"{setting('augment', 'module:function')} for what changes labels."
        )

    def targets(self, output: str = "") -> np.ndarray | None:
        return self.labels.get(output)

    @property
    def outputs(self) -> tuple[str, ...]:
        return tuple(name for name in self.marks if name)

    @property
    def has_targets(self) -> bool:
        return bool(self.marks)

    @functools.cached_property
    def varies(self) -> bool:  # type: ignore[override]
        """Whether a second pass gives other samples than the first, as an augmentation of the function's own does."""
        content = hashlib.sha256()
        for batch in self.stream():
            content.update(table_of(batch).digest().encode())
        return content.hexdigest() != self.first

    def digest(self) -> str:
        """Returns a hash of the content; of samples that vary one of the function's file, and of their labels."""
        if not self.varies:
            return self.first
        marks = (f"{name}:{hashlib.sha256(each.tobytes()).hexdigest()}" for name, each in self.marks.items())
        return combined(self.function, user_code.digest(self.function), str(self.count), str(self.specs), *marks)


def _labels(batch: Batch) -> Mapping[str, np.ndarray]:
    return batch.several if batch.labels is None else {"": batch.labels}


def _marks(labels: np.ndarray) -> np.ndarray:
    """Returns a checksum of each sample's labels, uint32 [N]."""
    return np.asarray([zlib.crc32(np.ascontiguousarray(one).tobytes()) for one in labels], np.uint32)


def _call(spec: str) -> Any:
    module_name, _, name = spec.partition(":")
    try:
        module = user_code.import_module(module_name)
    except ImportError as error:
        raise DataError(
            f"Expected a Python module {module_name} for the data {spec}, got {type(error).__name__}: {error}. "
            "Try running in its folder, or set PYTHONPATH."
        ) from error
    if not callable(getattr(module, name, None)):
        names = [n for n, value in vars(module).items() if callable(value) and not n.startswith("_")]
        raise DataError(f"Expected a function {name} in {module_name}, got none.{suggestion(name, names)}")
    try:
        return getattr(module, name)()
    except Exception as error:  # whatever the user's code raises is told in one line
        raise DataError(
            f"Expected data from {spec}, got {type(error).__name__}: {error}. "
            "Try calling it yourself, without arguments."
        ) from error


def _batches(spec: str, result: Any) -> Iterator[Batch]:
    items = iter(result.as_numpy_iterator() if hasattr(result, "as_numpy_iterator") else result)
    singles: list[Batch] = []
    for number in itertools.count():
        try:
            item = next(items)
        except StopIteration:
            break
        except Exception as error:  # as above
            raise DataError(
                f"Expected data from {spec}, got {type(error).__name__} at item {number}: {error}. "
                "Try calling it yourself."
            ) from error
        batch, single = _batch(spec, item)
        if not single:
            yield batch
            continue
        singles.append(batch)
        if len(singles) == 256:
            yield joined(singles)
            singles = []
    if singles:
        yield joined(singles)


def _batch(spec: str, item: Any) -> tuple[Batch, bool]:
    """Returns an item as a batch, and whether it was a single sample."""
    x, y, weights = (*item, None, None)[:3] if isinstance(item, tuple) else (item, None, None)
    if isinstance(x, Mapping):
        inputs = {str(name): np.asarray(value) for name, value in x.items()}
    elif isinstance(x, list) and len(x) > 1:
        inputs = {f"x{number}": np.asarray(value) for number, value in enumerate(x)}
    else:
        inputs = {"x": np.asarray(x[0] if isinstance(x, list) and x else x)}
    if weights is not None:
        batch, single = _batch(spec, (x, y))
        weights = np.atleast_1d(np.asarray(weights))
        if weights.shape != (len(batch),):
            raise DataError(
                f"Expected a weight for each of {len(batch)} samples from {spec}, got shape {weights.shape}. "
                "Try (x, y, weights) with weights [samples]."
            )
        return replace(batch, weights=weights), single
    if isinstance(y, Mapping):
        return _of_outputs(spec, inputs, {str(name): np.asarray(value) for name, value in y.items()})
    labels = None if y is None else np.asarray(y)
    single = labels is not None and labels.ndim == 0
    if single:
        return Batch({name: array[np.newaxis] for name, array in inputs.items()}, np.asarray(labels)[np.newaxis]), True
    lengths = {name: array.shape[:1] for name, array in inputs.items()}
    if labels is not None:
        lengths["labels"] = labels.shape[:1]
    if len(set(lengths.values())) != 1 or () in lengths.values() or any(a.dtype == object for a in inputs.values()):
        got = {name: array.shape for name, array in inputs.items()}
        raise DataError(
            f"Expected batches (x, y) of equal length from {spec}, got shapes {got}"
            f"{'' if labels is None else f' and labels {labels.shape}'}. Try yielding x[None], y[None]."
        )
    return Batch(inputs, labels), False


def _of_outputs(spec: str, inputs: Mapping[str, np.ndarray], labels: Mapping[str, np.ndarray]) -> tuple[Batch, bool]:
    """Returns an item with labels for each output as a batch, and whether it was a single sample."""
    single = all(array.ndim == 0 for array in labels.values())
    if single:
        inputs, labels = ({name: array[np.newaxis] for name, array in each.items()} for each in (inputs, labels))
    lengths = {array.shape[:1] for array in (*inputs.values(), *labels.values())}
    if len(lengths) != 1 or () in lengths or any(array.dtype == object for array in inputs.values()):
        got = {name: array.shape for name, array in (*inputs.items(), *labels.items())}
        raise DataError(
            f"Expected batches (x, y) of equal length from {spec}, got shapes {got}. Try yielding x[None], y[None]."
        )
    return Batch(inputs, None, labels), single
