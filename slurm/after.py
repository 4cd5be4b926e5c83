"""The last words of a job: put it back into the queue if its item is not finished and may be tried again.

Run by the job's own script when srun has returned, whatever became of the tasks: python -m slurm.after FOLDER CODE
"""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import submitit
from submitit.core.utils import DelayedSubmission, JobPaths

from harness import attempts
from harness.errors import HarnessError, Held, NotWritable, Unavailable
from harness.runs import cancel_mark
from slurm import scheduler, states
from slurm.job import Task

PATIENCE_S = 900  # how long a slurmctld that is down is waited for
Answer = TypeVar("Answer")


def after(folder: Path, code: int) -> None:
    """Put the job back into the queue if its item is not finished and may be tried again.

    folder: submitit's. code: exit code of srun, over 128 for a task that a signal killed.
    """
    if code in (0, 2):
        return
    env = submitit.JobEnvironment()
    task = DelayedSubmission.load(JobPaths(folder, env.job_id).submitted_pickle).function
    id = env.job_id  # <array>_<task>: SLURM_JOB_ID of an array's last task is also the id of the whole array
    if not isinstance(task, Task):  # a coordinator: it goes on from its files, unless it said itself that it cannot
        if (code > 128 or code == os.EX_TEMPFAIL) and _insist(lambda: scheduler.job(id)["JobState"]) == "RUNNING":
            _insist(lambda: scheduler.requeue(id))
        return
    if cancel_mark(task.path).exists() or states.done(task.item, Path(task.runs)):
        return
    if (state := _insist(lambda: scheduler.job(id)["JobState"])) != "RUNNING":
        print(f"after: the job is {state}, SLURM decides what becomes of it")  # noqa: T201
        return
    died = f"signal {code - 128}" if code > 128 else f"exit code {code}"
    try:
        attempts.bury(task.path, "killed", f"it ended without a word, by {died}")
    except Held as error:
        print(f"after: {error}")  # noqa: T201
        if error.owner.get("job") != id:  # one of this job is on its way out, and the next attempt waits for it
            return
    except NotWritable as error:
        print(f"after: {error}")  # noqa: T201
    silent = _starts_without_attempt(task, id, code)
    if silent >= attempts.BUDGET:  # nothing in the run directory says it yet
        reason = f"{silent} starts in a row came to nothing; their log is {env.paths.stdout}"
        attempts.refuse(task.path, reason, task.item.protocols)
        print(f"after: {reason}")  # noqa: T201
        return
    fruitless = attempts.fruitless(attempts.read(task.path), attempts.reached(task.path))
    if task.item.stage == "train" and fruitless >= attempts.BUDGET:
        print(f"after: {attempts.BUDGET} attempts in a row got no further; `harness resume` tries again")  # noqa: T201
        return
    print(f"after: {died}; requeued", flush=True)  # noqa: T201
    _insist(lambda: scheduler.requeue(id))


def _starts_without_attempt(task: Task, job: str, code: int) -> int:
    """How often in a row, up to now, SLURM has started this job and no attempt at its run began.

    Evaluations note no attempts: all their starts count, unless this one was stopped by a signal.
    """
    restart = int(os.environ.get("SLURM_RESTART_COUNT", 0))
    if task.item.stage == "evaluate":
        return 0 if code == os.EX_TEMPFAIL else restart + 1
    lines = attempts.read(task.path)
    began = [line["restart"] for line in lines if line["event"] == "start" and line.get("job") == job]
    return restart - max(began, default=-1)


def _insist(ask: Callable[[], Answer]) -> Answer:
    """The scheduler's answer; while it is down, wait for it."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return ask()
        except Unavailable:
            if time.monotonic() > deadline:
                raise
            time.sleep(5)


if __name__ == "__main__":
    try:
        after(Path(sys.argv[1]), int(sys.argv[2]))
    except HarnessError as error:
        print(f"after: {error}")  # noqa: T201
