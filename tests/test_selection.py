"""Which settings win: intervals by hand and by scipy, Bonferroni, what ties and what is unstable."""

import json
from math import sqrt
from pathlib import Path
from statistics import fmean, stdev

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from study_files import asked, write_study

from harness.errors import RunConflict
from harness.studies.selection import (
    Comparison,
    compare,
    compare_runs,
    final_values,
    finalists,
    further_seeds,
    interval,
    ranked,
    winner,
)
from harness.studies.study import Finalist, Trial
from harness.verdict import SEEDS_LIMIT

DEFAULT, A, B = (
    Finalist(trial=trial, params={}, overrides=(), digest=digest)
    for trial, digest in ((None, "default"), (3, "a"), (5, "b"))
)
BASE = [94.0, 94.5, 93.8, 94.2, 94.1]


def by_scipy(mine: list[float], base: list[float], level: float) -> tuple[float, float]:
    found = stats.ttest_rel(mine, base).confidence_interval(level)
    return float(found.low), float(found.high)


def test_an_interval_by_hand() -> None:
    # differences 1, 2, 3: mean 2, std 1, t(2, 97.5 %) = 4.302653
    off, low, high = interval([1.0, 2.0, 3.0], 1)
    assert (off, low, high) == pytest.approx((2.0, 2 - 4.302653 / sqrt(3), 2 + 4.302653 / sqrt(3)), abs=1e-6)


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 100)), min_size=2, max_size=9), st.integers(1, 5))
def test_intervals_are_those_of_the_paired_t_test(pairs: list[tuple[float, float]], comparisons: int) -> None:
    differences = [a - b for a, b in pairs]
    if np.std(differences) < 1e-6:
        return
    _, low, high = interval(differences, comparisons)
    mine, base = [a for a, _ in pairs], [b for _, b in pairs]
    assert (low, high) == pytest.approx(by_scipy(mine, base, 1 - 0.05 / comparisons), abs=1e-6)


def test_bonferroni_widens_by_the_number_of_finalists() -> None:
    mine = [94.9, 94.6, 94.6, 94.3, 94.9]
    (_, alone) = compare([DEFAULT, A], {"default": BASE, "a": mine})
    (_, shared, _) = compare([DEFAULT, A, B], {"default": BASE, "a": mine, "b": BASE})
    assert (alone.low, alone.high) == pytest.approx(by_scipy(mine, BASE, 0.95))
    assert (shared.low, shared.high) == pytest.approx(by_scipy(mine, BASE, 0.975))
    assert (alone.word, shared.word) == ("better", "undecided")  # the case was chosen to lie between


def test_words_and_the_winner() -> None:
    better, best = [x + 1.0 + 0.01 * i for i, x in enumerate(BASE)], [x + 2.0 + 0.01 * i for i, x in enumerate(BASE)]
    found = compare([DEFAULT, A, B], {"default": BASE, "a": better, "b": best})
    assert [one.word for one in found] == ["default", "better", "better"]
    assert winner(found) == 2
    worse = [x - 1.0 + 0.01 * i for i, x in enumerate(BASE)]
    found = compare([DEFAULT, A, B], {"default": BASE, "a": worse, "b": [95.5, 93.0, 94.9, 93.9, 94.4]})
    assert [one.word for one in found] == ["default", "worse", "undecided"]
    assert winner(found) == 0
    assert found[2].mean == pytest.approx(94.34)


def test_a_higher_mean_that_is_not_better_does_not_win() -> None:
    found = compare([DEFAULT, A, B], {"default": BASE, "a": [x + 0.5 for x in BASE], "b": [99.0, 90.0, 99, 99, 99]})
    assert [one.word for one in found] == ["default", "better", "undecided"]
    assert (found[2].mean or 0) > (found[1].mean or 0)
    assert winner(found) == 1


def test_of_equals_the_first_wins() -> None:
    same = [x + 1.0 for x in BASE]
    assert winner(compare([DEFAULT, A, B], {"default": BASE, "a": same, "b": same})) == 1


def test_least_std_keeps_equal_differences_from_being_certain() -> None:
    mine = [x + 0.1 for x in BASE]
    assert compare([DEFAULT, A], {"default": BASE, "a": mine})[1].word == "better"  # a spread of 0
    found = compare([DEFAULT, A], {"default": BASE, "a": mine}, least_std=0.3)[1]
    assert found.word == "undecided"
    half = stats.t.ppf(0.975, 4) * sqrt(2) * 0.3 / sqrt(5)
    assert (found.low, found.high) == pytest.approx((0.1 - half, 0.1 + half))


def test_a_seed_that_is_lost_makes_settings_unstable() -> None:
    high = [x + 3.0 for x in BASE]
    (_, one) = found = compare([DEFAULT, A], {"default": BASE, "a": [None, *high[1:]]})
    assert (one.word, one.difference, one.measured) == ("unstable", None, high[1:])
    assert winner(found) == 0
    (_, one) = compare([DEFAULT, A], {"default": [None, *BASE[1:]], "a": high})  # it was the default that lost it
    assert (one.word, one.difference) == ("better", pytest.approx(3.0))
    (_, one) = compare([DEFAULT, A], {"default": [None, *BASE[1:]], "a": [None, *high[1:]]})
    assert one.word == "better"


