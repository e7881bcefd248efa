"""Intervals and tests against scipy's and against what they promise."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeopt import statistics

counts = st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@given(counts)
def test_wilson_is_scipys(pair: tuple[int, int]) -> None:
    successes, trials = pair
    expected = scipy.stats.binomtest(successes, trials).proportion_ci(method="wilson")
    assert statistics.wilson(successes, trials) == pytest.approx((expected.low, expected.high), abs=1e-9)


@given(counts)
def test_wilson_holds_the_value_and_stays_a_share(pair: tuple[int, int]) -> None:
    successes, trials = pair
    low, high = statistics.wilson(successes, trials)
    assert 0 <= low <= successes / trials <= high <= 1


@given(counts)
def test_wilson_grows_with_the_successes_and_narrows_with_the_trials(pair: tuple[int, int]) -> None:
    successes, trials = pair
    low, high = statistics.wilson(successes, trials)
    if successes < trials:
        above = statistics.wilson(successes + 1, trials)
        assert above[0] >= low
        assert above[1] >= high
    narrower = statistics.wilson(4 * successes, 4 * trials)
    assert narrower[1] - narrower[0] < high - low


@pytest.mark.parametrize(("successes", "trials"), [(0, 0), (3, 2), (-1, 2)])
def test_wilson_refuses_what_is_no_proportion(successes: int, trials: int) -> None:
    with pytest.raises(ValueError, match=rf"at least one trial, got {successes} of {trials}"):
        statistics.wilson(successes, trials)


def test_bootstrap_of_a_mean_is_near_the_normal_interval() -> None:
    values = np.random.default_rng(3).exponential(size=2000)
    low, high = statistics.bootstrap((values,), lambda v: float(v.mean()))
    half = 1.96 * values.std() / math.sqrt(len(values))
    assert low == pytest.approx(values.mean() - half, abs=0.2 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.2 * half)


def test_bootstrap_is_near_scipys_on_rows_drawn_together() -> None:
    generator = np.random.default_rng(0)
    x = generator.normal(size=300)
    y = x + generator.normal(size=300)

    def correlation(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.corrcoef(a, b)[0, 1])

    expected = scipy.stats.bootstrap(
        (x, y), correlation, paired=True, vectorized=False, n_resamples=1000, method="percentile", rng=1
    ).confidence_interval
    low, high = statistics.bootstrap((x, y), correlation)
    width = expected.high - expected.low
    assert low == pytest.approx(expected.low, abs=0.15 * width)
    assert high == pytest.approx(expected.high, abs=0.15 * width)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50))
def test_bootstrap_holds_the_value_and_repeats(values: list[float]) -> None:
    rows = (np.array(values),)
    low, high = statistics.bootstrap(rows, lambda v: float(v.mean()), seed=7)
    assert low <= rows[0].mean() <= high
    assert (low, high) == statistics.bootstrap(rows, lambda v: float(v.mean()), seed=7)


def test_bootstrap_leaves_undefined_draws_out() -> None:
    values = np.array([1.0] * 9 + [0.0])
    low, high = statistics.bootstrap((values,), lambda v: float(v.mean()) if (v == 0).any() else math.nan)
    assert 0.5 < low <= 0.9 == high
    assert all(map(math.isnan, statistics.bootstrap((values,), lambda v: math.nan)))


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=200))
def test_mcnemar_is_the_binomial_test_of_the_discordant_pairs(pairs: list[tuple[bool, bool]]) -> None:
    a, b = (np.array(column) for column in zip(*pairs))
    only_a, discordant = int((a & ~b).sum()), int((a != b).sum())
    expected = scipy.stats.binomtest(only_a, discordant).pvalue if discordant else 1.0
    assert statistics.mcnemar(a, b) == pytest.approx(expected)
    assert statistics.mcnemar(a, b) == statistics.mcnemar(b, a)


def test_mcnemar_does_not_celebrate_three_samples() -> None:
    a = np.ones(1000, bool)
    b = a.copy()
    b[:3] = False
    assert statistics.mcnemar(a, b) == pytest.approx(2 * 0.5**3)


def test_permutation_tells_a_shift_from_noise() -> None:
    generator = np.random.default_rng(0)
    a = generator.normal(size=200)
    noise = generator.normal(scale=0.5, size=200)

    def mean(values: np.ndarray) -> float:
        return float(values.mean())

    expected = scipy.stats.ttest_rel(a, a + noise).pvalue  # the noise is normal
    assert statistics.paired_permutation((a,), (a + noise,), mean) == pytest.approx(expected, abs=0.05)
    assert statistics.paired_permutation((a,), (a + noise + 0.5,), mean) == pytest.approx(1 / 1001)
    assert statistics.paired_permutation((a,), (a,), mean) == 1.0


def test_permutation_swaps_rows_of_any_shape_together() -> None:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 4, 300)
    scores = np.eye(4)[labels] + generator.normal(scale=0.1, size=(300, 4))
    worse = generator.normal(size=(300, 4))

    def accuracy(outputs: np.ndarray, targets: np.ndarray) -> float:
        return float((outputs.argmax(1) == targets).mean())

    assert statistics.paired_permutation((scores, labels), (worse, labels), accuracy) < 0.01


@pytest.mark.parametrize("lost", [0, 1, 5, 20])
@pytest.mark.parametrize("samples", [50, 1000])
def test_paired_shares(lost: int, samples: int) -> None:
    before = np.ones(samples, bool)
    after = before.copy()
    after[:lost] = False
    low, high = statistics.paired_shares(before, after)
    assert low < lost / samples < high
    # One sample shows nothing, however many there are; McNemar's test draws the line at six.
    assert (low > 0) == (lost >= 5)
    assert statistics.paired_shares(after, before) == pytest.approx((-high, -low))
    assert high - low == pytest.approx(
        2 * 1.96 * math.sqrt(lost + 1 - lost**2 / (samples + 2)) / (samples + 2), rel=1e-4
    )


def test_paired_bootstrap_draws_both_models_together() -> None:
    errors = np.random.default_rng(1).exponential(size=400)
    low, high = statistics.paired_bootstrap([errors + 0.01], [errors], lambda rows: float(rows.mean()))
    assert (low, high) == pytest.approx((0.01, 0.01))


def test_the_jackknife_is_as_wide_as_theory() -> None:
    values = np.random.default_rng(0).normal(3, 2, 400)
    low, high = statistics.jackknife((values,), lambda array: float(array.mean()))
    assert (low + high) / 2 == pytest.approx(values.mean())
    # Student's quantile of 19 degrees of freedom, with the doubt that 20 groups leave of the spread.
    assert (high - low) / 2 == pytest.approx(2.093 * 2 / math.sqrt(400), rel=0.4)
    few = statistics.jackknife((np.float64([1, 2, 4]),), lambda array: float(array.mean()))
    spread = np.std([1, 2, 4], ddof=1) / math.sqrt(3)
    assert few == pytest.approx((7 / 3 - 4.303 * spread, 7 / 3 + 4.303 * spread), rel=1e-3)


def test_the_paired_jackknife_is_students_test() -> None:
    generator = np.random.default_rng(0)
    a = generator.normal(size=20)
    b = a + generator.normal(0.4, 0.5, 20)
    (low, high), p_value = statistics.paired_jackknife((a,), (b,), lambda array: float(array.mean()))
    expected = scipy.stats.ttest_rel(a, b)
    assert p_value == pytest.approx(expected.pvalue)
    assert (low, high) == pytest.approx(tuple(expected.confidence_interval()))


def test_a_statistic_that_is_undefined_without_a_group() -> None:
    def of_many(array: np.ndarray) -> float:
        return float(array.mean()) if len(array) == 40 else math.nan

    values = np.arange(40.0)
    assert np.isnan(statistics.jackknife((values,), of_many)).all()
    assert np.isnan([*statistics.paired_jackknife((values,), (values,), of_many)[0]]).all()
