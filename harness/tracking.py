"""Run directories into MLflow, and back out as tables. MLflow is a view: losing its database costs one `sync`.

One experiment per data set (`ssl-harness/<data set>`): a leaderboard compares within a data set, and the cost of a
search grows with the experiments it looks through. How far a run has been sent is a tag of the MLflow run itself, so
there is no second bookkeeping that could disagree with the database. MLflow is imported inside functions only.
Studies are sent by harness/studies/tracking.py.
"""

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import socket
import sqlite3
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from harness.errors import Unavailable
from harness.runs import read_lines, writable

if TYPE_CHECKING:
    import pandas
    from mlflow.entities import Experiment, Run
    from mlflow.tracking import MlflowClient

PREFIX = "ssl-harness/"  # of experiments, so that a shared server keeps ours apart
KEY, SENT, RECORD = "harness.run", "harness.sent_step", "harness.record"  # tags: who, how far, and which record
NOT_CURVES = ("step", "epoch", "time")
NOT_PARAMS = ("name", "label", "digest", "seed", "overrides", "evals")
STATUS = {"complete": "FINISHED", "diverged": "FAILED", "collapsed": "FAILED"}  # record -> MLflow
PER_CALL = 100  # params or tags in one request; MLflow refuses more
METRICS_PER_CALL = 1000
WAIT_S = 10.0  # for a locked database or a server's answer


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


def default_uri(runs: Path) -> str:
    return f"sqlite:///{(runs / 'mlflow.db').absolute()}"


# ------------------------------------------------------------------------------------------ run directories -> MLflow


def sync(runs: Path, uri: str | None = None) -> Counts:
    """Send what MLflow does not have yet of all run directories below `runs`. A second call sends nothing.

    Live runs are sent too: only metric lines beyond the last one sent. A line that a resumed attempt writes again for
    a step already sent is not sent again; the record of a finished run always is what counts.
    Errors: Unavailable (no database or server, or locked for long), NotWritable.
    """
    counts = Counts()
    found = sorted(runs.glob("*/*/seed-*/recipe.json"))
    if not found:
        return counts
    with _alone(runs), _store(uri or default_uri(runs), write=True) as client:
        stored = _search(client, _experiments(client))
        known = {run.data.tags[KEY]: run for run in stored if KEY in run.data.tags}
        ids = {experiment.name: experiment.experiment_id for experiment in _experiments(client)}
        for file in found:
            try:
                local = LocalRun.read(file.parent)
            except (OSError, ValueError, KeyError, TypeError) as error:
                counts.problems.append(f"{file.parent}: {type(error).__name__}: {error}")
                continue
            run = known.get(local.key)
            if run and run.data.tags.get(RECORD) == local.fingerprint and local.last_step <= _sent(run):
                counts.unchanged += 1
                continue
            name = PREFIX + local.tags["dataset"]
            if run is None and name not in ids:
                ids[name] = client.create_experiment(name)
            known[local.key], points = _send(client, local, run, ids.get(name, ""))
            counts.points += points
            counts.new, counts.updated = counts.new + (run is None), counts.updated + (run is not None)
        if any(runs.glob("studies/*/study.json")):
            from harness.studies import tracking as studies

            parents = {run.data.tags[studies.KEY]: run for run in stored if studies.KEY in run.data.tags}
            counts.problems += studies.sync(client, runs, known, parents)
    return counts


@dataclass
class LocalRun:
    """A run directory, read."""

    key: str
    seed: int
    status: str
    fingerprint: str  # of the record, or "live" and the status
    started: int  # ms, as all times for MLflow
    ended: int
    measured: int  # when the record was written: of two values at one step MLflow shows the younger
    params: dict[str, str]
    tags: dict[str, str]
    lines: list[dict[str, Any]]  # one per step, ascending
    final: dict[str, float]

    @property
    def last_step(self) -> int:
        return self.lines[-1]["step"] if self.lines else -1

    @classmethod
    def read(cls, path: Path) -> "LocalRun":
        recipe = json.loads((path / "recipe.json").read_text())
        record_file = path / "record.json"
        text = record_file.read_text() if record_file.exists() else ""
        record = json.loads(text) if text else None
        attempts = [line for line in read_lines(path / "attempts.jsonl") if line["event"] in ("start", "end")]
        live = "running" if attempts and attempts[-1]["event"] == "start" else "interrupted"
        status = record["status"] if record else live
        seed = int(path.name.removeprefix("seed-"))
        started = _ms(record["started"] if record else attempts[0]["time"]) if record or attempts else 0
        shaping = {k: v for k, v in recipe.items() if k not in NOT_PARAMS}
        return cls(
            key=f"{path.parent.parent.name}/{path.parent.name}/{path.name}",
            seed=seed,
            status=status,
            fingerprint=hashlib.sha256(text.encode()).hexdigest()[:12] if record else live,
            started=started,
            ended=_ms(record["ended"]) if record else started,
            measured=int(record_file.stat().st_mtime * 1000) if record else started,
            params={k: v if isinstance(v, str) else json.dumps(v) for k, v in flatten(shaping, ".").items()}
            | {"seed": str(seed)},
            tags=_tags(path, recipe, record or {}) | {"status": status, "seed": str(seed)},
            lines=read_curve(path),
            final=_final(record) if record else {},
        )


