"""Where submitted things stand, from run directories and what a scheduler says."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from harness import attempts, lease
from harness.errors import RunConflict
from slurm import scheduler, states, submission
from slurm.profiles import Shape
from slurm.scheduler import Queued
from slurm.states import WORKER
from slurm.submission import Array, Item, Submission

ITEM = Item("vicreg_digits_r10w16_e50", 3, (), "0123456789ab")
FURTHER = Item("vicreg_digits_r10w16_e50", 3, (), "0123456789ab", "evaluate", ("linear",))
QUEUED = {name: Queued("12_3", name, "Priority") for name in ("PENDING", "RUNNING", "COMPLETING", "SUSPENDED")}


def note(path: Path, *events: dict[str, Any]) -> None:
    path.mkdir(parents=True, exist_ok=True)
    for event in events:
        attempts.append_line(path / "attempts.jsonl", {"time": "2026-03-01T12:00:00+00:00"} | event)


def began(number: int = 1, step: int = 0) -> dict[str, Any]:
    return {"event": "start", "attempt": number, "step": step}


def ended(number: int, status: str, reason: str = "") -> dict[str, Any]:
    return {"event": "end", "attempt": number, "step": 0, "status": status, "reason": reason}


def record(path: Path, *protocols: str, splits: tuple[str, ...] = ("held_out", "test")) -> None:
    path.mkdir(parents=True, exist_ok=True)
    rows = [{"protocol": name, "split": split} for name in protocols for split in splits]
    (path / "record.json").write_text(json.dumps({"evals": rows}))


def test_what_a_scheduler_says(tmp_path: Path) -> None:
    words = {name: states.of(ITEM, tmp_path, queued).word for name, queued in QUEUED.items()}
    assert words == {"PENDING": "pending", "RUNNING": "starting", "COMPLETING": "ending", "SUSPENDED": "ending"}
    assert states.of(ITEM, tmp_path, QUEUED["PENDING"]) == states.State("pending", "Priority", "12_3")
    held = Queued("12_3", "PENDING", "launch failed requeued held")
    assert states.of(ITEM, tmp_path, held) == states.State("held", "launch failed requeued held", "12_3")
    with _held(tmp_path):
        assert states.of(ITEM, tmp_path, QUEUED["RUNNING"]).word == "running"


def _held(runs: Path):  # type: ignore[no-untyped-def]
    ITEM.path(runs).mkdir(parents=True)
    return lease.hold(ITEM.path(runs), {"node": "node7"})


def test_a_run_that_no_scheduler_knows_is_running_if_somebody_holds_it(tmp_path: Path) -> None:
    with _held(tmp_path):
        state = states.of(ITEM, tmp_path, None)
    assert state.word == "running"
    assert state.why.endswith(" on node7")
    assert states.of(ITEM, tmp_path, None).word == "missing"


@pytest.mark.parametrize(
    ("events", "word", "why"),
    [
        ([], "missing", ""),
        ([began()], "stopped", "its last attempt ended without a word"),
        ([began(), ended(1, "timeout", "limit")], "stopped", "timeout: limit"),
        ([began(), ended(1, "cancelled", "by SLURM")], "cancelled", "cancelled: by SLURM"),
        ([began(), ended(1, "crashed"), began(2), ended(2, "killed"), began(3), ended(3, "crashed", "ValueError: x")],
         "stuck", "3 attempts in a row got no further; crashed: ValueError: x"),
        ([began(), ended(1, "crashed"), began(2), ended(2, "killed"), began(3), ended(3, "killed"), {"event": "asked"}],
         "stopped", ""),
        ([{"event": "refused", "reason": "no such data set"}], "refused", "no such data set"),
        ([{"event": "refused", "reason": "no"}, {"event": "asked"}, began(), {"event": "warning"}], "stopped",
         "its last attempt ended without a word"),
    ],
)  # fmt: skip
def test_at_rest(events: list[dict[str, Any]], word: str, why: str, tmp_path: Path) -> None:
    note(ITEM.path(tmp_path), *events)
    state = states.of(ITEM, tmp_path, None)
    assert (state.word, state.why) == (word, why)


def test_a_record_ends_it_and_a_mark_cancels_it(tmp_path: Path) -> None:
    path = ITEM.path(tmp_path)
    note(path, began(), ended(1, "collapsed"))
    attempts.cancel_mark(path).touch()
    assert states.of(ITEM, tmp_path, None).word == "cancelled"
    assert states.of(ITEM, tmp_path, Queued("7", WORKER, "")).word == "cancelled"
    attempts.cancel_mark(path).unlink()
    assert states.of(ITEM, tmp_path, Queued("7", WORKER, "")) == states.State("pending", "waits for a worker")
    record(path)
    assert states.of(ITEM, tmp_path, None).word == "collapsed"
    assert states.done(ITEM, tmp_path)


def test_evaluations_are_over_when_the_record_has_their_protocols(tmp_path: Path) -> None:
    path = ITEM.path(tmp_path)
    record(path, "knn_k20_t0.07")
    assert states.of(FURTHER, tmp_path, None).word == "missing"
    assert states.of(FURTHER, tmp_path, QUEUED["RUNNING"]).word == "running"
    attempts.refuse(path, "too few classes", ("linear",))
    assert states.of(FURTHER, tmp_path, None) == states.State("refused", "too few classes")
    attempts.ask(path)
    assert states.of(FURTHER, tmp_path, None).word == "missing"
    record(path, "knn_k20_t0.07", "linear", splits=("held_out",))
    assert states.of(FURTHER, tmp_path, None).word == "missing"  # a final of a study, whose test is to come
    record(path, "knn_k20_t0.07", "linear")
    assert states.of(FURTHER, tmp_path, None).word == "complete"


def made(runs: Path, *arrays: tuple[Item, ...]) -> Submission:
    shaped = tuple(Array(Shape(), items) for items in arrays)
    one = submission.make(
        runs, shaped, cluster="c", launcher="slurm", snapshot=runs / "s", commit=None, dirty=None, data_root=None
    )
    one.write()
    return submission.read(runs, one.id)


def test_one_question_to_the_scheduler_and_none_when_all_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = [Item("a_recipe", seed, (), "0123456789ab") for seed in range(5)]
    first, second = made(tmp_path, tuple(items[:2]), (items[2],)), made(tmp_path, tuple(items[3:]))
    asked = []

    def queue() -> dict[str, dict[int, Queued]]:
        asked.append(time.monotonic())
        return {first.name(0): {1: Queued("5_1", "PENDING", "Resources")}, second.name(0): {0: QUEUED["RUNNING"]}}

    monkeypatch.setattr(scheduler, "queue", queue)
    for item in (items[0], items[2]):
        note(item.path(tmp_path), began(), ended(1, "complete"))
        record(item.path(tmp_path))
    found = states.survey(submission.read_all(tmp_path))
    assert [found[item].word for item in items] == ["complete", "pending", "complete", "starting", "missing"]
    assert len(asked) == 1
    assert (first.folder / "finished").read_text() == "0.0 complete\n1.0 complete\n"
    for item in items:
        record(item.path(tmp_path))
    monkeypatch.setattr(scheduler, "queue", lambda: asked.append(0.0) or {})
    assert {state.word for state in states.survey(submission.read_all(tmp_path)).values()} == {"complete"}
    assert len(asked) == 2
    for item in items:  # what was seen finished is not looked at again
        (item.path(tmp_path) / "record.json").unlink()
    assert {state.word for state in states.survey(submission.read_all(tmp_path)).values()} == {"complete"}
    assert len(asked) == 2


def test_the_newest_submission_of_a_run_counts_unless_an_older_one_is_under_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    older, _ = made(tmp_path, (ITEM,)), made(tmp_path, (ITEM,))
    monkeypatch.setattr(scheduler, "queue", lambda: {older.name(0): {0: QUEUED["PENDING"]}})
    some = sorted(submission.read_all(tmp_path), key=lambda one: one.id != older.id)
    assert states.survey(some)[ITEM].word == "pending"
    monkeypatch.setattr(scheduler, "queue", dict)
    assert states.survey(some)[ITEM].word == "missing"


def test_a_damaged_submission_is_one_line(tmp_path: Path) -> None:
    one = made(tmp_path, (ITEM,))
    (one.folder / "submission.json").write_text("{")
    with pytest.raises(RunConflict, match="is damaged"):
        submission.read(tmp_path, one.id)
