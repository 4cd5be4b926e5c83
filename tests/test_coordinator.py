"""The coordinator against a cluster that is made up: whatever moment it is killed at, nothing is lost or done twice."""

import json
import math
import random
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from study_files import assert_storage_follows_files

from harness import attempts
from harness.errors import Refused, RunFailed, Unavailable
from harness.runs import append_line, now
from harness.signals import Stop
from harness.studies import optimise, request, selection
from harness.studies import study as studies
from harness.studies.study import Study
from slurm import coordinator, states
from slurm.coordinator import Coordinator
from slurm.states import State
from slurm.submission import Item

RECIPE = "vicreg_digits_r10w16_e50"
EPOCHS, EVERY = 6, 2


@dataclass
class Cluster:
    """Runs that go on whatever becomes of the coordinator: one epoch at each look."""

    runs: Path
    objective: str
    size: int = 0
    live: dict[Item, int] = field(default_factory=dict)  # and the epoch
    stopped: dict[Item, str] = field(default_factory=dict)
    starts: Counter[str] = field(default_factory=Counter)
    most: int = 0

    def step(self) -> None:
        for item in list(self.live):
            path = item.path(self.runs)
            path.mkdir(parents=True, exist_ok=True)
            if item.stage == "evaluate":
                record = json.loads((path / "record.json").read_text())
                record["evals"] += [row | {"split": "test"} for row in record["evals"]]
                (path / "record.json").write_text(json.dumps(record))
                self.live.pop(item)
                continue
            if not self.live[item]:
                append_line(path / "attempts.jsonl", {"event": "start", "attempt": 1, "time": now(), "steps": EPOCHS})
            self.live[item] = epoch = self.live[item] + 1
            value = quality(item) - 10 / epoch
            line: dict[str, Any] = {"step": epoch, "epoch": epoch}
            append_line(
                path / "metrics.jsonl",
                line | ({"held_out": {self.objective: value}} if epoch % EVERY == 0 else {}),
            )
            if epoch == EPOCHS:
                self.end(item, "complete", value)

    def end(self, item: Item, status: str, value: float | None) -> None:
        path, (protocol, _, metric) = item.path(self.runs), self.objective.rpartition("/")
        row = {"protocol": protocol, "split": "held_out", "n": 180, "metrics": {metric: value}}
        record = {"status": status, "reason": "", "steps": self.live.pop(item), "evals": [row] if value else []}
        append_line(path / "attempts.jsonl", {"event": "end", "attempt": 1, "time": now(), "status": status})
        (path / "record.json").write_text(json.dumps(record))


def quality(item: Item) -> float:
    """Best at the recipe's own variance, worse by a point of accuracy for each factor of e."""
    settings = dict(text.split("=", 1) for text in item.overrides)
    return 80 - abs(math.log(float(settings.get("method.variance", 25.0)) / 25))


class Slots:
    """As slurm.slots.Slots, on the cluster of `hold`."""

    cluster: Cluster

    def __init__(self, runs: Path, name: str, size: int, code: Path, data_root: Path | None, say: Any) -> None:
        self.cluster.size = size
        self.wanted: dict[Item, None] = {}
        self.live: dict[Item, None] = {}

    def want(self, items: Iterable[Item], new: bool = False) -> None:
        for item in items:
            (self.live if item in self.cluster.live else self.wanted)[item] = None

    def look(self) -> dict[Item, State]:
        self.cluster.step()
        ended = {}
        for item in list(self.live):
            if item in self.cluster.stopped and item not in self.cluster.live:
                ended[item] = State("cancelled", self.cluster.stopped[item])
            elif states.done(item, self.cluster.runs):
                ended[item] = State("complete")
        for item in ended:
            self.live.pop(item)
        return ended

    def stop(self, why: dict[Item, str]) -> None:
        for item, reason in why.items():
            self.wanted.pop(item, None)
            self.live[item] = None
            self.cluster.stopped[item] = reason
            self.cluster.live.pop(item, None)

    def fill(self) -> None:
        for item in list(self.wanted):
            if len(self.live) < self.cluster.size:
                self.wanted.pop(item)
                self.live[item] = None
                if not states.done(item, self.cluster.runs):
                    self.cluster.live[item] = 0
                    self.cluster.starts[f"{item} {item.stage} {item.digest}"] += 1
                    self.cluster.most = max(self.cluster.most, len(self.cluster.live))


