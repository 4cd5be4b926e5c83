"""Verdicts: each word, the statistics against scipy and written-out formulas, and their monotony."""

import json
from math import sqrt
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pandas
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from run_directories import DIGEST, FINGERPRINT, write_run
from scipy import stats
from test_claims import collapse, load, ordering, source, value
from test_leaderboard import frame

from harness import claims, verdict
from harness.verdict import Current, Verdict

KNN = "knn_k20_t0.07"


def judge(root: Path, item: dict[str, Any], *, allow_dirty: bool = False) -> Verdict:
    runs = frame(root) if any(root.iterdir()) else pandas.DataFrame(columns=["recipe"])
    current = dict.fromkeys(set(runs["recipe"]), Current(DIGEST, FINGERPRINT))
    found = verdict.check(load(item).claims, runs, current, allow_dirty=allow_dirty)
    return found[0]


def number(printed: str = "97.0", tolerance: str = "1.0") -> dict[str, Any]:
    return value(
        recipe="r",
        value=printed,
        protocol=KNN,
        tolerance={"value": tolerance, "why": "x"},
        source=source(f"| {printed} |"),
    )


def write_seeds(root: Path, values: list[float], recipe: str = "r", **more: Any) -> None:
    for seed, top1 in enumerate(values):
        write_run(root, recipe, seed, top1=top1, **more)


def test_value_reproduced_differs_undecided_untried(tmp_path: Path) -> None:
    assert judge(tmp_path, number()).word == "untried"
    assert judge(tmp_path, number() | {"recipe": ""}).word == "untried"
    write_seeds(tmp_path, [97.0, 97.3, 96.8])
    good = judge(tmp_path, number("97.0", "1.0"))
    assert (good.word, good.text, good.n, good.more) == ("reproduced", "reproduced", (3,), None)
    assert good.ours == "97.03 ± 0.25"
    assert "against ±1.05" in good.why
    assert good.sampling_error == pytest.approx(100 * sqrt(0.9703 * 0.0297 / 360), rel=1e-3)
    assert "sampling error of the test set 0.89" in good.why
    assert judge(tmp_path, number("94.0", "1.0")).word == "differs"
    assert judge(tmp_path, number("99.9", "1.0")).word == "differs"  # better than printed differs, too
    unsure = judge(tmp_path, number("97.0", "0.3"))
    assert unsure.word == "undecided"
    assert unsure.more is not None
    assert unsure.more >= 1


def test_one_seed_is_undecided_and_a_diverged_one_is_never_reproduced(tmp_path: Path) -> None:
    write_run(tmp_path, "r", 0, top1=97.0)
    one = judge(tmp_path, number())
    assert (one.word, one.more) == ("undecided", 1)
    write_seeds(tmp_path, [97.0, 97.1, 96.9])
    assert judge(tmp_path, number()).word == "reproduced"
    write_run(tmp_path, "r", 3, status="diverged")
    assert judge(tmp_path, number()).word == "undecided"
    assert "1 diverged, so not reproduced" in judge(tmp_path, number()).why


def test_only_diverged_runs_differ(tmp_path: Path) -> None:
    write_seeds(tmp_path, [0.0, 0.0], status="diverged")
    assert (judge(tmp_path, number()).word, judge(tmp_path, number()).why) == ("differs", "all 2 runs diverged")


def test_ordering(tmp_path: Path) -> None:
    item = ordering(better="a", worse="b", protocol=KNN)
    write_seeds(tmp_path, [97.0, 97.4, 96.9], "a")
    assert judge(tmp_path, item).word == "untried"
    write_seeds(tmp_path, [90.0, 91.0, 90.5], "b")
    found = judge(tmp_path, item)
    assert (found.word, found.text, found.n) == ("reproduced", "holds at reduced scale", (3, 3))
    assert judge(tmp_path, ordering(better="b", worse="a", protocol=KNN)).text == "differs at reduced scale"
    assert judge(tmp_path, item | {"margin": {"value": "20", "why": "x"}}).word == "differs"
    unsure = judge(tmp_path, item | {"margin": {"value": "6.4", "why": "x"}})
    assert unsure.text == "undecided at reduced scale"
    assert unsure.more


