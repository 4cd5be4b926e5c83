"""A job on its node, without SLURM: what is refused, and when its last words put it back into the queue."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import submitit
from submitit.core.utils import DelayedSubmission, JobPaths

from harness import attempts, lease, registry
from harness.errors import Refused, Unavailable
from harness.signals import Stop
from slurm import after, scheduler
from slurm.job import SlurmPlace, Task
from slurm.profiles import Shape
from slurm.submission import Item

NAME = "untrained_digits_pixels_e0"
JOB = "12_3"


@pytest.fixture(autouse=True)
def _inside_a_job(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    variables = {
        "SUBMITIT_EXECUTOR": "slurm", "SUBMITIT_FOLDER": str(tmp_path / "jobs"), "SLURM_JOB_ID": "12",
        "SLURM_ARRAY_JOB_ID": "12", "SLURM_ARRAY_TASK_ID": "3", "SLURM_RESTART_COUNT": "0", "SLURM_NTASKS": "1",
        "SLURM_JOB_NUM_NODES": "1", "SLURM_NODEID": "0", "SLURM_PROCID": "0", "SLURM_LOCALID": "0",
        "SLURMD_NODENAME": "node1",
    }  # fmt: skip
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


def task(runs: Path, **changes: Any) -> Task:
    item = {"recipe": NAME, "seed": 0, "overrides": (), "digest": registry.recipe(NAME).digest} | changes
    return Task(Item(**item), str(runs), str(registry.ROOT), None, str(runs), Shape(), 60.0, 5.0)


# ---------------------------------------------------------------------------------------------- the task


def test_a_recipe_that_was_edited_is_refused_and_the_run_directory_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = task(tmp_path, digest="0123456789ab")
    assert one.work(Stop()) == 2
    says = "was edited after it was submitted: its digest was 0123456789ab, now it is"
    assert says in capsys.readouterr().err
    (line,) = attempts.read(one.path)
    assert line["event"] == "refused"
    assert says in line["reason"]


def test_a_recipe_that_is_gone(tmp_path: Path) -> None:
    one = task(tmp_path, recipe="untrained_digits_pixel_e0")
    assert one.work(Stop()) == 2
    assert "no recipe 'untrained_digits_pixel_e0'; did you mean" in attempts.read(one.path)[0]["reason"]


def test_a_cancelled_run_does_not_start(tmp_path: Path) -> None:
    one = task(tmp_path)
    one.path.mkdir(parents=True)
    attempts.cancel_mark(one.path).touch()
    assert one.work(Stop()) == 0
    assert [path.name for path in one.path.iterdir()] == ["cancel"]


def test_a_run_that_another_job_has_is_left_to_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = task(tmp_path)
    one.path.mkdir(parents=True)
    with lease.hold(one.path, {"job": "99", "node": "node7"}):
        assert one.work(Stop()) == 0
    assert f"is being written by another process (process {os.getpid()} of job 99 on node7)" in capsys.readouterr().err
    assert one.work(Stop()) == 0
    assert (one.path / "record.json").exists()
    start, end = attempts.read(one.path)
    assert (start["job"], start["node"], start["restart"], end["status"]) == (JOB, "node1", 0, "complete")


@pytest.mark.parametrize(
    ("job", "status"),
    [
        ({"JobState": "RUNNING", "PreemptTime": "2026-03-01T12:00:00"}, "preempted"),
        ({"JobState": "COMPLETING", "Restarts": "1"}, "requeued"),
        ({"JobState": "RUNNING", "PreemptTime": "None", "EndTime": "2000-01-01T00:00:00"}, "timeout"),
        ({"JobState": "RUNNING", "PreemptTime": "None", "EndTime": "2100-01-01T00:00:00"}, "interrupted"),
        ({"JobState": "COMPLETING", "StartTime": "2026-03-01T12:00:00", "EndTime": "2026-03-02T13:00:30",
          "TimeLimit": "1-01:00:00"}, "timeout"),
        ({"JobState": "COMPLETING", "StartTime": "2026-03-01T12:00:00", "EndTime": "2026-03-01T12:10:30",
          "TimeLimit": "01:00:00"}, "cancelled"),
        ({"JobState": "COMPLETING", "EndTime": "Unknown", "TimeLimit": "UNLIMITED"}, "cancelled"),
    ],
)  # fmt: skip
def test_why_a_signal_came(job: dict[str, str], status: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "job", lambda id, timeout_s: job)
    assert SlurmPlace({"job": JOB}).interrupted("SIGTERM")[0] == status


def test_why_an_attempt_vanished(monkeypatch: pytest.MonkeyPatch) -> None:
    place = SlurmPlace({"job": JOB}, restart=1)
    start = {"job": JOB, "node": "node1", "restart": 0}
    monkeypatch.setattr(scheduler, "node_state", lambda node: "down*")
    assert place.vanished(start) == ("node_fail", "node node1 is down*")
    monkeypatch.setattr(scheduler, "node_state", lambda node: "idle")
    assert place.vanished(start)[0] == "requeued"
    assert place.vanished(start | {"job": "7"})[0] == "killed"


# ---------------------------------------------------------------------------------------------- its last words


@pytest.fixture
def requeued(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Jobs that were put back into the queue; SLURM says of all that they run."""
    found: list[str] = []
    monkeypatch.setattr(scheduler, "job", lambda id: {"JobState": "RUNNING"})
    monkeypatch.setattr(scheduler, "requeue", found.append)
    return found


