"""Run directories into MLflow and back: idempotent, incremental, and the database can be lost."""

import json
import sqlite3
import subprocess
import sys
from pathlib import Path

import pandas
import pytest
from run_directories import FINGERPRINT, metric_line, write_field, write_run

from harness import registry, tracking
from harness.errors import Unavailable
from harness.runs import RunDirectory

KEY = "vicreg_digits_r10_e60/0123456789ab/seed-0"


@pytest.fixture(scope="module")
def field(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Path:
    root = tmp_path_factory.mktemp("field")
    write_field(root)
    (root / "mlflow.db").write_bytes(empty_database.read_bytes())
    tracking.sync(root)
    return root


@pytest.fixture
def runs(tmp_path: Path, empty_database: Path) -> Path:
    """A folder with a migrated, empty database, so that not every test pays for the migrations."""
    root = tmp_path / "runs"
    root.mkdir()
    (root / "mlflow.db").write_bytes(empty_database.read_bytes())
    return root


@pytest.fixture(scope="module")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("empty") / "mlflow.db"
    with tracking._store(f"sqlite:///{file}", write=True) as client:
        client.search_experiments()
    return file


def history(root: Path, key: str, metric: str) -> list[tuple[int, float]]:
    with tracking._store(tracking.default_uri(root), write=False) as client:
        found = {r.data.tags[tracking.KEY]: r for r in tracking._search(client, tracking._experiments(client))}
        return [(m.step, m.value) for m in client.get_metric_history(found[key].info.run_id, metric)]


def status(root: Path, key: str) -> str:
    with tracking._store(tracking.default_uri(root), write=False) as client:
        found = {r.data.tags[tracking.KEY]: r for r in tracking._search(client, tracking._experiments(client))}
        return str(found[key].info.status)


def test_a_run_arrives_whole(field: Path) -> None:
    table = tracking.table(tracking.default_uri(field)).set_index("run")
    row, record = table.loc[KEY], json.loads((field / KEY / "record.json").read_text())
    assert (row["label"], row["dataset"], row["encoder"], row["epochs"], row["seed"]) == (
        "VICReg",
        "digits",
        "r10",
        60,
        0,
    )
    assert (row["status"], row["fingerprint"], row["overrides"], row["dirty"]) == ("complete", FINGERPRINT, "", False)
    assert row["test/knn_k20_t0.07/top1"] == record["evals"][1]["metrics"]["top1"]
    assert row["cost/minutes"] == 1.5
    assert json.loads(row["eval/test/knn_k20_t0.07"])["n"] == 360
    assert row["params.method.invariance"] == "25.0"
    assert row["params.views.1.source"] == "1"
    assert row["params.seed"] == "0"
    assert not [name for name in table if name.startswith("params.evals")]
    expected = {step: metric_line(step, 64)["terms"]["variance"] for step in range(8, 65, 8)}
    assert dict(history(field, KEY, "terms/variance")) == pytest.approx(expected)
    for curve in ("loss", "lr", "embedding_std", "effective_rank", "images_per_s", "data_wait"):
        assert len(history(field, KEY, curve)) == 8


def test_one_row_per_run_also_for_failed_and_live_ones(field: Path) -> None:
    table = tracking.table(tracking.default_uri(field))
    assert len(table) == len(list(field.glob("*/*/seed-*"))) == 18
    assert table["status"].value_counts().to_dict() == {"complete": 14, "collapsed": 2, "diverged": 1, "running": 1}
    assert table.set_index("run").loc[KEY, "dirty"] is False  # verdicts ask by identity: None is not clean
    assert table[table["status"] == "running"]["dirty"].tolist() == [None]
    assert status(field, KEY) == "FINISHED"
    assert status(field, "vicreg_digits_r10_e60_l1_m0_n0/0123456789ab/seed-0") == "FAILED"
    assert status(field, "byol_digits_r10_e60/0123456789ab/seed-0") == "RUNNING"


def test_a_live_run_is_called_as_its_method_calls_itself(tmp_path: Path) -> None:
    recipe = registry.recipe("vicreg_digits_r10w16_e50")
    directory = RunDirectory(tmp_path, recipe, 0)
    with directory.leased():
        local = tracking.LocalRun.read(directory.path)
    assert local.tags["label"] == recipe.method.label == "VICReg"
    assert "label" not in local.params
    file = directory.path / "recipe.json"
    file.write_text(
        json.dumps({name: value for name, value in json.loads(file.read_text()).items() if name != "label"})
    )
    assert tracking.LocalRun.read(directory.path).tags["label"] == "vicreg"


def test_the_table_is_filtered(field: Path) -> None:
    uri = tracking.default_uri(field)
    assert set(tracking.table(uri, dataset="factors")["recipe"]) == {"simclr_factors_r10_e60"}
    assert set(tracking.table(uri, recipe="dino_digits_r10_e60")["label"]) == {"DINO"}
    assert tracking.table(uri, dataset="nothing").empty
    assert tracking.table(uri, recipe="nothing").empty


def test_a_second_sync_sends_nothing(field: Path) -> None:
    before = tracking.table(tracking.default_uri(field))
    counts = tracking.sync(field)
    assert str(counts) == "0 new, 0 updated, 18 unchanged runs; 0 points sent"
    pandas.testing.assert_frame_equal(before, tracking.table(tracking.default_uri(field)), check_like=True)


def test_losing_the_database_costs_one_sync(field: Path, tmp_path: Path) -> None:
    before = tracking.table(tracking.default_uri(field))
    copy = tmp_path / "runs"
    subprocess.run(["cp", "-r", str(field), str(copy)], check=True)
    (copy / "mlflow.db").unlink()
    command = f"from harness import tracking; from pathlib import Path; print(tracking.sync(Path({str(copy)!r})))"
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("18 new, 0 updated, 0 unchanged")
    assert "Warning" not in done.stderr
    assert "INFO" not in done.stderr
    pandas.testing.assert_frame_equal(before, tracking.table(tracking.default_uri(copy)), check_like=True)


def test_a_live_run_sends_only_new_lines_and_then_its_record(runs: Path) -> None:
    write_run(runs, status=None, until=24)
    first = tracking.sync(runs)
    assert (first.new, first.updated) == (1, 0)
    per_line = first.points // 3
    assert tracking.sync(runs).points == 0
    write_run(runs, status=None, until=40)
    second = tracking.sync(runs)
    assert (second.new, second.updated, second.points) == (0, 1, 2 * per_line)
    assert status(runs, KEY) == "RUNNING"
    write_run(runs, top1=97.0)
    assert tracking.sync(runs).updated == 1
    assert status(runs, KEY) == "FINISHED"
    assert [step for step, _ in history(runs, KEY, "loss")] == list(range(8, 65, 8))
    table = tracking.table(tracking.default_uri(runs))
    assert list(table["test/knn_k20_t0.07/top1"]) == [97.0]


def test_a_sync_that_died_is_repeated_without_duplicates(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_run(runs)
    monkeypatch.setattr(tracking, "SENT", "never.written")  # the cursor, which goes last, is lost
    tracking.sync(runs)
    monkeypatch.undo()
    assert tracking.sync(runs).updated == 1
    assert [step for step, _ in history(runs, KEY, "loss")] == list(range(8, 65, 8))


def test_an_evaluation_repeated_later_replaces_the_number(runs: Path) -> None:
    path = write_run(runs, top1=97.0)
    tracking.sync(runs)
    record = json.loads((path / "record.json").read_text())
    for one in record["evals"]:
        one["metrics"] = {name: value - 5 for name, value in one["metrics"].items()}
    (path / "record.json").write_text(json.dumps(record))
    assert tracking.sync(runs).updated == 1
    assert list(tracking.table(tracking.default_uri(runs))["test/knn_k20_t0.07/top1"]) == [92.0]


def test_after_a_resume_the_last_line_of_a_step_wins_and_a_torn_line_is_ignored(runs: Path) -> None:
    path = write_run(runs, status=None, until=24)
    again = metric_line(24, 64) | {"loss": 1.25}
    with open(path / "metrics.jsonl", "a") as file:
        file.write(json.dumps(again) + "\n" + '{"step": 32, "loss": 0.')
    tracking.sync(runs)
    assert history(runs, KEY, "loss")[-1] == (24, 1.25)
    curve = tracking.curves(runs, [KEY])
    assert list(curve["step"]) == [8, 16, 24]
    assert list(curve["loss"])[-1] == 1.25
    assert "terms/invariance" in curve


def test_an_unreadable_directory_is_named_and_left_out(runs: Path) -> None:
    write_run(runs)
    broken = write_run(runs, seed=1)
    (broken / "record.json").write_text("{")
    counts = tracking.sync(runs)
    assert counts.new == 1
    assert len(counts.problems) == 1
    assert counts.problems[0].startswith(f"{broken}: JSONDecodeError")


def test_more_points_than_one_request_takes(runs: Path) -> None:
    path = write_run(runs, status=None, until=8)
    lines = [metric_line(step, 400) for step in range(1, 401)]
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert tracking.sync(runs).points > 4 * tracking.METRICS_PER_CALL
    assert len(history(runs, KEY, "loss")) == 400


def test_no_runs_and_no_database(tmp_path: Path) -> None:
    assert str(tracking.sync(tmp_path)) == "0 new, 0 updated, 0 unchanged runs; 0 points sent"
    with pytest.raises(
        Unavailable, match=r"^no MLflow database at .*; `harness sync` makes it from the run directories$"
    ):
        tracking.table(tracking.default_uri(tmp_path))


def test_a_locked_database_is_one_line(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_run(runs)
    monkeypatch.setattr(tracking, "WAIT_S", 0.05)
    holder = sqlite3.connect(runs / "mlflow.db", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    try:
        with pytest.raises(
            Unavailable, match=r"^MLflow database .*: database is locked; wait for the process that holds it$"
        ):
            tracking.sync(runs)
    finally:
        holder.close()


def test_a_file_that_is_no_database_is_one_line(tmp_path: Path) -> None:
    write_run(tmp_path)
    (tmp_path / "mlflow.db").write_text("not a database, but long enough to look at" * 10)
    with pytest.raises(
        Unavailable,
        match=r"^MLflow database .*: file is not a database; move it away, and `harness sync` makes it anew$",
    ):
        tracking.sync(tmp_path)


def test_a_server_that_is_down_is_one_line(tmp_path: Path) -> None:
    write_run(tmp_path)
    with pytest.raises(
        Unavailable, match=r"^no MLflow server at http://127\.0\.0\.1:9: .*; start it, or leave --mlflow out"
    ):
        tracking.sync(tmp_path, "http://127.0.0.1:9")
