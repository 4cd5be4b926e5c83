"""Run directories to MLflow, and nothing that it has already.

An experiment per data set, `ssl-harness/<data set>`, and one per study, `ssl-harness/study/<name>`, for its trials.
What was sent of a run is said by tags of the MLflow run itself, so there is no second bookkeeping that could disagree
with the database. Studies are sent by harness/studies/tracking.py.
"""

import contextlib
import fcntl
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import BadClaim, RunConflict, Unavailable
from harness.runs import writable
from harness.tracking import attach, mirror
from harness.tracking.local import LocalRun, key_of, state_of
from harness.tracking.mirror import KEY, STAMP
from harness.tracking.store import PREFIX, default_uri, experiments, opened

if TYPE_CHECKING:
    import pandas
    from mlflow.entities import Metric
    from mlflow.tracking import MlflowClient

    from harness.studies.tracking import Studies

SENT, RECORD = "harness.sent_step", "harness.record"  # tags: how far it was sent, and with which record
FILES, ENCODER = "harness.files", "harness.encoder"  # tags: the state of the files, and of the encoder, then
PARENT, STUDY_SENT = "mlflow.parentRunId", "harness.study_sent"  # tags of studies and trials
TAGS = {
    KEY,
    SENT,
    RECORD,
    FILES,
    ENCODER,
    PARENT,
    STUDY_SENT,
    "recipe",
    "overrides",
    "claim",
}  # by these it is decided what to send
STATUS = {"complete": "FINISHED", "diverged": "FAILED", "collapsed": "FAILED"}  # record -> MLflow
PER_CALL = 100  # params, or tags, in one request; MLflow refuses more, and more than 1000 of all kinds
METRICS_PER_CALL = 800


@dataclass
class Counts:
    """What a sync did. problems: one line per directory that could not be read; it was left out."""

    new: int = 0
    updated: int = 0
    unchanged: int = 0
    points: int = 0
    problems: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        text = f"{self.new} new, {self.updated} updated, {self.unchanged} unchanged runs; {self.points} points sent"
        return text + (f"; {len(self.problems)} unreadable" if self.problems else "")


@dataclass
class Known:
    """A run that MLflow has."""

    id: str
    experiment: str
    status: str
    artifacts: str
    tags: dict[str, str]

    @property
    def sent(self) -> int:
        return int(self.tags.get(SENT, -1))


class Store:
    """What MLflow has of us, and what is needed to send more."""

    def __init__(self, client: "MlflowClient", uri: str, runs: Path) -> None:
        self.client, self.uri, self.runs = client, uri, runs
        self.known = _known(mirror.rows(client, uri))
        self.ids = {one.name: one.experiment_id for one in experiments(client)}
        self.looked = False  # for runs that a sync began and did not finish
        self.keeps_artifacts = True

    def find(self, key: str) -> Known | None:
        """Before a run is made anew, those are looked for that an earlier sync could not finish."""
        if key not in self.known and not self.looked:
            self.looked, ids = True, list(self.ids.values())
            if not mirror.as_many(self.client, ids, f"tags.`{KEY}` LIKE '%'", len(self.known)):
                self.known = _known(mirror.unstamped(self.client, ids)) | self.known
        return self.known.get(key)

    def create(self, name: str, key: str, title: str, started: int, tags: Mapping[str, str]) -> Known:
        """A run in the experiment of that name, which is made if need be.

        Errors: RunConflict where somebody has deleted that experiment.
        """
        if name not in self.ids:
            there = self.client.get_experiment_by_name(name)
            if there and there.lifecycle_stage == "deleted":
                id = there.experiment_id
                raise RunConflict(
                    f"experiment {name} was deleted in MLflow; `mlflow experiments restore -x {id}` brings it back, "
                    f"`mlflow gc --experiment-ids {id}` lets the next sync make it anew"
                )
            place = self._artifacts(name)
            self.ids[name] = there.experiment_id if there else self.client.create_experiment(name, place)
        info = self.client.create_run(self.ids[name], started, {**tags, KEY: key}, run_name=title).info
        self.known[key] = Known(info.run_id, info.experiment_id, info.status, info.artifact_uri, {KEY: key})
        return self.known[key]

    def _artifacts(self, experiment: str) -> str | None:
        """Beside the runs; MLflow's own choice would be the current folder. A server has a place of its own."""
        if self.uri.startswith("http"):
            return None
        return (self.runs / "mlartifacts" / experiment.removeprefix(PREFIX)).absolute().as_uri()

    def log(
        self,
        run: Known,
        tags: Mapping[str, str],
        points: "Sequence[Metric]" = (),
        params: Mapping[str, str] | None = None,
    ) -> None:
        """In as few requests as MLflow allows. Tags go last, and with them the stamp: the run has changed."""
        from mlflow.entities import Metric, Param, RunTag

        now = mirror.now()
        metrics = [*points, Metric(STAMP, float(now), now, 0)]
        parameters = [Param(*pair) for pair in (params or {}).items()]
        while len(metrics) > METRICS_PER_CALL or len(parameters) > PER_CALL:
            some, metrics = metrics[:METRICS_PER_CALL], metrics[METRICS_PER_CALL:]
            self.client.log_batch(run.id, metrics=some, params=parameters[:PER_CALL])
            parameters = parameters[PER_CALL:]
        self.client.log_batch(run.id, metrics, parameters, [RunTag(*pair) for pair in tags.items()])
        run.tags |= tags