Make = Callable[..., tuple[Study, Cluster]]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """A study and the cluster that it runs on."""
    monkeypatch.setattr(coordinator, "Slots", Slots)
    monkeypatch.setattr(coordinator, "code_of", lambda study, runs: runs)
    monkeypatch.setattr(coordinator, "LOOK_S", 0)
    monkeypatch.setattr("os.fsync", lambda descriptor: None)  # a third of the time

    def made(folder: str = "runs", **given: Any) -> tuple[Study, Cluster]:
        runs = tmp_path / folder
        given = {
            "trials": 12, "parameters": ("variance",), "pruner": "median", "seeds_final": 2, "every": EVERY,
            "overrides": (f"budget.epochs={EPOCHS}", "budget.warmup=0"),
        } | given  # fmt: skip
        study = request.study(RECIPE, given, runs)
        Slots.cluster = Cluster(runs, study.objective)
        return study, Slots.cluster

    return made


def work(study: Study, cluster: Cluster, parallel: int = 3, said: list[str] | None = None) -> Coordinator:
    """Until the study is over."""
    one = Coordinator(study, cluster.runs, "made-up", parallel, None, (said if said is not None else []).append)
    one.work(Stop())
    return one


def check(study: Study, cluster: Cluster) -> None:
    """Exactly as many trials as asked for, each told once, and Optuna's storage tells what the files tell."""
    trials = studies.read_trials(cluster.runs, study.name)
    assert [trial.number for trial in trials] == list(range(study.trials))
    assert {trial.outcome for trial in trials} <= {"complete", "pruned", "collapsed", "diverged", "failed"}
    assert max(cluster.starts.values()) == 1, cluster.starts.most_common(3)
    assert_storage_follows_files(study, cluster.runs)


def test_a_study_from_start_to_end(make: Make) -> None:
    study, cluster = make()
    said: list[str] = []
    work(study, cluster, said=said)
    check(study, cluster)
    trials = studies.read_trials(cluster.runs, study.name)
    outcomes = Counter(trial.outcome for trial in trials)
    assert outcomes["complete"] >= 5
    assert outcomes["pruned"] >= 1
    assert {trial.why for trial in trials if trial.outcome == "pruned"} <= {
        f"pruned by median at epoch {epoch}" for epoch in (2, 4)
    }
    assert trials[0].params == {"variance": 25.0}  # the recipe's own
    assert cluster.most == 3
    assert len(said) == study.trials + 1
    final = studies.read_final(cluster.runs, study.name)
    assert final
    assert [one.label for one in final.finalists] == [
        "default",
        *(f"trial {t.number}" for t in selection.ranked(trials)[1:3]),
    ]
    assert (final.seeds, final.winner) == ((0, 1), 0)  # nothing is better than the default here
    tested = [item for item in cluster.starts if "evaluate" in item]
    assert len(tested) == 2  # the default's two runs, and no other


def test_a_better_setting_wins_and_is_tested_beside_the_default(make: Make) -> None:
    study, cluster = make(
        overrides=(f"budget.epochs={EPOCHS}", "budget.warmup=0", "method.variance=1.0"), seeds_final=3
    )
    work(study, cluster)
    final = studies.read_final(cluster.runs, study.name)
    assert final
    assert final.winner in (1, 2)
    values, n = selection.final_values(study, cluster.runs, final, "test")
    assert {digest for digest, found in values.items() if None not in found} == {
        final.finalists[0].digest, final.finalists[final.winner].digest,
    }  # fmt: skip
    assert n == 180
    found = selection.compare_runs(study, cluster.runs, final)
    assert found[final.winner].word == "better"


class Killed(BaseException):
    """As kill -9: nothing can be done about it."""


