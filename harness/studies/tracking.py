"""Studies into MLflow: a study is a run, and the runs of its trials are its children.

How far a study has been sent is a tag of its own MLflow run, as with runs (harness/tracking.py), which calls this after
it has sent them. A run that two studies share stays with the one that was sent first.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import HarnessError
from harness.studies import study as studies
from harness.studies.selection import ranked
from harness.studies.study import Final, Study, Trial

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

KEY, SENT, PARENT = "harness.study", "harness.study_sent", "mlflow.parentRunId"  # tags
ENDS = {"pruned": "KILLED", "failed": "FAILED"}  # outcomes without a record
WORDS = ("complete", "pruned", "collapsed", "diverged", "failed")


def sync(client: "MlflowClient", runs: Path, known: "Mapping[str, Run]", parents: "Mapping[str, Run]") -> Iterator[str]:
    """Send what is new of all studies; yields a line for each that could not be read.

    known: the MLflow runs of run directories by their key; parents: those of studies by their name.
    """
    ids = {run.info.run_id for run in parents.values()}
    for name in studies.names(runs):
        try:
            fingerprint = _fingerprint(runs, name)  # first: what a coordinator writes meanwhile is sent the next time
            study, trials = studies.read(runs, name), studies.read_trials(runs, name)
            final = studies.read_final(runs, name)
        except HarnessError as error:
            yield str(error)
            continue
        found = [(trial, known.get(f"{study.recipe}/{trial.digest}/seed-{trial.seed}")) for trial in trials]
        children = [(trial, run) for trial, run in found if run]
        if not children:  # nor is there an experiment yet
            continue
        parent = parents.get(name) or _create(client, runs, study, children[0][1].info.experiment_id)
        ids.add(parent.info.run_id)
        for trial, child in children:
            _adopt(client, parent, trial, child, ids)
        if parent.data.tags.get(SENT) != fingerprint:
            _update(client, runs, parent, study, trials, final)
            client.set_tag(parent.info.run_id, SENT, fingerprint)


def _adopt(client: "MlflowClient", parent: "Run", trial: Trial, child: "Run", ids: set[str]) -> None:
    """Give a trial's run its parent, unless it has one already, and an end where it wrote no record."""
    id, tags = child.info.run_id, child.data.tags
    if tags.get(PARENT) not in ids:
        named = {"study": parent.data.tags[KEY], "trial": str(trial.number), PARENT: parent.info.run_id}
        for tag, value in named.items():
            client.set_tag(id, tag, value)
        tags |= named  # for a study that comes later
    if trial.outcome in ENDS and child.info.status == "RUNNING":
        client.set_terminated(id, ENDS[trial.outcome])


def _create(client: "MlflowClient", runs: Path, study: Study, experiment: str) -> "Run":
    from mlflow.entities import Param

    began = int((study.folder(runs) / "study.json").stat().st_mtime * 1000)
    parent = client.create_run(experiment, start_time=began, tags={KEY: study.name, "mlflow.runName": study.name})
    asked = {key: getattr(study, key) for key in ("recipe", "objective", "sampler", "pruner", "seed")}
    asked |= {"overrides": " ".join(study.overrides)} | {f"space.{p.name}": p for p in study.parameters}
    client.log_batch(parent.info.run_id, params=[Param(key, str(value)) for key, value in asked.items()])
    return parent


def _update(
    client: "MlflowClient", runs: Path, parent: "Run", study: Study, trials: list[Trial], final: Final | None
) -> None:
    """The parent's metrics, with the number of trials that are over as the step, and the status."""
    from mlflow.entities import Metric

    counts = Counter(trial.outcome or "under_way" for trial in trials)
    over, best = len(trials) - counts["under_way"], ranked(trials)
    changed = max(int(file.stat().st_mtime * 1000) for file in _files(runs, study.name))
    values = {f"trials/{word}": float(counts[word]) for word in (*WORDS, "under_way")}
    values |= {"seconds": sum(trial.seconds for trial in trials)}
    values |= {"best": best[0].value or 0.0} if best else {}
    metrics = [Metric(key, value, changed, over) for key, value in values.items()]
    client.log_batch(parent.info.run_id, metrics=metrics)
    done = over >= study.trials and (not study.seeds_final or (final is not None and final.winner is not None))
    if done:
        client.set_terminated(parent.info.run_id, "FINISHED", end_time=changed)
    elif parent.info.status != "RUNNING":  # it was over, and more trials were asked for
        client.update_run(parent.info.run_id, "RUNNING")


def _files(runs: Path, name: str) -> list[Path]:
    folder = studies.folder(runs, name)
    return [
        file
        for file in (folder / "study.json", *sorted(folder.glob("trials/*.json")), folder / "final.json")
        if file.exists()
    ]


def _fingerprint(runs: Path, name: str) -> str:
    return hashlib.sha256(b"".join(file.read_bytes() for file in _files(runs, name))).hexdigest()[:12]
