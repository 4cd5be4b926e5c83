"""How often verdicts err, on synthetic cases: the table of results/README.md.

    python tests/benchmarks/error_rates.py [cases]      # 100,000 cases a condition take a minute or two

The true difference of two means is put exactly where an error is most likely: on the edge of the tolerance (or margin).
*differs* errs where the true difference is the tolerance; *reproduced* errs where it is the tolerance plus one printed
unit, since rounding may hide half a unit and the band is half a unit wider than the tolerance. In units of our own
standard deviation over seeds.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from math import inf, sqrt
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr
from scipy.stats import norm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from harness import statistics as stats

Array = NDArray[np.float64]
SEEDS = (2, 3, 5, 10)
FAR = 100.0  # a tolerance beside which no interval is wide


@dataclass(frozen=True)
class Condition:
    """Ours: n seeds of standard deviation 1. Theirs: m, of standard deviation `ratio`.

    theirs: draw (only the number of seeds is known), exact (no error), recipe (seeds of ours, too), or how the spread
    is printed (std, sem, ci95, range). known: whether m is printed. unit: of the last printed digit of mean and spread.
    step: of an accuracy. at: where between two steps the mean lies, in steps. tolerance: the true difference.
    skewed: exponential downwards instead of normal, as of seeds some of which train badly.
    """

    n: int
    theirs: str = "draw"
    m: int = 1
    ratio: float = 1.0
    known: bool = True
    unit: float = 0.0
    step: float = 0.0
    at: float = 0.0
    tolerance: float = FAR
    skewed: bool = False


@dataclass(frozen=True)
class Rates:
    """Of false words, of all cases. either: *differs* on either side; differs: on the side of the true difference."""

    reproduced: float
    differs: float
    either: float


def simulate(c: Condition, rng: np.random.Generator, cases: int) -> Rates:
    places = c.at * c.step + c.tolerance, c.at * c.step
    ours, theirs = (
        1 - rng.exponential(1, (cases, k)) if c.skewed else rng.normal(0, 1, (cases, k)) for k in (c.n, c.m)
    )
    ours, theirs = _rounded(places[0] + ours, c.step), _rounded(places[1] + c.ratio * theirs, c.step)
    true = _mean(places[0], 1, c.step) - _mean(places[1], c.ratio, c.step)
    off, errors = _judged(c, ours, theirs)
    half = stats.half_width(errors)
    at_tolerance, beyond = (stats.within(off, half, abs(true) + side * c.unit / 2) for side in (1, -1))
    differs = at_tolerance == "differs"
    return Rates(float((beyond == "reproduced").mean()), float((differs & (off > 0)).mean()), float(differs.mean()))


def _judged(c: Condition, ours: Array, theirs: Array) -> tuple[Array, stats.Errors]:
    """The difference as a verdict sees it, and its errors."""
    std = stats.spread(ours.std(1, ddof=1), c.step / 2)
    if c.theirs == "recipe":
        other = stats.spread(theirs.std(1, ddof=1), c.step / 2)
        return ours.mean(1) - theirs.mean(1), stats.two_means(std, c.n, other, c.m)
    if c.theirs == "exact":
        return ours.mean(1) - _mean(c.at * c.step, c.ratio, c.step), stats.against_printed(std, c.n, stats.Printed(inf))
    off = ours.mean(1) - _rounded(theirs.mean(1), c.unit)
    if c.theirs == "draw":
        return off, stats.against_printed(std, c.n, stats.Printed(c.m))
    spread: Any = np.ptp(theirs, axis=1) if c.theirs == "range" else theirs.std(1, ddof=1)
    spread *= {"sem": 1 / sqrt(c.m), "ci95": norm.ppf(0.975) / sqrt(c.m)}.get(c.theirs, 1.0)
    seeds = c.m if c.known else stats.MIN_SEEDS
    stated = stats.printed_std(c.theirs, _rounded(spread, c.unit), c.unit / 2, seeds)
    return off, stats.against_printed(std, c.n, stats.Printed(seeds, stated))


def _rounded(x: Array, step: float) -> Array:
    return np.round(x / step) * step if step else x


def _mean(place: float, std: float, step: float) -> float:
    """Expectation of a normal number that is rounded to steps."""
    if not step:
        return place
    reach = int(9 * std / step) + 2
    k = np.round(place / step) + np.arange(-reach, reach + 1)
    return float(step * (k * np.diff(norm.cdf((np.append(k, k[-1] + 1) - 0.5) * step, place, std))).sum())


# ------------------------------------------------------------------------------------------ the conditions

STEPS = [(step, at) for step in (10, 5, 3, 2, 1.4, 1, 0.5) for at in (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)]
RATIOS = (0.1, 0.3, 1.0, 3.0, 10.0)


def conditions() -> dict[str, list[Condition]]:
    """Those whose errors are held at 5 % a side."""
    pairs = list(product(SEEDS, SEEDS))
    return {
        "paper: one draw": [Condition(n) for n in SEEDS],
        "paper: mean of 2 to 10 seeds": [Condition(n, m=m) for n, m in pairs],
        "paper: one draw, printed to 1/4, 1 or 4 standard deviations": [
            Condition(n, unit=unit) for n in SEEDS for unit in (0.25, 1.0, 4.0)
        ],
        "paper: one draw, accuracies in steps": [Condition(n, step=s, at=at) for n in SEEDS for s, at in STEPS],
        "number without error, accuracies in steps": [
            Condition(n, "exact", step=s, at=at) for n in SEEDS for s, at in STEPS
        ],
        "paper: standard deviation over seeds, 1/10 to 10 times ours": [
            Condition(n, "std", m, r) for (n, m), r in product(pairs, RATIOS)
        ],
        "paper: the same, printed to 1 or 2 of its standard deviations": [
            Condition(n, "std", m, unit=u) for (n, m), u in product(pairs, (1.0, 2.0))
        ],
        "paper: standard error, 95 % interval or range": [
            Condition(n, kind, m, r) for (n, m), kind, r in product(pairs, ("sem", "ci95", "range"), (0.3, 1.0, 3.0))
        ],
        "paper: a spread over an unstated number of seeds": [
            Condition(n, kind, m, r, known=False)
            for (n, m), kind, r in product(pairs, ("std", "sem", "ci95", "range"), (0.3, 1.0, 3.0))
        ],
        "two recipes, spreads 1/10 to 10 times each other": [
            Condition(n, "recipe", m, r) for (n, m), r in product(pairs, RATIOS)
        ],
        "two recipes, accuracies in steps": [
            Condition(n, "recipe", m, step=s, at=at) for (n, m), (s, at) in product(pairs, STEPS[::2])
        ],
    }


def broken() -> dict[str, list[Condition]]:
    """Where what is taken for granted is not so; nothing is held here."""
    ratios = {
        f"paper: one draw, of {r:g} times our spread": [Condition(n, ratio=r) for n in SEEDS] for r in (0.5, 2.0, 3.0)
    }
    return ratios | {
        "paper: one draw, seeds exponential downwards": [Condition(n, skewed=True) for n in SEEDS],
        "two recipes, seeds exponential downwards": [
            Condition(n, "recipe", m, skewed=True) for n, m in product(SEEDS, SEEDS)
        ],
    }


def near() -> list[Condition]:
    """A tolerance smaller than the spread: *differs* errs on both sides."""
    return [Condition(n, "exact", tolerance=t) for n in SEEDS for t in (0.0, 0.1, 0.5, 1.0)]


def power(n: int, tolerance: float, rng: np.random.Generator, cases: int) -> tuple[float, float]:
    """Shares of *reproduced* without a true difference, and of *differs* at twice the tolerance; paper: one draw."""
    shares = []
    for true in (0.0, 2 * tolerance):
        c = Condition(n)
        off, errors = _judged(c, rng.normal(true, 1, (cases, n)), rng.normal(0, 1, (cases, 1)))
        words = stats.within(off, stats.half_width(errors), tolerance)
        shares.append(float((words == ("differs" if true else "reproduced")).mean()))
    return shares[0], shares[1]


def several(shared: float, wrong: int, rng: np.random.Generator, cases: int, claims: int = 20) -> tuple[float, float]:
    """Shares of sources with a false *differs* among true claims: by each claim's word, and after Holm.

    Three seeds of ours stand behind all claims; `shared` of the variance is theirs in all of them. The true claims are
    on the edge of their tolerance, `wrong` others are far beyond it.
    """
    n = 3
    common, own = rng.normal(0, 1, (cases, n, 1)), rng.normal(0, 1, (cases, n, claims))
    ours = sqrt(shared) * common + sqrt(1 - shared) * own + FAR + np.where(np.arange(claims) < wrong, FAR, 0)
    off = ours.mean(1) - rng.normal(0, 1, (cases, claims))
    ((error, freedom),) = stats.against_printed(ours.std(1, ddof=1), n, stats.Printed())
    words = stats.within(off, stats.half_width([(error, freedom)]), FAR)
    p = np.minimum(1, 2 * stdtr(freedom, -np.maximum(0, np.abs(off) - FAR) / error))
    adjusted = np.array([stats.holm(row) for row in p])
    true = np.arange(claims) >= wrong
    return float((words == "differs")[:, true].any(1).mean()), float((adjusted <= stats.ALPHA)[:, true].any(1).mean())


# ------------------------------------------------------------------------------------------ the table


def lines(cases: int) -> Iterator[str]:
    rng = np.random.default_rng(0)
    margin = 100 * 4 * sqrt(0.05 * 0.95 / cases)
    yield f"{cases:,} cases a condition; the largest rate of each group, in percent (± {margin:.1f} of chance at 5)"
    yield ""
    yield "| condition | conditions | false *reproduced* | false *differs*, a side |"
    yield "| --- | --: | --: | --: |"
    for name, group in (conditions() | broken()).items():
        rates = [simulate(c, rng, cases) for c in group]
        worst = [100 * max(getattr(r, word) for r in rates) for word in ("reproduced", "differs")]
        yield f"| {name} | {len(group)} | {worst[0]:.1f} | {worst[1]:.1f} |"
    both = 100 * max(simulate(c, rng, cases).either for c in near())
    yield f"| tolerance from 0 to the spread: both sides together | {len(near())} | – | {both:.1f} |"
    yield ""
    yield "| seeds | tolerance, in standard deviations | *reproduced* if equal | *differs* at twice the tolerance |"
    yield "| --: | --: | --: | --: |"
    for n, tolerance in product(SEEDS, (3.0, 5.0)):
        yield "| {} | {:g} | {:.0f} | {:.0f} |".format(
            n, tolerance, *(100 * x for x in power(n, tolerance, rng, cases))
        )
    yield ""
    yield "| 20 claims of one source | a false *differs* among their words | after Holm |"
    yield "| --- | --: | --: |"
    for shared, wrong in product((0.0, 0.9, 1.0), (0, 10)):
        rates = several(shared, wrong, rng, cases // 10)
        what = f"{100 * shared:.0f} % of the seeds' variance shared, {wrong} claims wrong"
        yield "| {} | {:.1f} | {:.1f} |".format(what, *(100 * x for x in rates))


if __name__ == "__main__":
    for line in lines(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000):
        print(line, flush=True)  # noqa: T201