def _tags(path: Path, recipe: dict[str, Any], record: dict[str, Any]) -> dict[str, str]:
    """What tables filter and group by. Before there is a record, what the recipe says."""
    encoder, code = recipe["encoder"], record.get("code", {})
    values = {
        "recipe": path.parent.parent.name,
        "digest": path.parent.name,
        "method": recipe["method"]["name"],
        "label": record.get("label", recipe.get("label", recipe["method"]["name"])),
        "dataset": recipe["data"]["name"],
        "encoder": record.get("encoder", encoder["label"] or encoder["name"]),
        "epochs": recipe["budget"]["epochs"],
        "batch": recipe["budget"]["batch"],
        "reason": record.get("reason", ""),
        "commit": code.get("commit"),
        "dirty": code.get("dirty"),
        "fingerprint": code.get("fingerprint"),
        "overrides": " ".join(recipe.get("overrides", ())),
        "ended": record.get("ended"),
    }
    for one in record.get("evals", ()):
        about = {name: one[name] for name in ("n", "network", "layer", "units", "settings")}
        values[f"eval/{one['split']}/{one['protocol']}"] = json.dumps(about)
    return {name: "" if value is None else str(value) for name, value in values.items()}


def _final(record: dict[str, Any]) -> dict[str, float]:
    """`<split>/<protocol>/<metric>` of every evaluation, and what the run cost."""
    final = {
        f"{one['split']}/{one['protocol']}/{metric}": value
        for one in record["evals"]
        for metric, value in one["metrics"].items()
    }
    if record["images_per_s"] is not None:
        final["cost/images_per_s"] = record["images_per_s"]
    return final | {"cost/minutes": record["train_seconds"] / 60}


def _send(client: "MlflowClient", local: LocalRun, run: "Run | None", experiment: str) -> "tuple[Run, int]":
    """Bring one MLflow run up to date: that run, and how many points were sent.

    The cursor goes last, so a sync that dies is repeated, not skipped.
    """
    from mlflow.entities import Metric, Param, RunTag

    if run is None:
        tags = {KEY: local.key, "mlflow.runName": local.key}
        run = client.create_run(experiment, start_time=local.started, tags=tags)
        for some in _chunks(list(local.params.items()), PER_CALL):
            client.log_batch(run.info.run_id, params=[Param(*pair) for pair in some])
    id, sent = run.info.run_id, _sent(run)
    fresh = [line for line in local.lines if line["step"] > sent]
    points = [
        Metric(name, float(value), _ms(line["time"]), line["step"])
        for line in fresh
        for name, value in flatten({k: v for k, v in line.items() if k not in NOT_CURVES}, "/").items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    ]
    points += [
        Metric(name, float(value), local.measured, max(0, local.last_step)) for name, value in local.final.items()
    ]
    for some in _chunks(points, METRICS_PER_CALL):
        client.log_batch(id, metrics=some)
    tags = local.tags | {SENT: str(local.last_step), RECORD: local.fingerprint}
    for group in _chunks(list(tags.items()), PER_CALL):
        client.log_batch(id, tags=[RunTag(*pair) for pair in group])
    if local.status in STATUS:
        client.set_terminated(id, STATUS[local.status], end_time=local.ended)
    return run, len(points)


def _sent(run: "Run | None") -> int:
    return int(run.data.tags.get(SENT, -1)) if run else -1


