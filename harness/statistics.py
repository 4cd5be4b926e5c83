"""The arithmetic of verdicts: intervals of a difference of means, further seeds, Holm's adjustment. Pure functions.

A difference is given with the independent sources of its error, `Errors`: for each the standard error and the degrees
of freedom it was estimated with. Its 90 % interval has the half-width sqrt(sum of (t quantile x standard error)^2), so
each side errs in at most 5 % of all cases. With one source that is Student's interval, exactly. With two it is that of
Banerjee (Sankhya 23, 1961), which holds for every ratio of the spreads, because the distribution function of chi^2 with
one degree of freedom is concave; Welch's approximation does not: 5.6 % for 2 against 2 seeds, 8.2 % for 2 against 30.

Scalars or arrays that broadcast: the simulation of the error rates (tests/benchmarks/error_rates.py) calls the same
functions as the verdicts.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf, sqrt
from typing import Any

import numpy as np

ALPHA = 0.05  # of each one-sided test
MIN_SEEDS = 2  # for a spread, and for two seeds to agree
SEEDS_LIMIT = 1000  # "more than anybody runs"
Number = Any  # a float or an array of them
Errors = Sequence[tuple[Number, Number]]  # (standard error, degrees of freedom) of each source


# ------------------------------------------------------------------------------------------ spread


def half_step(images: int) -> float:
    """Half of what one image changes an accuracy by, in points."""
    return 50 / images


def spread(std: Number, half_step: float) -> Number:
    """A standard deviation of values that come in steps, for t-intervals: half a step is added in quadrature.

    Two seeds may well land on one accuracy, and their spread is not 0 then. Half a step is the largest spread of values
    that take two neighbouring steps. With it no more than 5 % err on a side; with the spread of rounding,
    step / sqrt(12), as the least spread up to 16 % do.
    """
    return np.hypot(std, half_step)


def printed_std(kind: str, value: Number, half_unit: float, seeds: int) -> Number:
    """Standard deviation of one seed, from a spread as printed for the mean of so many seeds.

    kind: std, sem, ci95 (half its width; taken as 1.96 standard errors: those of a t-interval would be smaller), or
    range (largest - smallest, over its expectation for that many normal values). half_unit: of the last printed digit,
    added in quadrature as the print comes in steps.
    """
    from scipy.integrate import quad  # type: ignore[import-untyped,unused-ignore]
    from scipy.special import ndtr, ndtri  # type: ignore[import-untyped,unused-ignore]

    value = np.hypot(value, half_unit)
    if kind == "sem":
        return value * sqrt(seeds)
    if kind == "ci95":
        return value / float(ndtri(0.975)) * sqrt(seeds)
    if kind == "range":
        expected, _ = quad(lambda x: 1 - ndtr(x) ** seeds - ndtr(-x) ** seeds, -inf, inf)
        return value / float(expected)
    return value


# ------------------------------------------------------------------------------------------ errors of a difference


@dataclass(frozen=True)
class Printed:
    """A number that somebody printed: the mean of so many seeds. std: of one seed; None: not stated, taken as ours.

    seeds: 1 where the source states none, so one draw; inf for a number without error.
    """

    seeds: float = 1
    std: Number | None = None


def against_printed(std: Number, n: float, printed: Printed) -> Errors:
    """Of the mean of n seeds of ours, whose standard deviation is std, minus the printed number."""
    if printed.std is None:
        return [(std * sqrt(1 / n + 1 / printed.seeds), n - 1)]
    return two_means(std, n, printed.std, printed.seeds)


def two_means(std_a: Number, n_a: float, std_b: Number, n_b: float) -> Errors:
    """Of one mean minus the other."""
    return [(std_a / sqrt(n_a), n_a - 1), (std_b / sqrt(n_b), n_b - 1)]


# ------------------------------------------------------------------------------------------ intervals and words


def t_quantile(freedom: Number, alpha: float = ALPHA) -> Number:
    from scipy.special import stdtrit

    return -stdtrit(freedom, alpha)


def half_width(errors: Errors, alpha: float = ALPHA) -> Number:
    """Of the interval whose two sides err in at most `alpha` each."""
    return np.sqrt(sum((t_quantile(freedom, alpha) * error) ** 2 for error, freedom in errors))


def within(off: Number, half: Number, bound: float) -> Number:
    """Two one-sided tests of |difference| against a bound: the word for the interval off ± half."""
    inside, outside = np.abs(off) + half <= bound, np.abs(off) - half > bound
    return np.where(inside, "reproduced", np.where(outside, "differs", "undecided"))


def above(off: Number, half: Number, margin: float) -> Number:
    """The word for the interval off ± half of a difference that is claimed to lie above a margin."""
    return np.where(off - half > margin, "reproduced", np.where(off + half < margin, "differs", "undecided"))


def p_value(distance: float, errors: Errors) -> float:
    """The least alpha whose half-width is under the distance, one-sided; 1 without a distance."""
    from scipy.optimize import brentq  # type: ignore[import-untyped,unused-ignore]

    least = 1e-12
    if distance <= 0:
        return 1.0
    if half_width(errors, least) < distance:
        return least
    return float(brentq(lambda alpha: half_width(errors, alpha) - distance, least, 0.5, xtol=least))


def further_seeds(distance: float, errors: Callable[[float], Errors]) -> float:
    """Seeds to add until the half-width is under the distance; inf if no number of them will do.

    errors: with so many seeds more, at the present spread. SEEDS_LIMIT stands for all larger numbers.
    """
    if half_width(errors(inf)) >= distance:
        return inf
    return next((more for more in range(1, SEEDS_LIMIT) if half_width(errors(more)) < distance), SEEDS_LIMIT)


# ------------------------------------------------------------------------------------------ images, and many claims


def paired_error(a: Number, b: Number) -> float:
    """Standard error over images, in points, of the difference of two mean accuracies on the same images.

    a, b: (runs, images), true where the image was classified correctly. What two networks get right together cancels,
    so this is smaller than two binomial errors make it; with one run each it is the error of McNemar's test.
    """
    differences = np.mean(a, axis=0) - np.mean(b, axis=0)
    return 100 * float(differences.std(ddof=1)) / sqrt(len(differences))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values (Scand. J. Statist. 6, 1979): valid however the tests depend on each other."""
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1)
    return adjusted.tolist()
