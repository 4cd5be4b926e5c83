"""Optuna's part of a study: samplers, pruners, and a storage that follows the files whatever is killed or lost."""

import json
import os
import sqlite3
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import log10
from pathlib import Path
from typing import Any, get_args

import optuna
import pytest
from optuna.trial import TrialState

from harness.errors import BadCommand, HarnessError, RunConflict, Unavailable
from harness.studies import optimise, request
from harness.studies import study as studies
from harness.studies.optimise import Optimiser
from harness.studies.study import Pruner, Sampler, Study, Trial

RECIPE = "vicreg_digits_r10w16_e50"
NUMBERS = ("variance", "optimiser.lr=1e-4..1e-2:log", "budget.warmup=0..10", "budget.batch=32..256:log")
CHOICES = ("method.widths=(256,256,256)|(32,)", "budget.batch=64|128", "views.0.flip=0|0.5")


@pytest.fixture(autouse=True)
def _no_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each line of a journal is synced to the disk, which takes most of these tests' time."""
    monkeypatch.setattr(os, "fsync", lambda file: None)


def made(runs: Path, *parameters: str, **given: Any) -> Study:
    """A study with its files, as a coordinator begins one."""
    asked = request.study(RECIPE, {"parameters": parameters or NUMBERS, "trials": 100} | given, runs)
    studies.write(asked, runs)
    return asked


def quality(trial: Trial) -> float:
    return 90 - 5 * abs(log10(trial.params.get("lr", 1e-3)) + 3) - trial.params.get("warmup", 0)


def rising(top: float, epochs: int = 50, every: int = 2) -> dict[int, float]:
    return {epoch: top * epoch / epochs for epoch in range(every, epochs + 1, every)}


class Files:
    """What a coordinator does, without runs: each trial has a curve that rises to its quality."""

    def __init__(self, study: Study, runs: Path) -> None:
        self.study, self.runs = study, runs
        self.optimiser = Optimiser(study, runs)
        for trial in self.optimiser.follow(self.trials(), self.curve):
            self.keep(trial)

    def trials(self) -> list[Trial]:
        return studies.read_trials(self.runs, self.study.name)

    def keep(self, trial: Trial) -> Trial:
        studies.write_trial(self.runs, self.study.name, trial)
        return trial

    def curve(self, trial: Trial) -> Mapping[int, float]:
        return {} if trial.outcome == "failed" else rising(quality(trial), every=10)

    def ask(self) -> Trial:
        return self.keep(self.optimiser.ask())

    def end(self, trial: Trial, outcome: str = "complete") -> Trial:
        value = quality(trial) if outcome in ("complete", "collapsed") else None
        trial = self.keep(replace(trial, outcome=outcome, value=value, why="" if value else outcome))
        self.optimiser.tell(trial, self.curve(trial))
        return trial

    def work(self, count: int) -> list[Trial]:
        return [self.end(self.ask()) for _ in range(count)]

    def stored(self) -> list[optuna.trial.FrozenTrial]:
        return self.optimiser.optuna.get_trials(deepcopy=False)


def contents(stored: Sequence[optuna.trial.FrozenTrial]) -> list[Any]:
    return [(one.number, one.state, one.values, one.params, one.intermediate_values, one.user_attrs) for one in stored]


# ---------------------------------------------------------------------------------------------- samplers, pruners


@pytest.mark.parametrize("name", [name for name in get_args(Sampler) if name != "grid"])
@pytest.mark.parametrize("parameters", [NUMBERS, CHOICES, (NUMBERS[1], CHOICES[0], "budget.warmup=0..10")])
def test_a_sampler_proposes_what_the_recipe_can_take_the_default_first_and_nothing_twice(
    tmp_path: Path, name: str, parameters: tuple[str, ...], capfd: pytest.CaptureFixture[str]
) -> None:
    study = made(tmp_path, *parameters, sampler=name)
    files = Files(study, tmp_path)
    waiting = [files.ask(), files.ask()]  # two side by side
    for _ in range(16):
        files.end(waiting.pop(0))
        waiting.append(files.ask())
    trials = files.trials()
    assert [trial.number for trial in trials] == list(range(18))
    assert trials[0].params == study.default()
    for trial in trials:
        assert trial.outcome in ("", "complete"), trial.why
        assert len(trial.digest) == 12
        for p in study.parameters:
            value = trial.params[p.name]
            assert value in p.choices if p.choices else p.low <= value <= p.high
            assert type(value) is int if p.whole else True
    if "lr" in trials[0].params:
        assert len({trial.params["lr"] for trial in trials}) == 18
    else:
        assert len({str(trial.params) for trial in trials}) > 3
    assert capfd.readouterr() == ("", "")


