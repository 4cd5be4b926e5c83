"""The arithmetic of verdicts against scipy and written-out formulas, its monotony, and its error rates."""

from itertools import combinations
from math import inf, sqrt
from statistics import fmean, stdev

import numpy as np
import pytest
from benchmarks import error_rates
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from harness import statistics as stats
from harness.statistics import Printed

SEVERAL = st.lists(st.floats(80, 100), min_size=2, max_size=8)
POSITIVE = st.floats(0.01, 5)
ORDER = {"differs": 0, "undecided": 1, "reproduced": 2}


@settings(deadline=None, max_examples=50)
@given(SEVERAL, st.floats(80, 100), POSITIVE)
def test_against_an_exact_number_it_is_two_one_sided_t_tests(values: list[float], target: float, bound: float) -> None:
    assume(stdev(values) > 1e-3)
    half = stats.half_width(stats.against_printed(stdev(values), len(values), Printed(inf)))
    above = scipy_stats.ttest_1samp(values, target - bound, alternative="greater").pvalue
    below = scipy_stats.ttest_1samp(values, target + bound, alternative="less").pvalue
    p = max(above, below)
    assume(abs(p - 0.05) > 1e-6)
    off = fmean(values) - target
    assert (stats.within(off, half, bound) == "reproduced") == (p < 0.05)
    interval = scipy_stats.ttest_1samp(values, target).confidence_interval(0.9)
    assert (off - half, off + half) == pytest.approx((interval.low - target, interval.high - target), abs=1e-8)


@pytest.mark.parametrize(("n", "allowed"), [(3, 3.37), (5, 2.34), (10, 1.92)])
def test_one_draw_is_a_prediction_interval(n: int, allowed: float) -> None:
    """s sqrt(1 + 1/n) t(n - 1), and what scipy's t-test of equal variances makes of n against 1."""
    half = stats.half_width(stats.against_printed(1.0, n, Printed()))
    assert half == pytest.approx(allowed, abs=0.006)
    ours = np.random.default_rng(0).normal(90, 1, n)
    test = scipy_stats.ttest_ind(ours, [91.0], equal_var=True).confidence_interval(0.9)
    mine = stats.half_width(stats.against_printed(ours.std(ddof=1), n, Printed()))
    assert 2 * mine == pytest.approx(test.high - test.low)


@settings(deadline=None, max_examples=50)
@given(POSITIVE, st.integers(2, 30), POSITIVE, st.integers(2, 30))
def test_two_means_lie_between_welch_and_the_smaller_degrees_of_freedom(s: float, n: int, r: float, m: int) -> None:
    half = stats.half_width(stats.two_means(s, n, r, m))
    a, b = s**2 / n, r**2 / m
    welch = (a + b) ** 2 / (a**2 / (n - 1) + b**2 / (m - 1))
    assert scipy_stats.t.ppf(0.95, welch) * sqrt(a + b) <= half * (1 + 1e-9)
    assert half <= scipy_stats.t.ppf(0.95, min(n, m) - 1) * sqrt(a + b) * (1 + 1e-9)
    if n == m:
        assert half == pytest.approx(scipy_stats.t.ppf(0.95, n - 1) * sqrt(a + b))


@settings(deadline=None, max_examples=50)
@given(st.floats(-5, 5), POSITIVE, st.floats(0, 5), st.floats(0, 5))
def test_words_are_monotone_in_tolerance_and_margin(off: float, half: float, one: float, other: float) -> None:
    small, large = sorted((one, other))
    assert ORDER[str(stats.within(off, half, small))] <= ORDER[str(stats.within(off, half, large))]
    assert ORDER[str(stats.above(off, half, small))] >= ORDER[str(stats.above(off, half, large))]


@settings(deadline=None, max_examples=50)
@given(POSITIVE, POSITIVE, st.integers(2, 9), POSITIVE, st.integers(2, 9))
def test_a_p_value_is_the_level_at_which_the_interval_ends(d: float, s: float, n: int, r: float, m: int) -> None:
    errors = stats.two_means(s, n, r, m)
    p = stats.p_value(d, errors)
    if p > 1e-9:
        assert stats.half_width(errors, p) == pytest.approx(d, rel=1e-3)
    assert (p < stats.ALPHA) == (stats.half_width(errors) < d)
    one = stats.against_printed(s, n, Printed())
    assert stats.p_value(d, one) == pytest.approx(scipy_stats.t.sf(d / one[0][0], n - 1), abs=1e-9)
    assert stats.p_value(0, errors) == stats.p_value(-d, errors) == 1


@settings(deadline=None, max_examples=50)
@given(POSITIVE, POSITIVE, st.integers(2, 20), st.integers(1, 5))
def test_further_seeds_are_the_fewest_that_decide(distance: float, std: float, n: int, m: int) -> None:
    def half(more: float) -> float:
        return float(stats.half_width(stats.against_printed(std, n + more, Printed(m))))

    more = stats.further_seeds(distance, lambda k: stats.against_printed(std, n + k, Printed(m)))
    limit = scipy_stats.norm.ppf(0.95) * std / sqrt(m)  # of ever more seeds of ours
    assert (more == inf) == (limit >= distance)
    if more < stats.SEEDS_LIMIT:
        assert half(more) < distance
        assert more == 1 or half(more - 1) >= distance


def test_a_stated_spread_of_two_seeds_may_be_too_uncertain_for_any_number_of_ours() -> None:
    def errors(more: float) -> stats.Errors:
        return stats.against_printed(0.1, 3 + more, Printed(2, 0.3))

    limit = scipy_stats.t.ppf(0.95, 1) * 0.3 / sqrt(2)
    assert stats.further_seeds(limit * 0.999, errors) == inf
    assert stats.further_seeds(limit * 1.001, errors) < inf


