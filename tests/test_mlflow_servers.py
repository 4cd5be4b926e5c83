"""The same runs through an MLflow server and on a PostgreSQL, which the test starts and stops."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas
import pytest
import sqlalchemy
from run_directories import DIGEST, write_run
from study_files import NAME, write_study
from test_postgres import PASSWORD, Server, server  # noqa: F401  (fixture)

from harness import tracking
from harness.errors import Unavailable
from harness.studies import study as studies
from harness.tracking import mirror, send, store

pytestmark = pytest.mark.slow
KEY = f"vicreg_digits_r10_e60/{DIGEST}/seed-0"


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A cache of its own, and no connection left open: psycopg would warn of it."""
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    made, plain = [], sqlalchemy.engine.create_engine

    def engine(*args: Any, **options: Any) -> sqlalchemy.Engine:
        made.append(plain(*args, **options))
        return made[-1]

    with monkeypatch.context() as patch:
        patch.setattr(sqlalchemy, "create_engine", engine)
        yield
    for one in made:
        one.dispose()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An MLflow server with an SQLite file and a folder for artifacts, which only the server writes."""
    root = tmp_path_factory.mktemp("server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    words += ["--backend-store-uri", f"sqlite:///{root}/mlflow.db", "--artifacts-destination", str(root / "artifacts")]
    env = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with open(root / "log", "w") as log:
        started = subprocess.Popen(words, cwd=root, env=env, stdout=log, stderr=log, start_new_session=True)
    try:
        for _ in range(360):
            assert started.poll() is None, (root / "log").read_text()
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                break
            except OSError:
                time.sleep(0.5)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(started.pid, signal.SIGTERM)
        started.wait(30)


def fill(root: Path) -> None:
    """Finished runs, one with numbers that are none, a live one, and a study."""
    for seed in (0, 1):
        write_run(root, seed=seed, top1=90.0 + seed)
    (root / KEY / "encoder.safetensors").write_bytes(b"weights")
    path = write_run(root, "dino_factors_r10_e60", dataset="factors", status=None, until=24)
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    lines[-1] |= {"loss": float("nan"), "diagnostics": {"above": float("inf"), "below": float("-inf")}}
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    write_study(root, over=2, finals="none")


def hold(root: Path, uri: str) -> str:
    """What a store must do: the same table as from an SQLite file; nothing twice; what changed is seen.

    Returns where the artifacts of the run `KEY` are; it is deleted in MLflow at the end.
    """
    fill(root)
    first = tracking.sync(root, uri)
    assert (first.new, first.problems) == (7, [])
    tracking.sync(root)
    expected = tracking.table(tracking.default_uri(root))
    pandas.testing.assert_frame_equal(tracking.table(uri), expected, check_like=True)
    assert tracking.sync(root, uri).points == 0
    kept = mirror._place(uri)
    assert kept.exists()
    assert kept.parent == root.parent / "cache"

    write_run(root, seed=1, top1=50.0)
    write_run(root, seed=2)
    assert str(tracking.sync(root, uri)).startswith("1 new, 1 updated, 6 unchanged")
    found = tracking.table(uri)
    assert found.set_index("run").loc[f"{KEY[:-1]}1", "test/knn_k20_t0.07/top1"] == 50.0
    with store.opened(uri, write=True) as client:
        ids = [one.experiment_id for one in store.experiments(client)]
        runs = {one.data.tags[mirror.KEY]: one for one in client.search_runs(ids)}
        history = client.get_metric_history(runs[KEY].info.run_id, "loss")
        assert [point.step for point in history] == list(range(8, 65, 8))
        assert {one.dataset.name for one in runs[KEY].inputs.dataset_inputs} >= {"digits/train", "digits/test"}
        assert [one.path for one in client.list_artifacts(runs[KEY].info.run_id)] == ["encoder.safetensors"]
        got = client.download_artifacts(runs[KEY].info.run_id, "encoder.safetensors", str(root.parent))
        assert Path(got).read_bytes() == b"weights"
        parent = runs[f"study/{NAME}"].info.run_id
        trial = studies.read_trials(root, NAME)[0]
        child = runs[f"{studies.read(root, NAME).recipe}/{trial.digest}/seed-{trial.seed}"]
        assert child.data.tags[send.PARENT] == parent
        client.delete_run(runs[KEY].info.run_id)
    assert KEY not in set(tracking.table(uri)["run"])
    kept.unlink()
    assert KEY not in set(tracking.table(uri)["run"])
    return str(runs[KEY].info.artifact_uri)


def test_a_tracking_server(tmp_path: Path, address: str) -> None:
    assert hold(tmp_path / "runs", address).startswith("mlflow-artifacts:/")  # through the server


def test_postgresql(tmp_path: Path, server: Server) -> None:  # noqa: F811
    uri = server.url()
    artifacts = Path(hold(tmp_path / "runs", uri).removeprefix("file://"))
    assert (artifacts / "encoder.safetensors").samefile(tmp_path / "runs" / KEY / "encoder.safetensors")
    with sqlalchemy.create_engine(uri).begin() as database:
        known = database.execute(sqlalchemy.text("SELECT version_num FROM alembic_version")).scalar_one()
        database.execute(sqlalchemy.text("UPDATE alembic_version SET version_num = '451aebb31d03'"))
    with pytest.raises(Unavailable, match=r"was made by an older MLflow than .*; keep a copy and `mlflow db") as caught:
        tracking.sync(tmp_path / "runs", uri)
    assert PASSWORD not in str(caught.value)
    with sqlalchemy.create_engine(uri).begin() as database:
        database.execute(sqlalchemy.text(f"UPDATE alembic_version SET version_num = '{known}'"))
    server.stop()
    with pytest.raises(
        Unavailable, match=r"^MLflow database postgresql\+psycopg://me:\*\*\*@\S+ does not answer: "
    ) as caught:
        tracking.sync(tmp_path / "runs", uri)
    assert PASSWORD not in str(caught.value)
    assert "\n" not in str(caught.value)
    server.start()
    assert tracking.sync(tmp_path / "runs", uri).new == 1  # the one that was deleted