@pytest.mark.parametrize(
    ("statuses", "expect", "word"),
    [
        (("collapsed", "collapsed"), "collapse", "reproduced"),
        (("complete", "complete"), "train", "reproduced"),
        (("complete", "complete"), "collapse", "differs"),
        (("diverged", "diverged"), "collapse", "differs"),
        (("collapsed", "complete"), "collapse", "undecided"),
        (("collapsed",), "collapse", "undecided"),
    ],
)
def test_collapse(tmp_path: Path, statuses: tuple[str, ...], expect: str, word: str) -> None:
    for seed, status in enumerate(statuses):
        write_run(tmp_path, "vicreg_digits", seed, status=status)
    found = judge(tmp_path, collapse(expect=expect))
    assert found.word == word
    assert found.more == (1 if len(statuses) == 1 else None)
    assert f"of {len(statuses)} seeds agree" in found.why


@pytest.mark.parametrize(
    ("statuses", "plain", "code"),
    [(("complete",) * 2, "differs", 1), (("collapsed",) * 2, "reproduced", 0), (("complete",), "undecided", 0)],
)
def test_known_excuses_a_difference_and_changes_nothing_else(
    tmp_path: Path, statuses: tuple[str, ...], plain: str, code: int
) -> None:
    for seed, status in enumerate(statuses):
        write_run(tmp_path, "vicreg_digits", seed, status=status)
    without = judge(tmp_path, collapse())
    found = judge(tmp_path, collapse(known="measured then: it trains"))
    assert (without.word, verdict.exit_code([without])) == (plain, code)
    assert verdict.exit_code([found]) == 0
    if plain == "differs":
        assert (found.word, found.text, found.known) == ("differs", "differs at reduced scale", True)
        assert found.why == without.why + "; known: measured then: it trains"
        assert verdict.exit_code([found, without]) == 1
    else:
        assert found == without


def test_known_comes_last_in_the_why(tmp_path: Path) -> None:
    for recipe, top1 in (("a", 90.0), ("b", 97.0)):
        write_seeds(tmp_path, [top1, top1 + 0.3], recipe, dirty=True)
    found = judge(tmp_path, ordering(better="a", worse="b", protocol=KNN, known="a trains less"), allow_dirty=True)
    assert found.why.endswith("; 4 from a dirty tree; known: a trains less")
    assert verdict.exit_code([found]) == 0


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"overrides": ("a=1",)}, "2 with overrides"),
        ({"digest": "c" * 12}, "2: recipe changed since"),
        ({"fingerprint": "c" * 12}, "2: code changed since"),
        ({"dirty": True}, "2: dirty tree"),
        ({"dirty": None}, "2: outside git"),
    ],
)
def test_barred(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    write_seeds(tmp_path, [97.0, 97.1], **change)
    found = judge(tmp_path, number())
    assert (found.word, found.why) == ("barred", f"runs barred: {reason}")
    assert found.text == "barred"
    if "dirty" not in change:
        assert judge(tmp_path, number(), allow_dirty=True).word == "barred"


def test_a_dirty_tree_may_count_and_is_marked_and_good_runs_are_judged_without_the_barred(tmp_path: Path) -> None:
    write_seeds(tmp_path, [97.0, 97.1, 96.9], dirty=True)
    found = judge(tmp_path, number(), allow_dirty=True)
    assert found.word == "reproduced"
    assert "3 from a dirty tree" in found.why
    write_run(tmp_path, "r", 9, top1=10.0, overrides=("a=1",), digest="d" * 12)
    assert "left out: 1 with overrides" in judge(tmp_path, number(), allow_dirty=True).why


def test_a_recipe_that_is_gone_bars_its_runs(tmp_path: Path) -> None:
    write_seeds(tmp_path, [97.0, 97.1])
    assert verdict.check(load(number()).claims, frame(tmp_path), {})[0].why == "runs barred: 2: recipe is gone"


def test_exit_code_and_table(tmp_path: Path) -> None:
    write_seeds(tmp_path, [97.0, 97.3, 96.8])
    current = {"r": Current(DIGEST, FINGERPRINT)}
    good = verdict.check(load(number()).claims, frame(tmp_path), current)
    bad = verdict.check(load(number("90.0")).claims, frame(tmp_path), current)
    untried = verdict.check(load(value()).claims, frame(tmp_path), current)
    assert [verdict.exit_code(x) for x in (good, bad, untried, good + bad, [])] == [0, 1, 0, 1, 0]
    table = verdict.to_frame(good + bad)
    assert list(table["verdict"]) == ["reproduced", "differs"]
    assert list(table["runs"]) == ["3", "3"]


# ------------------------------------------------------------------------------------------ statistics

FINITE = st.floats(80, 100)
SEVERAL = st.lists(FINITE, min_size=2, max_size=8)
ORDER = {"differs": 0, "undecided": 1, "reproduced": 2}


@settings(deadline=None, max_examples=50)
@given(SEVERAL, FINITE, st.floats(0.01, 5))
def test_equivalence_is_two_one_sided_tests(values: list[float], target: float, bound: float) -> None:
    assume(stdev(values) > 1e-3)
    word, low, high, _ = verdict.equivalence(values, target, bound)
    above = stats.ttest_1samp(values, target - bound, alternative="greater").pvalue
    below = stats.ttest_1samp(values, target + bound, alternative="less").pvalue
    p = max(above, below)
    assume(abs(p - 0.05) > 1e-6)
    assert (word == "reproduced") == (p < 0.05)
    interval = stats.ttest_1samp(values, target).confidence_interval(0.9)
    assert (low, high) == pytest.approx((interval.low - target, interval.high - target), abs=1e-8)


@settings(deadline=None, max_examples=50)
@given(SEVERAL, SEVERAL, st.floats(0, 3))
def test_superiority_is_welch(a: list[float], b: list[float], margin: float) -> None:
    assume(min(stdev(a), stdev(b)) > 1e-3)
    word, low, high, _ = verdict.superiority(a, b, margin)
    interval = stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.9)
    assert (low, high) == pytest.approx((interval.low, interval.high), rel=1e-6, abs=1e-8)
    assert word == ("reproduced" if low > margin else "differs" if high < margin else "undecided")


