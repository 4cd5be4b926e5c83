"""What we ask of SLURM: squeue, scontrol, sinfo, scancel. No sacct, which many clusters do not have.

One call answers for all jobs of a user; arrays come as one line each as long as their tasks are pending.
"""

import getpass
import os
import re
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby

from submitit.slurm.slurm import read_job_id

from harness.errors import Refused, Unavailable

PREFIX = "harness-"  # of our jobs' names: PREFIX<submission>.<number of the array in it>


@dataclass(frozen=True)
class Queued:
    """A job, or a task of an array, that SLURM has not finished. id: as scancel takes it; reason: why it waits."""

    id: str
    state: str
    reason: str


def need() -> None:
    """Errors: Unavailable where there is no SLURM."""
    if shutil.which("sbatch") is None:
        raise Unavailable(
            "no sbatch on this machine; go to a login node of the cluster, use --cluster local, "
            "or try a SLURM of your own with `harness devcluster up`"
        )


def call(*words: str, timeout_s: float = 60) -> str:
    """Run a SLURM command. Errors: Unavailable if it is missing or slurmctld does not answer; Refused if it says no."""
    environment = os.environ | {"SLURM_BITSTR_LEN": "0"}  # squeue would cut the list of pending tasks at 64 bytes
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=timeout_s, env=environment)
    except FileNotFoundError:
        raise Unavailable(f"no {words[0]} on this machine; go to a node of the cluster") from None
    except subprocess.TimeoutExpired:
        raise Unavailable(f"{words[0]} did not answer within {timeout_s:.0f} s; is slurmctld up?") from None
    if done.returncode:
        text = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        if "configuration source" in text:
            raise Unavailable(
                f"{words[0]} finds no configuration of SLURM; go to a node of the cluster, or set SLURM_CONF "
                "(`harness devcluster up` says it for a SLURM of your own)"
            )
        raise (Unavailable if _is_down(text) else Refused)(f"{words[0]} failed: {text}")
    return done.stdout


def _is_down(text: str) -> bool:
    return any(words in text for words in ("Unable to contact slurm controller", "Connection", "timed out"))


def queue() -> dict[str, dict[int, Queued]]:
    """Our jobs by name, then by array task (0 for a job that is no array). One call, whatever their number."""
    found: dict[str, dict[int, Queued]] = {}
    for line in call("squeue", "--noheader", "--user", getpass.getuser(), "--format=%i|%T|%j|%r").splitlines():
        id, state, name, reason = line.split("|", 3)
        if not name.startswith(PREFIX):
            continue
        tasks = found.setdefault(name, {})
        for main, *rest in read_job_id(id):
            first, last = (int(rest[0]), int(rest[-1])) if rest else (0, 0)
            for task in range(first, last + 1):
                tasks[task] = Queued(f"{main}_{task}" if rest else main, state, reason)
    return found


def cancel(ids: Iterable[str]) -> None:
    """Jobs and array tasks by id, in one call. One that has ended meanwhile is no error."""
    if words := _joined(ids):
        call("scancel", "--quiet", *words)


def release(ids: Iterable[str]) -> None:
    """Let held jobs and array tasks run, in one call."""
    if words := _joined(ids):
        call("scontrol", "release", *words)


def _joined(ids: Iterable[str]) -> list[str]:
    """Jobs as they are, tasks of one array as one word."""
    tasks: dict[str, list[int]] = {}
    whole = []
    for id in ids:
        main, _, task = id.partition("_")
        if task:
            tasks.setdefault(main, []).append(int(task))
        else:
            whole.append(main)
    return whole + [f"{main}_[{_ranges(sorted(numbers))}]" for main, numbers in tasks.items()]


def _ranges(numbers: list[int]) -> str:
    """[0, 1, 2, 5] -> "0-2,5"."""
    runs = [list(group) for _, group in groupby(enumerate(numbers), key=lambda pair: pair[1] - pair[0])]
    return ",".join(f"{run[0][1]}-{run[-1][1]}" if len(run) > 1 else str(run[0][1]) for run in runs)


def job(id: str, timeout_s: float = 60) -> dict[str, str]:
    """What scontrol says of one job. Errors: Unavailable; Refused for a job that SLURM has forgotten."""
    return dict(re.findall(r"(\w+)=(\S*)", call("scontrol", "--oneliner", "show", "job", id, timeout_s=timeout_s)))


def node_state(node: str) -> str:
    """E.g. "idle", "down*"."""
    return call("sinfo", "--noheader", "--nodes", node, "--format=%T").split("\n")[0].strip()


def requeue(id: str) -> None:
    call("scontrol", "requeue", id)


def partitions() -> list[str]:
    return sorted(set(call("sinfo", "--noheader", "--format=%R").split()))


def max_array_size() -> int:
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", call("scontrol", "show", "config"), re.MULTILINE)
    return int(found.group(1)) if found else 1001  # SLURM's default


def refusal(text: str, submitted: int, wanted: int) -> Refused | Unavailable:
    """What sbatch said, as one line with what to do."""
    said = ", ".join(line.removeprefix("sbatch: error: ").strip() for line in text.splitlines() if line.strip())
    rest = f"; {submitted} of {wanted} runs are submitted, the same command submits the rest" if submitted else ""
    if _is_down(said):
        return Unavailable(f"slurmctld does not answer ({said}); try again when it does{rest}")
    if "partition" in said.lower():
        said += f"; partitions here: {', '.join(partitions())}"
    return Refused(f"sbatch refused: {said}{rest}")
