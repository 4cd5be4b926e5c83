"""Run directories into MLflow and back: idempotent, incremental, and the database can be lost."""

import contextlib
import errno
import json
import os
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn

import pandas
import pytest
from run_directories import FINGERPRINT, metric_line, write_field, write_run

from harness import claims, registry, tracking
from harness.errors import BadCommand, Unavailable
from harness.runs import RunDirectory
from harness.tracking import attach, mirror, send, store

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
    with store.opened(f"sqlite:///{file}", write=True) as client:
        client.search_experiments()
    return file


def stored(root: Path) -> dict[str, Any]:
    """All MLflow runs, by run directory or study."""
    with store.opened(tracking.default_uri(root), write=False) as client:
        ids = [one.experiment_id for one in store.experiments(client)]
        return {one.data.tags[mirror.KEY]: one for one in client.search_runs(ids)}


def history(root: Path, key: str, metric: str) -> list[tuple[int, float]]:
    id = stored(root)[key].info.run_id
    with store.opened(tracking.default_uri(root), write=False) as client:
        return [(m.step, m.value) for m in client.get_metric_history(id, metric)]


def interrupted(*_: Any) -> NoReturn:
    raise KeyboardInterrupt


def status(root: Path, key: str) -> str:
    return str(stored(root)[key].info.status)


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
    assert (copy / ".mlflow.db.rows.parquet").exists()  # what was kept of the lost one
    (copy / "mlflow.db").unlink()
    write_run(copy, top1=12.0)
    command = f"from harness import tracking; from pathlib import Path; print(tracking.sync(Path({str(copy)!r})))"
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("18 new, 0 updated, 0 unchanged")
    assert "Warning" not in done.stderr
    assert "INFO" not in done.stderr
    after = tracking.table(tracking.default_uri(copy))
    assert after.set_index("run").loc[KEY, "test/knn_k20_t0.07/top1"] == 12.0
    pandas.testing.assert_frame_equal(before[before["run"] != KEY], after[after["run"] != KEY], check_like=True)


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
    with monkeypatch.context() as patch:
        patch.setattr(send.Store, "log", interrupted)  # what goes last
        with pytest.raises(KeyboardInterrupt):
            tracking.sync(runs)
    assert tracking.table(tracking.default_uri(runs)).empty  # not half a run
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
    curve = tracking.read_curve(path)
    assert [line["step"] for line in curve] == [8, 16, 24]
    assert curve[-1]["loss"] == 1.25
    assert "invariance" in curve[-1]["terms"]


def test_an_unreadable_directory_is_named_and_left_out(runs: Path) -> None:
    write_run(runs)
    broken = write_run(runs, seed=1)
    (broken / "record.json").write_text("{")
    counts = tracking.sync(runs)
    assert counts.new == 1
    assert len(counts.problems) == 1
    assert counts.problems[0].startswith(f"{broken / 'record.json'} is damaged (JSONDecodeError(")
    assert counts.problems[0].endswith("; remove it and run the recipe again")


def test_more_points_than_one_request_takes(runs: Path) -> None:
    path = write_run(runs, status=None, until=8)
    lines = [metric_line(step, 400) for step in range(1, 401)]
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert tracking.sync(runs).points > 4 * send.METRICS_PER_CALL
    assert len(history(runs, KEY, "loss")) == 400


def test_no_runs_and_no_database(tmp_path: Path) -> None:
    assert str(tracking.sync(tmp_path)) == "0 new, 0 updated, 0 unchanged runs; 0 points sent"
    with pytest.raises(
        Unavailable, match=r"^no MLflow database at .*; `harness sync` makes it from the run directories$"
    ):
        tracking.table(tracking.default_uri(tmp_path))


