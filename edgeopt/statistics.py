"""How far a measured number may be trusted: results of samples go in, 95 % intervals and p-values come out."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

_RESAMPLES = 1000
# Above this many drawn samples in all, fewer resamples are drawn: the interval is narrow by then.
_MOST_DRAWS = 100_000_000
_FEWEST_RESAMPLES = 100
# Of the jackknife. F1 of 300 samples lies in 94 % of its intervals, as in those of 100 draws.
_GROUPS = 20

Statistic = Callable[..., float]


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """Returns the 95 % interval of a proportion (E. B. Wilson, 1927): sane at 0 and 1, and for few trials.

    Raises:
        ValueError: `trials` is not positive, or `successes` is not among them.
    """
    if trials < 1 or not 0 <= successes <= trials:
        raise ValueError(f"expected 0 <= successes <= trials and at least one trial, got {successes} of {trials}")
    from scipy.special import ndtri  # scipy.stats would take half a second to import

    z, share = float(ndtri(0.975)), successes / trials
    middle = (share + z**2 / (2 * trials)) / (1 + z**2 / trials)
    half = z * math.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2)) / (1 + z**2 / trials)
    return (middle - half if successes else 0.0), (middle + half if successes < trials else 1.0)


def samples_to_show(half: float, samples: int, gap: float) -> int | None:
    """Returns how many samples it takes for an interval that is no wider than `gap` to one side; None for no gap.

    Intervals narrow with the square root of the samples.

    Args:
        half: of the interval that `samples` gave, from the value to its bound.
    """
    if not gap > 0 or not math.isfinite(half):
        return None
    return math.ceil(samples * (half / gap) ** 2)


def bootstrap(
    rows: Sequence[np.ndarray], statistic: Statistic, *, seed: int = 0, resamples: int | None = None
) -> tuple[float, float]:
    """Returns the 95 % percentile interval of `statistic(*rows)` over resampled samples (Efron, 1979).

    Args:
        rows: arrays whose first axis is the samples, e.g. predictions [N] and labels [N]; drawn together.
        statistic: gives NaN for a draw it is not defined on, such as one with a single class.
        seed: the same rows and seed give the same interval.
        resamples: how often `statistic` is called; 1000 when None, fewer for many samples.

    Returns:
        Bounds that enclose the statistic of the rows themselves; NaN where too few draws were defined.
    """
    count = len(rows[0])
    resamples = resamples or _resamples(count)
    generator = np.random.default_rng(seed)
    values = np.empty(resamples)
    for i in range(resamples):
        drawn = generator.integers(0, count, count)
        values[i] = statistic(*(array[drawn] for array in rows))
    defined = values[~np.isnan(values)]
    if defined.size < resamples // 2:
        return math.nan, math.nan
    low, high = np.percentile(defined, (2.5, 97.5))
    value = statistic(*rows)
    return float(min(low, value)), float(max(high, value))


def jackknife(rows: Sequence[np.ndarray], statistic: Statistic, *, seed: int = 0) -> tuple[float, float]:
    """Returns the 95 % interval of `statistic(*rows)` by leaving out one of 20 groups of samples at a time.

    The delete-a-group jackknife (Kott, "The Delete-a-Group Jackknife", Journal of Official Statistics, 2001), with
    Student's t: as wide as the bootstrap's, in a fifth of its fewest calls, for statistics that are slow.

    Args:
        rows: arrays whose first axis is the samples.
        statistic: gives NaN where it is not defined.
        seed: of the groups.

    Returns:
        Bounds around the statistic of the rows themselves; NaN where it is defined without too few of the groups.
    """
    half = _half(_left_out(rows, statistic, seed))
    value = statistic(*rows)
    return value - half, value + half


def paired_jackknife(
    rows_a: Sequence[np.ndarray], rows_b: Sequence[np.ndarray], statistic: Statistic, *, seed: int = 0
) -> tuple[tuple[float, float], float]:
    """Returns the 95 % interval of the difference of a statistic between two models, and its two-sided p-value.

    As `jackknife`, both without the same groups; the p-value is Student's.
    """
    from scipy.special import stdtr

    difference = statistic(*rows_a) - statistic(*rows_b)
    left = _left_out(rows_a, statistic, seed) - _left_out(rows_b, statistic, seed)
    half = _half(left)
    if math.isnan(half) or math.isnan(difference):
        return (math.nan, math.nan), math.nan
    if not half:
        return (difference, difference), 1.0 if difference == 0 else 0.0
    error = half / _student(_defined(left).size)
    p_value = 2 * float(stdtr(_defined(left).size - 1, -abs(difference) / error))
    return (difference - half, difference + half), p_value


def mcnemar(hits_a: np.ndarray, hits_b: np.ndarray) -> float:
    """Returns the two-sided p-value of McNemar's exact test: do two models err on equally many of the same samples?

    Args:
        hits_a, hits_b: whether each model was right, [N], sample by sample.
    """
    from scipy.special import bdtr

    a, b = np.asarray(hits_a, bool), np.asarray(hits_b, bool)
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    # The discordant pairs are fair coin tosses if the models are equally good.
    return min(1.0, 2 * float(bdtr(min(only_a, only_b), only_a + only_b, 0.5)))


def paired_shares(hits_a: np.ndarray, hits_b: np.ndarray) -> tuple[float, float]:
    """Returns the 95 % interval of the share that b hits less than a, of the same samples.

    Wald's with half a sample more in each of the four kinds of pairs (Agresti & Min, "Simple improved confidence
    intervals for comparing matched proportions", 2005): sane for few pairs that differ, and for none.
    """
    from scipy.special import ndtri

    a, b = np.asarray(hits_a, bool), np.asarray(hits_b, bool)
    only_a, only_b, count = int((a & ~b).sum()), int((b & ~a).sum()), len(a) + 2
    centre = (only_a - only_b) / count
    half = float(ndtri(0.975)) * math.sqrt(only_a + only_b + 1 - (only_a - only_b) ** 2 / count) / count
    return centre - half, centre + half


def paired_bootstrap(
    rows_a: Sequence[np.ndarray],
    rows_b: Sequence[np.ndarray],
    statistic: Statistic,
    *,
    resamples: int | None = None,
) -> tuple[float, float]:
    """Returns the 95 % interval of the difference of a statistic between two models, whose samples are drawn together.

    Args:
        rows_a, rows_b: what `statistic` takes from each model, first axis the samples.
        resamples: as of `bootstrap`.
    """
    count = len(rows_a)

    def difference(*rows: np.ndarray) -> float:
        return statistic(*rows[:count]) - statistic(*rows[count:])

    return bootstrap((*rows_a, *rows_b), difference, resamples=resamples)


def paired_permutation(
    rows_a: Sequence[np.ndarray],
    rows_b: Sequence[np.ndarray],
    statistic: Statistic,
    *,
    seed: int = 0,
    resamples: int | None = None,
) -> float:
    """Returns the two-sided p-value of the difference of a statistic between two models on the same samples.

    Where the models are equally good, swapping their results sample by sample changes nothing: the p-value is the
    share of random swaps that differ at least as much (Fisher, 1935), never under 1/(resamples + 1).

    Args:
        rows_a, rows_b: what `statistic` takes from each model, first axis the samples.
        resamples: how many swaps, each two calls of `statistic`; as of `bootstrap`.
    """
    observed = abs(statistic(*rows_a) - statistic(*rows_b))
    if math.isnan(observed):
        return math.nan
    count = len(rows_a[0])
    resamples = resamples or _resamples(count)
    generator = np.random.default_rng(seed)
    as_far = 0
    for _ in range(resamples):
        swap = generator.integers(0, 2, count, dtype=np.uint8).astype(bool)
        pairs = [(_choose(swap, b, a), _choose(swap, a, b)) for a, b in zip(rows_a, rows_b)]
        difference = abs(statistic(*(a for a, _ in pairs)) - statistic(*(b for _, b in pairs)))
        # Sums taken in another order differ in the last bits; an undefined draw speaks for no difference.
        as_far += not difference < observed * (1 - 1e-12)
    return (1 + as_far) / (1 + resamples)


def _left_out(rows: Sequence[np.ndarray], statistic: Statistic, seed: int) -> np.ndarray:
    """Returns the statistic without each group of samples, which are drawn: data often lie in order of their class."""
    count = len(rows[0])
    groups = min(_GROUPS, count)
    group = np.random.default_rng(seed).permutation(count) % groups
    return np.array([statistic(*(array[group != number] for array in rows)) for number in range(groups)])


def _defined(left: np.ndarray) -> np.ndarray:
    return left[~np.isnan(left)]


def _half(left: np.ndarray) -> float:
    """Returns half the width of the 95 % interval of what was found without each of some groups."""
    defined = _defined(left)
    if defined.size < max(2, left.size // 2):
        return math.nan
    spread = np.square(defined - defined.mean()).sum() * (defined.size - 1) / defined.size
    return _student(defined.size) * math.sqrt(spread)


def _student(groups: int) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(groups - 1, 0.975))


def _resamples(count: int) -> int:
    return max(_FEWEST_RESAMPLES, min(_RESAMPLES, _MOST_DRAWS // count))


def _choose(mask: np.ndarray, yes: np.ndarray, no: np.ndarray) -> np.ndarray:
    return np.where(mask.reshape(-1, *(1,) * (yes.ndim - 1)), yes, no)
