"""Buffers with sizes and lifetimes go in, their places in one arena come out, with a proof that they do not collide.

An operator that works row by row may write its output over rows of its input that it no longer needs (Blacker et al.,
"Reducing memory requirements of embedded neural networks", 2020): from the first row on where the output lies far
enough before the input, from the last one on where it lies far enough behind.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

ALIGNMENT = 4
_TRIALS = 300
# Above this many buffers, fewer orders are tried: each costs their number squared.
_MANY, _VERY_MANY = 150, 500


@dataclass(frozen=True)
class Buffer:
    """Memory that holds one tensor, or what a kernel needs for itself.

    Attributes:
        first, last: the steps that write it first and read it last; -1 is before the first step.
    """

    key: int
    size_bytes: int
    first: int
    last: int


@dataclass(frozen=True, eq=False)
class Trace:
    """Which rows of its input an operator reads for each row of its output.

    Attributes:
        output_row, input_row: bytes of a row.
        first, last: int [rows of the output]: the first and last row of the input that it reads.
    """

    output_row: int
    input_row: int
    first: np.ndarray
    last: np.ndarray

    def in_bands(self, rows: int) -> Trace:
        """Returns the trace where `rows` rows of the output are written before any of their input is done with."""
        starts = np.arange(0, len(self.first), rows)
        first, last = np.minimum.reduceat(self.first, starts), np.maximum.reduceat(self.last, starts)
        return Trace(self.output_row * rows, self.input_row, first, last)

    @property
    def ahead(self) -> int:
        """The least `input offset - output offset` at which writing from the first row on is safe."""
        written = np.arange(1, len(self.first) + 1) * self.output_row
        needed = np.minimum.accumulate(self.first[::-1])[::-1] * self.input_row
        return int(np.max(written - needed, initial=0))

    @property
    def behind(self) -> int | None:
        """The least `output offset - input offset` at which writing from the last row on is safe; None for nowhere."""
        start = np.arange(len(self.last)) * self.output_row
        return int(np.max((np.maximum.accumulate(self.last) + 1) * self.input_row - start))

    @property
    def extents(self) -> tuple[int, int]:
        """Bytes that are read, and bytes that are written."""
        return int(self.last.max() + 1) * self.input_row, len(self.first) * self.output_row

    def is_safe(self, source: int, target: int, *, backward: bool) -> bool:
        """Whether no row is written over one that it or a later row reads; replays them with these offsets."""
        rows = np.arange(len(self.first))
        if backward:
            rows = rows[::-1]
        lowest, highest = self.first[rows], self.last[rows]
        need_start = source + np.minimum.accumulate(lowest[::-1])[::-1] * self.input_row
        need_end = source + (np.maximum.accumulate(highest[::-1])[::-1] + 1) * self.input_row
        start, end = target + rows * self.output_row, target + (rows + 1) * self.output_row
        return bool(np.all((end <= need_start) | (start >= need_end)))


@dataclass(frozen=True)
class Elementwise:
    """A kernel that reads element i of its input before it writes element i of its output, from the first one on.

    Attributes:
        count: elements.
        output_width, input_width: bytes of one.
    """

    count: int
    output_width: int
    input_width: int

    @property
    def ahead(self) -> int:
        """See Trace: before the last element is read, all others are written."""
        return max(0, (self.count - 1) * (self.output_width - self.input_width))

    @property
    def behind(self) -> None:
        """See Trace."""
        return None

    @property
    def extents(self) -> tuple[int, int]:
        """See Trace."""
        return self.count * self.input_width, self.count * self.output_width

    def is_safe(self, source: int, target: int, *, backward: bool) -> bool:
        """See Trace. After each element, what is written ends before what is still to be read.

        Both ends move evenly, so that they need to be compared after the first and before the last element only.
        """
        return not backward and all(
            target + done * self.output_width <= source + done * self.input_width for done in {1, self.count - 1} - {0}
        )


@dataclass(frozen=True)
class Sharing:
    """The permission of step `step` to write `output` over `input`, the last reader of which it is."""

    step: int
    input: int
    output: int
    trace: Trace | Elementwise


@dataclass(frozen=True)
class Placement:
    """Where a tensor lies in the arena, and from which step to which.

    Attributes:
        tensor: its name, or "scratch of OPERATOR".
        offset: in bytes from the start of the arena.
        first, last: operators, counted from 0; -1 is before the first.
    """

    tensor: str
    offset: int
    size_bytes: int
    first: int
    last: int


class Overlap(AssertionError):
    """Two living buffers share memory that neither may share: a defect of the planner."""


def plan(buffers: Sequence[Buffer], sharings: Iterable[Sharing] = ()) -> dict[int, int]:
    """Returns the offset of each buffer, the best of several orders of placing them, first fit."""
    allowed = {(s.input, s.output): (s.trace.ahead, s.trace.behind) for s in sharings}
    rival = _rivals(buffers)
    best: dict[int, int] = {}
    least: int | None = None
    bound = lower_bound(buffers) if not allowed else 0
    for order in _orders(buffers):
        offsets = _place(order, rival, allowed, least)
        if offsets is None:
            continue
        peak = max((offsets[b.key] + b.size_bytes for b in buffers), default=0)
        if least is None or peak < least:
            best, least = offsets, peak
        if least == bound:
            break
    return best


def lower_bound(buffers: Sequence[Buffer]) -> int:
    """Returns the most bytes that live at once, which no plan without sharing can undercut."""
    return max((_living(buffers, step) for step in {b.first for b in buffers}), default=0)


def peak_step(buffers: Sequence[Buffer], offsets: Mapping[int, int]) -> int:
    """Returns the first step during which the arena reaches its greatest extent."""
    most = max(offsets[b.key] + b.size_bytes for b in buffers)
    return max(0, min(b.first for b in buffers if offsets[b.key] + b.size_bytes == most))


def backward(sharing: Sharing, offsets: Mapping[int, int]) -> bool:
    """Whether the step has to start with the last row, because its output lies behind the start of its input."""
    distance = offsets[sharing.output] - offsets[sharing.input]
    read, written = sharing.trace.extents
    apart = distance >= read or distance <= -written
    return not apart and -distance < sharing.trace.ahead


def prove(buffers: Sequence[Buffer], offsets: Mapping[int, int], sharings: Iterable[Sharing] = ()) -> int:
    """Returns the peak in bytes after replaying every shared step row by row.

    Raises:
        Overlap: two buffers collide.
    """
    shared = {(s.input, s.output): s for s in sharings}
    for i, a in enumerate(buffers):
        for b in buffers[i + 1 :]:
            together = a.first <= b.last and b.first <= a.last
            apart = offsets[a.key] + a.size_bytes <= offsets[b.key] or offsets[b.key] + b.size_bytes <= offsets[a.key]
            if not together or apart:
                continue
            sharing = shared.get((a.key, b.key)) or shared.get((b.key, a.key))
            if sharing is None or not _replay(sharing, offsets, max(a.first, b.first), min(a.last, b.last)):
                raise Overlap(f"{a} and {b} overlap at {offsets[a.key]} and {offsets[b.key]}")
    return max((offsets[b.key] + b.size_bytes for b in buffers), default=0)


def _replay(sharing: Sharing, offsets: Mapping[int, int], first: int, last: int) -> bool:
    if not first == last == sharing.step:
        return False
    is_backward = backward(sharing, offsets)
    return sharing.trace.is_safe(offsets[sharing.input], offsets[sharing.output], backward=is_backward)


def _living(buffers: Sequence[Buffer], step: int) -> int:
    return sum(b.size_bytes for b in buffers if b.first <= step <= b.last)


def _rivals(buffers: Sequence[Buffer]) -> dict[int, list[Buffer]]:
    return {a.key: [b for b in buffers if b.key != a.key and a.first <= b.last and b.first <= a.last] for a in buffers}


def _orders(buffers: Sequence[Buffer]) -> Iterable[list[Buffer]]:
    by_size = sorted(buffers, key=lambda b: (-b.size_bytes, b.first))
    yield by_size
    yield sorted(buffers, key=lambda b: (b.first, -b.size_bytes))
    yield sorted(buffers, key=lambda b: (-b.last, -b.size_bytes))
    yield sorted(buffers, key=lambda b: -b.size_bytes * (b.last - b.first + 1))
    yield sorted(buffers, key=lambda b: (_living(buffers, b.first), b.size_bytes), reverse=True)
    chance = random.Random(0)
    trials = _TRIALS if len(buffers) <= _MANY else _TRIALS // 10 if len(buffers) <= _VERY_MANY else 0
    for _ in range(trials):
        order = list(by_size)
        for _ in range(chance.randint(1, 4)):
            i, j = chance.randrange(len(order)), chance.randrange(len(order))
            order.insert(j, order.pop(i))
        yield order


def _place(
    order: Sequence[Buffer],
    rivals: Mapping[int, list[Buffer]],
    allowed: Mapping[tuple[int, int], tuple[int, int | None]],
    most: int | None,
) -> dict[int, int] | None:
    """Places the buffers in this order, each at the lowest offset that fits; None once `most` is reached."""
    offsets: dict[int, int] = {}
    for buffer in order:
        placed = [(rival, offsets[rival.key]) for rival in rivals[buffer.key] if rival.key in offsets]
        options = {0}
        for rival, at in placed:
            options.add(_aligned(at + rival.size_bytes))
            for ahead, behind, sign in _distances(buffer, rival, allowed):
                options.add(_aligned(at + ahead) if sign > 0 else (at - ahead) // ALIGNMENT * ALIGNMENT)
                if behind is not None:
                    options.add((at - behind) // ALIGNMENT * ALIGNMENT if sign > 0 else _aligned(at + behind))
        fitting = (o for o in sorted(options) if o >= 0 and all(_fits(buffer, o, r, at, allowed) for r, at in placed))
        offsets[buffer.key] = next(fitting)
        if most is not None and offsets[buffer.key] + buffer.size_bytes >= most:
            return None
    return offsets


def _distances(
    buffer: Buffer, rival: Buffer, allowed: Mapping[tuple[int, int], tuple[int, int | None]]
) -> Iterable[tuple[int, int | None, int]]:
    """Yields (ahead, behind, 1 if the buffer is the input of the two)."""
    if (buffer.key, rival.key) in allowed:
        yield (*allowed[buffer.key, rival.key], 1)
    if (rival.key, buffer.key) in allowed:
        yield (*allowed[rival.key, buffer.key], -1)


def _fits(
    buffer: Buffer, offset: int, rival: Buffer, at: int, allowed: Mapping[tuple[int, int], tuple[int, int | None]]
) -> bool:
    if offset + buffer.size_bytes <= at or at + rival.size_bytes <= offset:
        return True
    return any(
        sign * (offset - at) >= ahead or (behind is not None and sign * (at - offset) >= behind)
        for ahead, behind, sign in _distances(buffer, rival, allowed)
    )


def _aligned(offset: int) -> int:
    return -(-offset // ALIGNMENT) * ALIGNMENT