def sync(runs: Path, uri: str | None = None) -> Counts:
    """Send what MLflow does not have yet of all run directories below `runs`. A second call sends nothing.

    Live runs are sent too: only metric lines beyond the last one sent. A line that a resumed attempt writes again for
    a step already sent is not sent again; the record of a finished run always is what counts. A directory whose files
    have the sizes and times they had when it was sent is not opened. Errors: those of `store.opened`.
    """
    counts, uri = Counts(), uri or default_uri(runs)
    found = sorted(runs.glob("*/*/seed-*/recipe.json"))
    if not found:
        return counts
    with _alone(runs), opened(uri, write=True) as client:
        store, studies, claims = Store(client, uri, runs), None, None
        try:
            claims = attach.claims_by_recipe()
        except BadClaim as error:  # the tags stay as they are
            counts.problems.append(f"tags of claims: {error}")
        if any(runs.glob("studies/*/study.json")):
            from harness.studies.tracking import Studies  # imports torch

            studies = Studies(runs)
        for file in found:
            _send(store, studies, claims, file.parent, counts)
        if studies:
            counts.problems += studies.send(store, new=counts.new > 0)
    return counts


def _send(store: Store, studies: "Studies | None", claims: dict[str, str] | None, path: Path, counts: Counts) -> None:
    """Bring one MLflow run up to date. What says so goes last, so a sync that dies is repeated, not skipped."""
    key, state = key_of(path), state_of(path)
    run = store.known.get(key)
    if run and run.tags.get(FILES) == state and run.tags.get("claim") == _claim(claims, run.tags):
        counts.unchanged += 1
        return
    try:
        local = LocalRun.read(path)
    except (RunConflict, OSError) as error:
        counts.problems.append(str(error))
        return
    if new := (run := store.find(key)) is None:
        study = studies.owner(key) if studies else None
        name = PREFIX + (f"study/{study}" if study else local.tags["dataset"])
        try:
            run = store.create(name, key, _title(local), local.started, local.tags)
        except RunConflict as error:
            counts.problems += [str(error)] if str(error) not in counts.problems else []
            return
    tags = local.tags | {"claim": _claim(claims, run.tags | local.tags)}
    same = run.tags.get(RECORD) == local.fingerprint and local.last_step <= run.sent
    retold = same and tags["claim"] == run.tags.get("claim")  # the files are younger and say the same
    if local.data and not same:
        store.client.log_inputs(run.id, datasets=attach.inputs(local))
    encoder = attach.encoder_state(path) if local.data else ""
    kept = _keep_encoder(store, run, path, encoder, counts) if encoder else ""
    if local.status in STATUS and not same:
        run.status = STATUS[local.status]
        store.client.set_terminated(run.id, run.status, end_time=local.ended)
    points = [] if same else _points(local, run.sent)
    tags |= {SENT: str(max(local.last_step, run.sent)), RECORD: local.fingerprint, ENCODER: kept}
    tags[FILES] = state if kept == encoder else ""  # else it is looked at again
    store.log(run, tags, points, {} if FILES in run.tags else local.params)
    counts.points += len(points)
    counts.new, counts.updated = counts.new + new, counts.updated + (not new and not retold)
    counts.unchanged += retold and not new


def _keep_encoder(store: Store, run: Known, path: Path, state: str, counts: Counts) -> str:
    """The state of the encoder that MLflow has now. Where one cannot be kept, no other is tried in this sync."""
    if store.keeps_artifacts and run.tags.get(ENCODER) != state:
        try:
            attach.keep_encoder(store.client, run.id, run.artifacts, path / "encoder.safetensors")
            return state
        except Unavailable as error:
            store.keeps_artifacts = False
            counts.problems.append(str(error))
    return run.tags.get(ENCODER, "")


def _points(local: LocalRun, sent: int) -> "list[Metric]":
    """The points of a run that MLflow lacks, when it has those up to a step."""
    from mlflow.entities import Metric

    curve = [
        (name, value, time, step) for step, time, line in local.curve if step > sent for name, value in line.items()
    ]
    final = [(name, value, local.measured, max(0, local.last_step)) for name, value in local.final.items()]
    return [Metric(*point) for point in curve + final]


def _claim(claims: dict[str, str] | None, tags: Mapping[str, str]) -> str:
    """The tag `claim` of a run with these tags. A run with overrides answers none."""
    if claims is None:
        return tags.get("claim", "")
    return "" if tags["overrides"] else claims.get(tags["recipe"], "")


def _title(local: LocalRun) -> str:
    """The name of a run on MLflow's pages."""
    return " ".join([local.tags["recipe"], f"seed {local.seed}", local.tags["overrides"]]).strip()[:250]


def _known(rows: "pandas.DataFrame") -> dict[str, Known]:
    """By key, from a frame of `mirror`."""
    if rows.empty:
        return {}
    rows = rows[rows[f"tags.{KEY}"].notna()]
    names = [name for name in rows if name.startswith("tags.") and name.removeprefix("tags.") in TAGS]
    tags = [
        {name.removeprefix("tags."): value for name, value in zip(names, values, strict=True) if isinstance(value, str)}
        for values in zip(*(rows[name].tolist() for name in names), strict=True)
    ]
    columns = [rows[name].tolist() for name in ("run_id", "experiment_id", "status", "artifact_uri")]
    found = zip(*columns, tags, strict=True)
    return {some[KEY]: Known(id, place, status, artifacts, some) for id, place, status, artifacts, some in found}


@contextlib.contextmanager
def _alone(runs: Path) -> Iterator[None]:
    """Two syncs at once would both create the same run."""
    with writable(runs), open(runs / ".sync.lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