def test_a_grid_is_tried_point_by_point(tmp_path: Path) -> None:
    study = made(tmp_path, "variance=1..100", CHOICES[0], sampler="grid", trials=7)
    files = Files(study, tmp_path)
    files.work(2)
    files = Files(study, tmp_path)
    files.work(study.trials - 2)
    wanted = [(level, widths) for level in (1.0, 10.0, 100.0) for widths in ((256, 256, 256), (32,))]
    assert [(one.params["variance"], one.params["widths"]) for one in files.trials()] == wanted


@pytest.mark.parametrize("name", get_args(Sampler))
def test_a_coordinator_that_is_started_again_goes_on_where_it_was(tmp_path: Path, name: str) -> None:
    study = made(tmp_path / "a", "variance=1..100", "optimiser.lr=1e-4..1e-2:log", sampler=name, trials=16)
    straight = Files(study, tmp_path / "a").work(14)
    studies.write(study, tmp_path / "b")
    again = [trial for _ in range(7) for trial in Files(study, tmp_path / "b").work(2)]
    assert again == straight  # and so nothing is repeated
    assert len({trial.params["lr"] for trial in again}) > 3


@pytest.mark.parametrize("name", get_args(Pruner))
def test_pruners_end_a_bad_curve_and_no_good_one(tmp_path: Path, name: str) -> None:
    study = made(tmp_path, pruner=name)
    files = Files(study, tmp_path)
    for _ in range(10):
        trial = files.ask()
        assert files.optimiser.prune(trial, rising(80.0 + trial.number)) is None  # each better than those before
        files.end(trial)
    ends = []
    for top in (0.1, 0.1, 0.1, 0.1, 99.0):
        trial, epoch = files.ask(), None
        for seen in range(2, 50, 2):  # as it comes
            epoch = files.optimiser.prune(trial, {e: v for e, v in rising(top).items() if e <= seen})
            if epoch is not None:
                assert epoch == seen
                break
        ends.append(epoch)
        files.end(trial, "complete" if epoch is None else "pruned")
    assert ends[-1] is None
    if name == "none":
        assert ends == [None] * 5
    else:
        assert all(ends[:-1]), ends
    pruned = [one for one in files.stored() if one.state == TrialState.PRUNED]
    assert [one.user_attrs["outcome"] for one in pruned] == ["pruned"] * sum(map(bool, ends))


def test_outcomes_are_states_of_optuna_and_the_first_one_stays(tmp_path: Path) -> None:
    files = Files(made(tmp_path), tmp_path)
    outcomes = ("complete", "pruned", "collapsed", "diverged", "failed")
    told = [files.end(files.ask(), outcome) for outcome in outcomes]
    before = contents(files.stored())
    assert [one.state.name for one in files.stored()] == ["COMPLETE", "PRUNED", "PRUNED", "PRUNED", "FAIL"]
    values = [one.value for one in files.stored()]
    assert values[:4] == pytest.approx([quality(one) for one in told[:4]])
    assert values[4] is None
    assert [one.user_attrs["why"] for one in files.stored()] == ["", "pruned", "", "diverged", "failed"]
    for trial in told:
        files.optimiser.tell(replace(trial, outcome="complete", value=1.0), {1: 0.0, 2: 0.0})
    assert contents(files.stored()) == before
    assert files.ask().number == 5


def test_settings_that_the_recipe_cannot_take_have_failed_already(tmp_path: Path) -> None:
    study = made(tmp_path, "views.0.scale=(0.1,1)|(0.5,1.0)", "budget.warmup=1..49")
    bad = optimise.proposal(study, 3, {"scale": (0.5, 0.1), "warmup": 3})
    assert bad.outcome == "failed"
    assert "0 < low <= high" in bad.why


# ---------------------------------------------------------------------------------------------- kill and loss


def test_a_trial_whose_coordinator_died_before_it_wrote_the_file_is_taken_up(tmp_path: Path) -> None:
    study = made(tmp_path)
    files = Files(study, tmp_path)
    files.work(3)
    lost = files.optimiser.ask()
    files = Files(study, tmp_path)
    assert files.trials()[3:] == [lost]
    assert files.ask().number == 4


