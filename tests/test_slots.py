"""Slots: as many jobs as the cluster takes, each item once, and what is lost is started again."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

from harness.errors import Refused
from harness.runs import cancel_mark
from slurm import control, scheduler, slots, states, submission
from slurm.slots import Slots
from slurm.states import State
from slurm.submission import Item
from slurm.submit import Report

Made = tuple[Slots, "Cluster"]


class Cluster:
    """Takes `room` jobs. words: what a survey says of an item; batches: the sizes of what was submitted."""

    def __init__(self) -> None:
        self.room = 100
        self.words: dict[Item, str] = {}
        self.batches: list[tuple[int, bool]] = []
        self.said: list[str] = []
        self.stopped: list[str] = []

    def submit(self, items: Sequence[Item], *_: Any, asked: bool, **__: Any) -> Report:
        if len([word for word in self.words.values() if word in states.IN_FLIGHT]) + len(items) > self.room:
            raise Refused("sbatch refused: AssocMaxSubmitJobLimit")
        self.batches.append((len(items), asked))
        self.words |= dict.fromkeys(items, "pending")
        return Report(submitted=len(items))

    def survey(self, made: Iterable[Any]) -> dict[Item, State]:
        return {item: State(word, job="7") for item, word in self.words.items()}


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int, str], Made]:
    cluster = Cluster()
    monkeypatch.setattr(slots, "submit", cluster.submit)
    monkeypatch.setattr(states, "survey", cluster.survey)
    monkeypatch.setattr(states, "of", lambda item, runs, queued: State(cluster.words.get(item, "missing")))
    monkeypatch.setattr(states, "done", lambda item, runs: cluster.words.get(item) in states.OVER)
    monkeypatch.setattr(submission, "read_all", lambda runs: [])
    monkeypatch.setattr(scheduler, "release", lambda ids: cluster.stopped.extend(f"released {id}" for id in ids))
    monkeypatch.setattr(scheduler, "cancel", lambda ids: cluster.stopped.extend(ids))
    monkeypatch.setattr(slots, "ASK_S", 0.0)

    def make(size: int, name: str = "example") -> Made:
        return Slots(tmp_path, name, size, tmp_path, None, cluster.said.append), cluster

    return make


def items(count: int) -> list[Item]:
    return [Item("vicreg_digits_r10w16_e50", seed, (), f"{seed:012d}") for seed in range(count)]


def test_free_slots_are_filled_with_one_array(made: Callable[..., Made]) -> None:
    pool, cluster = made(4)
    pool.want(items(10))
    pool.fill()
    assert (cluster.batches, len(pool.live), len(pool.wanted)) == ([(4, True)], 4, 6)
    done = items(10)[:2]
    cluster.words |= dict.fromkeys(done, "complete")
    assert {item: state.word for item, state in pool.look().items()} == dict.fromkeys(done, "complete")
    pool.fill()
    assert (cluster.batches[1:], len(pool.live), len(pool.wanted)) == ([(2, True)], 4, 4)


def test_on_this_machine_each_item_is_a_launch_of_its_own(made: Callable[..., Made]) -> None:
    pool, cluster = made(3, "local")
    pool.want(items(5))
    pool.fill()
    assert cluster.batches == [(1, True)] * 3
    assert sorted(pool.places.values()) == [0, 1, 2]


def test_more_than_the_account_allows(made: Callable[..., Made]) -> None:
    """One line; what is taken goes on, and is topped up when there is room."""
    pool, cluster = made(16)
    cluster.room = 5
    pool.want(items(16))
    pool.fill()
    assert len(pool.live) == 5
    assert sum(count for count, _ in cluster.batches) == 5
    (line,) = cluster.said
    assert line == (
        "the cluster takes no more than 5 of these jobs for now: sbatch refused: AssocMaxSubmitJobLimit; "
        "the others follow as these end"
    )
    pool.fill()
    assert len(cluster.said) == 1  # and is not asked again at once
    cluster.words[items(1)[0]] = "complete"
    pool.look()
    pool.fill()
    assert len(pool.live) == 5


def test_a_cluster_that_takes_none_is_an_error(made: Callable[..., Made]) -> None:
    pool, cluster = made(4)
    cluster.room = 0
    pool.want(items(4))
    with pytest.raises(Refused, match="AssocMaxSubmitJobLimit"):
        pool.fill()


def test_what_is_lost_is_started_again_and_what_needs_a_person_is_told(made: Callable[..., Made]) -> None:
    pool, cluster = made(5)
    one, two, three, four, five = items(5)
    pool.want(items(5))
    pool.fill()
    cluster.words |= {one: "missing", two: "stopped", three: "stuck", four: "refused", five: "held"}
    assert {item: state.word for item, state in pool.look().items()} == {three: "stuck", four: "refused"}
    assert cluster.stopped == ["released 7"]
    pool.fill()
    assert cluster.batches == [(5, True), (2, False)]  # not by a person: three fruitless attempts stay three
    assert set(pool.live) == {one, two, five}


def test_stopping(made: Callable[..., Made], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mark is there before the signal; a job that goes on is asked again; one that waited is told, too."""
    pool, cluster = made(1)
    running, waiting = items(2)
    pool.want(items(2))
    pool.fill()
    cluster.words[running] = "running"
    held = {running.path(tmp_path)}
    monkeypatch.setattr(slots.lease, "holder", lambda path: {"host": "elsewhere"} if path in held else None)
    monkeypatch.setattr(control.lease, "holder", slots.lease.holder)
    pool.stop({running: "pruned by median at epoch 4", waiting: "pruned"})
    assert cancel_mark(running.path(tmp_path)).read_text() == "pruned by median at epoch 4"
    assert cluster.stopped == ["7"]
    assert {item: state.why for item, state in pool.look().items()} == {waiting: "pruned"}
    assert cluster.stopped == ["7", "7"]
    held.clear()
    assert {item: state.word for item, state in pool.look().items()} == {running: "cancelled"}
    assert not pool.live
    assert not pool.stopping


def test_runs_under_way_are_adopted(made: Callable[..., Made], monkeypatch: pytest.MonkeyPatch) -> None:
    pool, cluster = made(4)
    one, two, three = items(3)

    class Earlier:
        def items(self) -> list[tuple[str, int, Item]]:
            return [("harness-x.0", 0, one), ("harness-x.0", 1, two)]

    monkeypatch.setattr(submission, "read_all", lambda runs: [Earlier()])
    cluster.words |= {one: "running", two: "stopped"}
    pool.want([one, two, three])
    assert list(pool.live) == [one]
    pool.fill()
    assert cluster.batches == [(2, True)]
