"""Runs on the devcluster, for tests of faults: submit them, see how far they are, hit them, compare how they end."""

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from same_end import assert_same_end

from harness import attempts, registry, train
from harness.runs import read_lines
from slurm import states, submission
from slurm.states import State
from slurm.submission import Item
from slurm.submit import Report, items_of, submit

NAME = "vicreg_digits_r10w16_e50"
PER_EPOCH = 4  # steps
SHORT, LONG = 1, 25  # epochs; a long run takes some 4 s of a processor, and starting one 3 s
PROFILE = {
    "launcher": "slurm", "partition": "normal", "time_min": 20, "signal_delay_s": 60, "mem_gb": 1,
    "one_machine": True, "checkpoint_every_s": 1,
}  # fmt: skip


def write_profile(folder: Path, name: str, **changes: Any) -> None:
    """A cluster profile: ours for tests, changed."""
    extra = changes.pop("extra", {})
    lines = [f"{key} = {json.dumps(value)}" for key, value in (PROFILE | changes).items()]
    lines += ["[extra]", *(f"{key} = {json.dumps(value)}" for key, value in extra.items())] if extra else []
    (folder / f"{name}.toml").write_text("\n".join(lines) + "\n")


def overrides(epochs: int, *more: str) -> tuple[str, ...]:
    return (f"budget.epochs={epochs}", "budget.batch=64", "budget.warmup=0", "data.train_images=256", *more)


def wait(ready: Callable[[], Any], what: str | Callable[[], str], seconds: float = 120, every: float = 0.05) -> Any:
    """Until ready; returns what it said."""
    deadline = time.monotonic() + seconds
    while not (found := ready()):
        assert time.monotonic() < deadline, f"after {seconds:.0f} s: {what if isinstance(what, str) else what()}"
        time.sleep(every)
    return found


@dataclass(frozen=True)
class Run:
    """A run of a recipe with overrides, in a folder of runs."""

    runs: Path
    seed: int = 0
    settings: tuple[str, ...] = overrides(LONG)

    @cached_property
    def item(self) -> Item:
        return items_of([(NAME, self.seed, self.settings)])[0]

    @cached_property
    def path(self) -> Path:
        return self.item.path(self.runs)

    def lines(self, event: str) -> list[dict[str, Any]]:
        return [line for line in attempts.read(self.path) if line["event"] == event]

    def ends(self) -> list[str]:
        """Statuses of the attempts that ended."""
        return [line["status"] for line in self.lines("end")]

    def alive(self, attempt: int) -> dict[str, Any] | None:
        """The start line of that attempt, if it has begun and not ended."""
        starts = self.lines("start")
        return starts[-1] if len(starts) == attempt and len(self.ends()) < attempt else None

    def advanced(self, attempt: int) -> dict[str, Any] | None:
        """The same, if the attempt has written a checkpoint of its own."""
        start = self.alive(attempt)
        return start if start and attempts.reached(self.path) > start["step"] else None

    def furthest(self) -> int:
        """The last step that is known from outside; one more for a record."""
        lines = read_lines(self.path / "metrics.jsonl")
        steps = max([attempts.reached(self.path), *(line["step"] for line in lines[-1:])])
        return steps + (self.path / "record.json").exists()

    def state(self) -> State:
        return states.survey(submission.read_all(self.runs))[self.item]

    def story(self) -> str:
        """What became of it, for a test that fails."""
        logs = [Path(line["log"]) for line in self.lines("start") if line.get("log")]
        files = logs[-1:] or sorted(self.runs.glob("submissions/*/jobs/*_log.out"))[-1:]
        text = "\n".join(file.read_text(errors="replace")[-3000:] for file in files if file.exists())
        return "\n".join([f"seed {self.seed}", *map(str, attempts.read(self.path)), text])

    def wait(self, ready: Callable[[], Any], what: str, seconds: float = 120) -> Any:
        return wait(ready, lambda: f"{what}; {self.story()}", seconds)

    def wait_alive(self, attempt: int) -> dict[str, Any]:
        found: dict[str, Any] = self.wait(lambda: self.alive(attempt), f"attempt {attempt} has not begun")
        return found

    def wait_advanced(self, attempt: int) -> dict[str, Any]:
        what = f"attempt {attempt} has no checkpoint of its own"
        found: dict[str, Any] = self.wait(lambda: self.advanced(attempt), what)
        return found

    def record(self, seconds: float = 240) -> dict[str, Any]:
        """Waits for it."""
        file = self.path / "record.json"
        self.wait(file.exists, "no record", seconds)
        found: dict[str, Any] = json.loads(file.read_text())
        return found


