"""Claim against runs: a word, the statistic behind it, and how many further seeds would decide.

value      Two one-sided t-tests at 5 %: *reproduced* if the 90 % interval of (our mean - printed value) lies inside
           ± (tolerance + half a unit of the last printed digit), *differs* if it lies outside, else *undecided*.
ordering   The 90 % Welch interval of (better - worse): above the margin *reproduced*, below it *differs*.
collapse   Counted, not tested: *reproduced* if all of at least two seeds do what is claimed, *differs* if none does;
           seeds that disagree stay *undecided*.

Earlier records of ours are judged in harness/records.py.

At a reduced scale the words are "holds", "differs" and "undecided at reduced scale": the pattern was checked, not the
number. If its claim says that this scale is `known` not to show the pattern, *differs* is expected and fails nothing.
*untried*: there is no run. *barred*: there are only runs that cannot be judged: with overrides, of a stale
recipe or stale code, or of a dirty tree, whose number nobody else can trace; `allow_dirty` lets the last kind count in
one's own checkout (the fingerprint still ties it to the code) and marks the verdict. Pure functions of tables.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite, sqrt
from statistics import fmean, stdev, variance
from typing import TYPE_CHECKING, Any

from harness.claims import Claim, Collapse, Ordering, Value
from harness.leaderboard import details, sampling_error

if TYPE_CHECKING:
    import pandas

ALPHA = 0.05  # of each one-sided test
MIN_SEEDS = 2  # for a spread, and for two seeds to agree
SEEDS_LIMIT = 1000  # "more than anybody runs"
FAILS = ("differs", "regressed")  # at either scale, unless known
REDUCED = {
    "reproduced": "holds at reduced scale",
    "differs": "differs at reduced scale",
    "undecided": "undecided at reduced scale",
}


@dataclass(frozen=True)
class Verdict:
    """word: reproduced, differs, undecided, untried, barred, regressed, held or stale, at any scale; `text` is what
    people read.

    printed and ours: what stands in the paper and what we measured. n: runs judged, of each recipe. more: further
    seeds (of each recipe) that would decide, if mean and spread stay. sampling_error: of our mean, points.
    known: the claim foretold this `differs`; `why` ends with its reason.
    claim: None for a verdict on an earlier record of ours. recipes, runs: what was judged, runs by their keys.

    For drawing: effect is our mean minus what was printed (value), minus the other recipe's (ordering, equivalence) or
    minus the earlier record's; (low, high) its 90 % interval, points the same of every seed, where seeds are compared
    one by one; band: effects that agree with the claim, (-tolerance, tolerance) or (margin, inf). In `unit`.
    """

    id: str
    kind: str
    scale: str
    word: str
    printed: str
    ours: str = ""
    why: str = ""
    n: tuple[int, ...] = ()
    more: int | None = None
    sampling_error: float | None = None
    known: bool = False
    claim: Claim | None = None
    recipes: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()
    effect: float | None = None
    low: float | None = None
    high: float | None = None
    band: tuple[float, float] | None = None
    points: tuple[float, ...] = ()
    unit: str = ""

    @property
    def text(self) -> str:
        return REDUCED.get(self.word, self.word) if self.scale == "reduced" else self.word


@dataclass(frozen=True)
class Current:
    """What the checkout says about a recipe now; runs of another digest or fingerprint are stale."""

    digest: str
    fingerprint: str


def check(
    claims: Iterable[Claim],
    runs: "pandas.DataFrame",
    current: Mapping[str, Current],
    *,
    allow_dirty: bool = False,
) -> list[Verdict]:
    """One verdict per claim.

    runs: `tracking.table`. current: by recipe name, for every recipe that still exists.
    """
    sorted_runs = by_recipe(runs, current, allow_dirty)
    return [_judge(claim, sorted_runs) for claim in claims]


def fails(verdict: Verdict, fail_on: Collection[str] = FAILS) -> bool:
    """Whether the word is one of these, at either scale, and was not known to come."""
    return verdict.word in fail_on and not verdict.known


def exit_code(verdicts: Iterable[Verdict], fail_on: Collection[str] = FAILS) -> int:
    """1 if any fails, else 0."""
    return int(any(fails(verdict, fail_on) for verdict in verdicts))


def to_frame(verdicts: Iterable[Verdict]) -> "pandas.DataFrame":
    """The table of verdicts, as text."""
    import pandas

    rows = [
        {
            "claim": v.id,
            "verdict": v.text,
            "printed": v.printed,
            "ours": v.ours,
            "runs": " / ".join(map(str, v.n)),
            "why": v.why,
            "more seeds": "" if v.more is None else str(v.more) if v.more < SEEDS_LIMIT else f"over {SEEDS_LIMIT - 1}",
        }
        for v in verdicts
    ]
    return pandas.DataFrame(rows, columns=["claim", "verdict", "printed", "ours", "runs", "why", "more seeds"])


# ------------------------------------------------------------------------------------------ which runs count


@dataclass(frozen=True)
class Runs:
    """The finished runs of one recipe: those that may be judged, and why the others may not."""

    good: "pandas.DataFrame"
    barred: dict[str, int]
    dirty: int

    def values(self, column: str) -> list[float]:
        if column not in self.good:
            return []
        return [float(x) for x in self.good[column].dropna() if isfinite(x)]

    def count(self, status: str) -> int:
        return int((self.good["status"] == status).sum())

    def only(self, rows: "pandas.Series") -> "Runs":
        """Those of the good runs for which `rows` is true."""
        return replace(self, good=self.good[rows])


def by_recipe(runs: "pandas.DataFrame", current: Mapping[str, Current], allow_dirty: bool) -> dict[str, Runs]:
    """The finished runs of every recipe that has any row."""
    return {name: _sort(name, runs, current, allow_dirty) for name in ({*runs["recipe"]} if len(runs) else ())}


def _sort(name: str, runs: "pandas.DataFrame", current: Mapping[str, Current], allow_dirty: bool) -> Runs:
    runs = runs[(runs["recipe"] == name) & runs["status"].isin(["complete", "collapsed", "diverged"])]
    now, reasons, dirty = current.get(name), [], []
    for _, run in runs.iterrows():
        why, untraced = "", run["dirty"] is not False
        if run["overrides"]:
            why = "overrides"
        elif now is None:
            why = "recipe is gone"
        elif run["digest"] != now.digest:
            why = "recipe changed since"
        elif run["fingerprint"] != now.fingerprint:
            why = "code changed since"
        elif untraced and not allow_dirty:
            why = "dirty tree" if run["dirty"] else "outside git"
        reasons.append(why)
        dirty.append(untraced and not why)
    counts = {why: reasons.count(why) for why in dict.fromkeys(reasons) if why}
    return Runs(runs[[not why for why in reasons]], counts, sum(dirty))


def _judge(claim: Claim, runs: Mapping[str, Runs]) -> Verdict:
    mine = [runs[name] for name in claim.recipes if name in runs]
    base: dict[str, Any] = {
        "id": claim.id,
        "kind": claim.kind,
        "scale": claim.scale,
        "printed": " > ".join(claim.printed),
    }
    barred: dict[str, int] = {}
    for one in mine:
        for why, number in one.barred.items():
            barred[why] = barred.get(why, 0) + number
    spelled = ", ".join(
        f"{number} with {why}" if why == "overrides" else f"{number}: {why}" for why, number in barred.items()
    )
    if not claim.recipes or len(mine) < len(claim.recipes) or any(one.good.empty for one in mine):
        return Verdict(
            **base, word="barred" if barred else "untried", why=f"runs barred: {spelled}" if barred else "no run"
        )
    if isinstance(claim, Value):
        found = _value(claim, mine[0])
    elif isinstance(claim, Ordering):
        found = _ordering(claim, *mine)
    else:
        assert isinstance(claim, Collapse)
        found = _collapse(claim, mine[0])
    notes = [found.pop("why")]
    notes += [f"{number} from a dirty tree" for number in [sum(one.dirty for one in mine)] if number]
    notes += [f"left out: {spelled}"] if barred else []
    known = bool(claim.known) and found["word"] == "differs"
    notes += [f"known: {claim.known}"] if known else []
    return Verdict(**base, **found, n=tuple(len(one.good) for one in mine), why="; ".join(notes), known=known)


# ------------------------------------------------------------------------------------------ the three kinds


def _value(claim: Value, runs: Runs) -> dict[str, Any]:
    column = f"{claim.split}/{claim.protocol}/{claim.metric}"
    values, diverged = runs.values(column), runs.count("diverged")
    if not values:
        return _no_number(column, diverged)
    about, printed = details(runs.good, column), float(claim.value)
    error = sampling_error(fmean(values), about["n"]) if about.get("unit") == "percent" else None
    found: dict[str, Any] = {"ours": spell(values), "sampling_error": error}
    bound = float(claim.tolerance.value) + claim.half_unit
    beside = f"; sampling error of the test set {error:.2f}" if error is not None else ""
    if len(values) < MIN_SEEDS:
        return found | {"word": "undecided", "why": "one seed has no spread" + beside, "more": MIN_SEEDS - len(values)}
    word, low, high, more = equivalence(values, printed, bound, quantum(about))
    if diverged and word == "reproduced":
        word, more = "undecided", None
    why = f"90 % interval of the difference [{low:+.2f}, {high:+.2f}] against ±{bound:g}" + _diverged(diverged) + beside
    return found | {"word": word, "why": why, "more": more}


def _ordering(claim: Ordering, better: Runs, worse: Runs) -> dict[str, Any]:
    column = f"{claim.split}/{claim.protocol}/{claim.metric}"
    a, b, diverged = better.values(column), worse.values(column), better.count("diverged") + worse.count("diverged")
    if not a or not b:
        return _no_number(column, diverged)
    found: dict[str, Any] = {"ours": f"{spell(a)} against {spell(b)}"}
    if min(len(a), len(b)) < MIN_SEEDS:
        return found | {"word": "undecided", "why": "one seed has no spread", "more": MIN_SEEDS - min(len(a), len(b))}
    margin = float(claim.margin.value)
    about = details(better.good, column)
    if about.get("unit") == "percent":
        found["sampling_error"] = sampling_error(fmean(a), about["n"])
    word, low, high, more = superiority(a, b, margin, quantum(about))
    if diverged and word == "reproduced":
        word, more = "undecided", None
    why = f"90 % interval of better - worse [{low:+.2f}, {high:+.2f}] against a margin of {margin:g}" + _diverged(
        diverged
    )
    return found | {"word": word, "why": why, "more": more}


def _collapse(claim: Collapse, runs: Runs) -> dict[str, Any]:
    wanted = {"collapse": "collapsed", "train": "complete"}[claim.expect]
    total, agree = len(runs.good), runs.count(wanted)
    seen = [f"{number} of {total} {s}" for s in ("complete", "collapsed", "diverged") if (number := runs.count(s))]
    found = {"ours": ", ".join(seen), "why": f"claimed: {claim.expect}; {agree} of {total} seeds agree", "more": None}
    if 0 < agree < total:
        return found | {"word": "undecided"}
    if total < MIN_SEEDS:
        return found | {"word": "undecided", "more": MIN_SEEDS - total}
    return found | {"word": "reproduced" if agree else "differs"}


def _no_number(column: str, diverged: int) -> dict[str, Any]:
    if diverged:
        return {"word": "differs", "why": f"all {diverged} runs diverged" if diverged > 1 else "the run diverged"}
    return {"word": "untried", "why": f"no run was evaluated by {column}"}


def _diverged(number: int) -> str:
    return f"; {number} diverged, so not reproduced" if number else ""


def spell(values: Sequence[float]) -> str:
    return f"{fmean(values):.2f}" + (f" ± {stdev(values):.2f}" if len(values) > 1 else "")


# ------------------------------------------------------------------------------------------ statistics


def quantum(about: Mapping[str, Any]) -> float:
    """Smallest spread to assume: an accuracy moves in steps of one image, and two seeds may land on the same one."""
    return 100 / int(about["n"]) / sqrt(12) if about.get("unit") == "percent" else 0.0


def equivalence(
    values: Sequence[float], target: float, bound: float, least_std: float = 0.0
) -> tuple[str, float, float, int | None]:
    """Two one-sided t-tests of |mean - target| < bound: (word, low, high of the 90 % interval, further seeds)."""
    n, off, std = len(values), fmean(values) - target, max(stdev(values), least_std)
    half = t_quantile(n - 1) * std / sqrt(n)
    low, high = off - half, off + half
    if -bound <= low and high <= bound:
        return "reproduced", low, high, None
    if low > bound or high < -bound:
        return "differs", low, high, None
    return "undecided", low, high, further_seeds(abs(abs(off) - bound), std, n)


def superiority(
    a: Sequence[float], b: Sequence[float], margin: float, least_std: float = 0.0
) -> tuple[str, float, float, int | None]:
    """Welch's interval of mean(a) - mean(b) against a margin: (word, low, high of the 90 % interval, further seeds)."""
    off = fmean(a) - fmean(b)
    spread_a, spread_b = (max(variance(x), least_std**2) for x in (a, b))
    half = _welch(spread_a, len(a), spread_b, len(b))
    low, high = off - half, off + half
    if low > margin:
        return "reproduced", low, high, None
    if high < margin:
        return "differs", low, high, None
    n = min(len(a), len(b))
    more = 1
    while more < SEEDS_LIMIT and _welch(spread_a, n + more, spread_b, n + more) >= abs(off - margin):
        more += 1
    return "undecided", low, high, more


