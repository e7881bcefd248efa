"""What a model may cost and what its groups lose go in; how many channels of each group stay comes out."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgeopt import progress
from edgeopt.errors import ConfigError, setting
from edgeopt.shrinking.channels import CHANNELS, COUNTS, Channels, Cut, Group

# Shares of a group that are left when its loss is measured.
MEASURED = (0.75, 0.5, 0.25, 0.125)
# No group falls under this share of its units in one cut, nor is it cut further than was measured.
FEWEST = MEASURED[-1]
# Nor under this part of what it would keep if all groups were cut alike: what a group loses alone, before recovery,
# does not tell that it becomes the neck of the bottle.
EVENNESS = 0.5
# Names in a message, of layers that are left whole for one reason.
_SHOWN = 4


@dataclass(frozen=True)
class Sensitivity:
    """What the model's answers lose when one group alone is cut, and what can be made up for is made up for.

    Attributes:
        group: its name.
        sizes: units left, from all down; losses: measured with so many left.
    """

    group: str
    sizes: tuple[int, ...]
    losses: tuple[float, ...]

    def at(self, size: float) -> float:
        """Returns the loss with `size` units left, which never falls when more go."""
        losses = np.maximum.accumulate(self.losses)
        return float(np.interp(-size, -np.array(self.sizes), losses))


def allowed(group: Group, multiple_of: int) -> list[int]:
    """Returns how many units of a group may be left, all of them first: channels in multiples of `multiple_of`."""
    step = multiple_of // math.gcd(group.width, multiple_of) if group.kind == CHANNELS else 1
    fewest = max(step, math.ceil(FEWEST * group.size))
    return [group.size, *(size for size in range((group.size - 1) // step * step, fewest - 1, -step))]


def best(scores: Mapping[str, np.ndarray], channels: Channels, sizes: Sequence[int] | np.ndarray) -> Cut:
    """Returns the cut that keeps the most valuable units of each group: `sizes` of them."""
    cut = {}
    for group, size in zip(channels.groups, sizes):
        if size < group.size:
            order = np.argsort(-scores[group.name], kind="stable")
            cut[group.name] = np.sort(order[: int(size)])
    return cut


def sensitivities(
    scores: Mapping[str, np.ndarray], loss: Callable[[Cut], float], groups: Sequence[Group]
) -> dict[str, Sensitivity]:
    """Measures what each of `groups` loses when only its most valuable units are left, at the shares MEASURED."""
    found = {}
    for group in progress.track(groups, "measuring what each group loses", len(groups)):
        sizes = list(dict.fromkeys(max(1, round(share * group.size)) for share in MEASURED))
        order = np.argsort(-scores[group.name], kind="stable")
        losses = [loss({group.name: np.sort(order[:size])}) for size in sizes]
        found[group.name] = Sensitivity(group.name, (group.size, *sizes), (0.0, *losses))
    return found


def uniform(channels: Channels, share: float, *, groups: Sequence[Group], multiple_of: int) -> np.ndarray:
    """Returns sizes for which `groups` keep about `share` of their units each, the others all."""
    chosen = {group.name for group in groups}
    return np.array(
        [
            min(allowed(g, multiple_of), key=lambda size: (abs(size - share * g.size), size))
            if g.name in chosen
            else g.size
            for g in channels.groups
        ]
    )


def _left_whole(channels: Channels) -> str:
    """Returns in brackets which layers keep all their channels, and why."""
    layers: dict[str, list[str]] = {}
    for name, reason in channels.untouchable.items():
        layers.setdefault(reason, []).append(name)
    told = "; ".join(f"{', '.join(names[:_SHOWN])}{' …' * (len(names) > _SHOWN)}: {r}" for r, names in layers.items())
    return f" (left whole: {told})" if told else ""


def within(
    channels: Channels,
    limit: float,
    *,
    count: str,
    groups: Sequence[Group],
    multiple_of: int,
    losses: Mapping[str, Sensitivity] | None = None,
    evenness: float = EVENNESS,
) -> np.ndarray:
    """Returns sizes with which the model costs no more than `limit`.

    Args:
        channels: of the model.
        limit: of what is counted.
        count: one of COUNTS.
        groups: what may be cut.
        multiple_of: see `allowed`.
        losses: what each group loses; always the step that loses least for what it saves is taken. Where None, all
            groups are cut alike.
        evenness: no group keeps less than this part of what it keeps when all are cut alike.

    Raises:
        ConfigError: nothing may be cut, or cutting all of it does not do.
    """
    row = COUNTS.index(count)
    if not groups:
        raise ConfigError(
            f"Expected layers with channels to leave out, got none{_left_whole(channels)}. Try to distill a student of "
            "your own."
        )

    def spent(sizes: Sequence[int] | np.ndarray) -> float:
        return float(channels.costs(np.asarray(sizes)[:, None])[row][0])

    steps = {group.name: allowed(group, multiple_of) for group in groups}
    smallest = [steps[g.name][-1] if g.name in steps else g.size for g in channels.groups]
    if spent(smallest) > limit:
        raise ConfigError(
            f"Expected to get down to {limit:,.0f} {count}, got {spent(smallest):,.0f} with every group of channels "
            f"cut as far as may be at once{_left_whole(channels)}. Try a larger share, "
            f"{setting('multiple_of', max(1, multiple_of // 2))} or more {setting('rounds')}."
        )
    alike = next(
        (
            sizes
            for share in np.arange(1, 0, -1 / 256)
            if spent(sizes := uniform(channels, share, groups=groups, multiple_of=multiple_of)) <= limit
        ),
        np.array(smallest),
    )
    if losses is None:
        return alike
    for group, even in zip(channels.groups, alike):
        if group.name in steps:
            steps[group.name] = [size for size in steps[group.name] if size >= evenness * even]
    sizes = np.array([group.size for group in channels.groups])
    while spent(sizes) > limit:
        sizes = _next(channels, sizes, steps, losses, row)
    return _given_back(channels, sizes, steps, losses, lambda chosen: spent(chosen) <= limit)


def exchanges(
    channels: Channels,
    sizes: np.ndarray,
    limit: float,
    *,
    count: str,
    groups: Sequence[Group],
    multiple_of: int,
    losses: Mapping[str, Sensitivity],
) -> list[np.ndarray]:
    """Returns other sizes within the limit: one group gets a step more, another pays for it, what is left is spent.

    Those come first that gain most by what the groups lose alone.
    """
    row = COUNTS.index(count)
    steps = {group.name: allowed(group, multiple_of) for group in groups}
    found: list[tuple[float, np.ndarray]] = []

    def fits(tried: np.ndarray) -> bool:
        return float(channels.costs(tried[:, None])[row][0]) <= limit

    def lost(tried: np.ndarray) -> float:
        each = zip(channels.groups, tried)
        return sum(losses[group.name].at(size) for group, size in each if group.name in losses)

    for up, gaining in enumerate(channels.groups):
        higher = [size for size in steps.get(gaining.name, ()) if size > sizes[up]]
        for down, paying in enumerate(channels.groups) if higher else ():
            tried = sizes.copy()
            tried[up] = higher[-1]
            for size in (size for size in steps.get(paying.name, ()) if size < sizes[down] and down != up):
                tried[down] = size
                if fits(tried):
                    spent = _given_back(channels, tried.copy(), steps, losses, fits)
                    found.append((lost(spent), spent))
                    break
    return [tried for _, tried in sorted(found, key=lambda each: each[0]) if tuple(tried) != tuple(sizes)]


def _next(
    channels: Channels,
    sizes: np.ndarray,
    steps: Mapping[str, list[int]],
    losses: Mapping[str, Sensitivity],
    row: int,
) -> np.ndarray:
    """Returns sizes with the step done that loses least for what it saves."""
    moves = []
    for index, group in enumerate(channels.groups):
        lower = [size for size in steps.get(group.name, ()) if size < sizes[index]]
        if lower:
            moves.append((index, lower[0]))
    tried = np.repeat(sizes[:, None], len(moves) + 1, axis=1)
    for column, (index, size) in enumerate(moves):
        tried[index, column] = size
    costs = channels.costs(tried)[row]
    saved = np.maximum(costs[-1] - costs[:-1], 1e-9)
    lost = [
        losses[channels.groups[index].name].at(size) - losses[channels.groups[index].name].at(sizes[index])
        for index, size in moves
    ]
    # Where nothing is lost, what saves most.
    index = min(range(len(moves)), key=lambda i: (lost[i] / saved[i], -saved[i]))
    return tried[:, index]


def _given_back(
    channels: Channels,
    sizes: np.ndarray,
    steps: Mapping[str, list[int]],
    losses: Mapping[str, Sensitivity],
    fits: Callable[[np.ndarray], bool],
) -> np.ndarray:
    """Returns sizes with what the last, coarse step saved too much given back where it is missed most."""
    while True:
        gains = []
        for index, group in enumerate(channels.groups):
            higher = [size for size in steps.get(group.name, ()) if size > sizes[index]]
            if higher:
                larger = sizes.copy()
                larger[index] = higher[-1]
                if fits(larger):
                    loss = losses[group.name]
                    gains.append((loss.at(sizes[index]) - loss.at(higher[-1]), index, larger))
        if not gains:
            return sizes
        sizes = max(gains, key=lambda gain: gain[:2])[2]
