"""Verdicts: each word of each kind, what is said beside it, and what a plot of it needs. The arithmetic:
test_statistics.py."""

import json
from dataclasses import replace
from math import inf, sqrt
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
import pandas
import pytest
from run_directories import DIGEST, FINGERPRINT, write_run
from scipy import stats
from test_claims import ABOUT, collapse, load, ordering, source, value
from test_leaderboard import frame

from harness import predictions, verdict
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


def equal(tolerance: str = "1.0", **changes: Any) -> dict[str, Any]:
    two = without(ordering(), "better", "worse", "better_value", "worse_value", "margin")
    return two | {
        "id": "p/t1/equal", "kind": "equivalence", "one": "a", "other": "b", "one_value": "68.6", "other_value": "57.5",
        "protocol": KNN, "tolerance": {"value": tolerance, "why": "x"},
    } | changes  # fmt: skip


def bound(limit: str = "0.5", **changes: Any) -> dict[str, Any]:
    return ABOUT | {
        "id": "p/t1/bound", "kind": "bound", "recipe": "r", "measure": "test/collapse/embedding_std",
        "relation": "above", "bound": {"value": limit, "why": "x"}, "unit": "fraction", "value": "0.4",
        "dataset": "digits", "seeds": {"kind": "unstated"}, "selection": "unstated", "scale": "paper",
        "source": source("above 0.4"),
    } | changes  # fmt: skip


def without(item: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: one for name, one in item.items() if name not in names}


def edit(path: Path, change: Any) -> None:
    """Change the evaluations of a run's record."""
    record = json.loads((path / "record.json").read_text())
    for row in record["evals"]:
        change(row)
    (path / "record.json").write_text(json.dumps(record))


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
    assert "against ±1.05; printed: one draw, spread taken as ours; sampling error" in good.why
    assert good.sampling_error == pytest.approx(100 * sqrt(0.9703 * 0.0297 / 360), rel=1e-3)
    assert "sampling error of the test set 0.89" in good.why
    assert judge(tmp_path, number("94.0", "1.0")).word == "differs"
    assert judge(tmp_path, number("99.9", "1.0")).word == "differs"  # better than printed differs, too
    unsure = judge(tmp_path, number("97.0", "0.6"))
    assert (unsure.word, unsure.more, unsure.needed) == ("undecided", 4, "4")
    never = judge(tmp_path, number("97.0", "0.3"))
    assert (never.word, never.more, never.needed) == ("undecided", inf, "no number")
    assert "; no number of seeds decides, the printed number is too uncertain; printed: one draw" in never.why
    assert list(verdict.to_frame([never, unsure, good])["more seeds"]) == ["no number", "4", ""]


def test_what_is_known_of_the_printed_number_widens_or_narrows_the_interval(tmp_path: Path) -> None:
    values = [97.0, 97.6, 96.7]
    write_seeds(tmp_path, values)
    variance, t = stdev(values) ** 2 + (50 / 360) ** 2, stats.t.ppf(0.95, [2, 4])

    def half(**changes: Any) -> float:
        found = judge(tmp_path, number() | changes)
        assert found.low is not None
        assert found.high is not None
        assert found.effect == pytest.approx(fmean(values) - 97.0)
        return (found.high - found.low) / 2

    five = {"kind": "count", "value": 5}
    assert half() == pytest.approx(t[0] * sqrt(variance * (1 / 3 + 1)))
    assert half(seeds=five) == pytest.approx(t[0] * sqrt(variance * (1 / 3 + 1 / 5)))
    stated = {"kind": "std", "value": "0.30"}
    ours = t[0] ** 2 * variance / 3
    assert half(seeds=five, spread=stated) == pytest.approx(sqrt(ours + t[1] ** 2 * (0.30**2 + 0.005**2) / 5))
    unstated = stats.t.ppf(0.95, 1) ** 2 * (0.30**2 + 0.005**2) / 2
    assert half(spread=stated) == pytest.approx(sqrt(ours + unstated))
    assert half(seeds={"kind": "count", "value": 1}, spread=stated) == half()  # one seed has no spread
    assert half(source=source("97.0") | {"kind": "expectation"}) == pytest.approx(sqrt(ours))
    assert "; printed: std 0.30 over 5 seeds; " in judge(tmp_path, number() | {"seeds": five, "spread": stated}).why
    assert "; printed: std 0.30 over unstated seeds, taken as 2; " in judge(tmp_path, number() | {"spread": stated}).why
    assert "; printed: mean of 5 seeds, spread taken as ours; " in judge(tmp_path, number() | {"seeds": five}).why


