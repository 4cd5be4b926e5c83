"""What SLURM prints, read; and what it refuses, as one line. Programs of the same names stand in for SLURM's."""

import os
from pathlib import Path
from typing import Protocol

import pytest

from harness.errors import Refused, Unavailable
from slurm import scheduler
from slurm.scheduler import Queued


class Programs(Protocol):
    def __call__(self, name: str, prints: str, code: int = 0, error: str = "") -> None: ...


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    """Put a program on an otherwise empty PATH; each call of one is a line in <tmp_path>/calls."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    (tmp_path / "bin").mkdir()

    def write(name: str, prints: str, code: int = 0, error: str = "") -> None:
        file = tmp_path / "bin" / name
        lines = ["#!/bin/sh", f'echo "{name} $*" >> {tmp_path}/calls', "/bin/cat <<'END'", prints.rstrip("\n"), "END"]
        if error:
            lines += ["/bin/cat >&2 <<'END'", error, "END"]
        file.write_text("\n".join([*lines, f"exit {code}", ""]))
        os.chmod(file, 0o755)

    return write


def test_arrays_come_as_one_line_each(program: Programs, tmp_path: Path) -> None:
    lines = [
        "12_[3-5,9%2]|PENDING|harness-20260301-120000-beef.0|Priority",
        "12_1|RUNNING|harness-20260301-120000-beef.0|None",
        "40|COMPLETING|harness-20260301-120000-beef.1|None",
        "41_[0-2]|PENDING|harness-20260302-120000-cafe.0|launch failed requeued held",
        "99|RUNNING|somebody's own|None",
    ]
    program("squeue", "\n".join(lines))
    found = scheduler.queue()
    assert {name: sorted(tasks) for name, tasks in found.items()} == {
        "harness-20260301-120000-beef.0": [1, 3, 4, 5, 9],
        "harness-20260301-120000-beef.1": [0],
        "harness-20260302-120000-cafe.0": [0, 1, 2],
    }
    assert found["harness-20260301-120000-beef.0"][4] == Queued("12_4", "PENDING", "Priority")
    assert found["harness-20260301-120000-beef.1"][0] == Queued("40", "COMPLETING", "None")
    assert found["harness-20260302-120000-cafe.0"][2].reason == "launch failed requeued held"
    assert len((tmp_path / "calls").read_text().splitlines()) == 1


def test_a_thousand_tasks_are_cancelled_in_one_call(program: Programs, tmp_path: Path) -> None:
    program("scancel", "")
    scheduler.cancel(["7", *(f"12_{task}" for task in (*range(1000), 1001, 1003, 1004))])
    assert (tmp_path / "calls").read_text() == "scancel --quiet 7 12_[0-999,1001,1003-1004]\n"
    scheduler.cancel([])
    assert len((tmp_path / "calls").read_text().splitlines()) == 1


def test_held_jobs_are_released_in_one_call(program: Programs, tmp_path: Path) -> None:
    program("scontrol", "")
    scheduler.release(["7", "12_3", "12_4"])
    assert (tmp_path / "calls").read_text() == "scontrol release 7 12_[3-4]\n"


def test_one_job(program: Programs) -> None:
    program(
        "scontrol", "JobId=12 ArrayJobId=9 JobState=RUNNING Reason=None Restarts=2 PreemptTime=None TimeLimit=01:00:00"
    )
    job = scheduler.job("9_3")
    assert (job["JobState"], job["Restarts"], job["TimeLimit"]) == ("RUNNING", "2", "01:00:00")


def test_no_slurm_at_all(program: Programs) -> None:
    with pytest.raises(
        Unavailable, match="no sbatch on this machine; go to a login node of the cluster, use --cluster"
    ):
        scheduler.need()
    with pytest.raises(Unavailable, match="no squeue on this machine"):
        scheduler.queue()


def test_a_controller_that_is_down(program: Programs) -> None:
    program("squeue", "", 1, "slurm_load_jobs error: Unable to contact slurm controller (connect failure)")
    with pytest.raises(Unavailable) as error:
        scheduler.queue()
    assert str(error.value) == (
        "squeue failed: slurm_load_jobs error: Unable to contact slurm controller (connect failure)"
    )
    said = "sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)"
    refusal = scheduler.refusal(said, submitted=0, wanted=9)
    assert isinstance(refusal, Unavailable)
    assert str(refusal).endswith("try again when it does")


def test_programs_without_a_cluster(program: Programs) -> None:
    said = "scontrol: error: fetch_config: failed\nscontrol: fatal: Could not establish a configuration source"
    program("scontrol", "", 1, said)
    with pytest.raises(Unavailable, match=r"^scontrol finds no configuration of SLURM; .* set SLURM_CONF"):
        scheduler.max_array_size()


def test_what_sbatch_refuses(program: Programs) -> None:
    program("sinfo", "normal\nhigh\nnormal")
    said = "sbatch: error: invalid partition specified: gpus\nsbatch: error: Batch job submission failed: Invalid"
    refusal = scheduler.refusal(said, submitted=1001, wanted=2000)
    assert isinstance(refusal, Refused)
    assert str(refusal) == (
        "sbatch refused: invalid partition specified: gpus, Batch job submission failed: Invalid; "
        "partitions here: high, normal; 1001 of 2000 runs are submitted, the same command submits the rest"
    )
