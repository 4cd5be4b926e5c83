"""What is kept of MLflow equals what MLflow holds, whatever happened since, and costs no second reading."""

import json
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pandas
import pytest
from run_directories import DIGEST, write_run
from test_tracking import KEY, empty_database, runs, stored  # noqa: F401  (fixtures)

from harness import tracking
from harness.tracking import mirror, store


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many runs each search brought, of those beyond one; a search for one or none is cheap."""
    from mlflow import MlflowClient

    found: list[int] = []
    plain = MlflowClient.search_runs

    def search(*args: Any, **options: Any) -> Any:
        page = plain(*args, **options)
        if len(page) > 1:
            found.append(len(page))
        return page

    monkeypatch.setattr(MlflowClient, "search_runs", search)
    monkeypatch.setattr(mirror, "SKEW_MS", 0)
    return found


def kept(root: Path) -> Path:
    return mirror._place(tracking.default_uri(root))


def table(root: Path) -> pandas.DataFrame:
    """The table with the help of what was kept, which is held against the one without."""
    uri = tracking.default_uri(root)
    found = tracking.table(uri)
    content = kept(root).read_bytes()
    kept(root).unlink()
    pandas.testing.assert_frame_equal(found, tracking.table(uri), check_like=True)
    kept(root).write_bytes(content)
    return found


def test_new_updated_and_deleted_runs(runs: Path, read: list[int]) -> None:  # noqa: F811
    for seed in range(3):
        write_run(runs, seed=seed, top1=90.0 + seed)
    write_run(runs, "dino_factors_r10_e60", dataset="factors", status=None, until=24)
    tracking.sync(runs)
    assert len(table(runs)) == 4
    assert kept(runs).parent == runs
    read.clear()
    assert len(tracking.table(tracking.default_uri(runs))) == 4
    assert read == []

    write_run(runs, seed=0, top1=12.0)  # its evaluation was repeated
    write_run(runs, "dino_factors_r10_e60", dataset="factors", status="diverged")
    write_run(runs, seed=3, dirty=None)
    assert str(tracking.sync(runs)).startswith("1 new, 2 updated, 2 unchanged")
    read.clear()
    found = tracking.table(tracking.default_uri(runs)).set_index("run")
    assert read == [4]  # the youngest of before, and what has changed
    assert found.loc[KEY, "test/knn_k20_t0.07/top1"] == 12.0
    assert found.loc[f"dino_factors_r10_e60/{DIGEST}/seed-0", "status"] == "diverged"
    assert len(table(runs)) == 5

    id = stored(runs)[KEY].info.run_id
    with store.opened(tracking.default_uri(runs), write=True) as client:
        client.delete_run(id)
    read.clear()
    assert KEY not in set(tracking.table(tracking.default_uri(runs))["run"])
    assert read == []
    assert KEY not in set(table(runs)["run"])
    with store.opened(tracking.default_uri(runs), write=True) as client:
        client.restore_run(id)
    assert KEY in set(table(runs)["run"])
    with store.opened(tracking.default_uri(runs), write=True) as client:
        client.delete_run(id)
    assert tracking.sync(runs).new == 1  # the directory is the truth
    assert KEY in set(table(runs)["run"])


def test_a_deleted_experiment_vanishes(runs: Path) -> None:  # noqa: F811
    write_run(runs)
    write_run(runs, "dino_factors_r10_e60", dataset="factors")
    tracking.sync(runs)
    assert len(table(runs)) == 2
    with store.opened(tracking.default_uri(runs), write=True) as client:
        client.delete_experiment(client.get_experiment_by_name("ssl-harness/factors").experiment_id)
    assert list(table(runs)["dataset"]) == ["digits"]
    write_run(runs, "dino_factors_r10_e60", seed=1, dataset="factors")
    write_run(runs, seed=1)
    counts = tracking.sync(runs)
    assert (counts.new, counts.unchanged) == (1, 1)
    (line,) = counts.problems
    assert line.startswith("experiment ssl-harness/factors was deleted in MLflow; `mlflow experiments restore -x 1` ")
    with store.opened(tracking.default_uri(runs), write=True) as client:
        client.restore_experiment("1")
    assert str(tracking.sync(runs)).startswith("1 new, 0 updated, 3 unchanged")
    assert len(table(runs)) == 4


def test_a_database_that_is_put_back_is_read_anew(runs: Path, read: list[int]) -> None:  # noqa: F811
    write_run(runs, top1=90.0)
    write_run(runs, seed=1)
    tracking.sync(runs)
    table(runs)
    backup = sqlite3.connect(":memory:")
    with sqlite3.connect(runs / "mlflow.db") as now:
        now.backup(backup)
    write_run(runs, top1=95.0)
    tracking.sync(runs)
    assert table(runs)["test/knn_k20_t0.07/top1"].max() == 97.0
    assert table(runs)["test/knn_k20_t0.07/top1"].min() == 95.0
    with sqlite3.connect(runs / "mlflow.db") as now:
        backup.backup(now)
    assert table(runs)["test/knn_k20_t0.07/top1"].min() == 90.0
    assert tracking.sync(runs).updated == 1
    assert table(runs)["test/knn_k20_t0.07/top1"].min() == 95.0


def test_what_is_kept_of_another_database_is_not_used(runs: Path, tmp_path: Path, empty_database: Path) -> None:  # noqa: F811
    write_run(runs, top1=90.0)
    tracking.sync(runs)
    table(runs)
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(empty_database, other / "mlflow.db")
    shutil.copy(kept(runs), kept(other))
    assert tracking.table(tracking.default_uri(other)).empty
    write_run(other, top1=80.0)
    assert tracking.sync(other).new == 1
    assert list(table(other)["test/knn_k20_t0.07/top1"]) == [80.0]


def damaged(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def of_another_schema(file: Path) -> None:
    frame = pandas.read_parquet(file)
    frame.attrs["schema"] = mirror.SCHEMA + 1
    frame["tags.recipe"] = "not what this version keeps there"
    frame.to_parquet(file)


def without_what_it_is_about(file: Path) -> None:
    frame = pandas.read_parquet(file)
    frame.attrs = {}
    frame.to_parquet(file)


def not_parquet(file: Path) -> None:
    file.write_text("nothing of that kind")


@pytest.mark.parametrize("harm", [damaged, of_another_schema, without_what_it_is_about, not_parquet])
def test_what_does_not_fit_is_made_anew(runs: Path, harm: Any) -> None:  # noqa: F811
    write_run(runs)
    tracking.sync(runs)
    before = table(runs)
    harm(kept(runs))
    pandas.testing.assert_frame_equal(tracking.table(tracking.default_uri(runs)), before)
    assert pandas.read_parquet(kept(runs)).attrs["schema"] == mirror.SCHEMA


def test_a_run_stamped_by_a_clock_that_is_behind_is_seen(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    write_run(runs, seed=0)
    write_run(runs, seed=1)
    tracking.sync(runs)
    table(runs)
    write_run(runs, seed=0, top1=50.0)
    with monkeypatch.context() as patch:
        now = mirror.now
        patch.setattr(mirror, "now", lambda: now() - mirror.SKEW_MS + 20_000)
        tracking.sync(runs)
    assert table(runs)["test/knn_k20_t0.07/top1"].min() == 50.0


def test_a_place_that_cannot_be_written_costs_time_only(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    write_run(runs)
    tracking.sync(runs)
    (runs / "file").write_text("")
    monkeypatch.setattr(mirror, "_place", lambda uri: runs / "file" / "kept.parquet")
    with pytest.warns(UserWarning, match=r"^cannot keep what MLflow holds in .*; set HARNESS_CACHE to a folder"):
        assert len(tracking.table(tracking.default_uri(runs))) == 1


def test_where_it_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path))
    assert mirror._place("sqlite:////runs/mlflow.db") == Path("/runs/.mlflow.db.rows.parquet")
    place = mirror._place("postgresql+psycopg://me:secret@host/db")
    assert place.parent == tmp_path
    assert "secret" not in place.name
    assert place != mirror._place("http://host:5000")


def test_values_that_are_no_numbers_survive(runs: Path) -> None:  # noqa: F811
    path = write_run(runs, status=None, until=24)
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    lines[-1] |= {"loss": float("nan"), "diagnostics": {"above": float("inf"), "below": float("-inf"), "on": True}}
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    write_run(runs, seed=1)
    assert tracking.sync(runs).problems == []
    found = table(runs).set_index("run").loc[KEY]
    assert pandas.isna(found["loss"])
    assert (found["diagnostics/above"], found["diagnostics/below"]) == (float("inf"), float("-inf"))
    assert found["terms/variance"] == lines[-1]["terms"]["variance"]  # curves show their last value
    with store.opened(tracking.default_uri(runs), write=False) as client:
        history = client.get_metric_history(stored(runs)[KEY].info.run_id, "loss")
    assert [point.step for point in history] == [8, 16, 24]
    assert [pandas.isna(point.value) for point in history] == [False, False, True]
    assert tracking.sync(runs).points == 0
