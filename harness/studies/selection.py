"""Is the best of the trials better than the recipe's own settings?

The best of many trials on one seed is partly the luckiest. So the best few, and the default, run again on the whole
budget with fresh seeds, and are compared on the held-out split, paired by seed: the interval of the mean difference
is Student's at 95 %, shared by Bonferroni among the finalists. The winner is the finalist with the highest mean if its
interval lies above 0, else the default stays. The test split is evaluated after that, for these two alone.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from statistics import fmean, stdev

from harness.errors import RunConflict
from harness.statistics import SEEDS_LIMIT, half_step, spread, t_quantile
from harness.studies.space import value_at
from harness.studies.study import Final, Finalist, Study, Trial, score

LEVEL = 0.95


@dataclass(frozen=True)
class Comparison:
    """Settings against the default. values: on the held-out split by seed, None for a run that diverged or failed.

    difference, low, high: of the mean, in the unit of the objective, and its interval; None without two pairs.
    word: default, better, worse, undecided, or unstable: a seed diverged or failed where the default did not.
    more: further seeds that would decide, if mean and spread stay as they are; at most statistics.SEEDS_LIMIT.
    """

    finalist: Finalist
    values: tuple[float | None, ...]
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    word: str = "default"
    more: int | None = None

    @property
    def measured(self) -> list[float]:
        return [value for value in self.values if value is not None]

    @property
    def mean(self) -> float | None:
        return fmean(self.measured) if self.measured else None


def ranked(trials: Sequence[Trial]) -> list[Trial]:
    """The complete ones, best first; of equals, the earlier."""
    complete = [trial for trial in trials if trial.outcome == "complete" and trial.value is not None]
    return sorted(complete, key=lambda trial: (-(trial.value or 0.0), trial.number))


def finalists(study: Study, trials: Sequence[Trial]) -> tuple[Finalist, ...]:
    """The recipe's own settings, then the best of the complete trials, each setting once."""
    base = study.base()
    own = {p.name: value_at(base, p.path) for p in study.parameters}
    found = {base.digest: Finalist(trial=None, params=own, overrides=study.overrides, digest=base.digest)}
    for trial in ranked(trials):
        if len(found) > study.finalists:
            break
        found.setdefault(
            trial.digest,
            Finalist(trial=trial.number, params=trial.params, overrides=trial.overrides, digest=trial.digest),
        )
    return tuple(found.values())


def final_values(study: Study, runs: Path, final: Final, split: str) -> tuple[dict[str, list[float | None]], int]:
    """The objective of the final runs, by digest in the order of the seeds, and on how many images it was measured.

    None for a run that has no record, that diverged, or that was not measured on this split. Errors: RunConflict.
    """
    values: dict[str, list[float | None]] = {}
    n = 0
    for one in final.finalists:
        values[one.digest] = []
        for seed in final.seeds:
            file = study.run(runs, one.digest, seed) / "record.json"
            try:
                record = json.loads(file.read_text()) if file.exists() else {"evals": []}
                values[one.digest].append(score(study, record, split))
                n = max([n, *(row["n"] for row in record["evals"] if row["split"] == split)])
            except (ValueError, KeyError, TypeError) as error:
                raise RunConflict(f"{file} is damaged ({error!r}); remove it and start the study again") from error
    return values, n


def compare_runs(study: Study, runs: Path, final: Final) -> list[Comparison]:
    """`compare` of the final runs on the held-out split."""
    values, n = final_values(study, runs, final, "held_out")
    percent = study.objective.endswith(("/top1", "/top5"))
    return compare(final.finalists, values, half_step(n) if percent and n else 0.0)


def compare(
    entries: Sequence[Finalist], values: Mapping[str, Sequence[float | None]], least_std: float = 0.0
) -> list[Comparison]:
    """Each against the first, the default. values: by digest, in the order of the seeds.

    least_std: added to the spread in quadrature, as accuracies move in steps of one image (statistics.spread).
    """
    default, others = entries[0], entries[1:]
    base = tuple(values[default.digest])
    found = [Comparison(default, base)]
    for one in others:
        mine = tuple(values[one.digest])
        pairs = [(a, b) for a, b in zip(mine, base, strict=True) if a is not None and b is not None]
        if any(a is None and b is not None for a, b in zip(mine, base, strict=True)):
            found.append(Comparison(one, mine, word="unstable"))
        elif len(pairs) < 2:
            found.append(Comparison(one, mine, word="undecided"))
        else:
            differences = [a - b for a, b in pairs]
            off, low, high = interval(differences, len(others), least_std)
            word = "better" if low > 0 else "worse" if high < 0 else "undecided"
            more = further_seeds(differences, len(others), least_std) if word == "undecided" else None
            found.append(Comparison(one, mine, off, low, high, word, more))
    return found


def interval(differences: Sequence[float], comparisons: int, least_std: float = 0.0) -> tuple[float, float, float]:
    """Mean of paired differences and its interval, at LEVEL for all of so many comparisons together."""
    off = fmean(differences)
    half = _half(len(differences), _spread(differences, least_std), comparisons)
    return off, off - half, off + half


def further_seeds(differences: Sequence[float], comparisons: int, least_std: float = 0.0) -> int:
    """Seeds beyond these until the interval leaves 0 out, at this mean and spread."""
    n, off, std, more = len(differences), abs(fmean(differences)), _spread(differences, least_std), 1
    while more < SEEDS_LIMIT and _half(n + more, std, comparisons) >= off:
        more += 1
    return more


def _spread(differences: Sequence[float], least_std: float) -> float:
    return float(spread(stdev(differences), sqrt(2) * least_std))


def _half(n: int, std: float, comparisons: int) -> float:
    return float(t_quantile(n - 1, (1 - LEVEL) / 2 / comparisons)) * std / sqrt(n)


def winner(found: Sequence[Comparison]) -> int:
    """Position of the winner: the best of those that are better, else 0, the default."""
    better = [i for i, one in enumerate(found) if one.word == "better"]
    return max(better, key=lambda i: found[i].mean or 0.0, default=0)
