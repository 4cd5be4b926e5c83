"""A study and its trials, as plain files.

<runs>/studies/<name>/
    study.json           what is asked for (`Study`)
    trials/000012.json   a trial (`Trial`): its settings and its run, and in the end its outcome
    final.json           the settings that run again with fresh seeds, and which of them won (`Final`)
    journal.log          Optuna's storage, unless another is named; it can be made anew from the trials
    lease-<n>            held by the coordinator, the only one that writes here
    code                 the folder of the code that its runs use
    report.html, winner.py   for people (report.py, winner.py)

A trial is a run like any other: the recipe with overrides, in its own run directory.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import isfinite, nan
from pathlib import Path
from typing import Any, Literal

from harness import registry
from harness.errors import RunConflict, UnknownName
from harness.recipe import Recipe
from harness.runs import read_lines, writable, write_atomically
from harness.studies.space import Parameter, tuples, value_at

Sampler = Literal["tpe", "gp", "cmaes", "random", "grid", "qmc"]
Pruner = Literal["hyperband", "median", "none"]
SEED = 1000  # of trials, away from the seeds 0, 1, ... of ordinary runs, with which a winner is named
HELD_OUT = "splits=('held_out',)"  # the override of runs that must not see the test split
DAMAGE = (ValueError, TypeError, KeyError, AttributeError)  # what reading a damaged file raises


@dataclass(frozen=True, kw_only=True)
class Study:
    """overrides: of all its runs. objective: `<protocol id>/<metric>`, on the held-out split, the larger the better.

    points: the settings to try, one value for each parameter, instead of what a sampler proposes.
    seed: of all trials' runs, and of the sampler. every: epochs between two values that the pruner sees.
    finalists: how many of the best trials run again, beside the recipe's own settings, each with seeds_final seeds.
    storage: an Optuna URL; "" is a journal file in the study's folder. It may change: it is made anew from the trials.
    """

    name: str
    recipe: str
    overrides: tuple[str, ...] = ()
    parameters: tuple[Parameter, ...]
    points: tuple[tuple[Any, ...], ...] = ()
    objective: str
    trials: int
    sampler: Sampler = "tpe"
    pruner: Pruner = "hyperband"
    seed: int = SEED
    every: int = 1
    finalists: int = 2
    seeds_final: int = 5
    storage: str = ""

    def folder(self, runs: Path) -> Path:
        return folder(runs, self.name)

    def run(self, runs: Path, digest: str, seed: int) -> Path:
        """The run directory of one of its trials or finals."""
        return runs / self.recipe / digest / f"seed-{seed}"

    def base(self) -> Recipe:
        """The recipe as it is without a trial's settings: the published default."""
        return registry.recipe(self.recipe, self.overrides)

    def settings(self, params: Mapping[str, Any]) -> tuple[str, ...]:
        """The overrides that a trial's parameters stand for."""
        return (*self.overrides, *(f"{p.path}={params[p.name]!r}" for p in self.parameters))

    def default(self) -> dict[str, Any] | None:
        """The recipe's own values as parameters; None where one of them is outside the space."""
        values = {p.name: value_at(self.base(), p.path) for p in self.parameters}
        if self.points:
            return values if tuple(values.values()) in self.points else None
        inside = all(
            values[p.name] in p.choices if p.choices else p.low <= values[p.name] <= p.high for p in self.parameters
        )
        return values if inside else None

    def first(self) -> list[dict[str, Any]]:
        """What is tried before a sampler is asked: the points, or else the recipe's own values."""
        names = [p.name for p in self.parameters]
        if self.points:
            return [dict(zip(names, point, strict=True)) for point in self.points]
        default = self.default()
        return [default] if default else []

    def watched(self) -> tuple[str, ...]:
        """The overrides by which a trial reports its objective while it trains, and leaves the test split alone."""
        return (f"monitor.protocol={self.objective.rpartition('/')[0]}", f"monitor.every={self.every}", HELD_OUT)


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One trial and its run. params: by the parameters' names. overrides, digest: of the run, without `watched`.

    stop: why the pruner ends it, noted before the run is asked to stop. outcome: "" while under way; then complete,
    pruned, collapsed, diverged or failed. value: the objective on the held-out split, for a run with a record.
    seconds: of all its attempts. step, steps: how far it came, of how many.
    """

    number: int
    params: dict[str, Any]
    overrides: tuple[str, ...]
    seed: int
    digest: str
    stop: str = ""
    outcome: str = ""
    value: float | None = None
    why: str = ""
    seconds: float = 0.0
    step: int = 0
    steps: int = 0


@dataclass(frozen=True, kw_only=True)
class Finalist:
    """Settings that run again with fresh seeds. trial: where they come from, None for the recipe's own."""

    trial: int | None
    params: dict[str, Any]
    overrides: tuple[str, ...]
    digest: str

    @property
    def label(self) -> str:
        return "default" if self.trial is None else f"trial {self.trial}"