def test_printed_spreads_become_that_of_one_seed() -> None:
    assert stats.printed_std("std", 0.3, 0.0, 5) == pytest.approx(0.3)
    assert stats.printed_std("sem", 0.3, 0.0, 4) == pytest.approx(0.6)
    assert stats.printed_std("ci95", 1.96, 0.0, 4) == pytest.approx(2.0, rel=1e-4)
    for seeds, expected in ((2, 1.128), (3, 1.693), (5, 2.326), (10, 3.078)):  # d2 of quality control's tables
        assert stats.printed_std("range", 1.0, 0.0, seeds) == pytest.approx(1 / expected, rel=5e-4)
    assert stats.printed_std("std", 0.0, 0.05, 3) == pytest.approx(0.05)  # "0.0" is not without spread


def test_equal_accuracies_have_the_spread_of_two_that_are_one_image_apart_at_most() -> None:
    assert stats.half_step(360) == pytest.approx(100 / 360 / 2)
    assert stats.spread(0.0, stats.half_step(360)) == pytest.approx(np.std([0, 100 / 360]))
    assert stats.spread(3.0, 4.0) == pytest.approx(5.0)


def test_the_paired_error_is_that_of_the_differences_and_of_mcnemar() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.random((3, 500)) < 0.9, rng.random((2, 500)) < 0.8
    expected = 100 * scipy_stats.sem(a.mean(0) - b.mean(0))
    assert stats.paired_error(a, b) == pytest.approx(expected)
    only_a, only_b = int((a[0] & ~b[0]).sum()), int((b[0] & ~a[0]).sum())
    mcnemar = sqrt(only_a + only_b - (only_a - only_b) ** 2 / 500) / 500 * sqrt(500 / 499)
    assert stats.paired_error(a[:1], b[:1]) == pytest.approx(100 * mcnemar)
    assert stats.paired_error(a, a) == 0


@settings(deadline=None, max_examples=100)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=6), st.floats(0.001, 0.5))
def test_holm_is_the_closed_test_of_bonferroni(p: list[float], alpha: float) -> None:
    """Rejected is what every set of hypotheses that holds it rejects by its smallest p-value times its size."""
    sets = [chosen for size in range(1, len(p) + 1) for chosen in combinations(range(len(p)), size)]
    for i, adjusted in enumerate(stats.holm(p)):
        closed = max(min(1.0, len(chosen) * min(p[k] for k in chosen)) for chosen in sets if i in chosen)
        assert adjusted == pytest.approx(closed)
        assert 0 <= adjusted <= 1
    assert stats.holm([]) == []


# ------------------------------------------------------------------------------------------ error rates

CASES = 10_000
CHANCE = 4 * sqrt(0.05 * 0.95 / CASES)  # four standard errors of a rate of 5 %, for the largest of a hundred


@pytest.mark.parametrize("name", error_rates.conditions())
def test_false_words_stay_under_five_percent_a_side(name: str) -> None:
    rng = np.random.default_rng(0)
    rates = [error_rates.simulate(c, rng, CASES) for c in error_rates.conditions()[name]]
    assert max(rate.reproduced for rate in rates) < stats.ALPHA + CHANCE
    assert max(rate.differs for rate in rates) < stats.ALPHA + CHANCE


def test_the_levels_are_reached_where_the_interval_is_exact_and_nothing_far_away_is_taken_for_the_other() -> None:
    rng = np.random.default_rng(0)
    for n in error_rates.SEEDS:
        rates = error_rates.simulate(error_rates.Condition(n), rng, CASES)
        assert (rates.reproduced, rates.differs) == pytest.approx((0.05, 0.05), abs=CHANCE)
        equal, double = error_rates.power(n, 100.0, rng, CASES)
        assert min(equal, double) > 0.99


def test_a_tolerance_below_the_spread_errs_on_both_sides() -> None:
    rng = np.random.default_rng(0)
    rates = [error_rates.simulate(c, rng, CASES).either for c in error_rates.near()]
    assert 0.09 < max(rates) < 2 * stats.ALPHA + CHANCE


def test_the_simulation_sees_an_interval_that_is_too_narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Welch's, and accuracies whose steps are forgotten: both above the level, so the test above can fail."""

    def welch(std_a: np.ndarray, n_a: float, std_b: np.ndarray, n_b: float) -> stats.Errors:
        a, b = std_a**2 / n_a, std_b**2 / n_b
        return [(np.sqrt(a + b), (a + b) ** 2 / (a**2 / (n_a - 1) + b**2 / (n_b - 1)))]

    rng = np.random.default_rng(0)
    ours = error_rates.Condition(2, "recipe", 10, 0.5)
    assert error_rates.simulate(ours, rng, CASES).differs < stats.ALPHA + CHANCE
    monkeypatch.setattr(stats, "two_means", welch)
    assert error_rates.simulate(ours, rng, CASES).differs > 0.07
    coarse = error_rates.Condition(5, "exact", step=5, at=0.4)
    assert error_rates.simulate(coarse, rng, CASES).differs < stats.ALPHA + CHANCE
    monkeypatch.setattr(stats, "spread", lambda std, half_step: np.maximum(std, half_step / sqrt(3)))
    assert error_rates.simulate(coarse, rng, CASES).reproduced > 0.1


@pytest.mark.parametrize("wrong", [0, 10])
@pytest.mark.parametrize("shared", [0.0, 0.9, 1.0])
def test_holm_names_no_true_claim_in_95_percent_of_sources_however_they_share_seeds(shared: float, wrong: int) -> None:
    words, adjusted = error_rates.several(shared, wrong, np.random.default_rng(0), 2000)
    assert words > 0.15  # what counting words would do
    assert adjusted < stats.ALPHA