def read_curve(path: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl in a run directory, one per step in ascending order: the last line of a step wins."""
    lines = {line["step"]: line for line in read_lines(path / "metrics.jsonl")}
    return [lines[step] for step in sorted(lines)]


def flatten(node: Any, separator: str, name: str = "") -> dict[str, Any]:
    """Nested data as one level: names joined by the separator, positions as names; a list of scalars is one value."""
    if isinstance(node, list) and any(isinstance(item, dict) for item in node):
        node = dict(enumerate(node))
    if not isinstance(node, dict):
        return {name: node}
    flat: dict[str, Any] = {}
    for key, value in node.items():
        flat |= flatten(value, separator, f"{name}{separator}{key}" if name else str(key))
    return flat


# ------------------------------------------------------------------------------------------ MLflow -> tables


def table(uri: str, *, dataset: str | None = None, recipe: str | None = None) -> "pandas.DataFrame":
    """One row per run, through mlflow.search_runs; empty if there is none. Filter where you can: 10 000 runs take long.

    Columns: run, recipe, digest, seed, method, label, dataset, encoder, epochs, batch, status, reason, commit, dirty
    (True, False, or None outside git), fingerprint, overrides, ended; every metric by its name, finals as
    `<split>/<protocol>/<metric>` and `cost/...`; `eval/<split>/<protocol>` (JSON: n, network, layer, units, settings);
    every setting as `params.<path>`, as text.
    Errors: Unavailable.
    """
    import pandas

    with _store(uri, write=False) as client:
        import mlflow

        ids = [one.experiment_id for one in _experiments(client) if dataset is None or one.name == PREFIX + dataset]
        if not ids:
            return pandas.DataFrame(columns=["run", "recipe", "seed", "dataset", "status"])
        mlflow.set_tracking_uri(uri)
        wanted = f"tags.`{KEY}` LIKE '%'" + (f" AND tags.recipe = '{recipe}'" if recipe else "")  # no studies
        found: pandas.DataFrame = mlflow.search_runs(ids, filter_string=wanted, max_results=100_000)
    found = found.rename(columns={f"tags.{KEY}": "run"})
    keep = [c for c in found if not c.startswith("tags.mlflow.") and c not in (f"tags.{SENT}", f"tags.{RECORD}")]
    found = found[[c for c in keep if c == "run" or "." in c]].copy()
    found = found.rename(columns=lambda c: c.removeprefix("metrics.").removeprefix("tags."))
    if found.empty or "run" not in found:
        return pandas.DataFrame(columns=["run", "recipe", "seed", "dataset", "status"])
    found = found[found["run"].notna()]
    for name in ("seed", "epochs", "batch"):
        found[name] = found[name].astype(int)
    found["dirty"] = found["dirty"].map({"True": True, "False": False}).astype(object).where(found["dirty"] != "", None)
    return found.sort_values("run", ignore_index=True)


def curves(runs: Path, keys: Iterable[str]) -> "pandas.DataFrame":
    """Training curves of the runs named by `table(...)["run"]`: one row per run and logged step, from the files."""
    import pandas

    rows = [{"run": key} | flatten(line, "/") for key in keys for line in read_curve(runs / key)]
    return pandas.DataFrame(rows, columns=None if rows else ["run", "step"])


def _experiments(client: "MlflowClient") -> "list[Experiment]":
    return _pages(lambda token: client.search_experiments(filter_string=f"name LIKE '{PREFIX}%'", page_token=token))


def _search(client: "MlflowClient", experiments: "list[Experiment]") -> "list[Run]":
    ids = [one.experiment_id for one in experiments]
    return _pages(lambda token: client.search_runs(ids, max_results=5000, page_token=token)) if ids else []


def _pages(ask: Callable[[str | None], Any]) -> list[Any]:
    found, token = [], None
    while True:
        page = ask(token)
        found += page
        token = page.token
        if not token:
            return found


# ------------------------------------------------------------------------------------------ the store


@contextlib.contextmanager
def _store(uri: str, *, write: bool) -> "Iterator[MlflowClient]":
    """An MLflow client that answers, or Unavailable in one line. MLflow itself would retry for minutes."""
    _check(uri, write)
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    with warnings.catch_warnings():
        # MLflow's models on SQLAlchemy 2.1; nothing a user can act on
        warnings.filterwarnings("ignore", "The ``noload`` loader strategy", DeprecationWarning)
        import mlflow
        from mlflow.exceptions import MlflowException

        logging.getLogger("mlflow").setLevel(logging.WARNING)  # not the migrations of a new database
        try:
            yield mlflow.MlflowClient(uri)
        except MlflowException as error:
            reason = str(error).splitlines()[0]
            raise Unavailable(
                f"MLflow at {uri} answered: {reason}; the run directories are untouched, try again"
            ) from error


def _check(uri: str, write: bool) -> None:
    parts = urlsplit(uri)
    if parts.scheme in ("http", "https") and parts.hostname:
        try:
            socket.create_connection(
                (parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)), WAIT_S
            ).close()
        except OSError as error:
            raise Unavailable(
                f"no MLflow server at {uri}: {error}; start it, or leave --mlflow out to use a file"
            ) from error
    if parts.scheme != "sqlite":
        return
    file = Path(uri.removeprefix("sqlite:///"))
    if not write and not file.exists():
        raise Unavailable(f"no MLflow database at {file}; `harness sync` makes it from the run directories")
    if write:
        with writable(file):
            file.parent.mkdir(parents=True, exist_ok=True)
    try:
        with contextlib.closing(sqlite3.connect(file, timeout=WAIT_S)) as database:
            database.execute("BEGIN IMMEDIATE" if write else "BEGIN")
            database.execute("SELECT count(*) FROM sqlite_master")
            database.rollback()
    except sqlite3.Error as error:
        fix = (
            "wait for the process that holds it"
            if "locked" in str(error)
            else "move it away, and `harness sync` makes it anew"
        )
        raise Unavailable(f"MLflow database {file}: {error}; {fix}") from error


@contextlib.contextmanager
def _alone(runs: Path) -> Iterator[None]:
    """Two syncs at once would both create the same run."""
    with writable(runs), open(runs / ".sync.lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _ms(time: str) -> int:
    return int(datetime.fromisoformat(time).timestamp() * 1000)


def _chunks(items: list[Any], size: int) -> Iterator[list[Any]]:
    return (items[i : i + size] for i in range(0, len(items), size))
