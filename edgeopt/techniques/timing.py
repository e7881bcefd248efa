"""Files go in; what an inference of each takes here, in milliseconds, comes out: on LiteRT, with one thread."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

from edgeopt import progress
from edgeopt.errors import ModelError

# Times of two runs differ by some per cent.
TIMES_VARY = 0.1
# Files that are open at once beside the first; each has a process of its own.
_AT_ONCE = 4


def milliseconds(files: Sequence[Path]) -> list[float]:
    """Returns the median time of each file, told by its ratio to the first, with which it took turns.

    Raises:
        ModelError: LiteRT refuses one.
    """
    from edgeopt.benchmarking import Row, benchmark

    def took(row: Row) -> float:
        if row.result.latency_ms is None:
            raise ModelError(f"Expected a model that LiteRT runs, to time it, got one it refuses: {row.result.reason}")
        return row.result.latency_ms.p50

    first, *others = files
    firsts: list[float] = []
    ratios: list[float] = []
    groups = [others[start : start + _AT_ONCE] for start in range(0, max(1, len(others)), _AT_ONCE)]
    for group in progress.track(groups, "timing", len(groups)):
        base, *rows = benchmark([first, *group]).rows
        firsts.append(took(base))
        ratios += [row.ratio.value if row.ratio else took(row) / firsts[-1] for row in rows]
    median = statistics.median(firsts)
    return [median, *(ratio * median for ratio in ratios)]
