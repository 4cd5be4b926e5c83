"""Nothing is lost, on a real SLURM, whatever happens to it, to its nodes, to the disk or to the processes of a run.

Every run here that is resumed ends with the same bits as one that was not interrupted. What each fault cost is printed
as a table at the end.
"""

import random
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from slurm_runs import LONG, PER_EPOCH, SHORT, References, Run, kill, overrides, start, tasks, watched, write_profile

from harness import attempts
from slurm import profiles, scheduler
from slurm.control import resume
from slurm.profiles import Profile

pytestmark = [pytest.mark.slurm, pytest.mark.usefixtures("no_jobs_left", "clusters")]
STEPS = LONG * PER_EPOCH
KILLS = 5  # of each of KILLED runs, at random times
KILLED = 6

Note = Callable[[str, int, str, list[float]], None]


@pytest.fixture(scope="module")
def references(tmp_path_factory: pytest.TempPathFactory) -> References:
    return References(tmp_path_factory.mktemp("references"))


@pytest.fixture
def clusters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Profiles of the devcluster, under which runs write checkpoints more often than a profile may say."""
    folder = tmp_path / "clusters"
    folder.mkdir()
    write_profile(folder, "faults")
    write_profile(folder, "few", array_parallelism=4)
    write_profile(folder, "one", array_parallelism=1)
    write_profile(folder, "rare", checkpoint_every_s=600)
    write_profile(folder, "preemptible", partition="preemptible", extra={"nodelist": "127.0.0.11"})
    write_profile(folder, "minute", time_min=1, signal_delay_s=55)
    write_profile(folder, "two", nodes=2)
    monkeypatch.setattr(profiles, "FOLDER", folder)
    load = profiles.load

    def often(name: str) -> Profile:
        profile = load(name)
        return profile if name == "rare" else replace(profile, checkpoint_every_s=0.2)

    monkeypatch.setattr(profiles, "load", often)


@pytest.fixture
def note(record_property: Callable[[str, object], None]) -> Note:
    """Put a row into the table of faults."""

    def noted(fault: str, count: int, outcome: str, lost: list[float]) -> None:
        lost = sorted(lost)
        median = f"{lost[len(lost) // 2]:.0f} (at most {lost[-1]:.0f})" if lost else "–"
        record_property("fault", [fault, str(count), outcome, median])

    return noted


def runs_of(folder: Path, count: int, epochs: int = LONG) -> list[Run]:
    return [Run(folder, seed, overrides(epochs)) for seed in range(count)]


def client(*words: str) -> str:
    """What a client of SLURM prints."""
    return subprocess.run(words, capture_output=True, text=True, check=True, timeout=60).stdout.strip()


# ---------------------------------------------------------------------------------------------- no fault


def test_an_array_of_forty_runs_each_once(tmp_path: Path, references: References, note: Note) -> None:
    runs = runs_of(tmp_path / "runs", 40, SHORT)
    report = start(runs, "few")
    assert (report.submitted, len(report.jobs)) == (40, 1)
    file = next((tmp_path / "runs/submissions").glob("*/jobs/*.sh"))
    assert "#SBATCH --array=0-39%4\n" in file.read_text()
    side_by_side, deadline = [], time.monotonic() + 300
    while queue := scheduler.queue():
        states = [task.state for tasks in queue.values() for task in tasks.values()]
        side_by_side.append(states.count("RUNNING"))
        assert time.monotonic() < deadline, f"still {states}"
        time.sleep(0.3)
    assert max(side_by_side) == 4
    assert [run.ends() for run in runs] == [["complete"]] * 40
    assert [len(run.lines("start")) for run in runs] == [1] * 40
    assert start(runs, "few").finished == 40
    references.check(runs[0], runs[-1])
    note("none: an array of 40, 4 side by side", 0, "40 complete, one attempt each", [])


# ---------------------------------------------------------------------------------------------- kill -9


def test_kill_nine_at_random_times(tmp_path: Path, references: References, note: Note) -> None:
    """Each kill waits for a checkpoint of the attempt, then for a random step and a part of it."""
    chance = random.Random(0)
    runs = runs_of(tmp_path / "runs", KILLED)
    plans = {run: sorted(chance.sample(range(1, STEPS * 2 // 3), KILLS)) for run in runs}
    killed = dict.fromkeys(runs, 0)
    start(runs)
    deadline = time.monotonic() + 300
    with watched(*runs) as progress:
        while not all((run.path / "record.json").exists() for run in runs):
            assert time.monotonic() < deadline, "\n".join(run.story() for run in runs)
            for run in runs:
                begun = run.advanced(killed[run] + 1) if killed[run] < KILLS else None
                if begun and run.furthest() >= plans[run][killed[run]]:
                    time.sleep(chance.uniform(0, 0.05))
                    if kill(begun["pid"]):
                        progress.fault(run)
                        killed[run] += 1
            time.sleep(0.02)
    assert sum(killed.values()) == KILLS * KILLED
    references.check(*runs)
    for run in runs:
        assert run.ends() == ["killed"] * KILLS + ["complete"]
        assert len(run.lines("start")) == KILLS + 1
    note("kill -9 at a random step", KILLS * KILLED, "resumed, same bits", progress.lost())


def test_kill_nine_in_the_first_second_and_while_evaluating(tmp_path: Path, references: References, note: Note) -> None:
    """Of three runs, each several times: as soon as python runs, as soon as the attempt is noted, and at the end."""
    runs = [Run(tmp_path / f"runs{number}") for number in range(3)]
    plans = [
        ["python", "start", "evaluation"],
        ["start", "evaluation", "python"],
        ["evaluation", "python", "evaluation"],
    ]
    left = dict(zip(runs, plans, strict=True))
    folders = {run: start([run]).made.jobs for run in runs}  # type: ignore[union-attr]
    hit: dict[Run, list[int]] = {run: [] for run in runs}
    deadline = time.monotonic() + 240

    def victim(run: Run, when: str) -> int | None:
        found = tasks(folders[run]).get(0)
        if found is None or found in hit[run]:
            return None
        starts = run.lines("start")
        noted = bool(starts) and starts[-1]["pid"] == found
        encoder = run.path / "encoder.safetensors"
        evaluates = noted and encoder.exists() and encoder.stat().st_mtime > born(found)
        return found if {"python": True, "start": noted, "evaluation": evaluates}[when] else None

    with watched(*runs) as progress:
        while any(left.values()):
            assert time.monotonic() < deadline, "\n".join(run.story() for run in runs)
            for run, plan in left.items():
                if plan and (pid := victim(run, plan[0])) and kill(pid):
                    progress.fault(run)
                    hit[run].append(pid)
                    plan.pop(0)
            time.sleep(0.01)
        references.check(*runs)
    for run in runs:
        assert set(run.ends()) == {"killed", "complete"}
    note("kill -9 at once, at the start or while evaluating", 9, "resumed, same bits", progress.lost())


def born(pid: int) -> float:
    return Path(f"/proc/{pid}").stat().st_mtime


def test_three_attempts_without_progress_are_enough_until_somebody_asks(
    tmp_path: Path, references: References, note: Note
) -> None:
    (run,) = runs_of(tmp_path / "runs", 1)
    start([run], "rare")
    for attempt in range(1, attempts.BUDGET + 1):
        kill(run.wait_alive(attempt)["pid"])
    run.wait(lambda: run.state().word == "stuck", "not stuck")
    assert run.state().why.startswith("3 attempts in a row got no further; killed: ")
    assert not start([run], "rare", asked=False).submitted
    assert [report.submitted for report in resume(run.runs, [], None)] == [1]
    references.check(run)
    assert run.ends() == ["killed"] * 3 + ["complete"]
    note("kill -9 three times before any checkpoint", 3, "stuck; `resume` finishes, same bits", [])
