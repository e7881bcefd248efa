"""Schedules for TVM: its kernels go in, the same kernels in an order that a processor is fast in come out.

TVM's own order sums up one output at a time, in memory. Here a tile of outputs, some channels by some positions, is
kept in registers while its sums run (register blocking: Goto and van de Geijn, "Anatomy of High-Performance Matrix
Multiplication", 2008), and all that is computed number by number goes through vector instructions.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeopt import frameworks, progress
from edgeopt.formats.sealed import Tuning


@dataclass(frozen=True)
class Tile:
    """How many outputs are computed at once.

    Attributes:
        lanes: along the last axis, in vector registers; a divisor of it that is no larger is taken.
        rows: along the axis before it, in the same way.
    """

    lanes: int
    rows: int


# Fourteen vector registers of 256 bits, or seven of 512: few processors have less.
BY_RULE = Tile(16, 7)
_CANDIDATES = tuple(Tile(lanes, rows) for lanes in (16, 32, 8, 64) for rows in (7, 4, 8, 2, 1, 16))
# TVM's numbers for an axis that is summed over, and for a loop that runs one by one.
_REDUCED, _SERIAL = 2, 0
# What one measurement repeats a kernel for at least, and how often.
_MEASURE_MS, _REPEATS = 5, 3


def scheduled(module: Any) -> Any:
    """Returns a module of kernels, each in tiles by rule; what the rule does not fit stays as it was."""
    found = module.clone()
    for name, kernel in _kernels(module):
        found.update_func(name, _in_tiles(kernel, BY_RULE)[0])
    return found


def tuned(module: Any, target: Any, seconds: float) -> tuple[Any, Tuning]:
    """Returns a module of kernels with the tiles that were fastest on this machine, the slowest kernel first.

    Args:
        module: of kernels as TVM makes them.
        target: of this machine.
        seconds: the search ends after them, with what it has.
    """
    end = time.monotonic() + seconds
    found, kernels = module.clone(), _kernels(module)
    first = [_in_tiles(kernel, BY_RULE) for _, kernel in kernels]
    before = [_milliseconds(kernel, target) for kernel, _ in first]
    after, done, tried = list(before), 0, len(before)
    for i in sorted(range(len(kernels)), key=lambda i: -before[i]):
        name, kernel = kernels[i]
        best, known = first[i][0], {first[i][1]}
        for candidate, tiles in _others(kernel, known):
            if time.monotonic() > end:
                break
            progress.tell("trying tiles", done, len(kernels), name.name_hint)
            took, tried = _milliseconds(candidate, target), tried + 1
            if took < after[i]:
                after[i], best = took, candidate
            known.add(tiles)
        else:
            done += 1
        found.update_func(name, best)
    return found, Tuning(len(kernels), done, tried, sum(before), sum(after))


def _kernels(module: Any) -> list[tuple[Any, Any]]:
    kind = frameworks.load("tvm_tirx").PrimFunc
    return [(name, function) for name, function in module.functions.items() if isinstance(function, kind)]


def _others(kernel: Any, known: set[tuple[Tile, ...]]) -> Iterator[tuple[Any, tuple[Tile, ...]]]:
    """Yields the kernel in tiles that are not known yet, and at last in TVM's own order."""
    for wanted in _CANDIDATES:
        found, tiles = _in_tiles(kernel, wanted)
        if tiles not in known:
            yield found, tiles
    if () not in known:
        yield kernel, ()


def _in_tiles(kernel: Any, wanted: Tile) -> tuple[Any, tuple[Tile, ...]]:
    """Returns a kernel whose sums run in tiles, and which these are; as it was, and none, where that cannot be."""
    s_tir = frameworks.load("tvm_s_tir")
    schedule = s_tir.Schedule(frameworks.load("tvm").IRModule({"main": kernel}))
    try:
        return _Order(schedule, wanted).kernel()
    except frameworks.load("tvm_schedule").ScheduleError:
        return kernel, ()


