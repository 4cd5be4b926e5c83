"""Optuna's part of a study: what to try next, and which trial to prune.

The files of a study are the truth (study.py); what Optuna stores follows them and can be made anew from them. One
process alone, the coordinator, holds the storage; optuna-dashboard may read it meanwhile.

A trial that ran to its end is COMPLETE for Optuna. One that ended early by a pruner, a collapse or a divergence is
PRUNED, so that samplers which learn from pruned trials (TPE) stay away from there. One that could not run is FAIL.
"""

import contextlib
import json
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from harness import registry
from harness.errors import BadCommand, BadRecipe, HarnessError, RunConflict, Unavailable
from harness.runs import writable
from harness.studies.space import Parameter
from harness.studies.study import Study, Trial

optuna.logging.set_verbosity(optuna.logging.ERROR)
STARTUP = 10  # trials before a model-based sampler is asked, Optuna's default for TPE and GP
WAIT_S = 10  # for a database that is locked or does not answer
STATES = {"complete": TrialState.COMPLETE, "failed": TrialState.FAIL}  # all others: PRUNED
Curve = Mapping[int, float]  # epoch -> the objective on held-out images


def place(study: Study, runs: Path) -> str:
    """Where the storage is, without a password."""
    return re.sub(r"(://[^:/@]*):[^@]*@", r"\1:***@", study.storage) or str(study.folder(runs) / "journal.log")


@contextlib.contextmanager
def answered(study: Study, runs: Path) -> Iterator[None]:
    """Turn what a storage says when it is locked, down or damaged into one line. The files tell all that it would.

    Errors: Unavailable; HarnessError for a damaged journal.
    """
    from sqlalchemy.exc import SQLAlchemyError

    where = place(study, runs)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Optuna's on what is experimental, SQLAlchemy's on versions
            yield
    except json.JSONDecodeError as error:
        raise HarnessError(
            f"{where} is damaged ({error}); move it away: the next start makes it anew from the study's trials"
        ) from error
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError, OSError) as error:
        raise Unavailable(
            f"storage {where} of study {study.name!r} does not answer: {_line(error)}; what its trials found is in "
            f"{study.folder(runs)}; the same command goes on when it does"
        ) from error


def _line(error: Exception) -> str:
    """The first line of what was the cause."""
    cause = error.__cause__ or error.__context__ or error
    return (str(cause).strip().splitlines() or [type(cause).__name__])[0]