def further_seeds(distance: float, std: float, n: int) -> int:
    """Seeds beyond n until the half-width of the interval is under the distance, at this std; at most SEEDS_LIMIT."""
    more = 1
    while more < SEEDS_LIMIT and t_quantile(n + more - 1) * std / sqrt(n + more) >= distance:
        more += 1
    return more


def _welch(variance_a: float, n_a: int, variance_b: float, n_b: int) -> float:
    """Half-width of Welch's 90 % interval, degrees of freedom by Welch and Satterthwaite."""
    a, b = variance_a / n_a, variance_b / n_b
    if a + b == 0:
        return 0.0
    return t_quantile((a + b) ** 2 / (a**2 / (n_a - 1) + b**2 / (n_b - 1))) * sqrt(a + b)


def t_quantile(freedom: float, alpha: float = ALPHA) -> float:
    from scipy.special import stdtrit  # type: ignore[import-untyped,unused-ignore]

    return float(stdtrit(freedom, 1 - alpha))


def welch_p(better: Sequence[float], worse: Sequence[float]) -> float:
    """One-sided p-value of mean(better) > mean(worse), unequal variances."""
    from scipy.stats import ttest_ind  # type: ignore[import-untyped,unused-ignore]

    if variance(better) + variance(worse) == 0:
        return 0.0 if fmean(better) > fmean(worse) else 1.0
    return float(ttest_ind(better, worse, equal_var=False, alternative="greater").pvalue)