@pytest.fixture
def end(tmp_path: Path) -> Callable[[int], Path]:
    """End the job with an exit code; returns the run directory."""
    one = task(tmp_path)
    one.path.mkdir(parents=True)
    paths = JobPaths(tmp_path / "jobs", JOB)
    paths.folder.mkdir()
    DelayedSubmission(one).dump(paths.submitted_pickle)

    def ended(code: int) -> Path:
        after.after(tmp_path / "jobs", code)
        return one.path

    return ended


def begin(path: Path, restart: int = 0) -> None:
    number = sum(line["event"] == "start" for line in attempts.read(path)) + 1
    line = {"event": "start", "attempt": number, "step": 0, "job": JOB, "restart": restart}
    attempts.append_line(path / "attempts.jsonl", line)


def test_a_killed_task_is_buried_and_requeued_by_the_full_id(
    end: Callable[[int], Path], requeued: list[str], tmp_path: Path
) -> None:
    begin(task(tmp_path).path)
    path = end(137)
    assert requeued == [JOB]
    line = attempts.read(path)[-1]
    assert (line["status"], line["reason"]) == ("killed", "it ended without a word, by signal 9")


@pytest.mark.parametrize("code", [0, 2])
def test_what_is_done_or_refused_is_not_requeued(
    code: int, end: Callable[[int], Path], requeued: list[str], tmp_path: Path
) -> None:
    end(code)
    assert requeued == []


def test_what_has_a_record_or_is_cancelled_is_not_requeued(
    end: Callable[[int], Path], requeued: list[str], tmp_path: Path
) -> None:
    path = task(tmp_path).path
    attempts.cancel_mark(path).touch()
    end(75)
    attempts.cancel_mark(path).unlink()
    (path / "record.json").write_text("{}")
    end(75)
    assert requeued == []


def test_slurm_decides_about_a_job_that_it_is_ending(
    end: Callable[[int], Path], requeued: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(scheduler, "job", lambda id: {"JobState": "COMPLETING"})
    end(75)
    assert requeued == []
    assert "the job is COMPLETING, SLURM decides" in capsys.readouterr().out


def test_the_third_fruitless_attempt_is_the_last(
    end: Callable[[int], Path], requeued: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for restart in range(3):
        monkeypatch.setenv("SLURM_RESTART_COUNT", str(restart))
        begin(task(tmp_path).path, restart)
        end(1)
    assert len(requeued) == 2


def test_starts_without_an_attempt_count_also_after_good_ones(
    end: Callable[[int], Path], requeued: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = task(tmp_path).path
    begin(path, restart=4)
    (path / "checkpoint-00000100.pt").touch()
    for restart in range(4, 8):
        monkeypatch.setenv("SLURM_RESTART_COUNT", str(restart))
        end(75)
    assert len(requeued) == 3
    line = attempts.read(path)[-1]
    assert line["event"] == "refused"
    assert line["reason"].startswith("3 starts in a row came to nothing; their log is ")


def test_an_evaluation_is_requeued_after_signals_and_given_up_after_three_failures(
    requeued: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = task(tmp_path, stage="evaluate", protocols=("collapse",))
    one.path.mkdir(parents=True)
    (one.path / "record.json").write_text('{"evals": []}')
    paths = JobPaths(tmp_path / "jobs", JOB)
    paths.folder.mkdir()
    DelayedSubmission(one).dump(paths.submitted_pickle)
    for restart in range(5):
        monkeypatch.setenv("SLURM_RESTART_COUNT", str(restart))
        after.after(paths.folder, os.EX_TEMPFAIL)
    assert len(requeued) == 5
    after.after(paths.folder, 1)
    assert len(requeued) == 5
    (line,) = attempts.read(one.path)
    assert (line["event"], line["protocols"]) == ("refused", ["collapse"])


def test_a_run_that_somebody_else_has_is_not_requeued(
    end: Callable[[int], Path], requeued: list[str], tmp_path: Path
) -> None:
    path = task(tmp_path).path
    begin(path)
    with lease.hold(path, {"job": "99"}):
        end(137)
    assert requeued == []
    with lease.hold(path, {"job": JOB}):  # its own attempt, which is being killed
        end(137)
    assert requeued == [JOB]


def test_it_waits_for_a_controller_that_is_down_and_takes_no_for_an_answer(
    end: Callable[[int], Path], requeued: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    answers: list[Exception | None] = [Unavailable("down"), Unavailable("down"), None]

    def requeue(id: str) -> None:
        if answer := answers.pop(0):
            raise answer
        requeued.append(id)

    monkeypatch.setattr(scheduler, "requeue", requeue)
    monkeypatch.setattr(after.time, "sleep", lambda seconds: None)
    end(137)
    assert requeued == [JOB]
    answers.append(Refused("scontrol failed: Requeue is disabled"))
    with pytest.raises(Refused):
        end(137)


def test_submitit_gets_the_same_task_for_a_signal_that_comes_first(tmp_path: Path) -> None:
    one = task(tmp_path)
    again = one.checkpoint()
    assert isinstance(again, submitit.helpers.DelayedSubmission)
    assert again.function == one