def start(runs: Sequence[Run], cluster: str = "faults", **options: Any) -> Report:
    """Submit them, all of one folder, as one array."""
    return submit([run.item for run in runs], runs[0].runs, cluster, **options)


def kill(pid: int, number: signal.Signals = signal.SIGKILL) -> bool:
    """Whether it was there to be hit."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def tasks(folder: Path) -> dict[int, int]:
    """Rank -> process id of the tasks of a submission's job, from the moment in which python starts.

    folder: of its jobs.
    """
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
            if b"python" in words[0] and {b"submitit.core._submit", str(folder).encode()} <= set(words):
                variables = (entry / "environ").read_bytes().split(b"\0")
                rank = next(word for word in variables if word.startswith(b"SLURM_PROCID="))
                found[int(rank.partition(b"=")[2])] = int(entry.name)
        except (OSError, StopIteration):  # gone meanwhile, or no task
            continue
    return found


def pending_signals(pid: int) -> set[int]:
    """Signals that a process that stands still has not taken yet."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:  # it is gone
        return set()
    words = dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)
    mask = int(words["SigPnd"], 16) | int(words["ShdPnd"], 16)
    return {number for number in range(1, 65) if mask >> (number - 1) & 1}


@dataclass
class Progress:
    """When each run began an attempt or got further than ever, seen by a thread: so what a fault cost is known."""

    runs: Sequence[Run]
    begun: dict[Run, list[float]] = field(default_factory=dict)
    further: dict[Run, list[float]] = field(default_factory=dict)
    furthest: dict[Run, int] = field(default_factory=dict)
    faults: list[tuple[Run, float]] = field(default_factory=list)

    def look(self) -> None:
        for run in self.runs:
            now, begun, furthest = time.monotonic(), len(run.lines("start")), run.furthest()
            times = self.begun.setdefault(run, [now])
            times += [now] * (1 + begun - len(times))
            if furthest > self.furthest.get(run, -1):
                self.further.setdefault(run, []).append(now)
                self.furthest[run] = furthest

    def fault(self, run: Run) -> None:
        """One hits the run now."""
        self.faults.append((run, time.monotonic()))

    def lost(self) -> list[float]:
        """Of each fault: seconds from the last progress before the next attempt until the run was further than that.

        Without a next attempt: before the fault, and after it.
        """
        found = []
        for run, when in self.faults:
            when = next((at for at in self.begun[run] if at > when), when)
            before, after = ([at for at in self.further[run] if (at > when) == late] for late in (False, True))
            assert after, f"no progress after a fault: {run.story()}"
            found.append(after[0] - before[-1])
        return found


@contextmanager
def watched(*runs: Run) -> Iterator[Progress]:
    progress, over = Progress(runs), threading.Event()

    def watch() -> None:
        while not over.wait(0.1):
            progress.look()

    progress.look()
    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield progress
    finally:
        over.set()
        thread.join()
        progress.look()


class References:
    """Runs of the same recipe and seed that nothing interrupted, each made once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def check(self, *runs: Run) -> None:
        """Each is complete, and ended with the same bits as one that was not interrupted."""
        torch.set_num_threads(1)
        for run in runs:
            assert run.record()["status"] == "complete", run.story()
            same = Run(self.folder, run.seed, run.settings)
            if not (same.path / "record.json").exists():
                train.run(registry.recipe(NAME, run.settings), run.seed, self.folder, device="cpu", show=False)
            assert_same_end(same.path, run.path)
            assert [file.name for file in run.path.glob("lease-*")] == []
            wait(lambda run=run: run.ends()[-1:] == ["complete"], f"no end: {run.story()}", 10)
