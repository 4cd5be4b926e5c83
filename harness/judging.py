"""How a claim of each kind is judged by the runs of its recipes: the fields of a verdict that follow from numbers.

`value`, `two` (ordering and equivalence), `collapse` and `bound` return word, why, more and what else they know of
`verdict.Verdict`. The runs have been chosen before, and there is one at least of each recipe.
"""

from collections.abc import Callable, Mapping, Sequence
from math import inf, sqrt
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from harness import statistics as stats
from harness.claims import Bound, Collapse, Equivalence, Ordering, Value
from harness.leaderboard import details, sampling_error
from harness.statistics import MIN_SEEDS

if TYPE_CHECKING:
    from harness.predictions import Found, Reader
    from harness.verdict import Runs


def value(claim: Value, runs: "Runs") -> dict[str, Any]:
    column = claim.column
    values, keys = runs.measured(column)
    if not values:
        return _no_number(column, runs)
    about = details(runs.good, column)
    unit = 100.0 if (claim.unit, about.get("unit")) == ("fraction", "percent") else 1.0  # printed as 0.847
    printed, how = printed_of(claim, unit)
    bound, step = unit * (float(claim.tolerance.value) + claim.half_unit), half_step(about)
    points = tuple(x - unit * float(claim.value) for x in values)
    found: dict[str, Any] = {"ours": spell(values, _digits(about)), "runs": keys, "n": (len(values),)}
    found |= {"effect": fmean(points), "points": points, "band": (-bound, bound), "unit": about.get("unit", claim.unit)}
    notes = [how, *_left_out(column, runs)]
    if about.get("unit") == "percent":
        found["sampling_error"] = sampling_error(fmean(values), about["n"])
        notes.append(f"sampling error of the test set {found['sampling_error']:.2f}")
    if len(values) < MIN_SEEDS:
        return found | _one_seed(len(values), notes)
    std, n = float(stats.spread(stdev(values), step)), len(values)

    def errors(more: float = 0) -> stats.Errors:
        return stats.against_printed(std, n + more, printed)

    lost = runs.without(column, diverged=True)
    return found | _decided(fmean(points), errors, (-bound, bound), "the difference", notes, lost, _digits(about))


def two(claim: Ordering | Equivalence, first: "Runs", second: "Runs", correct: "Reader | None") -> dict[str, Any]:
    column = claim.column
    (a, a_keys), (b, b_keys) = first.measured(column), second.measured(column)
    if not a or not b:
        found = _no_number(column, *([] if a else [first]), *([] if b else [second]))
        if found["word"] == "differs" and a and isinstance(claim, Ordering):  # only the worse one diverged
            return {"word": "undecided", "why": f"{claim.worse}: {found['why']}"}
        return found
    if isinstance(claim, Ordering):
        band, what = (float(claim.margin.value), inf), "better - worse"
    else:
        band, what = (-float(claim.tolerance.value), float(claim.tolerance.value)), "one - other"
    about, effect = details(first.good, column), fmean(a) - fmean(b)
    digits = _digits(about)
    found = {"ours": f"{spell(a, digits)} against {spell(b, digits)}", "runs": a_keys + b_keys}
    found |= {"n": (len(a), len(b)), "effect": effect, "band": band}
    notes = _left_out(column, first, second)
    if about.get("unit") == "percent":
        left, right = (correct(keys, column) if correct else None for keys in (a_keys, b_keys))
        error, how = images_error((a, left), (b, right), about["n"])
        found["sampling_error"] = error
        notes.append(f"sampling error of the test set {error:.2f}, {how}")
    if min(len(a), len(b)) < MIN_SEEDS:
        return found | _one_seed(min(len(a), len(b)), notes)
    step = half_step(about)
    std_a, std_b = (float(stats.spread(stdev(x), step)) for x in (a, b))

    def errors(more: float = 0) -> stats.Errors:
        return stats.two_means(std_a, len(a) + more, std_b, len(b) + more)

    lost = sum(one.without(column, diverged=True) for one in (first, second))
    return found | _decided(effect, errors, band, what, notes, lost, digits)


def collapse(claim: Collapse, runs: "Runs") -> dict[str, Any]:
    wanted = {"collapse": "collapsed", "train": "complete"}[claim.expect]
    total, agree = len(runs.good), runs.count(wanted)
    seen = [f"{number} of {total} {s}" for s in ("complete", "collapsed", "diverged") if (number := runs.count(s))]
    found = {"ours": ", ".join(seen), "n": (total,), "runs": tuple(map(str, runs.good["run"]))}
    return found | _counted(agree, total, f"claimed: {claim.expect}; {agree} of {total} seeds agree")


def bound(claim: Bound, runs: "Runs") -> dict[str, Any]:
    values, keys = runs.measured(claim.measure)
    if not values:
        return _no_number(claim.measure, runs)
    bound, below = float(claim.bound.value), claim.relation == "below"
    points = tuple(x - bound for x in values)
    diverged = runs.without(claim.measure, diverged=True)
    total, agree = len(values) + diverged, sum(x < 0 if below else x > 0 for x in points)
    found: dict[str, Any] = {"ours": ", ".join(f"{x:.4g}" for x in values), "runs": keys, "n": (total,)}
    found |= {"effect": fmean(points), "points": points, "band": (-inf, 0.0) if below else (0.0, inf)}
    side = f"claimed: {claim.measure} {claim.relation} {bound:g}; {agree} of {total} seeds agree"
    return found | _counted(agree, total, "; ".join([side, *_left_out(claim.measure, runs)]))


