"""What happens on a node: one item of a submission, as one job.

The job's script (submitit writes it, see `lines`) starts the processes of `Task` with srun and afterwards, in its own
shell, slurm/after.py: that requeues what is not finished. A task never requeues. It notes signals, writes a checkpoint
between two steps, says in the run directory why it ends, and exits: 0 done, 2 refused, 3 failed, EX_TEMPFAIL stopped by
a signal, EX_IOERR the disk refused a write.
"""

import os
import shlex
import signal
import sys
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import submitit
from submitit.core.utils import DelayedSubmission

from harness import attempts
from harness.attempts import Place
from harness.errors import (
    HarnessError,
    Interrupted,
    NotWritable,
    Refused,
    RunConflict,
    Unavailable,
)
from harness.runs import cancel_mark
from harness.signals import Stop
from slurm import scheduler, states
from slurm.profiles import Shape
from slurm.submission import Item

if TYPE_CHECKING:
    from harness.recipe import Recipe


@dataclass(frozen=True)
class Task:
    """One item as a job: names, a seed and folders, nothing else; the code is the snapshot's.

    runs, snapshot, data_root: absolute paths. meetings: where the processes of an attempt find each other.
    """

    item: Item
    runs: str
    snapshot: str
    data_root: str | None
    meetings: str
    shape: Shape
    checkpoint_every_s: float
    join_timeout_s: float

    @property
    def path(self) -> Path:
        return self.item.path(Path(self.runs))

    def checkpoint(self) -> DelayedSubmission:
        """submitit calls this for a signal that comes before `__call__` has begun: the same again."""
        return DelayedSubmission(self)

    def __call__(self) -> None:
        stop = Stop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2):  # first of all: importing torch takes seconds
            signal.signal(number, stop.note)
        code = self.work(stop)
        sys.stdout.flush()
        sys.stderr.flush()
        if code:
            raise SystemExit(code)

    def work(self, stop: Stop) -> int:
        """Do the item. Returns the exit code; what went wrong is one line in the log."""
        env = submitit.JobEnvironment()
        first = env.global_rank == 0
        if cancel_mark(self.path).exists():
            return _say(0, f"{self.item}: cancelled before it started")
        try:
            self._do(env, stop)
        except Interrupted as error:
            return _say(os.EX_TEMPFAIL, str(error))
        except NotWritable as error:
            return _say(os.EX_IOERR, str(error))
        except RunConflict as error:  # somebody else does it
            return _say(0, str(error))
        except Unavailable as error:  # may be there next time
            return _say(os.EX_TEMPFAIL, str(error))
        except HarnessError as error:
            if first and error.exit_code == 2:
                attempts.refuse(self.path, str(error), self.item.protocols)
            return _say(error.exit_code, str(error))
        return 0

    def _do(self, env: submitit.JobEnvironment, stop: Stop) -> None:
        from harness import registry

        if Path(self.snapshot) != registry.ROOT:
            raise Refused(f"the code is {registry.ROOT}, expected the submission's, {self.snapshot}; submit again")
        recipe = registry.recipe(self.item.recipe, self.item.overrides)
        if recipe.digest != self.item.digest:
            raise Refused(
                f"recipe {recipe.name!r} was edited after it was submitted: its digest was {self.item.digest}, now it "
                f"is {recipe.digest}; submit it again"
            )
        import torch

        torch.set_num_threads(min(self.shape.cpus_per_task, os.cpu_count() or 1))
        if self.item.stage == "evaluate":
            from harness import commands

            item, data = self.item, Path(self.data_root) if self.data_root else None
            missing = states.missing_protocols(self.path, item.protocols)
            commands.evaluate_again(item.recipe, item.seed, item.overrides, missing, Path(self.runs), data, stop)
            return
        self._train(env, stop, recipe)

    def _train(self, env: submitit.JobEnvironment, stop: Stop, recipe: "Recipe") -> None:
        from harness import train
        from slurm import processes

        place = SlurmPlace.here(env, self)
        mine = processes.Place(
            rank=env.global_rank,
            world=env.num_tasks,
            local_rank=env.local_rank,
            local_world=self.shape.tasks_per_node,
            node=place.fields["node"],
            cpus=self.shape.cpus_per_task,
            gpus=self.shape.gpus,
        )
        processes.join(mine, Path(self.meetings) / f"{env.job_id}.{place.restart}", self.join_timeout_s)
        try:
            train.run(
                recipe,
                self.item.seed,
                Path(self.runs),
                data_root=Path(self.data_root) if self.data_root else None,
                device=f"cuda:{mine.local_rank}" if mine.gpus else "cpu",
                checkpoint_every_s=self.checkpoint_every_s,
                stop=stop,
                place=place,
            )
        finally:
            processes.leave()


