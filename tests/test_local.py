"""The local launcher: workers share a list of runs, and one broken run does not take the others with it."""

import os
import signal
import time
from pathlib import Path

import pytest
import submitit

from harness import registry, train
from harness.errors import NotWritable
from harness.runs import Run, RunDirectory, read_lines
from slurm import local

NAME = "vicreg_digits_r10w16_e50"
QUICK = ("budget.epochs=1", "budget.warmup=0", "budget.batch=64", "data.train_images=128")


def directories(root: Path, runs: list[Run]) -> list[RunDirectory]:
    return [RunDirectory(root, registry.recipe(name, overrides), seed) for name, seed, overrides in runs]


def test_two_workers_do_every_run_once(tmp_path: Path) -> None:
    runs: list[Run] = [(NAME, seed, QUICK) for seed in range(3)]
    jobs = local.launch(runs, tmp_path, None, workers=2)
    assert [local.failures(job) for job in jobs] == [[], []]
    for directory in directories(tmp_path, runs):
        record = directory.record()
        assert record is not None
        assert record["status"] == "complete"
        starts = [line for line in read_lines(directory.path / "attempts.jsonl") if line["event"] == "start"]
        assert len(starts) == 1


def test_a_broken_run_is_one_line_and_the_rest_goes_on(tmp_path: Path) -> None:
    runs: list[Run] = [(NAME, 0, (*QUICK, "budget.batch=4096")), (NAME, 1, QUICK)]
    failed = local.work(runs, tmp_path, None, "cpu")
    why = "batch 4096 is larger than the 128 training images of 'digits'; lower budget.batch"
    assert failed == [f"{NAME} seed 0: recipe {NAME!r}: {why}"]
    assert directories(tmp_path, runs)[1].record() is not None


def test_what_a_submitted_run_is_refused_for_is_noted_in_its_own_directory(tmp_path: Path) -> None:
    too_large: Run = (NAME, 0, (*QUICK, "budget.batch=4096"))
    runs: list[Run] = [("a_recipe_that_is_gone", 0, ()), too_large, ("another_one", 0, ())]
    failed = local.work(runs, tmp_path, None, "cpu", submitted=True)
    assert [line.partition(":")[0] for line in failed] == [f"{name} seed 0" for name, _, _ in runs]
    (directory,) = directories(tmp_path, [too_large])
    (line,) = read_lines(directory.path / "attempts.jsonl")
    assert line["event"] == "refused"
    assert "is larger than the 128 training images" in line["reason"]


def test_a_full_disk_is_not_for_a_person_to_decide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*words: object, **options: object) -> None:
        raise NotWritable("cannot write x: No space left on device")

    monkeypatch.setattr(train, "run", full)
    runs: list[Run] = [(NAME, 0, QUICK)]
    assert local.work(runs, tmp_path, None, "cpu", submitted=True) == [
        f"{NAME} seed 0: cannot write x: No space left on device"
    ]
    assert not directories(tmp_path, runs)[0].path.exists()


LONG = (*QUICK[1:], "budget.epochs=5000")


def started(root: Path) -> tuple[list[submitit.Job[list[str]]], RunDirectory]:
    """One worker in the middle of a long run."""
    runs: list[Run] = [(NAME, 0, LONG)]
    jobs, (directory,) = local.launch(runs, root, None, workers=1), directories(root, runs)
    deadline = time.monotonic() + 120
    while not read_lines(directory.metrics) and time.monotonic() < deadline:
        time.sleep(0.05)
    return jobs, directory


def test_a_cancelled_worker_writes_a_checkpoint_and_says_how_to_go_on(tmp_path: Path) -> None:
    jobs, directory = started(tmp_path)
    local.cancel(jobs[0])
    (line,) = local.failures(jobs[0])
    assert "start it again to go on" in line
    assert list(directory.path.glob("checkpoint-*.pt"))


def test_a_worker_that_dies_says_where_its_log_is(tmp_path: Path) -> None:
    jobs, directory = started(tmp_path)
    os.kill(read_lines(directory.path / "attempts.jsonl")[0]["pid"], signal.SIGKILL)
    (line,) = local.failures(jobs[0])
    assert line.startswith("a worker died (")
    assert line.endswith("start again to go on")
