"""Attempts: every start of a run on a machine, how it ended, and when to stop trying.

attempts.jsonl holds a "start" line and an "end" line of each attempt, and between them warnings. An end says a status
and a reason:

complete, diverged, collapsed   the run is over; it has a record
preempted, requeued             the scheduler took the machine back
timeout                         the job's time limit came
node_fail                       the machine was lost
killed                          the process ended without a word: kill -9, out of memory
cancelled                       somebody asked for it
interrupted                     another signal
crashed                         an error; the reason is its text

An attempt that could not write its end has it written by whoever finds it dead, marked `found`. Beside these there are
"refused" (a run that could not start) and "asked" (somebody wants it in spite of what was).
"""

import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from harness.lease import hold
from harness.runs import RunDirectory, append_line, cancel_mark, now, read_lines

OVER = ("complete", "diverged", "collapsed")
NO_FAULT = ("preempted", "requeued", "cancelled", "interrupted")  # of the run: they say nothing about its chances
BUDGET = 3  # attempts in a row that got no further than the one before, before nobody tries again by itself


@dataclass(frozen=True)
class Place:
    """Where an attempt runs, and what can be known there about its end. This one is any machine without a scheduler.

    fields: what its start line says beside host and process, e.g. the job.
    """

    fields: dict[str, Any] = field(default_factory=dict)

    def interrupted(self, signal: str) -> tuple[str, str]:
        """Status and reason of this attempt, which got a signal."""
        return "interrupted", signal

    def vanished(self, start: dict[str, Any]) -> tuple[str, str]:
        """Status and reason of an earlier attempt that wrote no end, from its start line."""
        return "killed", "it ended without a word: killed, or its machine was lost"


def begin(directory: RunDirectory, step: int, steps: int, place: Place) -> int:
    """Write the start of an attempt at `step` of `steps`, and the end of one before it that wrote none.

    Returns its number.
    """
    lines = read(directory.path)
    marks = [line for line in lines if line["event"] in ("start", "end")]
    if marks and marks[-1]["event"] == "start":
        last = marks[-1]
        status, reason = place.vanished(last)
        end(directory, last["attempt"], step, status, reason, found=True)
    number = sum(line["event"] == "start" for line in lines) + 1
    here = {"host": socket.gethostname(), "pid": os.getpid()}
    _append(
        directory,
        {"attempt": number, "event": "start", "time": now(), "step": step, "steps": steps} | here | place.fields,
    )
    return number


def end(directory: RunDirectory, number: int, step: int, status: str, reason: str, **more: Any) -> None:
    line = {"attempt": number, "event": "end", "time": now(), "step": step, "status": status, "reason": reason}
    _append(directory, line | more)


def warn(directory: RunDirectory, text: str) -> None:
    _append(directory, {"event": "warning", "time": now(), "reason": text})


def ask(path: Path) -> None:
    """Somebody asks for this run again: earlier attempts and cancellations no longer count. Errors: Held."""
    cancel_mark(path).unlink(missing_ok=True)
    if read(path):
        with hold(path, {}):
            append_line(path / "attempts.jsonl", {"event": "asked", "time": now()})


def refuse(path: Path, reason: str, protocols: Sequence[str] = ()) -> None:
    """Note that a run could not start, and that trying again by itself would not help. Errors: Held, NotWritable.

    protocols: those that could not evaluate a finished run.
    """
    path.mkdir(parents=True, exist_ok=True)
    line = {"event": "refused", "time": now(), "reason": reason}
    with hold(path, {}):
        append_line(path / "attempts.jsonl", line | ({"protocols": list(protocols)} if protocols else {}))


def bury(path: Path, status: str, reason: str) -> None:
    """Write the end of the last attempt, which is dead, if it wrote none. Errors: Held if it lives."""
    marks = [line for line in read(path) if line["event"] in ("start", "end")]
    if marks and marks[-1]["event"] == "start":
        line = {"event": "end", "time": now(), "step": reached(path), "status": status, "reason": reason}
        with hold(path, {}):
            append_line(path / "attempts.jsonl", {"attempt": marks[-1]["attempt"]} | line | {"found": True})


def read(path: Path) -> list[dict[str, Any]]:
    """All lines of a run directory's attempts.jsonl."""
    return read_lines(path / "attempts.jsonl")


def reached(path: Path) -> int:
    """Step of the newest checkpoint of a run directory, by its name."""
    return max((int(file.stem.removeprefix("checkpoint-")) for file in path.glob("checkpoint-*.pt")), default=0)


def seconds(lines: list[dict[str, Any]]) -> float:
    """What the attempts took together; one that is under way counts as nothing."""
    starts = {line["attempt"]: line["time"] for line in lines if line["event"] == "start"}
    ends = {line["attempt"]: line["time"] for line in lines if line["event"] == "end"}
    spans = [datetime.fromisoformat(ends[n]) - datetime.fromisoformat(starts[n]) for n in ends if n in starts]
    return sum(span.total_seconds() for span in spans)


def fruitless(lines: list[dict[str, Any]], reached: int) -> int:
    """Attempts in a row, the newest last, that ended by a fault of their own and got no further.

    reached: step of the newest checkpoint. Only what came after the last "asked" counts.
    """
    count, furthest = 0, 0
    ends = {line["attempt"]: line["status"] for line in lines if line["event"] == "end"}
    for line in lines:
        if line["event"] == "asked":
            count = 0
        if line["event"] != "start":
            continue
        if line["step"] > furthest:
            count, furthest = 0, line["step"]
        count += ends.get(line["attempt"]) not in NO_FAULT
    return 0 if reached > furthest else count


def _append(directory: RunDirectory, line: dict[str, Any]) -> None:
    directory.append("attempts.jsonl", line)