def test_a_verdict_carries_what_a_plot_needs(tmp_path: Path) -> None:
    write_seeds(tmp_path, [97.0, 97.5])
    found = judge(tmp_path, number("97.2", "1.0"))
    assert found.claim is not None
    assert (found.claim.id, found.recipes, found.unit) == (found.id, ("r",), "percent")
    assert found.runs == (f"r/{DIGEST}/seed-0", f"r/{DIGEST}/seed-1")
    assert found.points == pytest.approx((-0.2, 0.3))
    assert found.band == pytest.approx((-1.05, 1.05))
    write_seeds(tmp_path, [90.0, 91.0], "b")
    two = judge(tmp_path, ordering(better="r", worse="b", protocol=KNN, margin={"value": "2", "why": "x"}))
    assert (two.effect, two.band, two.points, len(two.runs)) == (pytest.approx(6.75), (2.0, inf), (), 4)
    untried = judge(tmp_path, number() | {"recipe": "x"})
    assert (untried.recipes, untried.runs, untried.effect, untried.p) == (("x",), (), None, None)


def test_a_number_that_is_not_finite_is_left_out_and_said(tmp_path: Path) -> None:
    write_seeds(tmp_path, [97.0, 97.1, float("nan"), 96.9])
    found = judge(tmp_path, number())
    assert (found.word, found.n, len(found.runs)) == ("reproduced", (3,), 3)
    assert "; 1 without a finite number, left out; " in found.why


def test_equal_seeds_keep_the_spread_of_half_an_image(tmp_path: Path) -> None:
    write_seeds(tmp_path, [97.0, 97.0])
    half = stats.t.ppf(0.95, 1) * (50 / 360) * sqrt(1 / 2 + 1)
    assert f"[{-half:+.2f}, {half:+.2f}]" in judge(tmp_path, number()).why


def test_equal_seeds_of_another_metric_decide_nothing(tmp_path: Path) -> None:
    write_seeds(tmp_path, [97.0, 97.1])  # both with an embedding_std of 0.5
    item = number("0.5", "0.1") | {"protocol": "collapse", "metric": "embedding_std", "unit": "fraction"}
    found = judge(tmp_path, item | {"source": source("0.5")})
    assert (found.word, found.ours, found.more) == ("undecided", "0.5000 ± 0.0000", None)
    assert found.why == "equal seeds have no spread to judge by; printed: one draw, spread taken as ours"


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


def test_an_ordering_whose_recipes_diverged(tmp_path: Path) -> None:
    write_seeds(tmp_path, [97.0, 97.4], "a")
    write_seeds(tmp_path, [0.0, 0.0], "b", status="diverged")
    found = judge(tmp_path, ordering(better="a", worse="b", protocol=KNN))
    assert (found.word, found.why) == ("undecided", "b: all 2 runs diverged")
    found = judge(tmp_path, ordering(better="b", worse="a", protocol=KNN))
    assert (found.word, found.why) == ("differs", "all 2 runs diverged")
    assert judge(tmp_path, equal()).word == "differs"
    found = judge(tmp_path, ordering(better="a", worse="b", protocol="linear"))
    assert (found.word, found.why) == ("untried", "no run was evaluated by test/linear/top1")


def test_equivalence(tmp_path: Path) -> None:
    write_seeds(tmp_path, [97.0, 97.4, 96.9], "a")
    write_seeds(tmp_path, [97.1, 97.3, 97.2], "b")
    found = judge(tmp_path, equal("1.0"))
    assert (found.word, found.text, found.printed, found.n) == (
        "reproduced", "holds at reduced scale", "68.6 ≈ 57.5", (3, 3)
    )  # fmt: skip
    assert found.why.startswith("90 % interval of one - other [")
    assert "] against ±1; sampling error of the test set " in found.why
    assert (found.band, found.p) == ((-1.0, 1.0), 1.0)
    assert judge(tmp_path, equal("0.1")).word == "undecided"
    write_seeds(tmp_path, [90.0, 90.2, 90.1], "b")
    for item in (equal(), equal(one="b", other="a")):  # on either side
        found = judge(tmp_path, item)
        assert found.word == "differs"
        assert found.p is not None
        assert found.p < 0.01