@settings(deadline=None, max_examples=50)
@given(SEVERAL, FINITE, st.floats(0, 10), st.floats(0, 10))
def test_a_verdict_is_monotone_in_its_tolerance(values: list[float], target: float, one: float, other: float) -> None:
    small, large = sorted((one, other))
    words = [verdict.equivalence(values, target, bound, 0.05)[0] for bound in (small, large)]
    assert ORDER[words[0]] <= ORDER[words[1]]


@settings(deadline=None, max_examples=50)
@given(SEVERAL, SEVERAL, st.floats(0, 5), st.floats(0, 5))
def test_an_ordering_is_monotone_in_its_margin(a: list[float], b: list[float], one: float, other: float) -> None:
    small, large = sorted((one, other))
    words = [verdict.superiority(a, b, margin, 0.05)[0] for margin in (small, large)]
    assert ORDER[words[0]] >= ORDER[words[1]]


@settings(deadline=None, max_examples=50)
@given(st.floats(0.05, 3), st.floats(0.1, 2), st.integers(2, 40))
def test_further_seeds_are_finite_enough_and_fewer_the_more_there_are(distance: float, std: float, n: int) -> None:
    more = verdict.further_seeds(distance, std, n)
    assert 1 <= more <= verdict.SEEDS_LIMIT
    if more < verdict.SEEDS_LIMIT:
        half = stats.t.ppf(0.95, n + more - 1) * std / sqrt(n + more)
        assert half < distance
        later = verdict.further_seeds(distance, std, n + 1)
        assert later == max(1, more - 1)


def test_further_seeds_really_decide() -> None:
    values = [97.0, 97.6, 96.7]
    word, _, _, more = verdict.equivalence(values, 97.0, 0.5)
    assert word == "undecided"
    assert more is not None
    mean, std, n = fmean(values), stdev(values), len(values) + more
    spread = std * sqrt((n - 1) / n)  # n numbers of the same mean and std
    same = [mean + spread * sign for sign in ([1, -1] * n)[: n - n % 2]] + [mean] * (n % 2)
    scale = std / stdev(same)
    assert verdict.equivalence([mean + (x - mean) * scale for x in same], 97.0, 0.5)[0] == "reproduced"


def test_equal_seeds_still_have_the_spread_of_one_image(tmp_path: Path) -> None:
    write_seeds(tmp_path, [97.0, 97.0])
    least = 100 / 360 / sqrt(12)
    assert verdict.quantum(json.loads('{"n": 360, "unit": "percent"}')) == pytest.approx(least)
    half = stats.t.ppf(0.95, 1) * least / sqrt(2)
    assert f"[{-half:+.2f}, {half:+.2f}]" in judge(tmp_path, number()).why


def test_the_paper_scale_words_are_plain_and_reduced_ones_say_so() -> None:
    assert set(verdict.REDUCED) == set(ORDER)
    assert all(text.endswith("at reduced scale") for text in verdict.REDUCED.values())
    assert isinstance(load(value()).claims[0], claims.Value)