@pytest.mark.parametrize("sampler", ["tpe", "grid"])
def test_killed_at_any_moment(make: Make, monkeypatch: pytest.MonkeyPatch, sampler: str) -> None:
    """Before and after each write of a file, of Optuna's storage, and each submission."""
    left = [0]

    def dying(function: Callable[..., Any]) -> Callable[..., Any]:
        def called(*arguments: Any, **named: Any) -> Any:
            for moment in ("before", "after"):
                left[0] -= 1
                if left[0] == 0:
                    raise Killed
                if moment == "before":
                    found = function(*arguments, **named)
            return found

        return called

    monkeypatch.setattr(studies, "write_atomically", dying(studies.write_atomically))
    monkeypatch.setattr(Slots, "fill", dying(Slots.fill))
    monkeypatch.setattr(Slots, "stop", dying(Slots.stop))
    backend = optuna.storages.journal.JournalFileBackend
    monkeypatch.setattr(backend, "append_logs", dying(backend.append_logs))
    kills = 0
    for first in range(1, 9):
        study, cluster = make(f"runs{first}", sampler=sampler, trials=6, finalists=1, seeds_final=2)
        left[0], died = first, True
        while died:
            died = False
            try:
                work(study, cluster)
            except Killed:
                kills, died = kills + 1, True
                left[0] = 12 + (first + kills) % 17  # now and then within the start, which writes, too
        left[0] = 0
        check(study, cluster)
    assert kills > 50