def printed_of(claim: Value, unit: float = 1.0) -> tuple[stats.Printed, str]:
    """What is known of the printed number's own error, in units of ours, and the same in words."""
    seeds, spread = claim.seeds.value or 1, claim.spread
    if claim.source.kind == "expectation":
        return stats.Printed(inf), "expected, so without error"
    if spread.kind == "unstated" or claim.seeds.value == 1:  # a spread of one seed is of something else
        what = f"mean of {seeds} seeds" if seeds > 1 else "one draw"
        return stats.Printed(seeds), f"printed: {what}, spread taken as ours"
    seeds = claim.seeds.value or MIN_SEEDS  # the fewest that have a spread
    half_unit = 0.5 * 10.0 ** -len(spread.value.partition(".")[2])
    std = unit * stats.printed_std(spread.kind, float(spread.value), half_unit, seeds)
    stated = f"{seeds} seeds" if claim.seeds.value else f"unstated seeds, taken as {seeds}"
    return stats.Printed(seeds, std), f"printed: {spread.kind} {spread.value} over {stated}"


def _decided(
    effect: float,
    errors: Callable[[float], stats.Errors],
    band: tuple[float, float],
    what: str,
    notes: Sequence[str],
    lost: int,
    digits: int,
) -> dict[str, Any]:
    """The test of an effect against the band of the claim.

    errors: of the effect, after so many further seeds of each recipe. lost: runs that diverged.
    """
    half = float(stats.half_width(errors(0)))
    if half == 0:
        return {"word": "undecided", "why": "; ".join(["equal seeds have no spread to judge by", *notes])}
    low, high = band
    two_sided = high < inf
    word = str(stats.within(effect, half, high) if two_sided else stats.above(effect, half, low))
    inside = high - abs(effect) if two_sided else effect - low  # how far; negative outside
    more = stats.further_seeds(abs(inside), errors) if word == "undecided" else None
    if word == "reproduced" and lost:
        word, more = "undecided", None
    interval = f"[{effect - half:+.{digits}f}, {effect + half:+.{digits}f}]"
    why = [f"90 % interval of {what} {interval} against {f'±{high:g}' if two_sided else f'a margin of {low:g}'}"]
    why += ["no number of seeds decides, the printed number is too uncertain"] if more == inf else []
    return {
        "word": word,
        "why": "; ".join([*why, *notes]),
        "more": more,
        "low": effect - half,
        "high": effect + half,
        "p": min(1.0, (2 if two_sided else 1) * stats.p_value(-inside, errors(0))),
    }


def _counted(agree: int, total: int, why: str) -> dict[str, Any]:
    """All of at least two seeds agree with the claim, or none does; else it is undecided."""
    found: dict[str, Any] = {"why": why, "more": None}
    if 0 < agree < total:
        return found | {"word": "undecided"}
    if total < MIN_SEEDS:
        return found | {"word": "undecided", "more": MIN_SEEDS - total}
    return found | {"word": "reproduced" if agree else "differs"}


def _one_seed(n: int, notes: Sequence[str]) -> dict[str, Any]:
    return {"word": "undecided", "why": "; ".join(["one seed has no spread", *notes]), "more": MIN_SEEDS - n}


def _no_number(column: str, *runs: "Runs") -> dict[str, Any]:
    """Of recipes none of whose runs has a number."""
    total = sum(len(one.good) for one in runs)
    if any(one.count("diverged") < len(one.good) for one in runs):
        return {"word": "untried", "why": f"no run was evaluated by {column}"}
    return {"word": "differs", "why": f"all {total} runs diverged" if total > 1 else "the run diverged"}


def _left_out(column: str, *runs: "Runs") -> list[str]:
    """What is said of runs without a number."""
    diverged = sum(one.without(column, diverged=True) for one in runs)
    others = sum(one.without(column, diverged=False) for one in runs)
    notes = [f"{diverged} diverged, so not reproduced"] if diverged else []
    return notes + ([f"{others} without a finite number, left out"] if others else [])


def images_error(
    a: "tuple[Sequence[float], Found | None]", b: "tuple[Sequence[float], Found | None]", images: Any
) -> tuple[float, str]:
    """What another test set would change of mean(a) - mean(b), as a standard error in points, and whether paired.

    a, b: accuracies, and which images those runs got right, where that was kept.
    """
    (_, left), (_, right) = a, b
    if left and right and left[0] == right[0] and left[1].shape[1] == right[1].shape[1]:
        return stats.paired_error(left[1], right[1]), "paired by image"
    return sqrt(sum(sampling_error(fmean(values), images) ** 2 for values, _ in (a, b))), "not paired"


def half_step(about: Mapping[str, Any]) -> float:
    """Accuracies move in steps of one image; other metrics have no step that is known."""
    return stats.half_step(int(about["n"])) if about.get("unit") == "percent" else 0.0


def _digits(about: Mapping[str, Any]) -> int:
    return 2 if about.get("unit") == "percent" else 4


def spell(values: Sequence[float], digits: int = 2) -> str:
    spread = f" ± {stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{fmean(values):.{digits}f}{spread}"
