"""Claim against records: a word, the statistic behind it, and how many further seeds would decide.

value        Two one-sided tests at 5 %: *reproduced* if the 90 % interval of (our mean - printed) lies inside
             ± (tolerance + half a unit of the last printed digit), *differs* if it lies outside, else *undecided*. What
             is printed without a spread is one draw (or the mean of the stated seeds) of a spread taken equal to ours.
ordering     The 90 % interval of (better - worse): above the margin *reproduced*, below it *differs*.
equivalence  That of (one - other): inside ± tolerance *reproduced*, outside it *differs*.
collapse     Counted, not tested: *reproduced* if all of at least two seeds do what is claimed, *differs* if none does;
bound        seeds that disagree stay *undecided*.

How each is judged: harness/judging.py. The intervals: harness/statistics.py; which error is held at which level:
results/README.md. Earlier records of ours are judged in harness/records.py.

At a reduced scale the words are "holds", "differs" and "undecided at reduced scale": the pattern was checked, not the
number. If its claim says that this scale is `known` not to show the pattern, *differs* is expected and fails nothing.
*untried*: there is no run. *barred*: there are only runs that cannot be judged: with overrides, of a stale
recipe or stale code, or of a dirty tree, whose number nobody else can trace; `allow_dirty` lets the last kind count in
one's own checkout (the fingerprint still ties it to the code) and marks the verdict. Pure functions of tables.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from math import inf, isfinite
from typing import TYPE_CHECKING, Any

from harness import judging
from harness.claims import Bound, Claim, Collapse, Equivalence, Ordering, Value
from harness.statistics import SEEDS_LIMIT

if TYPE_CHECKING:
    import pandas

    from harness.predictions import Reader

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
    seeds (of each recipe) that would decide, if mean and spread stay; inf: no number of them would.
    sampling_error: of the test set, in points: of our mean (value) or of the difference of two (ordering, equivalence).
    known: the claim foretold this `differs`; `why` ends with its reason. p: of the claim being true, where it was
    tested; both sides together where it may differ on either.
    claim: None for a verdict on an earlier record of ours. recipes, runs: what was judged, runs by their keys.

    For drawing: effect is our mean minus what was printed (value) or the bound, minus the other recipe's (ordering,
    equivalence) or minus the earlier record's; (low, high) its 90 % interval, points the same of every seed, where
    seeds are compared one by one; band: effects that agree with the claim, (-tolerance, tolerance), (margin, inf) or
    the side of the bound. In `unit`.
    """

    id: str
    kind: str
    scale: str
    word: str
    printed: str
    ours: str = ""
    why: str = ""
    n: tuple[int, ...] = ()
    more: float | None = None
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
    p: float | None = None

    @property
    def text(self) -> str:
        return REDUCED.get(self.word, self.word) if self.scale == "reduced" else self.word

    @property
    def needed(self) -> str:
        """How many more seeds would decide, in words; empty where seeds are not the matter."""
        if self.more is None:
            return ""
        if self.more == inf:
            return "no number"
        return f"{self.more:.0f}" if self.more < SEEDS_LIMIT else f"over {SEEDS_LIMIT - 1}"


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
    correct: "Reader | None" = None,
) -> list[Verdict]:
    """One verdict per claim.

    runs: `tracking.table`. current: by recipe name, for every recipe that still exists. correct: which images a run got
    right (`predictions.reader`), where that is at hand; two recipes are then compared image by image, too.
    """
    sorted_runs = by_recipe(runs, current, allow_dirty)
    return [_judge(claim, sorted_runs, correct) for claim in claims]


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
            "more seeds": v.needed,
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
        return self.measured(column)[0]

    def measured(self, column: str) -> tuple[list[float], tuple[str, ...]]:
        """The finite numbers, and the keys of their runs."""
        if column not in self.good:
            return [], ()
        numbers = dict(zip(map(str, self.good["run"]), self.good[column].astype(float), strict=True))
        found = {run: float(number) for run, number in numbers.items() if isfinite(number)}
        return list(found.values()), tuple(found)

    def without(self, column: str, diverged: bool) -> int:
        """How many have no number there, of those that diverged or of the others."""
        keys = set(self.measured(column)[1])
        chosen = self.good[(self.good["status"] == "diverged") == diverged]
        return sum(str(key) not in keys for key in chosen["run"])

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


SIGNS = {"ordering": " > ", "equivalence": " ≈ "}


def _judge(claim: Claim, runs: Mapping[str, Runs], correct: "Reader | None") -> Verdict:
    mine = [runs[name] for name in claim.recipes if name in runs]
    base: dict[str, Any] = {
        "id": claim.id,
        "kind": claim.kind,
        "scale": claim.scale,
        "printed": SIGNS.get(claim.kind, "").join(claim.printed),
        "claim": claim,
        "recipes": claim.recipes,
        "unit": getattr(claim, "unit", ""),
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
        found = judging.value(claim, mine[0])
    elif isinstance(claim, Ordering | Equivalence):
        found = judging.two(claim, mine[0], mine[1], correct)
    elif isinstance(claim, Bound):
        found = judging.bound(claim, mine[0])
    else:
        assert isinstance(claim, Collapse)
        found = judging.collapse(claim, mine[0])
    notes = [found.pop("why")]
    notes += [f"{number} from a dirty tree" for number in [sum(one.dirty for one in mine)] if number]
    notes += [f"left out: {spelled}"] if barred else []
    known = bool(claim.known) and found["word"] == "differs"
    notes += [f"known: {claim.known}"] if known else []
    return Verdict(**base | found, why="; ".join(filter(None, notes)), known=known)