@dataclass(frozen=True, kw_only=True)
class Final:
    """The recipe's own settings (first) and the best of the trials, on the same fresh seeds.

    winner: position in finalists of the one that is named, once all have run; test is evaluated for it and for the
    default, and for nothing else.
    """

    finalists: tuple[Finalist, ...]
    seeds: tuple[int, ...]
    winner: int | None = None


# ---------------------------------------------------------------------------------------------- what runs tell


def curve(study: Study, runs: Path, trial: Trial) -> dict[int, float]:
    """Epoch -> the objective on held-out images, as far as the trial's run has come; what is not finite is left out."""
    lines = read_lines(study.run(runs, trial.digest, trial.seed) / "metrics.jsonl")
    found = {line["epoch"]: line["held_out"].get(study.objective, nan) for line in lines if "held_out" in line}
    return {epoch: value for epoch, value in found.items() if isfinite(value)}


def score(study: Study, record: Mapping[str, Any], split: str = "held_out") -> float | None:
    """The objective in a record; None where it was not measured, as after a divergence, or is no number."""
    protocol, _, metric = study.objective.rpartition("/")
    rows = [row for row in record["evals"] if (row["protocol"], row["split"]) == (protocol, split)]
    value = float(rows[-1]["metrics"][metric]) if rows else nan
    return value if isfinite(value) else None


def spell(params: Mapping[str, Any]) -> str:
    """Settings, for people."""
    return ", ".join(f"{name} " + (f"{v:.4g}" if isinstance(v, float) else str(v)) for name, v in params.items())


# ---------------------------------------------------------------------------------------------- files


def folder(runs: Path, name: str) -> Path:
    return runs / "studies" / name


def names(runs: Path) -> list[str]:
    return sorted(path.parent.name for path in (runs / "studies").glob("*/study.json"))


def read(runs: Path, name: str) -> Study:
    """Errors: UnknownName, RunConflict for a file that does not read back."""
    file = folder(runs, name) / "study.json"
    if not file.exists():
        raise UnknownName("study", name, names(runs), fix="`harness sweep` makes one")
    data = _load(file)
    try:
        parameters = tuple(Parameter(**(one | {"choices": tuples(one["choices"])})) for one in data.pop("parameters"))
        return Study(**{key: tuples(value) for key, value in data.items()}, parameters=parameters)
    except DAMAGE as error:
        raise RunConflict(f"{file} is damaged ({error!r}); move its folder away and start the study again") from error


def write(study: Study, runs: Path) -> None:
    """Errors: NotWritable."""
    _store(study.folder(runs) / "study.json", asdict(study))


def read_trials(runs: Path, name: str) -> list[Trial]:
    """In the order of their numbers. Errors: RunConflict."""
    found = []
    for file in sorted((folder(runs, name) / "trials").glob("*.json")):
        data = _load(file)
        try:
            data["params"] = {key: tuples(value) for key, value in data["params"].items()}
            found.append(Trial(**(data | {"overrides": tuple(data["overrides"])})))
        except DAMAGE as error:
            raise RunConflict(f"{file} is damaged ({error!r}); move it away and start the study again") from error
    return found


def write_trial(runs: Path, name: str, trial: Trial) -> None:
    """Errors: NotWritable."""
    _store(folder(runs, name) / "trials" / f"{trial.number:06d}.json", asdict(trial))


def read_final(runs: Path, name: str) -> Final | None:
    """None before the trials are over. Errors: RunConflict."""
    file = folder(runs, name) / "final.json"
    if not file.exists():
        return None
    data = _load(file)
    try:
        for one in data["finalists"]:
            one["params"] = {key: tuples(value) for key, value in one["params"].items()}
        finalists = tuple(Finalist(**(one | {"overrides": tuple(one["overrides"])})) for one in data["finalists"])
        return Final(finalists=finalists, seeds=tuple(data["seeds"]), winner=data["winner"])
    except DAMAGE as error:
        raise RunConflict(f"{file} is damaged ({error!r}); move it away and start the study again") from error


def write_final(runs: Path, name: str, final: Final) -> None:
    """Errors: NotWritable."""
    _store(folder(runs, name) / "final.json", asdict(final))


def _load(file: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(file.read_text()))
    except DAMAGE as error:
        raise RunConflict(f"{file} is damaged ({error}); move it away and start the study again") from error


def _store(file: Path, data: dict[str, Any]) -> None:
    with writable(file):
        file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, (json.dumps(data, indent=1) + "\n").encode())
