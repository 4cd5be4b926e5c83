"""Where submitted things stand: run directories first, then one call to the scheduler for all of them.

pending      the scheduler has it and it does not run yet
held         SLURM could not launch its job and holds it; `harness fill` and `harness resume` release it
running      a process holds its run directory (or, evaluating, its job runs)
starting     its job runs, and has not taken the run directory yet
ending       its job is being ended by the scheduler
complete, diverged, collapsed   over, with a record
cancelled    somebody asked for that
refused      it cannot start: its data, recipe or directory does not fit; asking again tries again
stuck        attempts.BUDGET attempts in a row got no further; asking again tries again
stopped      nobody works on it; the next `harness fill` goes on with it
missing      it never started, and no scheduler knows it; as stopped
"""

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness import attempts, lease
from harness.runs import cancel_mark
from slurm import scheduler
from slurm.scheduler import Queued
from slurm.submission import Item, Submission

IN_FLIGHT = ("pending", "held", "starting", "running", "ending")
HELD = ("launch failed requeued held", "job requeued in held state")  # SLURM's reasons, for faults of its own
OVER = attempts.OVER
WORKER = "WORKER"  # state of a local submission's jobs: each takes what is next
ON_REQUEST = ("cancelled", "refused", "stuck")  # started again only when somebody asks
AT_REST = ("stopped", "missing")  # the rest: to be started


@dataclass(frozen=True)
class State:
    """word: see above; why: in short; job: SLURM's id, or ""."""

    word: str
    why: str = ""
    job: str = ""


def of(item: Item, runs: Path, queued: Queued | None) -> State:
    """The state of one thing. queued: what the scheduler says of it, None if it does not know it."""
    job = queued.id if queued and queued.state != WORKER else ""
    if queued and queued.state == "PENDING":
        return State("held" if queued.reason in HELD else "pending", queued.reason, job)
    path = item.path(runs)
    if item.stage == "evaluate":
        return _of_evaluation(item, path, queued)
    if (path / "record.json").exists():
        return State(_last_status(path) or "complete", job=job)
    held = lease.holder(path)
    if queued and queued.state == WORKER and not held:
        rest = _at_rest(path)
        return rest if rest.word in ON_REQUEST else State("pending", "waits for a worker")
    if queued:
        if queued.state not in ("RUNNING", WORKER):
            return State("ending", queued.state.lower(), job)
        return State("running" if held else "starting", job=job)
    if held:
        return State("running", f"process {held['pid']} on {held.get('node') or held['host']}")
    return _at_rest(path)


def _at_rest(path: Path) -> State:
    """Of a run that nobody works on and that has no record."""
    if cancel_mark(path).exists():
        return State("cancelled", cancel_mark(path).read_text().strip())
    lines = attempts.read(path)
    marks = [line for line in lines if line["event"] != "warning"]
    if not marks:
        return State("missing")
    last = marks[-1]
    if last["event"] == "asked":
        return State("stopped")
    if last["event"] == "refused":
        return State("refused", last["reason"])
    why = f"{last['status']}: {last['reason']}" if last["event"] == "end" else "its last attempt ended without a word"
    if last.get("status") == "cancelled":
        return State("cancelled", why)
    if attempts.fruitless(lines, attempts.reached(path)) >= attempts.BUDGET:
        return State("stuck", f"{attempts.BUDGET} attempts in a row got no further; {why}")
    return State("stopped", why)


def _of_evaluation(item: Item, path: Path, queued: Queued | None) -> State:
    missing = missing_protocols(path, item.protocols)
    if not missing:
        return State("complete")
    if queued:
        running = queued.state in ("RUNNING", WORKER)
        return State("running" if running else "ending", job=queued.id if queued.state != WORKER else "")
    if cancel_mark(path).exists():
        return State("cancelled")
    for line in reversed(attempts.read(path)):
        if line["event"] == "refused" and set(line.get("protocols", ())) & set(missing):
            return State("refused", line["reason"])
        if line["event"] == "asked":
            break
    return State("missing")


def done(item: Item, runs: Path) -> bool:
    """Whether nothing is left to do for an item."""
    path = item.path(runs)
    return not missing_protocols(path, item.protocols) if item.stage == "evaluate" else (path / "record.json").exists()


def missing_protocols(path: Path, protocols: Sequence[str]) -> list[str]:
    """Those of the protocols, by name or id, that a finished run's record does not have on the test split."""
    try:
        record = json.loads((path / "record.json").read_text())
    except (FileNotFoundError, ValueError):
        return list(protocols)
    from harness import registry  # imports torch, which the end of a training needs not

    has = {row["protocol"] for row in record["evals"] if row["split"] == "test"}
    return [name for name in protocols if registry.protocol_id(name) not in has]


def _last_status(path: Path) -> str:
    ends = [line["status"] for line in attempts.read(path) if line["event"] == "end"]
    return ends[-1] if ends and ends[-1] in OVER else ""


def survey(submissions: Iterable[Submission]) -> dict[Item, State]:
    """The newest state of every item of these submissions. One call to the scheduler at most."""
    submissions = list(submissions)
    queue = _queue(submissions)
    found: dict[Item, State] = {}
    for one in submissions:
        over = {}
        for name, task, item in one.items():
            index = f"{name.rpartition('.')[2]}.{task}"
            if word := one.finished.words.get(index):
                found[item] = State(word)
                continue
            queued = queue.get(name, {}).get(task) if one.launcher == "slurm" else queue.get(name, {}).get(0)
            earlier = found.get(item)
            if earlier and earlier.word in IN_FLIGHT and not queued:
                continue  # another submission has it
            found[item] = state = of(item, one.runs, queued)
            if state.word in OVER:
                over[index] = state.word
        one.finished.add(over)
    return found


def _queue(submissions: list[Submission]) -> dict[str, dict[int, Queued]]:
    """What schedulers say of the submissions that are not over."""
    unfinished = [s for s in submissions if len(s.finished.words) < sum(len(a.items) for a in s.arrays)]
    queue: dict[str, dict[int, Queued]] = {}
    if any(s.launcher == "slurm" for s in unfinished):
        queue = scheduler.queue()
    for one in unfinished:
        if one.launcher == "local" and (workers := local_workers(one)):
            queue[one.name(0)] = {0: Queued(",".join(map(str, workers)), WORKER, "")}
    return queue


def local_workers(one: Submission) -> list[int]:
    """Process ids of the living workers of a local submission, from submitit's file names."""
    pids = {int(path.name.split("_")[0]) for path in one.jobs.glob("*_submitted.pkl")}
    return sorted(pid for pid in pids if _is_worker(pid))


def _is_worker(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    command = Path(f"/proc/{pid}/cmdline")
    return not command.exists() or b"submitit" in command.read_bytes()  # else the number is somebody else's by now
