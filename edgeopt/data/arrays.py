"""Arrays at hand: x, (x, y), ((x_train, y_train), (x_test, y_test)) or a dict go in, tables come out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from edgeopt.data.naming import CLASS_NAMES, sort_names
from edgeopt.data.table import (
    LARGEST_LABELS_BYTES,
    LARGEST_SAMPLE_BYTES,
    Column,
    ColumnTable,
    InMemory,
    Options,
    Splits,
)
from edgeopt.errors import DataError

_EXPECTED = "x, (x, y), (x, y, weights), ((x_train, y_train), (x_test, y_test)), or a dict named as in an .npz"


def open_source(spec: Any, options: Options) -> Splits:
    """Takes arrays as they are.

    Args:
        spec: an array [N, ...], a pair (x, y) where x may be a dict of inputs and y one of outputs, Keras' pair of
            pairs, or a dict with the names of `naming.sort_names`.

    Raises:
        DataError: it is none of these, or the arrays do not go together.
    """
    named = _named(spec)
    arrays = {name: _array(name, value) for name, value in named.items()}
    names = arrays.pop(CLASS_NAMES, None)
    class_names = () if names is None else tuple(str(name) for name in names)
    return assemble(arrays, lambda name: InMemory(arrays[name]), where="the given arrays", class_names=class_names)


def assemble(
    names: Iterable[str], column: Callable[[str], Column], *, where: str, class_names: tuple[str, ...] = ()
) -> Splits:
    """Builds the tables of the splits that arrays of these names make.

    Args:
        column: opens the array of a name.
        where: what holds the arrays, for messages.

    Raises:
        DataError: names, lengths or dtypes do not fit together.
    """
    members, unused = sort_names(names, where)
    tables = {}
    for split, found in members.items():
        inputs = tuple((name, _input(member, column(member), where)) for name, member in sorted(found.inputs.items()))
        labels = tuple((name, _labels(member, column(member), where)) for name, member in found.labels.items())
        member_names = [*dict(sorted(found.inputs.items())).values(), *found.labels.values()]
        weights = None if found.weights is None else _weights(found.weights, column(found.weights), where)
        columns = dict(zip(member_names, (c for _, c in (*inputs, *labels))))
        _require_equal_lengths(columns if weights is None else {**columns, str(found.weights): weights}, where)
        tables[split] = ColumnTable(inputs, labels, weights)
    notes = (f"not used in {where}: {', '.join(unused)}",) if unused else ()
    return Splits(tables, class_names, notes)


def _named(spec: Any) -> dict[str, Any]:
    if isinstance(spec, Mapping):
        return dict(spec)
    if isinstance(spec, (tuple, list)):
        if len(spec) == 2 and all(isinstance(pair, (tuple, list)) and len(pair) == 2 for pair in spec):
            (x_train, y_train), (x_test, y_test) = spec
            return {**_pair(x_train, y_train, suffix="_train"), **_pair(x_test, y_test, suffix="_test")}
        if len(spec) == 2:
            x, y = spec
            return _pair(x, y)
        if len(spec) == 3:
            return {**_pair(spec[0], spec[1]), "w": spec[2]}
        if len(spec) == 1:
            return _pair(spec[0], None)
        raise DataError(f"Expected {_EXPECTED}, got a {type(spec).__name__} of {len(spec)}. Try (x, y).")
    return {"x": spec}


def _pair(x: Any, y: Any, suffix: str = "") -> dict[str, Any]:
    inputs = {f"x{suffix}_{name}": array for name, array in x.items()} if isinstance(x, Mapping) else {f"x{suffix}": x}
    if isinstance(y, Mapping):
        return {**inputs, **{f"y{suffix}_{name}": array for name, array in y.items()}}
    return inputs if y is None else {**inputs, f"y{suffix}": y}


def _array(name: str, value: Any) -> np.ndarray:
    try:
        array = np.asarray(value)
    except (TypeError, ValueError) as error:  # a ragged list
        raise DataError(
            f"Expected an array as {name}, got {type(value).__name__} ({error}). Try {_EXPECTED}."
        ) from error
    if array.dtype == object:
        raise DataError(f"Expected an array of numbers as {name}, got {type(value).__name__} objects. Try {_EXPECTED}.")
    return array


def _input(member: str, column: Column, where: str) -> Column:
    if not column.shape:
        raise DataError(f"Expected samples [N, ...] as {member} in {where}, got a single number. Try a longer array.")
    if column.dtype.kind not in "fiub":
        raise DataError(
            f"Expected numbers as {member} in {where}, got {column.dtype}. Try saving them as numbers, and of a model "
            "that reads texts give the layers behind its tables: a .tflite holds no texts."
        )
    if column.shape[0] == 0 or column.row_bytes == 0:
        raise DataError(
            f"Expected samples as {member} in {where}, got none: its shape is {column.shape}. Try other data."
        )
    _require_size(f"one sample of {member}", column.row_bytes, LARGEST_SAMPLE_BYTES, where)
    return column


def _labels(member: str, column: Column, where: str) -> Column:
    if len(column.shape) > 2:  # each as big as an image: read beside its sample
        _require_size(f"one sample of {member}", column.row_bytes, LARGEST_SAMPLE_BYTES, where)
    else:
        _require_size(member, column.row_bytes * math.prod(column.shape[:1]), LARGEST_LABELS_BYTES, where)
    return column


def _weights(member: str, column: Column, where: str) -> Column:
    if len(column.shape) != 1 or column.dtype.kind not in "fiub":
        raise DataError(
            f"Expected a number for each sample as {member} in {where}, got {column.dtype} of shape {column.shape}. "
            "Try weights [samples], or another name for what they are."
        )
    _require_size(member, column.row_bytes * math.prod(column.shape), LARGEST_LABELS_BYTES, where)
    return column


def _require_size(what: str, got: int, limit: int, where: str) -> None:
    if got > limit:
        raise DataError(
            f"Expected at most {limit:,} bytes as {what} in {where}, got {got:,}. Try smaller samples, or labels of "
            "a smaller dtype."
        )


def _require_equal_lengths(columns: dict[str, Column], where: str) -> None:
    lengths = {name: column.shape[0] if column.shape else 0 for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{name} has {length}" for name, length in lengths.items())
        raise DataError(
            f"Expected as many labels as samples in {where}, got different lengths: {listed}. Try saving again."
        )
