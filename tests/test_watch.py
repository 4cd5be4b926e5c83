"""The table of submitted runs, and which log is shown."""

import io
from pathlib import Path

import pytest
from rich.console import Console
from run_directories import write_run

from harness import attempts
from harness.errors import Unavailable, UnknownName
from slurm import scheduler, submission, watch
from slurm.profiles import Shape
from slurm.scheduler import Queued
from slurm.submission import Array, Item, Submission

NAME, OTHER = "vicreg_digits_r10_e60", "simclr_digits_r10_e60"


def made(runs: Path, *items: Item) -> Submission:
    fields = {"cluster": "c", "launcher": "slurm", "snapshot": runs, "commit": None, "dirty": None, "data_root": None}
    one = submission.make(runs, (Array(Shape(), items),), **fields)
    one.write()
    return one


@pytest.fixture
def field(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Submission:
    """A finished run, one in its second attempt, one that waits."""
    items = [Item(NAME, 0, (), "0123456789ab"), Item(NAME, 1, (), "0123456789ab"), Item(OTHER, 0, (), "0123456789ab")]
    one = made(tmp_path, *items)
    write_run(tmp_path, NAME, 0)
    path = write_run(tmp_path, NAME, 1, status=None, until=32)
    log = one.jobs / "12_1_0_log.out"
    log.write_text("first line\nsecond line\n")
    line = {
        "event": "start",
        "attempt": 2,
        "step": 8,
        "steps": 64,
        "time": "2026-03-01T12:00:00+00:00",
        "log": str(log),
    }
    attempts.append_line(path / "attempts.jsonl", line)
    jobs = {1: Queued("12_1", "RUNNING", "None"), 2: Queued("12_2", "PENDING", "Priority")}
    monkeypatch.setattr(scheduler, "queue", lambda: {one.name(0): jobs})
    return one


def shown(runs: Path, *names: str, rows: int = 0) -> list[list[str]]:
    text = io.StringIO()
    Console(file=text, width=200).print(watch.table(runs, watch.look(runs, names), rows))
    return [line.split() for line in text.getvalue().splitlines() if "seed" in line]


def test_a_row_per_run_those_at_work_first(field: Submission, tmp_path: Path) -> None:
    running, waiting, finished = shown(tmp_path)
    assert running == [NAME, "seed", "1", "starting", "12_1", "2", "5/60", "1000", "16.46", "0:00:04"]
    assert waiting == [OTHER, "seed", "0", "pending", "12_2", "Priority"]
    assert finished[:4] == [NAME, "seed", "0", "complete"]
    assert len(shown(tmp_path, rows=2)) == 2
    assert watch.summary(watch.look(tmp_path, ())) == "3 runs: 1 starting, 1 pending, 1 complete"


def test_choosing_by_submission_recipe_or_pattern(field: Submission, tmp_path: Path) -> None:
    assert len(shown(tmp_path, field.id[:12])) == 3
    assert len(shown(tmp_path, NAME)) == 2
    assert len(shown(tmp_path, "simclr_*")) == 1
    with pytest.raises(UnknownName, match="no submission or submitted recipe 'vicrg_digits_r10_e60'; did you mean"):
        shown(tmp_path, "vicrg_digits_r10_e60")


def test_the_log_of_the_newest_attempt(field: Submission, tmp_path: Path) -> None:
    log = watch.log_file(tmp_path, NAME, 1)
    assert log.read_text() == "first line\nsecond line\n"
    assert "".join(watch.follow(log, lambda: False)) == "first line\nsecond line\n"
    with pytest.raises(Unavailable, match="simclr_digits_r10_e60 seed 0 has no log yet; `harness status"):
        watch.log_file(tmp_path, OTHER, 0)
    (field.jobs / "12_2_0_log.out").write_text("it died before its attempt began")
    assert watch.log_file(tmp_path, OTHER, 0).name == "12_2_0_log.out"
    with pytest.raises(UnknownName, match="no submitted seed of this recipe '7'; known: 0, 1"):
        watch.log_file(tmp_path, NAME, 7)


def test_nothing_was_submitted(tmp_path: Path) -> None:
    with pytest.raises(
        Unavailable, match=r"nothing was submitted from .*; `harness submit RECIPE --cluster NAME` does"
    ):
        watch.look(tmp_path, ())
