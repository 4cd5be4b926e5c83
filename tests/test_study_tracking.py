"""Studies in MLflow: parents of their trials' runs, once, also while they are live."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from study_files import NAME, asked, write_finals, write_study
from test_tracking import empty_database, runs, stored  # noqa: F401  (fixtures)

from harness import tracking
from harness.studies import study as studies
from harness.studies import tracking as of_studies
from harness.tracking import send, store

STUDY = f"study/{NAME}"


@pytest.fixture
def root(runs: Path) -> Path:  # noqa: F811
    return runs


def tags(run: Any) -> tuple[str, str, str]:
    return run.data.tags[send.PARENT], run.data.tags["study"], run.data.tags["trial"]


def test_a_study_is_the_parent_of_its_trials(root: Path) -> None:
    study, trials, _ = write_study(root)
    tracking.sync(root)
    found = stored(root)
    parent = found[STUDY]
    assert parent.info.run_name == NAME
    assert parent.info.status == "FINISHED"
    assert parent.data.params["recipe"] == study.recipe
    assert parent.data.params["space.variance"] == "method.variance from 1 to 50, log"
    metrics = parent.data.metrics
    for word in ("complete", "pruned", "collapsed", "diverged", "failed", "under_way"):
        assert metrics[f"trials/{word}"] == sum((trial.outcome or "under_way") == word for trial in trials)
    assert metrics["best"] == max(trial.value or 0 for trial in trials if trial.outcome == "complete")
    assert metrics["seconds"] == pytest.approx(sum(trial.seconds for trial in trials))
    for trial in trials:
        child = found[f"{study.recipe}/{trial.digest}/seed-{trial.seed}"]
        assert tags(child) == (parent.info.run_id, NAME, str(trial.number))
        assert child.info.run_name == f"trial {trial.number}: {studies.spell(trial.params)}"
        assert child.info.experiment_id == parent.info.experiment_id  # MLflow's page shows a tree within one
        ends = {"complete": "FINISHED", "pruned": "KILLED"}
        assert child.info.status == ends.get(trial.outcome, "FAILED")
    assert send.PARENT not in found[f"{study.recipe}/{study.base().digest}/seed-0"].data.tags  # a final run
    with store.opened(tracking.default_uri(root), write=False) as client:
        names = {one.experiment_id: one.name for one in store.experiments(client)}
    assert {*names.values()} == {"ssl-harness/digits", f"ssl-harness/{STUDY}"}
    assert names[parent.info.experiment_id] == f"ssl-harness/{STUDY}"


def test_tables_leave_studies_out(root: Path) -> None:
    study, trials, _ = write_study(root, over=5, finals="none")
    tracking.sync(root)
    table = tracking.table(tracking.default_uri(root))
    assert len(table) == len(trials)
    assert set(table["study"]) == {NAME}
    assert not [name for name in table if "space." in name or name in ("best", "params.sampler", of_studies.KEY)]
    assert len(tracking.table(tracking.default_uri(root), recipe=study.recipe)) == len(trials)


def test_a_live_study_and_a_second_sync(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study, _, _ = write_study(root, over=10, finals="none")
    tracking.sync(root)
    assert stored(root)[STUDY].info.status == "RUNNING"
    with monkeypatch.context() as patch, store.opened(tracking.default_uri(root), write=False) as client:
        for name in ("set_tag", "log_batch", "create_run", "set_terminated", "update_run"):
            patch.setattr(type(client), name, lambda *_, **__: pytest.fail("sent again"))
        assert tracking.sync(root).points == 0
    write_study(root, over=30, finals="none")
    tracking.sync(root)
    parent = stored(root)[STUDY]
    assert parent.info.status == "RUNNING"  # its finals are to come
    with store.opened(tracking.default_uri(root), write=False) as client:
        history = client.get_metric_history(parent.info.run_id, "trials/under_way")
    assert [(one.step, one.value) for one in history] == [(10, 2.0), (30, 0.0)]
    write_finals(root, study, studies.read_trials(root, NAME))
    tracking.sync(root)
    assert stored(root)[STUDY].info.status == "FINISHED"
    studies.write(replace(study, trials=40), root)
    tracking.sync(root)
    assert stored(root)[STUDY].info.status == "RUNNING"
    assert len([one for one in stored(root).values() if of_studies.KEY in one.data.tags]) == 1


def test_a_run_of_two_studies_keeps_its_first_parent(root: Path) -> None:
    study, trials, _ = write_study(root, over=3, finals="none")
    write_study(root, asked(name="another"), over=3, finals="none")  # the same digests and seeds
    tracking.sync(root)
    found = stored(root)
    assert found["study/another"].info.run_id != found[STUDY].info.run_id
    keys = [f"{study.recipe}/{trial.digest}/seed-{trial.seed}" for trial in trials]
    assert {tags(found[key])[:2] for key in keys} == {(found["study/another"].info.run_id, "another")}
    tracking.sync(root)
    assert {tags(stored(root)[key])[1] for key in keys} == {"another"}


def test_a_damaged_study_is_named_and_left_out(root: Path) -> None:
    write_study(root, over=2, finals="none")
    (root / "studies" / NAME / "study.json").write_text("{")
    counts = tracking.sync(root)
    assert counts.new == 4
    assert [text.split(" is damaged")[0] for text in counts.problems] == [str(root / "studies" / NAME / "study.json")]
    assert STUDY not in stored(root)


def test_losing_the_database_costs_one_sync_without_optuna(tmp_path: Path) -> None:
    write_study(tmp_path, over=3, finals="none")
    command = (
        f"import sys; from harness import tracking; from pathlib import Path; tracking.sync(Path({str(tmp_path)!r})); "
    )
    command += "print('optuna' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
    assert "Warning" not in done.stderr
    assert STUDY in stored(tmp_path)


def test_a_run_that_became_a_trial_stays_where_it_was(root: Path) -> None:
    study, trials, _ = write_study(root, over=1, finals="none")
    (root / "studies").rename(root.parent / "studies")
    tracking.sync(root)
    key = f"{study.recipe}/{trials[0].digest}/seed-{trials[0].seed}"
    assert send.PARENT not in stored(root)[key].data.tags
    (root.parent / "studies").rename(root / "studies")
    assert tracking.sync(root).unchanged == len(trials)
    found = stored(root)
    assert tags(found[key]) == (found[STUDY].info.run_id, NAME, "0")
    assert found[key].info.experiment_id != found[STUDY].info.experiment_id
    table = tracking.table(tracking.default_uri(root)).set_index("run")
    assert (table.loc[key, "study"], table.loc[key, "trial"]) == (NAME, "0")


def test_an_unchanged_study_is_not_opened(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_study(root, over=3, finals="none")
    tracking.sync(root)
    monkeypatch.setattr(studies, "read", lambda *_: pytest.fail("opened"))
    assert tracking.sync(root).points == 0