@pytest.mark.parametrize("name", get_args(Sampler))
@pytest.mark.parametrize("suggested", [0, 1])
@pytest.mark.parametrize("earlier", [0, 3])
def test_so_is_one_that_had_no_settings_yet_or_not_all(
    tmp_path: Path, name: str, suggested: int, earlier: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = made(tmp_path / "a", "variance=1..100", "optimiser.lr=1e-4..1e-2:log", sampler=name, trials=9)
    wanted = Files(study, tmp_path / "a").work(earlier + 2)
    studies.write(study, tmp_path)
    files = Files(study, tmp_path)
    files.work(earlier)
    plain, seen = optimise._suggest, []

    def killed(*args: Any) -> Any:
        if len(seen) == suggested:
            raise KeyboardInterrupt
        seen.append(args)
        return plain(*args)

    with monkeypatch.context() as patch:
        patch.setattr(optimise, "_suggest", killed)
        with pytest.raises(KeyboardInterrupt):
            files.optimiser.ask()
    files = Files(study, tmp_path)
    taken = files.trials()[earlier]
    assert (taken.number, taken.outcome) == (earlier, "")
    if suggested == 0 or name == "grid" or earlier == 0:
        assert taken.params == wanted[earlier].params
    files.end(taken)
    files.work(1)
    assert len({str(trial.params) for trial in files.trials()}) == earlier + 2


def test_a_kill_between_enqueue_and_ask_doubles_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = made(tmp_path)
    files = Files(study, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(optuna.Study, "ask", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            files.optimiser.ask()
    files = Files(study, tmp_path)
    assert files.trials() == []
    assert files.ask().params == study.default()
    assert files.ask().number == 1
    assert len(files.stored()) == 2


@pytest.mark.parametrize("name", ["tpe", "qmc", "grid", "random"])
def test_a_lost_journal_is_made_anew_with_the_same_contents_and_goes_on_alike(tmp_path: Path, name: str) -> None:
    study = made(tmp_path / "a", "variance=1..100", "optimiser.lr=1e-4..1e-2:log", sampler=name, trials=16)
    studies.write(study, tmp_path / "b")
    ends = []
    for runs in (tmp_path / "a", tmp_path / "b"):
        files = Files(study, runs)
        for outcome in ("complete", "pruned", "collapsed", "diverged", "failed", *["complete"] * 6):
            files.end(files.ask(), outcome)
        running = files.ask()
        before = contents(files.stored())
        if runs.name == "b":
            (study.folder(runs) / "journal.log").unlink()
            files = Files(study, runs)
            mine = contents(files.stored())
            assert mine[:-1] == before[:-1]
            assert mine[-1][:4] == before[-1][:4]  # under way: its curve is known at once
        files.end(running)
        ends.append(files.work(2))
    assert ends[0] == ends[1]


def test_a_trial_without_a_file_keeps_its_number_and_settings(tmp_path: Path) -> None:
    """What came of it is in its run directory; if the journal is lost, too, it is asked for once more."""
    study = made(tmp_path)
    trials = Files(study, tmp_path).work(4)
    for lost in (0, 2):
        (study.folder(tmp_path) / "trials" / f"{lost:06d}.json").unlink()
        taken = Files(study, tmp_path).trials()
        assert [one.number for one in taken] == [0, 1, 2, 3]
        assert (taken[lost].params, taken[lost].outcome) == (trials[lost].params, "")
        (study.folder(tmp_path) / "trials" / f"{lost:06d}.json").unlink()
        (study.folder(tmp_path) / "journal.log").unlink()
        files = Files(study, tmp_path)
        taken = files.trials()
        assert [one.number for one in taken] == [0, 1, 2, 3]
        assert [one.state for one in files.stored()].count(TrialState.RUNNING) == 1
        assert taken[0].params == study.default()
        files.end(taken[lost])
        trials[lost] = files.trials()[lost]


def test_a_half_written_line_and_a_stale_lock_are_mended(tmp_path: Path) -> None:
    study = made(tmp_path)
    files = Files(study, tmp_path)
    files.work(3)
    before = contents(files.stored())
    journal = study.folder(tmp_path) / "journal.log"
    whole = journal.read_bytes()
    with open(journal, "ab") as stream:
        stream.write(whole.splitlines()[-1][:20])
    journal.with_name("journal.log.lock").symlink_to(journal)
    started = time.monotonic()
    files = Files(study, tmp_path)
    assert contents(files.stored()) == before
    files.work(1)
    assert time.monotonic() - started < 5
    assert journal.read_bytes().startswith(whole)
    # cut within the last trial: the files bring back what the journal lost
    lines = journal.read_bytes().splitlines(keepends=True)
    before = contents(files.stored())
    for cut in range(1, 12):
        journal.write_bytes(b"".join(lines[:-cut]) + lines[-cut][:-5])
        assert contents(Files(study, tmp_path).stored()) == before


def test_a_damaged_journal_is_one_line_and_can_be_moved_away(tmp_path: Path) -> None:
    study = made(tmp_path)
    files = Files(study, tmp_path)
    files.work(2)
    before = contents(files.stored())
    journal = study.folder(tmp_path) / "journal.log"
    text = journal.read_bytes()
    journal.write_bytes(text[:100] + b"\0\0\n" + text[100:])
    with pytest.raises(HarnessError, match=r"journal\.log is damaged .*; move it away: the next start makes it anew"):
        Files(study, tmp_path)
    journal.write_bytes(text + b"{half" + text)  # under way, after a full disk, say
    with pytest.raises(HarnessError, match="is damaged"):
        files.ask()
    journal.unlink()
    assert contents(Files(study, tmp_path).stored()) == before


def test_the_journal_of_another_space_is_refused(tmp_path: Path) -> None:
    study = made(tmp_path)
    Files(study, tmp_path).work(1)
    other = replace(study, parameters=study.parameters[:2])
    with pytest.raises(RunConflict, match=r"its batch is budget\.batch from 32 to 256, log, here it is None"):
        Optimiser(other, tmp_path)


# ---------------------------------------------------------------------------------------------- SQLite


@pytest.fixture
def short_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimise, "WAIT_S", 0.3)


@pytest.mark.usefixtures("short_wait")
def test_a_locked_sqlite_file_is_one_line_in_bounded_time_and_goes_on(tmp_path: Path) -> None:
    file = tmp_path / "optuna.db"
    study = made(tmp_path, storage=f"sqlite:///{file}")
    files = Files(study, tmp_path)
    trials = files.work(3)
    running = files.ask()
    before = {path: path.read_bytes() for path in study.folder(tmp_path).rglob("*.json")}
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    ended = replace(running, outcome="complete", value=1.0)
    for action in (
        lambda: Optimiser(study, tmp_path),
        files.optimiser.ask,
        lambda: files.optimiser.tell(ended, {}),
        lambda: files.optimiser.prune(running, {2: 1.0}),
        lambda: files.optimiser.follow(files.trials(), files.curve),
    ):
        started = time.monotonic()
        with pytest.raises(
            Unavailable, match=r"optuna\.db of study .* does not answer: .*database is locked; what its"
        ):
            action()
        assert time.monotonic() - started < 3
    assert {path: path.read_bytes() for path in study.folder(tmp_path).rglob("*.json")} == before
    other.execute("COMMIT")
    other.close()
    files.end(running)
    files.work(1)
    assert [trial.number for trial in files.trials()] == [0, 1, 2, 3, 4]
    assert files.trials()[:3] == trials
    assert [one.state for one in files.stored()] == [TrialState.COMPLETE] * 5


def test_a_study_moves_between_storages(tmp_path: Path) -> None:
    study = made(tmp_path, "optimiser.lr=1e-4..1e-2:log")
    files = Files(study, tmp_path)
    files.work(3)
    running = files.ask()
    moved = request.study(RECIPE, {"storage": f"sqlite:///{tmp_path / 'optuna.db'}"}, tmp_path)
    there = Files(moved, tmp_path)
    assert contents(there.stored())[:3] == contents(files.stored())[:3]
    there.end(running)
    there.work(2)
    back = Files(study, tmp_path)
    assert contents(back.stored()) == contents(there.stored())


def test_two_folders_do_not_share_a_study_of_a_database(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'optuna.db'}"
    study = made(tmp_path / "a", storage=url)
    Files(study, tmp_path / "a").work(1)
    with pytest.raises(RunConflict, match=rf"its folder is {tmp_path}/a/.*, here it is {tmp_path}/b/.* choose another"):
        Files(made(tmp_path / "b", storage=url), tmp_path / "b")
    optuna.delete_study(study_name=study.name, storage=url)
    assert len(Files(study, tmp_path / "a").stored()) == 1


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nothing", r"storage nothing: .*URL.*; expected an SQLAlchemy URL: postgresql\+psycopg://"),
        ("nosuch://host/db", r"storage nosuch://host/db: .*nosuch; expected an SQLAlchemy URL"),
        ("mysql+pymysql://me:secret@host/db", r"storage mysql\+pymysql://me:\*\*\*@host/db needs a driver: .*pymysql"),
    ],
)
def test_a_bad_url_is_one_line_without_a_password(tmp_path: Path, url: str, message: str) -> None:
    with pytest.raises(BadCommand, match=message) as caught:
        Optimiser(made(tmp_path, storage=url), tmp_path)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_folder_that_is_no_sqlite_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"does not answer: .*unable to open database file"):
        Optimiser(made(tmp_path, storage=f"sqlite:///{tmp_path}/none/optuna.db"), tmp_path)


def test_nothing_of_it_warns(tmp_path: Path) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        study = made(tmp_path, "optimiser.lr=1e-4..1e-2:log", sampler="gp")
        Files(study, tmp_path).work(12)
        optimise.in_memory(study, studies.read_trials(tmp_path, study.name), {n: {} for n in range(12)})
    assert [str(one.message) for one in caught] == []
    assert json.loads((study.folder(tmp_path) / "journal.log").read_text().splitlines()[0])["op_code"] == 0