class Optimiser:
    """A study as Optuna sees it. Errors of all methods: Unavailable; HarnessError for a damaged journal."""

    def __init__(self, study: Study, runs: Path) -> None:
        """Open the storage, or make it. Errors: RunConflict for another study of this name; those of `_database`."""
        self.study, self.runs = study, runs
        with answered(study, runs):
            storage = _database(study, runs) if study.storage else _journal(study.folder(runs) / "journal.log")
            self.optuna = optuna.create_study(
                storage=storage, study_name=study.name, pruner=pruner(study), direction="maximize", load_if_exists=True
            )
            mine = {p.name: str(p) for p in study.parameters} | {"recipe": study.recipe, "objective": study.objective}
            if study.storage:  # a journal moves with its folder
                mine["folder"] = str(study.folder(runs).resolve())
            theirs = self.optuna.user_attrs.get("space", mine)
            if theirs != mine:
                key = min(key for key in mine | theirs if mine.get(key) != theirs.get(key))
                raise RunConflict(
                    f"{place(study, runs)} has another study {study.name!r}: its {key} is {theirs.get(key)}, here it "
                    f"is {mine.get(key)}; choose another name with --study, or remove that one with `optuna "
                    "delete-study`: what a storage lacks is made anew from the trials' files"
                )
            if "space" not in self.optuna.user_attrs:
                self.optuna.set_user_attr("space", mine)

    def follow(self, trials: Sequence[Trial], curve: Callable[[Trial], Curve]) -> list[Trial]:
        """Bring the storage to what the files say. Returns trials of the storage that have no file, without an outcome.

        A trial that was asked for by a coordinator that died before it wrote the file keeps its number and settings.
        So does one whose file was lost: what came of it is in its run directory.
        """
        with answered(self.study, self.runs):
            known = {trial.number: trial for trial in trials}
            stored = self.optuna.get_trials(deepcopy=False)
            for number in range(max([len(stored), *(number + 1 for number in known)])):
                trial = known.get(number)
                if number >= len(stored):
                    self._add(number, frozen(self.study, trial, curve(trial)) if trial else self._unknown(number))
                elif trial and trial.outcome and not stored[number].state.is_finished():
                    self.tell(trial, curve(trial))
            states = [one.state for one in self.optuna.get_trials(deepcopy=False)]
            lost = [n for n, state in enumerate(states) if n not in known and state != TrialState.WAITING]
            return [self._proposal(number, self._live(number)) for number in lost]

    def ask(self) -> Trial:
        """The next trial. First come the study's points, or else the recipe's own settings."""
        with answered(self.study, self.runs):
            stored = self.optuna.get_trials(deepcopy=False)
            waiting = sum(one.state == TrialState.WAITING for one in stored)
            number = len(stored) - waiting
            if (fixed := self._fixed(number)) and not waiting:
                self.optuna.enqueue_trial(fixed)
            return self._proposal(number)

    def prune(self, trial: Trial, curve: Curve) -> int | None:
        """The epoch at which the pruner ends a trial, of those that the storage has not seen yet."""
        with answered(self.study, self.runs):
            live = self._live(trial.number)
            seen = self.optuna.get_trials(deepcopy=False)[trial.number].intermediate_values
            for epoch in sorted(set(curve) - set(seen)):
                live.report(curve[epoch], epoch)
                if live.should_prune():
                    return epoch
        return None

    def tell(self, trial: Trial, curve: Curve) -> None:
        """An outcome. Told twice, the first stays."""
        with answered(self.study, self.runs):
            stored = self.optuna.get_trials(deepcopy=False)[trial.number]
            if stored.state.is_finished():
                return
            live = self._live(trial.number)
            for epoch in sorted(set(curve) - set(stored.intermediate_values)):
                live.report(curve[epoch], epoch)
            for key, value in _attributes(trial).items():
                live.set_user_attr(key, value)
            state = STATES.get(trial.outcome, TrialState.PRUNED)
            value = trial.value if state == TrialState.COMPLETE else None
            self.optuna.tell(trial.number, value, state=state)

    def _add(self, number: int, one: FrozenTrial) -> None:
        """A trial that the storage lacks."""
        self.optuna.add_trial(one)
        if self.study.sampler == "qmc" and number and not self._fixed(number):  # its sequence is stored beside trials
            space = {p.name: distribution(p) for p in self.study.parameters}
            sampler(self.study, number).sample_relative(self.optuna, one, space)

    def _unknown(self, number: int) -> FrozenTrial:
        """A trial of which neither the storage nor a file is left; it is asked for once more."""
        return optuna.create_trial(state=TrialState.RUNNING, system_attrs={"fixed_params": self._fixed(number)})

    def _fixed(self, number: int) -> dict[str, Any]:
        """Settings that no sampler proposes: the study's points, or else the recipe's own. None for later trials."""
        first = self.study.first()
        return {p.name: _to_optuna(p, first[number][p.name]) for p in self.study.parameters if number < len(first)}

    def _live(self, number: int) -> optuna.Trial:
        # Optuna hands out a Trial once; a coordinator that was started again makes it from its id
        return optuna.Trial(self.optuna, self.optuna.get_trials(deepcopy=False)[number]._trial_id)

    def _proposal(self, number: int, live: optuna.Trial | None = None) -> Trial:
        """A Trial without a run yet, from a new one of Optuna's, or from an old one with the settings that it has."""
        self.optuna.sampler = sampler(self.study, number)
        live = live or self.optuna.ask()
        params = {p.name: _suggest(live, p) for p in self.study.parameters}
        return proposal(self.study, live.number, params)


def proposal(study: Study, number: int, params: dict[str, Any]) -> Trial:
    """A trial with these settings; one that the recipe cannot take has failed already."""
    overrides = study.settings(params)
    trial = Trial(number=number, params=params, overrides=overrides, seed=study.seed, digest="")
    try:
        return replace(trial, digest=registry.recipe(study.recipe, overrides).digest)
    except BadRecipe as error:
        return replace(trial, outcome="failed", why=str(error))


def in_memory(study: Study, trials: Iterable[Trial], curves: Mapping[int, Curve]) -> optuna.Study:
    """The study as its files tell it, for Optuna's analyses and plots."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = optuna.create_study(study_name=study.name, direction="maximize")
        made.add_trials([frozen(study, trial, curves[trial.number]) for trial in trials])
    return made


def frozen(study: Study, trial: Trial, curve: Curve) -> FrozenTrial:
    """A trial of the files as one of Optuna's."""
    state = STATES.get(trial.outcome, TrialState.PRUNED) if trial.outcome else TrialState.RUNNING
    value = trial.value
    if state == TrialState.PRUNED:
        value = curve[max(curve)] if curve else None  # as Optuna does
    return optuna.create_trial(
        state=state,
        value=value if state in (TrialState.COMPLETE, TrialState.PRUNED) else None,
        params={p.name: _to_optuna(p, trial.params[p.name]) for p in study.parameters},
        distributions={p.name: distribution(p) for p in study.parameters},
        intermediate_values=dict(curve),
        user_attrs=_attributes(trial),
    )


