"""A model, samples and a budget go in; what to cut, and the smaller model, come out."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgeopt import progress
from edgeopt.errors import ConfigError
from edgeopt.shrinking import budget
from edgeopt.shrinking.blocks import Block, blocks, drop
from edgeopt.shrinking.budget import Sensitivity
from edgeopt.shrinking.channels import Channels, Cut, Group
from edgeopt.shrinking.criteria import TAYLOR, scores
from edgeopt.shrinking.probing import Probe
from edgeopt.shrinking.surgery import shrink

BLOCKS = "blocks"


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

    def model(self) -> Any:
        """Returns the smaller model."""
        return shrink(self.channels, self.cut)


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
        by_sensitivity: spread the cut by what each group loses alone, else alike.
        layers: names of the layers that may lose channels; all when None.
        evenness: see `budget.within`.
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
        by_sensitivity: bool = True,
        layers: Collection[str] | None = None,
        evenness: float = budget.EVENNESS,
        seed: int = 0,
    ) -> None:
        self._model, self._inputs, self._criterion, self._kinds = model, inputs, criterion, kinds
        self._multiple_of, self._by_sensitivity, self._layers = multiple_of, by_sensitivity, layers
        self._evenness, self._seed = evenness, seed
        self._whole = Channels(model)
        measured = by_sensitivity or criterion == TAYLOR or BLOCKS in kinds
        self._probe = Probe(self._whole, inputs) if measured else None
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
            lost += sum(loss for _, loss in gone)
            if found is not None and lost >= found[0]:
                break
            found = (lost, chosen)
        if found is None:
            raise refusal
        return found[1]

    def _without(self, names: Sequence[str], count: str, limit: float) -> tuple[float, Chosen]:
        stage = self._stage(tuple(names))
        losses = stage.losses if self._by_sensitivity else None
        sizes = budget.within(
            stage.channels,
            limit,
            count=count,
            groups=stage.groups,
            multiple_of=self._multiple_of,
            losses=losses,
            evenness=self._evenness,
        )
        each = zip(stage.channels.groups, sizes)
        lost = sum(losses[group.name].at(size) for group, size in each if group.name in losses) if losses else 0.0
        return lost, Chosen(tuple(names), stage.channels, budget.best(stage.worth, stage.channels, sizes))

    def _stage(self, names: tuple[str, ...]) -> _Stage:
        if names not in self._stages:
            channels = Channels(drop(self._model, names)) if names else self._whole
            probe = self._probe
            if names and probe is not None:
                probe = Probe(channels, self._inputs)
            groups = tuple(
                group
                for group in channels.groups
                if group.kind in self._kinds and (self._layers is None or set(group.layers) <= set(self._layers))
            )
            worth = scores(channels, self._criterion, probe, seed=self._seed)
            stage = _Stage(channels, groups, worth)
            if self._by_sensitivity and probe is not None:
                known = self._first.losses if names else {}
                same = {g.name: known[g.name] for g in groups if g.name in known and known[g.name].sizes[0] == g.size}
                rest = [group for group in groups if group.name not in same]
                stage.losses.update({**same, **budget.sensitivities(channels, worth, probe, rest)})
            self._stages[names] = stage
        return self._stages[names]

    def _ranked_blocks(self) -> list[tuple[Block, float]]:
        """Returns the blocks with what each loses, the one that loses least for its MACs first."""
        probe, cost = self._probe, self._first.channels.cost().macs
        assert probe is not None
        there = [b for b in blocks(self._model) if self._layers is None or set(b.layers) <= set(self._layers)]
        found = []
        for block in progress.track(there, "measuring what each block loses", len(there)):
            saved = cost - Channels(drop(self._model, [block.name])).cost().macs
            loss = probe.loss_without(block)
            found.append((loss / max(saved, 1), block, loss))
        return [(block, loss) for _, block, loss in sorted(found, key=lambda each: each[0])]
