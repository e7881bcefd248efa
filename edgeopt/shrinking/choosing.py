"""A model, samples and a budget go in; what to cut comes out.

What a group loses, and what a cut loses, is measured on a model that makes up for it as the one that is delivered will
(`refitting`): what single masks lose tells of networks that nobody would use.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from edgeopt import progress
from edgeopt.errors import ConfigError
from edgeopt.shrinking import budget
from edgeopt.shrinking.blocks import Block, blocks, drop
from edgeopt.shrinking.budget import Sensitivity
from edgeopt.shrinking.channels import Channels, Cut, Group
from edgeopt.shrinking.criteria import RECONSTRUCTION, TAYLOR, scores
from edgeopt.shrinking.moments import Moments
from edgeopt.shrinking.ordering import order
from edgeopt.shrinking.probing import Probe, distance
from edgeopt.shrinking.readers import readers
from edgeopt.shrinking.refitting import Refitter

BLOCKS = "blocks"
# Samples and positions that a cut is tried on.
TRIED_SAMPLES, _TRIED_POSITIONS = 256, 4096
# Samples that gradients are taken on.
PROBED = 512
# Cuts that are tried beside the first ones.
TRIES = 24


Remember = Callable[[str, Callable[[], float]], float]


@dataclass(frozen=True, eq=False)
class Chosen:
    """What goes.

    Attributes:
        dropped: names of residual blocks (see `blocks.blocks`).
        channels: of the model without them.
        cut: what stays of those.
    """

    dropped: tuple[str, ...]
    channels: Channels
    cut: Cut


@dataclass(frozen=True, eq=False)
class _Stage:
    """A model without some blocks, ready to be cut."""

    channels: Channels
    groups: tuple[Group, ...]
    worth: Mapping[str, np.ndarray]
    losses: dict[str, Sensitivity] = field(default_factory=dict)


class Chooser:
    """Decides what a model can do without; scores and measures once, for any number of budgets.

    Args:
        model: flat and functional, of tf_keras.
        inputs: real samples, one array for each input.
        criterion: of criteria.CRITERIA.
        kinds: what may go: channels.CHANNELS, channels.HEADS, BLOCKS.
        multiple_of: channel counts are kept multiples of this where they can be.
        refit: whether the layers that are left will be re-fitted.
        by_sensitivity: spread the cut by what each group loses alone, else alike.
        tries: cuts that are tried to spread it better than single losses tell.
        layers: names of the layers that may lose channels; all when None.
        evenness: see `budget.within`.
        remember: remember(key, compute) gives what was computed for a key: the loss of a cut, of which many are tried.
        seed: of what a criterion draws.
    """

    def __init__(
        self,
        model: Any,
        inputs: Sequence[np.ndarray],
        *,
        criterion: str,
        kinds: Collection[str],
        multiple_of: int = 1,
        refit: bool = True,
        by_sensitivity: bool = True,
        tries: int = TRIES,
        layers: Collection[str] | None = None,
        evenness: float = budget.EVENNESS,
        remember: Remember = lambda key, compute: compute(),
        seed: int = 0,
    ) -> None:
        self._remember = remember
        self._model, self._inputs, self._criterion, self._kinds = model, inputs, criterion, kinds
        self._multiple_of, self._by_sensitivity, self._layers = multiple_of, by_sensitivity, layers
        self._evenness, self._seed, self._refit, self._tries = evenness, seed, refit, tries
        self._whole = Channels(model)
        self._moments = Refitter(self._whole, inputs, seed=seed).moments if criterion == RECONSTRUCTION else {}
        few = [value[:TRIED_SAMPLES] for value in inputs]
        self._refitter = Refitter(self._whole, few, positions=_TRIED_POSITIONS, seed=seed) if by_sensitivity else None
        self._stages: dict[tuple[str, ...], _Stage] = {}
        self._first = self._stage(())
        self._blocks = self._ranked_blocks() if BLOCKS in kinds else []

    @property
    def channels(self) -> Channels:
        """The channels of the whole model."""
        return self._first.channels

    @property
    def sensitivities(self) -> tuple[Sensitivity, ...]:
        """What each group, and each block that can go (its sizes are 1 and 0), loses alone."""
        measured = tuple(self._first.losses.values())
        return measured + tuple(Sensitivity(block.name, (1, 0), (0.0, loss)) for block, loss in self._blocks)

    def uniform(self, share: float) -> Chosen:
        """Returns the cut that leaves about `share` of every group."""
        stage = self._first
        sizes = budget.uniform(stage.channels, share, groups=stage.groups, multiple_of=self._multiple_of)
        return Chosen((), stage.channels, budget.best(stage.worth, stage.channels, sizes))

    def within(self, count: str, limit: float) -> Chosen:
        """Returns the cut that loses least and leaves no more than `limit` of one of channels.COUNTS.

        Raises:
            ConfigError: there is none.
        """
        found: tuple[float, Chosen] | None = None
        refusal = ConfigError("")
        for number in range(len(self._blocks) + 1):
            gone = self._blocks[:number]
            try:
                lost, chosen = self._without([block.name for block, _ in gone], count, limit)
            except ConfigError as error:
                refusal = error
                continue
            if found is not None and lost >= found[0]:
                break
            found = (lost, chosen)
        if found is None:
            raise refusal
        return found[1]

    def _without(self, names: Sequence[str], count: str, limit: float) -> tuple[float, Chosen]:
        stage = self._stage(tuple(names))
        channels = stage.channels
        asked: dict[str, Any] = {"count": count, "groups": stage.groups, "multiple_of": self._multiple_of}
        if not self._by_sensitivity:
            sizes = budget.within(channels, limit, **asked)
            return 0.0, Chosen(tuple(names), channels, budget.best(stage.worth, channels, sizes))
        first = [
            budget.within(channels, limit, losses=stage.losses, evenness=evenness, **asked)
            for evenness in (self._evenness, self._evenness**2, self._evenness**0.5, 1.0)
        ]
        lost, sizes = spread(
            first[: self._tries + 1],
            lambda sizes: self._lost(channels, budget.best(stage.worth, channels, sizes)),
            lambda sizes: budget.exchanges(channels, sizes, limit, losses=stage.losses, **asked),
            tries=self._tries,
        )
        return lost, Chosen(tuple(names), channels, budget.best(stage.worth, channels, sizes))

    def _lost(self, channels: Channels, cut: Cut) -> float:
        """Returns how far the answers move by a cut that is made up for."""
        refitter = self._refitter
        assert refitter is not None
        said = [len(channels.calls), {name: kept.tolist() for name, kept in sorted(cut.items())}]
        return self._remember(
            hashlib.sha256(json.dumps(said).encode()).hexdigest(),
            lambda: float(distance(refitter.answers, refitter.fit(channels, cut, refit=self._refit).answers)),
        )

    def _stage(self, names: tuple[str, ...]) -> _Stage:
        if names not in self._stages:
            channels = Channels(drop(self._model, names)) if names else self._whole
            groups = tuple(
                group
                for group in channels.groups
                if group.kind in self._kinds and (self._layers is None or set(group.layers) <= set(self._layers))
            )
            stage = _Stage(channels, groups, self._worth(channels))
            if self._by_sensitivity:
                known = self._first.losses if names else {}
                same = {g.name: known[g.name] for g in groups if g.name in known and known[g.name].sizes[0] == g.size}
                rest = [group for group in groups if group.name not in same]
                measured = budget.sensitivities(stage.worth, lambda cut: self._lost(channels, cut), rest)
                stage.losses.update({**same, **measured})
            self._stages[names] = stage
        return self._stages[names]

    def _worth(self, channels: Channels) -> Mapping[str, np.ndarray]:
        """Returns for each group by name what its units are worth."""
        if self._criterion != RECONSTRUCTION:
            return self._scores(channels, self._criterion)
        own = {reader.name: reader for reader in readers(channels)}
        several = [replace(one, reader=own[name]) for name, one in self._moments.items() if name in own]
        read = {g.name: _reading(g, several) for g in channels.groups}
        # What nothing reads that can be re-fitted, as heads of attention, goes by what its loss moves.
        worth = {} if all(read.values()) else self._scores(channels, TAYLOR)
        told = progress.track([g for g in channels.groups if read[g.name]], "choosing channels", len(read))
        for group in told:
            gone, _ = order(group, read[group.name])
            worth[group.name] = np.argsort(gone).astype(np.float64)
        return worth

    def _scores(self, channels: Channels, criterion: str) -> dict[str, np.ndarray]:
        probe = self._probe(channels) if criterion == TAYLOR else None
        return scores(channels, criterion, probe, seed=self._seed)

    def _probe(self, channels: Channels) -> Probe:
        return Probe(channels, [value[:PROBED] for value in self._inputs])

    def _ranked_blocks(self) -> list[tuple[Block, float]]:
        """Returns the blocks with what each loses, the one that loses least for its MACs first."""
        probe, cost = self._probe(self._whole), self._first.channels.cost().macs
        there = [b for b in blocks(self._model) if self._layers is None or set(b.layers) <= set(self._layers)]
        found = []
        for block in progress.track(there, "measuring what each block loses", len(there)):
            saved = cost - Channels(drop(self._model, [block.name])).cost().macs
            loss = probe.loss_without(block)
            found.append((loss / max(saved, 1), block, loss))
        return [(block, loss) for _, block, loss in sorted(found, key=lambda each: each[0])]


def _reading(group: Group, several: Sequence[Moments]) -> list[Moments]:
    return [one for one in several if np.isin(group.units, one.reader.units).any()]


def spread(
    first: Sequence[np.ndarray],
    loss: Callable[[np.ndarray], float],
    neighbours: Callable[[np.ndarray], Sequence[np.ndarray]],
    *,
    tries: int,
) -> tuple[float, np.ndarray]:
    """Returns the sizes that lose least, with their loss: of the first ones, then of neighbours of the best so far.

    Args:
        first: sizes to begin with, all of which are tried unless there is one alone and nothing else to try.
        loss: what sizes lose.
        neighbours: others for sizes, the most promising first.
        tries: how many losses are asked for beside those of the first.
    """
    known: dict[tuple[int, ...], float] = {}
    total = len({tuple(sizes) for sizes in first}) + tries

    def asked(sizes: np.ndarray) -> float:
        key = tuple(int(size) for size in sizes)
        if key not in known:
            progress.tell("trying how to spread the cut", len(known), total)
            known[key] = loss(sizes)
        return known[key]

    best = min(first, key=asked)
    while len(known) < total:
        fresh = [sizes for sizes in neighbours(best) if tuple(int(size) for size in sizes) not in known]
        better = next((sizes for sizes in fresh[: total - len(known)] if asked(sizes) < asked(best)), None)
        if better is None:
            break
        best = better
    return asked(best), best