def test_without_two_pairs_nothing_is_decided() -> None:
    (_, one) = compare([DEFAULT, A], {"default": [94.0, None], "a": [99.0, 99.0]})
    assert (one.word, one.low) == ("undecided", None)
    (_, one) = compare([DEFAULT, A], {"default": [None, None], "a": [99.0, 99.0]})
    assert one.word == "undecided"


def test_nothing_was_measured() -> None:
    assert Comparison(DEFAULT, (None, None)).mean is None
    assert winner(compare([DEFAULT], {"default": [None, None]})) == 0


def trial(number: int, value: float | None, outcome: str = "complete", digest: str = "") -> Trial:
    return Trial(
        number=number, params={}, overrides=(), seed=1, digest=digest or f"d{number}", outcome=outcome, value=value
    )


def test_only_complete_trials_are_ranked() -> None:
    some = [trial(0, 91.0), trial(1, 99.0, "collapsed"), trial(2, 95.0), trial(3, 95.0), trial(4, None, "pruned")]
    assert [one.number for one in ranked(some)] == [2, 3, 0]


def test_finalists_are_the_default_and_the_best_settings_each_once() -> None:
    study = asked(finalists=2)
    own = study.base().digest
    some = [
        trial(0, 96.0, digest=own),
        trial(1, 95.0, digest="x"),
        trial(2, 95.5, digest="x"),
        trial(3, 90.0),
        trial(4, 89.0),
    ]
    found = finalists(study, some)
    assert [(one.label, one.digest) for one in found] == [("default", own), ("trial 2", "x"), ("trial 3", "d3")]
    assert found[0].params == study.default()
    assert [one.label for one in finalists(study, [])] == ["default"]


def test_false_winners_stay_under_five_percent() -> None:
    """Nothing is better, two finalists, five seeds: the default must stay in 95 % of studies, whatever pairs share."""
    rng, wins, studies = np.random.default_rng(0), 0, 4000
    for _ in range(studies):
        seed = rng.normal(94, 0.5, 5)  # what all settings share on a seed
        values = {one.digest: list(seed + rng.normal(0, 0.4, 5)) for one in (DEFAULT, A, B)}
        wins += winner(compare([DEFAULT, A, B], values)) > 0
    # 5 % is for better or worse together, so about half of it is for better; 0.05 is 7 standard errors away
    assert wins / studies < 0.05
    assert wins / studies == pytest.approx(0.025, abs=0.01)


def test_final_runs_are_compared_by_their_records(tmp_path: Path) -> None:
    study, _, final = write_study(tmp_path)
    assert final
    values, n = final_values(study, tmp_path, final, "held_out")
    mine, base = (values[final.finalists[i].digest] for i in (2, 0))
    found = compare_runs(study, tmp_path, final)[2]
    assert n == 360
    assert found.values == tuple(mine)
    low, high = by_scipy(mine, base, 0.975)  # type: ignore[arg-type]
    step = stats.t.ppf(0.9875, len(mine) - 1) * sqrt(2) * (50 / n) / sqrt(len(mine))  # half an image, in quadrature
    half = sqrt(((high - low) / 2) ** 2 + step**2)
    assert (found.low, found.high) == pytest.approx(((low + high) / 2 - half, (low + high) / 2 + half))
    tested, _ = final_values(study, tmp_path, final, "test")
    assert [None in tested[one.digest] for one in final.finalists] == [False, True, False]  # default, loser, winner


def test_runs_that_hit_the_same_image_count_keep_a_spread(tmp_path: Path) -> None:
    study, _, final = write_study(tmp_path)
    assert final
    for one, value in zip(final.finalists, (94.0, 94.1, 94.15), strict=True):
        for seed in final.seeds:
            file = tmp_path / study.recipe / one.digest / f"seed-{seed}" / "record.json"
            record = json.loads(file.read_text())
            record["evals"][0]["metrics"]["top1"] = value
            file.write_text(json.dumps(record))
    assert [one.word for one in compare_runs(study, tmp_path, final)] == ["default", "undecided", "undecided"]
    file.write_text("{")
    with pytest.raises(RunConflict, match=r"^.*record.json is damaged \(.*\); remove it and start the study again$"):
        compare_runs(study, tmp_path, final)


def test_the_seeds_that_would_decide_do() -> None:
    """So many more at the same mean and spread leave 0 out; one less does not."""
    some = [1.0, -0.5, 0.8, -0.2, 0.4]
    more = further_seeds(some, 2)
    assert more > 1
    n, off, spread = len(some), fmean(some), stdev(some)

    def low(count: int) -> float:
        return off - float(stats.t.ppf(1 - 0.05 / 4, count - 1)) * spread / count**0.5

    assert low(n + more) > 0 >= low(n + more - 1)
    assert further_seeds([0.5, -0.5, 1e-9, -1e-9], 1) == SEEDS_LIMIT