def test_a_locked_database_is_one_line(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_run(runs)
    monkeypatch.setattr(store, "WAIT_S", 0.05)
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


# ------------------------------------------------------------------------------------------ what MLflow's pages show


def test_a_run_is_named_and_tagged_as_mlflow_shows_it(field: Path) -> None:
    found = stored(field)
    run = found[KEY]
    assert run.info.run_name == "vicreg_digits_r10_e60 seed 0"
    assert run.data.tags["mlflow.source.name"] == "harness run vicreg_digits_r10_e60"
    assert run.data.tags["mlflow.source.git.commit"] == run.data.tags["commit"] == "f" * 40
    assert run.data.tags["mlflow.user"] == run.info.user_id == (field / KEY / "recipe.json").owner()
    assert (run.data.tags["recipe"], run.data.tags["digest"], run.data.tags["seed"]) == (*KEY.split("/")[:2], "0")
    overridden = found[f"dino_digits_r10_e60/{'f' * 12}/seed-0"]
    assert overridden.info.run_name == "dino_digits_r10_e60 seed 0 optimiser.lr=9"
    assert overridden.data.tags["mlflow.source.name"] == "harness run dino_digits_r10_e60 --set optimiser.lr=9"
    assert not [name for name in tracking.table(tracking.default_uri(field)) if name.startswith(("mlflow", "harness"))]
    assert "system/synced" not in tracking.table(tracking.default_uri(field))


def test_experiments_are_of_data_sets(field: Path) -> None:
    with store.opened(tracking.default_uri(field), write=False) as client:
        assert {one.name for one in store.experiments(client)} == {"ssl-harness/digits", "ssl-harness/factors"}


def test_data_sets_are_inputs(field: Path) -> None:
    inputs = stored(field)[KEY].inputs.dataset_inputs
    found = {(one.dataset.name, one.tags[0].value, one.dataset.digest) for one in inputs}
    contexts = {("digits/train", "train"), ("digits/held_out", "eval"), ("digits/test", "eval")}
    assert found == {(*pair, "r1") for pair in contexts}
    assert {one.tags[0].key for one in inputs} == {"mlflow.data.context"}
    assert json.loads(next(one.dataset.profile for one in inputs if one.dataset.name == "digits/test")) == {
        "num_rows": 360
    }
    live = stored(field)["byol_digits_r10_e60/0123456789ab/seed-0"]
    assert live.inputs.dataset_inputs == []


def test_a_data_set_of_the_hub_says_where_it_is_from(tmp_path: Path) -> None:
    local = tracking.LocalRun.read(write_run(tmp_path, dataset="cifar10"))
    train = attach.inputs(local)[0].dataset
    assert train.source_type == "hugging_face"
    assert json.loads(train.source)["path"] == "uoft-cs/cifar10"
    assert len(json.loads(train.source)["revision"]) == 40


def artifact(root: Path) -> Path:
    return Path(stored(root)[KEY].info.artifact_uri.removeprefix("file://")) / "encoder.safetensors"


def test_the_encoder_is_an_artifact_that_costs_no_room(runs: Path) -> None:
    encoder = write_run(runs, status=None, until=24) / "encoder.safetensors"
    encoder.write_bytes(b"weights")
    tracking.sync(runs)
    assert not artifact(runs).exists()  # it is not finished
    write_run(runs)
    tracking.sync(runs)
    assert artifact(runs).is_relative_to(runs / "mlartifacts" / "digits")
    assert artifact(runs).samefile(encoder)
    with store.opened(tracking.default_uri(runs), write=False) as client:
        (listed,) = client.list_artifacts(stored(runs)[KEY].info.run_id)
    assert (listed.path, listed.file_size) == ("encoder.safetensors", 7)
    runs_in_folder = list(runs.glob("*/*/seed-*/recipe.json"))
    assert len(runs_in_folder) == 1  # the folder of artifacts is not taken for one


def test_an_encoder_is_copied_where_links_do_not_reach(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any) -> NoReturn:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    encoder = write_run(runs) / "encoder.safetensors"
    encoder.write_bytes(b"weights")
    monkeypatch.setattr(os, "link", refused)
    tracking.sync(runs)
    assert artifact(runs).read_bytes() == b"weights"
    assert not artifact(runs).samefile(encoder)
    monkeypatch.undo()
    encoder.unlink()
    encoder.write_bytes(b"other weights")
    write_run(runs, top1=91.0)
    tracking.sync(runs)
    assert artifact(runs).read_bytes() == b"other weights"
    assert [file.name for file in artifact(runs).parent.iterdir()] == ["encoder.safetensors"]


def test_artifacts_that_cannot_be_kept_are_one_line_and_tried_again(runs: Path) -> None:
    for seed in (0, 1):
        (write_run(runs, seed=seed) / "encoder.safetensors").write_bytes(b"weights")
    (runs / "mlartifacts").write_text("in the way")
    counts = tracking.sync(runs)
    assert counts.new == 2
    (line,) = counts.problems
    assert line.startswith(f"cannot keep encoders as artifacts in file://{runs}/mlartifacts/digits/")
    assert line.endswith("; the next sync tries again")
    assert len(tracking.table(tracking.default_uri(runs))) == 2
    (runs / "mlartifacts").unlink()
    assert str(tracking.sync(runs)) == "0 new, 0 updated, 2 unchanged runs; 0 points sent"
    assert artifact(runs).read_bytes() == b"weights"
    assert tracking.sync(runs).unchanged == 2


def test_runs_are_tagged_with_the_claims_about_their_recipe(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"vicreg_digits_r10_e60": "vicreg/table7/row", "dino_digits_r10_e60": "dino/table1/row"}
    monkeypatch.setattr(attach, "claims_by_recipe", lambda: known)
    write_run(runs)
    write_run(runs, "dino_digits_r10_e60", digest="f" * 12, overrides=("optimiser.lr=9",))
    tracking.sync(runs)
    table = tracking.table(tracking.default_uri(runs)).set_index("recipe")["claim"]
    assert table.to_dict() == {"vicreg_digits_r10_e60": "vicreg/table7/row", "dino_digits_r10_e60": ""}
    assert tracking.sync(runs).unchanged == 2
    known["vicreg_digits_r10_e60"] += " vicreg/table7/other"  # written after the runs
    assert str(tracking.sync(runs)) == "0 new, 1 updated, 1 unchanged runs; 0 points sent"
    assert stored(runs)[KEY].data.tags["claim"] == "vicreg/table7/row vicreg/table7/other"


def test_claims_are_read_from_their_files(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = claims.load_all(claims.FOLDER)
    claim = next(claim for file in files for claim in file.claims if claim.recipes)
    write_run(runs, claim.recipes[0])
    tracking.sync(runs)
    assert claim.id in next(iter(stored(runs).values())).data.tags["claim"].split()
    broken = runs.parent / "claims"
    broken.mkdir()
    (broken / "paper.toml").write_text("schema = ")
    monkeypatch.setattr(claims, "FOLDER", broken)
    counts = tracking.sync(runs)
    assert (counts.unchanged, len(counts.problems)) == (1, 1)  # and the tags stay
    assert counts.problems[0].startswith("tags of claims: paper.toml is not TOML: ")


def test_a_long_list_of_claims_is_cut_at_an_id() -> None:
    text = attach._shortened(" ".join(f"paper/table/{i}" for i in range(1000)))
    assert len(text) <= attach.CLAIMS_LENGTH + 4
    assert text.split()[-1] == "..."
    assert set(text.split()[:-1]) <= {f"paper/table/{i}" for i in range(1000)}


# ------------------------------------------------------------------------------------------ what is not as it should be


def test_a_directory_that_did_not_change_is_not_opened(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_run(runs)
    write_run(runs, seed=1, status=None, until=24)
    tracking.sync(runs)
    with monkeypatch.context() as patch:
        patch.setattr(send.LocalRun, "read", lambda path: pytest.fail(f"opened {path}"))
        assert tracking.sync(runs).unchanged == 2
    os.utime(path / "record.json")  # as a copy of the folder has it
    assert str(tracking.sync(runs)) == "0 new, 0 updated, 2 unchanged runs; 0 points sent"
    monkeypatch.setattr(send.LocalRun, "read", lambda path: pytest.fail(f"opened {path}"))
    assert tracking.sync(runs).unchanged == 2


def no_number(path: Path) -> Path:
    record = json.loads((path / "record.json").read_text())
    record["evals"][0]["metrics"]["top1"] = None
    (path / "record.json").write_text(json.dumps(record))
    return path / "record.json"


def no_status(path: Path) -> Path:
    record = json.loads((path / "record.json").read_text())
    del record["status"]
    (path / "record.json").write_text(json.dumps(record))
    return path / "record.json"


def a_list(path: Path) -> Path:
    (path / "recipe.json").write_text("[]")
    return path / "recipe.json"


def no_time(path: Path) -> Path:
    (path / "metrics.jsonl").write_text('{"step": 8, "loss": 1.0}\n')
    return path / "metrics.jsonl"


def no_event(path: Path) -> Path:
    (path / "attempts.jsonl").write_text('{"attempt": 1}\n')
    return path / "attempts.jsonl"


@pytest.mark.parametrize("harm", [no_number, no_status, a_list, no_time, no_event])
def test_a_damaged_file_is_one_line_and_nothing_is_lost(runs: Path, harm: Any) -> None:
    path = write_run(runs, top1=97.0)
    write_run(runs, seed=1)
    tracking.sync(runs)
    file = harm(path)
    write_run(runs, seed=2)
    for new in (1, 0):
        counts = tracking.sync(runs)
        assert (counts.new, counts.unchanged, len(counts.problems)) == (new, 2 - new, 1)
        assert counts.problems[0].startswith(f"{file} is damaged (")
        assert "\n" not in counts.problems[0]
    table = tracking.table(tracking.default_uri(runs)).set_index("run")
    assert len(table) == 3
    assert table.loc[KEY, "test/knn_k20_t0.07/top1"] == 97.0
    write_run(runs, top1=97.0)
    assert tracking.sync(runs).problems == []


def version(root: Path, name: str) -> None:
    with contextlib.closing(sqlite3.connect(root / "mlflow.db")) as database:
        database.execute("UPDATE alembic_version SET version_num = ?", (name,))
        database.commit()


def test_a_database_of_another_version_is_one_line_and_left_alone(runs: Path) -> None:
    write_run(runs)
    uri = tracking.default_uri(runs)
    version(runs, "0123456789ab")
    with pytest.raises(
        Unavailable,
        match=r"^MLflow database \S+mlflow\.db was made by a newer MLflow than [\d.]+ \(its schema is 0123456789ab\); "
        r"install that one, or name another place with --mlflow: `harness sync` fills it from the run directories$",
    ):
        tracking.sync(runs)
    version(runs, "451aebb31d03")  # MLflow 1.0
    for call in (tracking.sync, lambda _: tracking.table(uri)):
        with pytest.raises(
            Unavailable,
            match=r"^MLflow database \S+ was made by an older MLflow than [\d.]+ \(its schema is 451aebb31d03\); keep "
            rf"a copy and `mlflow db upgrade {uri}`, or move the old one away, and `harness sync` makes it anew$",
        ):
            call(runs)
    with contextlib.closing(sqlite3.connect(runs / "mlflow.db")) as database:
        assert database.execute("SELECT version_num FROM alembic_version").fetchall() == [("451aebb31d03",)]


def test_a_database_of_something_else_is_left_alone(runs: Path) -> None:
    write_run(runs)
    (runs / "mlflow.db").unlink()
    with contextlib.closing(sqlite3.connect(runs / "mlflow.db")) as database:
        database.execute("CREATE TABLE trials (number INTEGER)")
    with pytest.raises(
        Unavailable, match=r"mlflow\.db is a database, but not MLflow's; move it away, and `harness sync`"
    ):
        tracking.sync(runs)


def test_a_database_that_is_damaged_inside_is_one_line(runs: Path) -> None:
    write_run(runs)
    content = bytearray((runs / "mlflow.db").read_bytes())
    content[4096 * 3 :] = b"\xff" * (len(content) - 4096 * 3)
    (runs / "mlflow.db").write_bytes(content)
    with pytest.raises(
        Unavailable, match=r"^MLflow database \S+mlflow\.db: .*malformed.*; move it away, and"
    ) as caught:
        tracking.sync(runs)
    assert "\n" not in str(caught.value)


def test_a_database_that_is_locked_on_the_way_is_one_line() -> None:
    error = Exception("(sqlite3.OperationalError) database is locked\n[SQL: INSERT INTO runs ...]")
    line = "MLflow database /runs/mlflow.db: database is locked; wait for the process that holds it"
    assert store._explained("sqlite:////runs/mlflow.db", error) == line


def test_a_server_that_is_silent_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_run(tmp_path)
    monkeypatch.setattr(store, "WAIT_S", 0.2)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with pytest.raises(Unavailable, match=r"^no MLflow server at http://127\.0\.0\.1:\d+: .*timed out; start it"):
            tracking.sync(tmp_path, f"http://127.0.0.1:{silent.getsockname()[1]}")


def test_what_is_no_tracking_uri_is_one_line(tmp_path: Path) -> None:
    write_run(tmp_path)
    with pytest.raises(BadCommand, match=r"^'mlruns' is no tracking URI; expected http://host:port, postgresql"):
        tracking.sync(tmp_path, "mlruns")
    with pytest.raises(BadCommand, match=r"^postgresql\+pg8000://me:\*\*\*@host/x needs a driver: No module named"):
        tracking.sync(tmp_path, "postgresql+pg8000://me:secret@host/x")


def test_where_to_look() -> None:
    assert tracking.where_to_look("http://me:secret@host:5000") == "http://me:***@host:5000"
    assert (
        tracking.where_to_look("sqlite:///runs/mlflow.db") == "mlflow ui --backend-store-uri sqlite:///runs/mlflow.db"
    )
