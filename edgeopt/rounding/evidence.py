"""Two files, a layer and samples go in; what the layer gets and should give comes out, as sums and as rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

import numpy as np

from edgeopt.data import Part
from edgeopt.rounding.arrivals import BATCH, arrivals
from edgeopt.rounding.layout import Layout
from edgeopt.rounding.moments import Moments
from edgeopt.tflite.pairing import Pair
from edgeopt.tflite.stored_weights import Layer

# Rows that the sums of a layer are made of, at least so many in a window of a picture; and what may be held of them.
_ROWS = 65_536
_HELD_BYTES = 96 << 20


@dataclass(frozen=True)
class Rows:
    """What a layer gets and should give.

    Attributes:
        arrived: inputs that really arrive, float32 [groups, rows, columns].
        wanted: the float layer's outputs, behind its activation function, float32 [groups, rows, rows of weights].
    """

    arrived: np.ndarray
    wanted: np.ndarray


@dataclass
class Evidence:
    """What samples say of one layer.

    Attributes:
        moments: of those it is fitted on.
        fitted: rows of them, where they were asked for.
        held: rows of those that it is not fitted on.
    """

    moments: Moments
    fitted: list[Rows] = field(default_factory=list)
    held: list[Rows] = field(default_factory=list)


def gather(
    floating: bytes,
    quantized: bytes,
    uses: Sequence[tuple[Pair, Layout]],
    fit: Part,
    hold: Part,
    *,
    with_rows: bool,
    seed: int,
) -> list[Evidence]:
    """Returns what samples say of each use of one weight tensor.

    Args:
        floating: the float file.
        quantized: the file, with all layers before this one rounded.
        uses: the layers, and how they lie as matrices.
        fit: samples to fit on.
        hold: samples to hold the result against.
        with_rows: rows are kept of the samples to fit on, too.
        seed: of the choice of places.
    """
    found = [Evidence(Moments.none(layout.groups, layout.columns)) for _, layout in uses]
    left = list(dict.fromkeys(i for pair, _ in uses for i in (pair.floating.activations.index, _output(pair.floating))))
    right = list(dict.fromkeys(pair.quantized.activations.index for pair, _ in uses))
    random = np.random.default_rng(seed)
    with ExitStack() as stack:
        ours = stack.enter_context(arrivals(floating, left))
        theirs = stack.enter_context(arrivals(quantized, right))

        def seen(part: Part) -> Iterator[tuple[Mapping[int, np.ndarray], Mapping[int, np.ndarray]]]:
            for batch in part.batches(BATCH):
                yield dict(zip(left, ours.values(batch.inputs))), dict(zip(right, theirs.values(batch.inputs)))

        for part, fitting in ((fit, True), (hold, False)):
            for real, arrived in seen(part):
                for evidence, (pair, layout) in zip(found, uses):
                    x, z = real[pair.floating.activations.index], arrived[pair.quantized.activations.index]
                    places = _places(layout, x.shape, len(part), random)
                    rows = layout.patches(z, places)
                    if fitting:
                        evidence.moments.add(layout.patches(x, places), rows)
                    if with_rows or not fitting:
                        wanted = layout.results(real[_output(pair.floating)], places)
                        kept = evidence.fitted if fitting else evidence.held
                        _keep(kept, Rows(rows, wanted), len(part), random)
    return found


def joined(rows: Sequence[Rows]) -> Rows:
    """Returns rows of several batches as one."""
    return Rows(np.concatenate([r.arrived for r in rows], 1), np.concatenate([r.wanted for r in rows], 1))


def _output(layer: Layer) -> int:
    return layer.operator.outputs[0]


def _places(layout: Layout, shape: tuple[int, ...], samples: int, random: np.random.Generator) -> np.ndarray | None:
    """Returns at which positions a sample is looked at; None where all of them are few enough."""
    positions, most = layout.positions(shape), max(1, _ROWS // max(1, samples))
    return None if positions <= most else np.sort(random.choice(positions, most, replace=False))


def _keep(kept: list[Rows], rows: Rows, samples: int, random: np.random.Generator) -> None:
    """Adds rows of one batch, as many of them as its share of what may be held."""
    count = rows.arrived.shape[1]
    each = 4 * (rows.arrived.shape[0] * rows.arrived.shape[2] + rows.wanted.shape[0] * rows.wanted.shape[2])
    most = max(1, _HELD_BYTES // each * BATCH // max(samples, BATCH))
    if count > most:
        chosen = np.sort(random.choice(count, most, replace=False))
        rows = Rows(rows.arrived[:, chosen], rows.wanted[:, chosen])
    kept.append(rows)
