"""Studies into MLflow: a study is a run in an experiment of its own, and the runs of its trials are its children.

How far a study has been sent is a tag of its own MLflow run, as with runs (harness/tracking/send.py), which calls this
after it has sent them. A run that two studies share stays with the first, and a run that was sent before it became a
trial stays in the experiment of its data set. The final runs are ordinary ones, and stand there, too.
"""

import hashlib
from collections import Counter
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

from harness.errors import RunConflict, UnknownName
from harness.studies import study as studies
from harness.studies.selection import ranked
from harness.studies.study import Final, Study, Trial
from harness.tracking.mirror import KEY as RUN
from harness.tracking.send import PARENT, STUDY_SENT, Known, Store
from harness.tracking.store import PREFIX
from harness.tracking.tables import STUDY

KEY = "harness.study"  # tag: its name
ENDS = {"pruned": "KILLED", "failed": "FAILED"}  # outcomes without a record
WORDS = ("complete", "pruned", "collapsed", "diverged", "failed")
TITLE = 250  # characters of a run's name


class Studies:
    """All studies of a folder of runs; their files are read when they are needed."""

    def __init__(self, runs: Path) -> None:
        self.runs, self.problems = runs, dict[str, str]()  # by study
        self.names = studies.names(runs)

    def owner(self, key: str) -> str | None:
        """The study whose trial a run is; of several the first."""
        return self._owners.get(key)

    @cached_property
    def _owners(self) -> dict[str, str]:
        return {key(*one): name for name in reversed(self.names) for one in self.read(name)}

    def read(self, name: str) -> list[tuple[Study, Trial]]:
        """Its trials; none, and a problem, where a file is damaged."""
        try:
            study = studies.read(self.runs, name)
            return [(study, trial) for trial in studies.read_trials(self.runs, name)]
        except (RunConflict, UnknownName) as error:
            self.problems[name] = str(error)
            return []

    def send(self, store: Store, new: bool) -> list[str]:
        """Send what is new of all studies. new: whether runs were sent for the first time, which may be of old trials.

        Returns a line for each study that could not be read.
        """
        parents = {run.id for run in store.known.values() if run.tags[RUN].startswith(STUDY)}
        for name in self.names:
            state = _state(self.runs, name)  # first: what a coordinator writes meanwhile is sent the next time
            parent = store.known.get(STUDY + name)
            if parent and parent.tags.get(STUDY_SENT) == state and not new:
                continue
            found = [(study, trial, store.known.get(key(study, trial))) for study, trial in self.read(name)]
            children = [(trial, run) for _, trial, run in found if run]
            if not children or name in self.problems:
                continue
            study, trials = found[0][0], [trial for _, trial, _ in found]
            try:
                final = studies.read_final(self.runs, name)
                parent = store.find(STUDY + name) or _create(store, self.runs, study)
            except (RunConflict, UnknownName) as error:
                self.problems[name] = str(error)
                continue
            parents.add(parent.id)
            for trial, child in children:
                _adopt(store, name, parent, trial, child, parents)
            if parent.tags.get(STUDY_SENT) != state:
                _update(store, self.runs, parent, study, trials, final, state)
        return list(self.problems.values())


def key(study: Study, trial: Trial) -> str:
    return f"{study.recipe}/{trial.digest}/seed-{trial.seed}"


def _adopt(store: Store, study: str, parent: Known, trial: Trial, child: Known, parents: set[str]) -> None:
    """Give a trial's run its parent, unless it has one already, and an end where it wrote no record."""
    tags, over = {}, trial.outcome in ENDS and child.status == "RUNNING"
    if child.tags.get(PARENT) not in parents:
        title = f"trial {trial.number}: {studies.spell(trial.params)}"[:TITLE]
        tags = {"study": study, "trial": str(trial.number), PARENT: parent.id, "mlflow.runName": title}
    if over:
        child.status = ENDS[trial.outcome]
        store.client.set_terminated(child.id, child.status)
    if tags or over:
        store.log(child, tags)


def _create(store: Store, runs: Path, study: Study) -> Known:
    from mlflow.entities import Param

    began = int((study.folder(runs) / "study.json").stat().st_mtime * 1000)
    tags = {KEY: study.name, "recipe": study.recipe, "overrides": " ".join(study.overrides)}
    parent = store.create(f"{PREFIX}{STUDY}{study.name}", STUDY + study.name, study.name, began, tags)
    asked: Mapping[str, object] = {
        **{key: getattr(study, key) for key in ("recipe", "objective", "sampler", "pruner", "seed")},
        "overrides": " ".join(study.overrides),
        **{f"space.{p.name}": p for p in study.parameters},
    }
    store.client.log_batch(parent.id, params=[Param(key, str(value)) for key, value in asked.items()])
    return parent


def _update(
    store: Store, runs: Path, parent: Known, study: Study, trials: list[Trial], final: Final | None, state: str
) -> None:
    """The parent's metrics, with the number of trials that are over as the step, and the status."""
    from mlflow.entities import Metric

    counts = Counter(trial.outcome or "under_way" for trial in trials)
    over, best = len(trials) - counts["under_way"], ranked(trials)
    changed = max(int(file.stat().st_mtime * 1000) for file in _files(runs, study.name))
    values = {f"trials/{word}": float(counts[word]) for word in (*WORDS, "under_way")}
    values |= {"seconds": sum(trial.seconds for trial in trials)}
    values |= {"best": best[0].value or 0.0} if best else {}
    done = over >= study.trials and (not study.seeds_final or (final is not None and final.winner is not None))
    if done:
        store.client.set_terminated(parent.id, "FINISHED", end_time=changed)
    elif parent.status != "RUNNING":  # it was over, and more trials were asked for
        store.client.update_run(parent.id, "RUNNING")
    parent.status = "FINISHED" if done else "RUNNING"
    store.log(parent, {STUDY_SENT: state}, [Metric(key, value, changed, over) for key, value in values.items()])


def _files(runs: Path, name: str) -> list[Path]:
    folder = studies.folder(runs, name)
    return [
        file
        for file in (folder / "study.json", *sorted(folder.glob("trials/*.json")), folder / "final.json")
        if file.exists()
    ]


def _state(runs: Path, name: str) -> str:
    """12 hex digits that change when a file of a study does, from sizes and times: nothing is read."""
    seen = [
        f"{file.name} {status.st_size} {status.st_mtime_ns}" for file in _files(runs, name) if (status := file.stat())
    ]
    return hashlib.sha256("\n".join(seen).encode()).hexdigest()[:12]