def test_collapse_divergence_and_failure(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A collapsed trial is not the best, even if its features are; a diverged one has no value."""
    study, cluster = make(trials=8, pruner="none")
    fates = iter(["complete", "collapsed", "diverged", "complete"] * 2)
    ends: dict[str, str] = {}
    original = Cluster.end

    def end(self: Cluster, item: Item, status: str, value: float | None) -> None:
        if item.seed == study.seed:
            status = ends.setdefault(item.digest, next(fates))
        original(self, item, status, {"collapsed": 99.0, "diverged": None}.get(status, value))

    monkeypatch.setattr(Cluster, "end", end)
    work(study, cluster)
    check(study, cluster)
    trials = studies.read_trials(cluster.runs, study.name)
    assert Counter(trial.outcome for trial in trials) == {"complete": 4, "collapsed": 2, "diverged": 2}
    assert {trial.value for trial in trials if trial.outcome == "collapsed"} == {99.0}
    assert all(trial.outcome == "complete" for trial in selection.ranked(trials))
    stored = optimise.Optimiser(study, cluster.runs).optuna
    assert stored.best_trial.number == selection.ranked(trials)[0].number


def test_trials_that_all_fail_end_the_study_early(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    study, cluster = make()
    look = Slots.look

    def refused(self: Slots) -> dict[Item, State]:
        found = dict.fromkeys(self.live, State("refused", "no such data"))
        self.live.clear()
        look(self)
        return found

    monkeypatch.setattr(Slots, "look", refused)
    with pytest.raises(RunFailed, match=r"all of the first 3 trials of '.*' failed: no such data"):
        work(study, cluster)


def test_settings_that_the_recipe_cannot_take_are_a_failed_trial(make: Make) -> None:
    together = ("budget.warmup=5|0", f"budget.epochs=3|{EPOCHS}")
    study, cluster = make(parameters=together, sampler="grid", trials=4)
    work(study, cluster)
    check(study, cluster)
    trials = studies.read_trials(cluster.runs, study.name)
    assert [trial.outcome for trial in trials] == ["failed", "complete", "complete", "complete"]
    assert "warm-up of 5 epochs is longer than the run of 3" in trials[0].why


def test_more_trials_and_seeds_can_be_asked_for_later(make: Make) -> None:
    study, cluster = make(trials=3)
    work(study, cluster)
    check(study, cluster)
    before = studies.read_final(cluster.runs, study.name)
    work(study, cluster)
    assert studies.read_final(cluster.runs, study.name) == before
    more = request.study(RECIPE, {"trials": 12, "seeds_final": 4}, cluster.runs)
    work(more, cluster)
    check(more, cluster)
    after = studies.read_final(cluster.runs, study.name)
    assert before
    assert after
    assert after.seeds == (0, 1, 2, 3)
    assert [one.trial for one in after.finalists] != [one.trial for one in before.finalists]
    assert after.winner is not None


@pytest.mark.parametrize("error", [Unavailable("slurmctld does not answer"), Refused("sbatch refused: no more")])
def test_what_is_down_is_waited_for_unless_it_is_down_at_first(
    make: Make, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    study, cluster = make(trials=3, seeds_final=0)
    monkeypatch.setattr(coordinator.time, "sleep", lambda seconds: None)
    down = {0}
    number = [0]
    fill = Slots.fill

    def filled(self: Slots) -> None:
        number[0] += 1
        if number[0] - 1 in down:
            raise error
        fill(self)

    monkeypatch.setattr(Slots, "fill", filled)
    with pytest.raises(type(error)):
        work(study, cluster)
    down |= {5, 6, 7}
    said: list[str] = []
    work(study, cluster, said=said)
    check(study, cluster)
    assert [text for text in said if text.startswith(str(error))] == [f"{error}; looking again"]


@pytest.mark.parametrize("seed", range(4))
def test_a_storage_that_fails_now_and_then_misses_nothing(
    make: Make, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Trials that end together, the pruner's word, and a trial asked for but not yet written are not forgotten."""
    study, cluster = make(trials=12, seeds_final=0)
    monkeypatch.setattr(coordinator.time, "sleep", lambda seconds: None)
    calls, plain, draws = [0], optuna.Study.get_trials, random.Random(seed)

    def answer(self: optuna.Study, *args: Any, **options: Any) -> Any:
        calls[0] += 1
        if calls[0] > 10 and draws.random() < 0.1:
            raise OSError("down")
        return plain(self, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(optuna.Study, "get_trials", answer)
        work(study, cluster)
    assert calls[0] > 50
    check(study, cluster)


def test_a_locked_database_under_way_is_waited_for(make: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    study, cluster = make(trials=6, seeds_final=0, storage=f"sqlite:///{tmp_path / 'optuna.db'}")
    monkeypatch.setattr(optimise, "WAIT_S", 0.1)
    other = sqlite3.connect(tmp_path / "optuna.db", isolation_level=None, timeout=10)
    waits = []

    def sleep(seconds: float) -> None:
        if not waits and not other.in_transaction:
            other.execute("BEGIN EXCLUSIVE")
        if other.in_transaction and seconds:
            waits.append(seconds)
            if len(waits) == 3:
                other.execute("COMMIT")

    monkeypatch.setattr(coordinator.time, "sleep", sleep)
    said: list[str] = []
    work(study, cluster, said=said)
    other.close()
    assert len(waits) == 3
    assert sum("database is locked; what its trials found is in" in text for text in said) == 1
    check(study, cluster)


def test_two_trials_with_the_same_settings_share_a_run(make: Make) -> None:
    study, cluster = make(
        trials=8, seeds_final=0, pruner="none", sampler="random", parameters=("method.variance=5|25",)
    )
    work(study, cluster)
    check(study, cluster)
    assert len(cluster.starts) == 2


def test_pruning_ends_the_run_and_not_at_the_last_epoch(make: Make) -> None:
    study, cluster = make(trials=10, pruner="hyperband", seeds_final=0)
    work(study, cluster)
    check(study, cluster)
    trials = studies.read_trials(cluster.runs, study.name)
    pruned = [trial for trial in trials if trial.outcome == "pruned"]
    assert pruned
    assert all(trial.step < EPOCHS and trial.stop == trial.why for trial in pruned)
    assert {item.digest for item in cluster.stopped} == {trial.digest for trial in pruned}
    for item in cluster.stopped:  # the made-up jobs die without a word
        (end,) = [line for line in attempts.read(item.path(cluster.runs)) if line["event"] == "end"]
        assert (end["status"], end["reason"], end["found"]) == ("cancelled", cluster.stopped[item], True)


def test_two_studies_share_a_run(make: Make) -> None:
    """The default's run is one of both. When one study ends it, the other has it go on."""
    study, cluster = make(trials=3, pruner="none", seeds_final=0)
    other = request.study(RECIPE, {"name": "other", "trials": 3, "parameters": ("variance",), "pruner": "none",
        "overrides": study.overrides, "every": EVERY, "seeds_final": 0}, cluster.runs)  # fmt: skip
    one = Coordinator(study, cluster.runs, "made-up", 1, None, lambda text: None)
    two = Coordinator(other, cluster.runs, "made-up", 1, None, lambda text: None)
    one.look()
    two.look()
    shared = one.item(one.trials[0])
    assert shared == two.item(two.trials[0])
    one.keep(replace(one.trials[0], stop="pruned by median at epoch 1"))
    one.slots.stop({shared: "pruned by median at epoch 1"})
    two.look()  # sees that it was cancelled
    cluster.stopped.clear()
    one.slots.live.pop(shared)
    one.tell(one.trials[0], State("cancelled", "pruned by median at epoch 1"))
    two.work(Stop())
    assert [trial.outcome for trial in studies.read_trials(cluster.runs, "other")] == ["complete"] * 3
    assert one.trials[0].outcome == "pruned"