def test_bound(tmp_path: Path) -> None:
    def run(seed: int, number: float) -> None:
        edit(write_run(tmp_path, "r", seed), lambda row: row["metrics"].update(embedding_std=number))

    assert judge(tmp_path, bound()).word == "untried"
    run(0, 0.75)
    one = judge(tmp_path, bound())
    assert (one.word, one.more, one.ours) == ("undecided", 1, "0.75")
    run(1, 0.875)
    found = judge(tmp_path, bound())
    assert (found.word, found.ours, found.n, found.p) == ("reproduced", "0.75, 0.875", (2,), None)
    assert found.why == "claimed: test/collapse/embedding_std above 0.5; 2 of 2 seeds agree"
    assert (found.points, found.band, found.effect) == ((0.25, 0.375), (0.0, inf), 0.3125)
    below = judge(tmp_path, bound(relation="below"))
    assert (below.word, below.band) == ("differs", (-inf, 0.0))
    assert judge(tmp_path, bound("0.8")).word == "undecided"
    assert judge(tmp_path, bound("0.75")).word == "undecided"  # on the bound is not above it
    run(2, float("nan"))
    assert judge(tmp_path, bound()).why.endswith("2 of 2 seeds agree; 1 without a finite number, left out")
    write_run(tmp_path, "r", 3, status="diverged")
    found = judge(tmp_path, bound())
    assert (found.word, found.n) == ("undecided", (3,))
    assert "2 of 3 seeds agree; 1 diverged, so not reproduced" in found.why


def test_a_bound_on_a_diagnostic_is_on_its_last_logged_value(tmp_path: Path) -> None:
    runs = pandas.DataFrame(
        {"run": [f"r/{DIGEST}/seed-{seed}" for seed in (0, 1)], "recipe": "r", "digest": DIGEST, "dirty": False}
        | {"fingerprint": FINGERPRINT, "overrides": "", "status": "complete", "diagnostics/entropy": [1.5, 2.5]}
    )
    current = {"r": Current(DIGEST, FINGERPRINT)}
    (found,) = verdict.check(load(bound("1", measure="diagnostics/entropy")).claims, runs, current)
    assert (found.word, found.ours) == ("reproduced", "1.5, 2.5")
    (found,) = verdict.check(load(bound("1", measure="diagnostics/none")).claims, runs, current)
    assert (found.word, found.why) == ("untried", "no run was evaluated by diagnostics/none")


def test_two_recipes_are_compared_image_by_image_where_the_predictions_were_kept(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for recipe, top1 in (("a", 97.0), ("b", 90.0)):
        write_seeds(tmp_path, [top1, top1 + 1], recipe)
    item = load(ordering(better="a", worse="b", protocol=KNN)).claims
    runs, current = frame(tmp_path), dict.fromkeys("ab", Current(DIGEST, FINGERPRINT))

    def judged() -> Verdict:
        return verdict.check(item, runs, current, correct=predictions.reader(tmp_path, {}))[0]

    alone = sqrt(sum(100**2 * p * (1 - p) / 360 for p in (0.975, 0.905)))
    assert judged().sampling_error == pytest.approx(alone)
    assert judged().why.endswith(f"; sampling error of the test set {alone:.2f}, not paired")
    bits = {(recipe, seed): rng.random(360) < 0.9 for recipe in "ab" for seed in (0, 1)}
    for (recipe, seed), row_bits in bits.items():
        path = tmp_path / recipe / DIGEST / f"seed-{seed}"
        edit(path, lambda row, kept=row_bits: row.update(correct={"top1": predictions.pack(kept)}))
    means = [np.mean([bits[recipe, seed] for seed in (0, 1)], axis=0) for recipe in "ab"]
    paired = 100 * stats.sem(means[0] - means[1])
    assert judged().sampling_error == pytest.approx(paired)
    assert judged().why.endswith(f"; sampling error of the test set {paired:.2f}, paired by image")
    (tmp_path / "a" / DIGEST / "seed-0" / "record.json").write_text("{")
    assert judged().why.endswith("not paired")


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
        assert replace(found, claim=None) == replace(without, claim=None)


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
    stale = [Verdict("record/r", "record", "paper", "stale", "")]
    assert [verdict.exit_code(stale), verdict.exit_code(stale, ("stale",)), verdict.exit_code(bad, ("stale",))] == [
        0,
        1,
        0,
    ]
    table = verdict.to_frame(good + bad)
    assert list(table["verdict"]) == ["reproduced", "differs"]
    assert list(table["runs"]) == ["3", "3"]


def test_the_paper_scale_words_are_plain_and_reduced_ones_say_so() -> None:
    assert set(verdict.REDUCED) == {"reproduced", "differs", "undecided"}
    assert all(text.endswith("at reduced scale") for text in verdict.REDUCED.values())


def test_a_claim_printed_as_a_fraction_is_compared_in_percent(tmp_path: Path) -> None:
    write_seeds(tmp_path, [97.0, 97.3, 96.8])
    percent, fraction = number("97.0", "1.0"), number("0.970", "0.01") | {"unit": "fraction"}
    found, same = judge(tmp_path, percent), judge(tmp_path, fraction)
    assert same.word == found.word == "reproduced"
    assert same.effect == pytest.approx(found.effect)
    assert same.points == pytest.approx(found.points)
    assert same.band == pytest.approx((-1.05, 1.05))  # half a unit of the last digit is 0.0005, or 0.05 points