def _attributes(trial: Trial) -> dict[str, Any]:
    told = {"outcome": trial.outcome, "why": trial.why, "seconds": trial.seconds}
    return {"digest": trial.digest, "seed": trial.seed} | (told if trial.outcome else {})


# ---------------------------------------------------------------------------------------------- settings


def sampler(study: Study, number: int) -> optuna.samplers.BaseSampler:
    """The sampler for trial `number`: anew for each, so that a coordinator started again does not repeat its start."""
    seed = study.seed + number
    match study.sampler:
        case "tpe":
            return optuna.samplers.TPESampler(seed=seed, multivariate=True, n_startup_trials=STARTUP)
        case "gp":
            return optuna.samplers.GPSampler(seed=seed, n_startup_trials=STARTUP)
        case "cmaes":
            return optuna.samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False)
        case "qmc":  # one sequence, of which each trial takes the next point
            return optuna.samplers.QMCSampler(
                seed=study.seed, scramble=True, warn_independent_sampling=False,
                independent_sampler=optuna.samplers.RandomSampler(seed=seed),
            )  # fmt: skip
        case _:  # a grid's points are given one by one
            return optuna.samplers.RandomSampler(seed=seed)


def pruner(study: Study) -> optuna.pruners.BasePruner:
    epochs = study.base().budget.epochs
    match study.pruner:
        case "hyperband":
            return optuna.pruners.HyperbandPruner(min_resource=study.every, max_resource=epochs, reduction_factor=3)
        case "median":
            return optuna.pruners.MedianPruner(n_startup_trials=STARTUP // 2, n_warmup_steps=epochs // 10)
        case _:
            return optuna.pruners.NopPruner()


def distribution(p: Parameter) -> optuna.distributions.BaseDistribution:
    if p.choices:
        return optuna.distributions.CategoricalDistribution([_to_optuna(p, value) for value in p.choices])
    if p.whole:
        return optuna.distributions.IntDistribution(int(p.low), int(p.high), log=p.log)
    return optuna.distributions.FloatDistribution(p.low, p.high, log=p.log)


def _suggest(live: optuna.Trial, p: Parameter) -> Any:
    if p.choices:
        options = {_to_optuna(p, value): value for value in p.choices}
        return options[live.suggest_categorical(p.name, list(options))]
    if p.whole:
        return live.suggest_int(p.name, int(p.low), int(p.high), log=p.log)
    return live.suggest_float(p.name, p.low, p.high, log=p.log)


def _to_optuna(p: Parameter, value: Any) -> Any:
    """Optuna's choices are scalars; others go by their spelling."""
    return value if not p.choices or value is None or isinstance(value, bool | int | float | str) else repr(value)


# ---------------------------------------------------------------------------------------------- storages


def _database(study: Study, runs: Path) -> optuna.storages.BaseStorage:
    """Errors: BadCommand for a URL that is none, or whose driver is not installed."""
    from sqlalchemy.exc import ArgumentError

    url = study.storage
    # a dead server is noticed before each use; a locked file and a silent host are waited for, though not for ever
    options: dict[str, Any] = {"pool_pre_ping": True}
    if url.startswith("sqlite"):
        options = {"connect_args": {"timeout": WAIT_S}}
    elif re.match(r"postgresql(\+psycopg2?)?:", url):
        options["connect_args"] = {"connect_timeout": WAIT_S}
    try:
        return optuna.storages.RDBStorage(url, engine_kwargs=options)
    except ArgumentError as error:
        fix = "expected an SQLAlchemy URL: postgresql+psycopg://user@host/database or sqlite:////folder/file.db"
        raise BadCommand(f"storage {place(study, runs)}: {_line(error)}; {fix}") from error
    except ImportError as error:
        fix = "for PostgreSQL pip install -c constraints.txt -e '.[postgres]', with a URL of postgresql+psycopg://"
        raise BadCommand(f"storage {place(study, runs)} needs a driver: {_line(error)}; {fix}") from error


def _journal(file: Path) -> optuna.storages.BaseStorage:
    """The journal, mended where a writer was killed: the half-written line cut off, its lock taken away."""
    from optuna.storages.journal import JournalFileBackend

    with writable(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.with_name(f"{file.name}.lock").unlink(missing_ok=True)
        if file.exists() and not (text := file.read_bytes()).endswith(b"\n"):
            with open(file, "r+b") as stream:
                stream.truncate(text.rfind(b"\n") + 1)
    return optuna.storages.JournalStorage(JournalFileBackend(str(file)))
