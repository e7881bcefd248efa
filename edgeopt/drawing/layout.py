"""Where the boxes of a graph stand: boxes and edges between them go in, ranks, places and routes come out.

Rank by rank from the top, as Sugiyama, Tagawa and Toda, "Methods for visual understanding of hierarchical system
structures" (IEEE SMC 1981): ranks by the longest path, order within a rank by the mean of the neighbours, and places
that lie as near to the neighbours as the order allows.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

# Long edges pass between the boxes of the ranks that they cross; beyond so many bends they are drawn across them.
_MOST_BENDS = 20_000
_SWEEPS = 6
_BEND_WIDTH = 10.0
# Beside that of a box: where both want one place, the edge goes around.
_BEND_WEIGHT = 1e-3


@dataclass(frozen=True)
class Layout:
    """A graph on paper.

    Attributes:
        ranks: of each box, 0 at the top.
        centres: of each box, from the left; the leftmost box begins at 0.
        routes: for each edge the bends on its way, as centre and rank.
        width: of all.
    """

    ranks: tuple[int, ...]
    centres: tuple[float, ...]
    routes: dict[tuple[int, int], tuple[tuple[float, int], ...]]
    width: float


@dataclass
class _Grid:
    """Boxes, and after them the bends of long edges."""

    ranks: list[int]
    widths: list[float]
    above: defaultdict[int, list[int]] = field(default_factory=lambda: defaultdict(list))
    below: defaultdict[int, list[int]] = field(default_factory=lambda: defaultdict(list))

    def connect(self, upper: int, lower: int) -> None:
        self.above[lower].append(upper)
        self.below[upper].append(lower)

    def bend(self, rank: int) -> int:
        self.ranks.append(rank)
        self.widths.append(_BEND_WIDTH)
        return len(self.ranks) - 1


def layout(widths: Sequence[float], edges: Sequence[tuple[int, int]], *, gap: float) -> Layout:
    """Lays a graph out.

    Args:
        widths: of each box.
        edges: from a box to one of a larger number: what runs later.
        gap: between neighbours in a rank.
    """
    grid = _Grid(_ranked(len(widths), edges), list(widths))
    routes = _routed(grid, edges)
    rows: list[list[int]] = [[] for _ in range(max(grid.ranks, default=-1) + 1)]
    for one, rank in enumerate(grid.ranks):
        rows[rank].append(one)
    _order(rows, grid)
    centres = _placed(rows, grid, gap, boxes=len(widths))
    left = min((centre - width / 2 for centre, width in zip(centres, grid.widths)), default=0.0)
    centres = [centre - left for centre in centres]
    return Layout(
        tuple(grid.ranks[: len(widths)]),
        tuple(centres[: len(widths)]),
        {edge: tuple((centres[bend], grid.ranks[bend]) for bend in bends) for edge, bends in routes.items()},
        max((centre + width / 2 for centre, width in zip(centres, grid.widths)), default=0.0),
    )


def _ranked(count: int, edges: Sequence[tuple[int, int]]) -> list[int]:
    """Returns the length of the longest way to each box; what nothing leads to stands just above its first reader."""
    users: defaultdict[int, list[int]] = defaultdict(list)
    led = {lower for _, lower in edges}
    for upper, lower in edges:
        users[upper].append(lower)
    ranks = [0] * count
    for upper in range(count):
        for lower in users[upper]:
            ranks[lower] = max(ranks[lower], ranks[upper] + 1)
    for one in range(count):
        if one not in led and users[one]:
            ranks[one] = min(ranks[lower] for lower in users[one]) - 1
    return ranks


def _routed(grid: _Grid, edges: Sequence[tuple[int, int]]) -> dict[tuple[int, int], list[int]]:
    """Adds the bends of long edges to the grid, one chain for all that leave a box, and returns them by edge."""
    boxes = len(grid.ranks)
    chains: defaultdict[int, list[int]] = defaultdict(list)
    routes: dict[tuple[int, int], list[int]] = {}
    for upper, lower in sorted(set(edges), key=lambda edge: grid.ranks[edge[1]]):
        needed = grid.ranks[lower] - grid.ranks[upper] - 1
        chain = chains[upper]
        if len(grid.ranks) - boxes + needed - len(chain) > _MOST_BENDS:
            routes[upper, lower] = []
            continue
        while len(chain) < needed:
            bend = grid.bend(grid.ranks[upper] + len(chain) + 1)
            grid.connect(chain[-1] if chain else upper, bend)
            chain.append(bend)
        routes[upper, lower] = chain[:needed]
        grid.connect(chain[needed - 1] if needed else upper, lower)
    return routes


def _order(rows: list[list[int]], grid: _Grid) -> None:
    """Sorts each rank by where its neighbours stand, down and up again, which takes most crossings out."""
    place = {one: at for row in rows for at, one in enumerate(row)}
    for sweep in range(_SWEEPS):
        near = grid.above if sweep % 2 == 0 else grid.below
        for row in rows if sweep % 2 == 0 else reversed(rows):
            row.sort(key=lambda one: _mean([place[other] for other in near[one]], place[one]))
            place.update((one, at) for at, one in enumerate(row))


def _foremost(near: list[int], boxes: int) -> list[int]:
    """Returns the boxes among neighbours where there are some: chains stay straight, and long edges give way."""
    return [one for one in near if one < boxes] or near


def _placed(rows: list[list[int]], grid: _Grid, gap: float, *, boxes: int) -> list[float]:
    """Returns the centre of everything: as near to the mean of its neighbours as its rank has room."""
    centres = [0.0] * len(grid.ranks)

    def place(row: list[int], wanted: Sequence[float]) -> None:
        weights = [1.0 if one < boxes else _BEND_WEIGHT for one in row]
        for one, centre in zip(row, _apart(wanted, [grid.widths[one] for one in row], weights, gap)):
            centres[one] = centre

    for row in rows:
        place(row, [0.0] * len(row))
    for sweep in range(2 * _SWEEPS):
        near = grid.above if sweep % 2 == 0 else grid.below
        for row in rows if sweep % 2 == 0 else reversed(rows):
            place(row, [_mean([centres[n] for n in _foremost(near[one], boxes)], centres[one]) for one in row])
    return centres


def _apart(wanted: Sequence[float], widths: Sequence[float], weights: Sequence[float], gap: float) -> list[float]:
    """Returns the centres nearest to the wanted ones, in weighted squares, that keep the order and do not overlap.

    Without the room that lies left of each it is an isotonic regression, solved by pooling adjacent violators.
    """
    room, offset = [], 0.0
    for at, width in enumerate(widths):
        offset += (widths[at - 1] + width) / 2 + gap if at else 0.0
        room.append(offset)
    pools: list[tuple[float, float, int]] = []  # the sum, the weight and the count of what stands as one
    for value, before, weight in zip(wanted, room, weights):
        total, heavy, count = weight * (value - before), weight, 1
        while pools and pools[-1][0] / pools[-1][1] > total / heavy:
            other, weighs, several = pools.pop()
            total, heavy, count = total + other, heavy + weighs, count + several
        pools.append((total, heavy, count))
    means = [total / heavy for total, heavy, count in pools for _ in range(count)]
    return [mean + before for mean, before in zip(means, room)]


def _mean(values: Sequence[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise
