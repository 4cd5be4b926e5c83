"""When to stop trying: attempts in a row that ended by a fault of their own and got no further."""

from pathlib import Path
from typing import Any

import pytest

from harness import attempts


def lines(*story: tuple[int, str]) -> list[dict[str, Any]]:
    """Attempts as (step at the start, status of the end); "" for one that wrote no end, "asked" for a request."""
    found: list[dict[str, Any]] = []
    for number, (step, status) in enumerate(story, 1):
        if status == "asked":
            found.append({"event": "asked"})
            continue
        found.append({"event": "start", "attempt": number, "step": step})
        if status:
            found.append({"event": "end", "attempt": number, "step": step, "status": status})
    return found


@pytest.mark.parametrize(
    ("story", "reached", "count"),
    [
        ([], 0, 0),
        ([(0, "killed")], 0, 1),
        ([(0, "killed"), (0, "crashed"), (0, "")], 0, 3),
        ([(0, "killed"), (0, "crashed"), (0, "killed")], 40, 0),  # it died three times, but left a checkpoint
        ([(0, "killed"), (0, "killed"), (40, "killed")], 40, 1),
        ([(0, "killed"), (40, "timeout"), (40, "timeout"), (40, "timeout")], 40, 3),
        ([(0, "preempted"), (0, "requeued"), (0, "cancelled"), (0, "interrupted")], 0, 0),  # no fault of its own
        ([(0, "killed"), (0, "preempted"), (0, "killed")], 0, 2),
        ([(0, "killed"), (0, "killed"), (0, "killed"), (0, "asked")], 0, 0),
        ([(0, "killed"), (0, "killed"), (0, "asked"), (0, "killed")], 0, 1),
        ([(40, "killed"), (20, "killed")], 40, 2),  # its newest checkpoint was damaged: still no further
    ],
)
def test_fruitless(story: list[tuple[int, str]], reached: int, count: int) -> None:
    assert attempts.fruitless(lines(*story), reached) == count


def test_asking_again_forgives_and_lifts_a_cancellation(tmp_path: Path) -> None:
    attempts.refuse(tmp_path, "no data")
    attempts.cancel_mark(tmp_path).touch()
    attempts.ask(tmp_path)
    assert [line["event"] for line in attempts.read(tmp_path)] == ["refused", "asked"]
    assert not attempts.cancel_mark(tmp_path).exists()


def test_the_end_of_a_dead_attempt_is_written_once(tmp_path: Path) -> None:
    start = {"event": "start", "attempt": 4, "step": 10, "time": "2026-03-01T12:00:00+00:00"}
    attempts.append_line(tmp_path / "attempts.jsonl", start)
    (tmp_path / "checkpoint-00000030.pt").touch()
    for _ in range(2):
        attempts.bury(tmp_path, "killed", "by signal 9")
    (end,) = [line for line in attempts.read(tmp_path) if line["event"] == "end"]
    assert (end["attempt"], end["status"], end["step"], end["found"]) == (4, "killed", 30, True)
