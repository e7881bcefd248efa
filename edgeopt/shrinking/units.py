"""Which channels stand and fall together: ties between numbered channels go in, units and untouchable ones come out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

# What is at each place of a tensor's axis: an id for each channel, or None where nothing of that axis may go.
Axis = np.ndarray | None


class Units:
    """Disjoint sets of channel ids; a set may be frozen, with the reason."""

    def __init__(self) -> None:
        self._parents: list[int] = []
        self._reasons: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self._parents)

    def fresh(self, count: int) -> np.ndarray:
        """Returns the ids of `count` new channels, each a set of its own."""
        first = len(self._parents)
        self._parents.extend(range(first, first + count))
        return np.arange(first, first + count)

    def tie(self, one: Axis, other: Axis, reason: str) -> None:
        """Lets the channels at the same places of two axes go together; `reason` is for those that meet no id.

        Args:
            one, other: of the same length, or None.
            reason: why the channels of the one are untouchable where the other is None.
        """
        if one is None or other is None:
            self.freeze(one, reason)
            self.freeze(other, reason)
            return
        for a, b in np.unique(np.stack([one, other], axis=-1), axis=0).tolist():
            self._join(a, b)

    def together(self, ids: Sequence[int] | np.ndarray) -> None:
        """Makes one unit of all of `ids`."""
        for other in ids[1:]:
            self._join(int(ids[0]), int(other))

    def freeze(self, ids: Axis, reason: str, *, foremost: bool = False) -> None:
        """Marks channels as untouchable; the first reason stays, unless a `foremost` one comes."""
        for root in {self.root(int(i)) for i in np.unique(ids)} if ids is not None else ():
            if foremost or root not in self._reasons:
                self._reasons[root] = reason

    def frozen(self, count: int, reason: str) -> np.ndarray:
        """Returns the ids of `count` new channels that are untouchable."""
        ids = self.fresh(count)
        self.freeze(ids, reason)
        return ids

    def root(self, i: int) -> int:
        """Returns the number of the set that channel `i` is in."""
        while self._parents[i] != i:
            self._parents[i] = self._parents[self._parents[i]]
            i = self._parents[i]
        return i

    def reason(self, i: int) -> str | None:
        """Returns why channel `i` is untouchable, None where it is not."""
        return self._reasons.get(self.root(i))

    def _join(self, a: int, b: int) -> None:
        first, second = sorted((self.root(a), self.root(b)))
        if first != second:
            self._parents[second] = first
            reason = self._reasons.pop(second, None)
            if reason is not None:
                self._reasons.setdefault(first, reason)