class _Order:
    """Puts the blocks of one kernel in order."""

    def __init__(self, schedule: Any, wanted: Tile) -> None:
        self._schedule, self._wanted = schedule, wanted
        schedule.work_on("main")

    def kernel(self) -> tuple[Any, tuple[Tile, ...]]:
        schedule = self._schedule
        blocks = schedule.get_child_blocks(schedule.get_sblock("root"))
        sums = {i for i, block in enumerate(blocks) if self._sums(block)}
        names = {schedule.get(blocks[i]).name_hint for i in sums}
        tiles = []
        for i, block in enumerate(blocks):
            if i in sums:
                tiles.append(self._in_registers(block))
            elif not self._inlined(block, names):
                self._vectorized(self._schedule.get_loops(block))
        return schedule.mod["main"], tuple(tiles)

    def _sums(self, block: Any) -> bool:
        return any(int(axis.iter_type) == _REDUCED for axis in self._schedule.get(block).iter_vars)

    def _inlined(self, block: Any, sums: set[str]) -> bool:
        """Tells whether a block was computed where its only reader needs it, which must not need it again and again."""
        readers = self._schedule.get_consumers(block)
        if len(readers) != 1 or self._schedule.get(readers[0]).name_hint in sums:
            return False
        self._schedule.compute_inline(block)
        return True

    def _in_registers(self, block: Any) -> Tile:
        schedule = self._schedule
        over, summed = self._axes(block)
        if not over:
            return Tile(1, 1)
        lanes = _divisor(self._extent(over[-1]), self._wanted.lanes)
        rows = _divisor(self._extent(over[-2]), self._wanted.rows) if len(over) > 1 else 1
        outer, inner = over[:-2], []
        for loop, size in zip(over[-2:], (rows, lanes)[-len(over[-2:]) :]):
            far, near = schedule.split(loop, [None, size])
            outer.append(far)
            inner.append(near)
        schedule.reorder(*outer, *summed, *inner)
        written = schedule.cache_write(block, 0, "local")
        schedule.reverse_compute_at(written, outer[-1])
        self._vectorized(inner)
        self._vectorized(schedule.get_loops(written)[len(outer) :])
        first = schedule.decompose_reduction(block, summed[0])
        self._vectorized(schedule.get_loops(first)[len(outer) :])
        return Tile(lanes, rows)

    def _axes(self, block: Any) -> tuple[list[Any], list[Any]]:
        """Returns the loops of a block over its outputs, and those that it sums over."""
        schedule = self._schedule
        loops = schedule.get_loops(block)
        realized = schedule.get(loops[-1]).body
        kinds = [int(axis.iter_type) for axis in schedule.get(block).iter_vars]
        over: list[Any] = []
        summed: list[Any] = []
        for loop in loops:
            variable = schedule.get(loop).loop_var
            kind = next((k for k, value in zip(kinds, realized.iter_values) if variable.same_as(value)), 0)
            (summed if kind == _REDUCED else over).append(loop)
        return over, summed

    def _vectorized(self, loops: Sequence[Any]) -> None:
        """Has the last loop done by vector instructions, and a short one right before it written out."""
        if not loops or int(self._schedule.get(loops[-1]).kind) != _SERIAL:
            return
        *before, last = loops
        size = _divisor(self._extent(last), self._wanted.lanes)
        if size < self._extent(last):
            before, (_, last) = [], self._schedule.split(last, [None, size])
        if size > 1:
            self._schedule.vectorize(last)
        if before and self._extent(before[-1]) <= self._wanted.rows:
            self._schedule.unroll(before[-1])

    def _extent(self, loop: Any) -> int:
        return int(self._schedule.get(loop).extent)


def _divisor(size: int, most: int) -> int:
    """Returns the largest divisor of a size that is at most `most`."""
    return next(n for n in range(min(size, most), 0, -1) if size % n == 0)


def _milliseconds(kernel: Any, target: Any) -> float:
    """Returns what one run of a kernel takes here at best, on numbers of chance."""
    tvm = frameworks.load("tvm")
    code = tvm.compile(tvm.IRModule({"main": kernel.with_attr("global_symbol", "main")}), target=target)
    generator = np.random.default_rng(0)
    arguments = [
        tvm.runtime.tensor((4 * generator.random([int(n) for n in one.ty.shape])).astype(str(one.ty.dtype)))
        for one in kernel.params
    ]
    timer = code.mod.time_evaluator("main", tvm.cpu(), number=1, repeat=_REPEATS, min_repeat_ms=_MEASURE_MS)
    return 1000 * min(timer(*arguments).results)