@dataclass(frozen=True)
class SlurmPlace(Place):
    """A job of SLURM. restart: how often SLURM has started it again."""

    restart: int = 0
    signal_delay_s: int = 0

    @classmethod
    def here(cls, env: submitit.JobEnvironment, task: Task) -> "SlurmPlace":
        restart = int(os.environ.get("SLURM_RESTART_COUNT", 0))
        fields = {
            "job": env.job_id,
            "node": os.environ.get("SLURMD_NODENAME", env.hostname),
            "restart": restart,
            "log": str(env.paths.stdout),
        }
        delay = task.shape.signal_delay_s
        return cls(fields, restart, delay)

    def interrupted(self, signal: str) -> tuple[str, str]:
        try:
            job = scheduler.job(self.fields["job"], timeout_s=15)
        except HarnessError as error:
            return "interrupted", f"{signal}; why is not known: {error}"
        now, state = datetime.now(), job["JobState"]
        if int(job.get("Restarts", 0)) > self.restart:
            return "requeued", f"{signal}; SLURM has put the job back into its queue"
        if job.get("PreemptTime", "None") != "None":
            return "preempted", f"{signal}; a job of higher priority takes the node"
        ends = datetime.fromisoformat(job["EndTime"]) if job.get("EndTime", "").startswith("2") else None
        if state == "RUNNING" and ends and (ends - now).total_seconds() <= self.signal_delay_s + 60:
            return "timeout", f"{signal}; the time limit of {job.get('TimeLimit')} is near"
        if state == "RUNNING":
            return "interrupted", f"{signal}, sent by somebody"
        if ends and _ran_out(job, ends):
            return "timeout", f"{signal}; the time limit of {job.get('TimeLimit')} is over"
        return "cancelled", f"{signal}; the job was cancelled"

    def vanished(self, start: dict[str, Any]) -> tuple[str, str]:
        node = start.get("node")
        if node:
            try:
                state = scheduler.node_state(node)
            except HarnessError:
                state = ""
            if state.startswith(("down", "fail", "drain")) or state.endswith("*"):
                return "node_fail", f"node {node} is {state}"
        if start.get("job") == self.fields["job"] and start.get("restart", 0) < self.restart:
            return "requeued", "SLURM put the job back into its queue, and the attempt had no time to say anything"
        return super().vanished(start)


def _ran_out(job: dict[str, str], ends: datetime) -> bool:
    """Whether a job's time from start to end is its limit, as "[days-]hours:minutes:seconds"."""
    days, _, clock = ("0-" + job.get("TimeLimit", "")).rpartition("-")
    try:
        hours, minutes, seconds = map(int, clock.split(":"))
        begun = datetime.fromisoformat(job["StartTime"])
    except (ValueError, KeyError):
        return False
    limit = int(days.strip("-").rpartition("-")[2] or 0) * 86400 + hours * 3600 + minutes * 60 + seconds
    return (ends - begun).total_seconds() >= limit - 5


# ---------------------------------------------------------------------------------------------- the job's script


def lines(snapshot: Path, folder: Path, shape: Shape) -> dict[str, Any]:
    """The parts of the job's script that are ours, as parameters of submitit: before, around and after the tasks."""
    python = shlex.quote(sys.executable)
    return {
        "setup": [
            "trap : TERM  # this shell outlives its tasks, to requeue",
            *shape.setup,
            f"export PYTHONPATH={shlex.quote(str(snapshot))}",
            f"cd {shlex.quote(str(snapshot))}",
        ],
        "srun_args": ["--kill-on-bad-exit=1", f"--cpus-per-task={shape.cpus_per_task}"],  # 22.05 does not hand it on
        "teardown": ["code=$?", f"{python} -m slurm.after {shlex.quote(str(folder))} $code", "exit $code"],
    }


def wrapped_python() -> str:
    """Python, started with USR2 ignored: until a handler is set its default would kill the task."""
    inner = 'trap "" USR2; exec "$0" "$@"'
    return f"bash -c {shlex.quote(inner)} {shlex.quote(sys.executable)}"


def _say(code: int, text: str) -> int:
    print(f"harness: {text}", file=sys.stderr, flush=True)  # noqa: T201
    return code
