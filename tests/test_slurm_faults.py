"""Nothing is lost, on a real SLURM, whatever happens to it, to its nodes, to the disk or to the processes of a run.

Every run here that is resumed ends with the same bits as one that was not interrupted. What each fault cost is printed
as a table at the end.
"""

import contextlib
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from same_end import assert_same_end, curves
from slurm_runs import (
    LONG,
    NAME,
    PER_EPOCH,
    SHORT,
    References,
    Run,
    kill,
    overrides,
    pending_signals,
    start,
    tasks,
    wait,
    watched,
    write_profile,
)

from harness import attempts, registry, train
from harness.cli import call
from slurm import profiles, scheduler, snapshot, states
from slurm.control import cancel, resume
from slurm.devcluster import Devcluster
from slurm.fill import Tick, tick
from slurm.profiles import Profile
from slurm.submit import items_of, submit
from slurm.watch import look

PLAIN = "untrained_digits_pixels_e0"  # over at once, without overrides, so that a plan can name it
pytestmark = [pytest.mark.slurm, pytest.mark.usefixtures("no_jobs_left", "clusters")]
STEPS = LONG * PER_EPOCH
KILLED, KILLS = 5, 4  # runs, and how often each is killed at a random time

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
    write_profile(folder, "early", signal_delay_s=100)
    write_profile(folder, "two", nodes=2)
    monkeypatch.setattr(profiles, "FOLDER", folder)
    load = profiles.load

    def often(name: str) -> Profile:
        profile = load(name)
        return profile if name == "rare" else replace(profile, checkpoint_every_s=0.1)

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


# ---------------------------------------------------------------------------------------------- each run once


def test_an_array_of_forty_runs_each_once(tmp_path: Path, references: References, note: Note) -> None:
    runs = runs_of(tmp_path / "runs", 40, SHORT)
    report = start(runs, "few")
    assert (report.submitted, len(report.jobs)) == (40, 1)
    file = next((tmp_path / "runs/submissions").glob("*/jobs/*.sh"))
    assert "#SBATCH --array=0-39%4\n" in file.read_text()
    side_by_side, deadline = [], time.monotonic() + 600
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


def test_two_jobs_for_one_run(tmp_path: Path, references: References, note: Note) -> None:
    run = Run(tmp_path / "runs")
    reports = [start([run]), start([run], known={})]
    (pid,) = {run.wait_alive(1)["pid"]}
    references.check(run)
    wait(lambda: not scheduler.queue(), "jobs are left")
    assert (len(run.lines("start")), run.ends()) == (1, ["complete"])
    logs = [next(report.made.jobs.glob("*_log.out")).read_text() for report in reports]  # type: ignore[union-attr]
    assert sum(f"is being written by another process (process {pid} of job" in text for text in logs) == 1
    note("two jobs for one run", 1, "one writes, the other names it", [])


# ---------------------------------------------------------------------------------------------- kill -9


def test_kill_nine_at_random_times(tmp_path: Path, references: References, note: Note) -> None:
    """Each kill waits for a checkpoint of the attempt, then for a random step and a part of it."""
    chance = random.Random(0)
    runs = runs_of(tmp_path / "runs", KILLED)
    plans = {run: sorted(chance.sample(range(1, STEPS * 2 // 3), KILLS)) for run in runs}
    killed = dict.fromkeys(runs, 0)
    start(runs)
    deadline = time.monotonic() + 600
    with watched(*runs) as progress:
        while not all((run.path / "record.json").exists() for run in runs):
            assert time.monotonic() < deadline, "\n".join(run.story() for run in runs)
            for run in runs:
                begun = run.advanced(killed[run] + 1) if killed[run] < KILLS else None
                if begun and run.furthest() >= plans[run][killed[run]]:
                    time.sleep(chance.uniform(0, 0.03))
                    if kill(begun["pid"]):
                        progress.fault(run)
                        killed[run] += 1
            time.sleep(0.05)
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
            time.sleep(0.05)
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


# ---------------------------------------------------------------------------------------------- SLURM takes it back


def test_preempted_with_and_without_the_signal(
    tmp_path: Path, cluster_root: Path, references: References, note: Note, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cluster that was not told to hands no USR2 on at preemption: a job gets SIGTERM."""
    signalled, terminated = Run(tmp_path / "signalled"), Run(tmp_path / "terminated")
    other = Devcluster.up(cluster_root, nodes=1, preempt_signal=False)
    with watched(signalled, terminated) as progress:
        for run, environment in ((signalled, {}), (terminated, other.env)):
            with monkeypatch.context() as patch:
                for name, value in environment.items():
                    patch.setenv(name, value)
                start([run], "preemptible")
                run.wait_advanced(1)
                progress.fault(run)
                client(
                    "sbatch", "--partition=high", "--nodelist=127.0.0.11", "--exclusive", "--output=/dev/null",
                    "--wrap=sleep 1",
                )  # fmt: skip
        references.check(signalled, terminated)
    (ended, _), (killed, _) = signalled.lines("end"), terminated.lines("end")
    assert (ended["status"], ended["reason"].split(";")[0]) == ("preempted", "SIGUSR2")
    assert (killed["status"], killed["reason"].split(";")[0]) == ("preempted", "SIGTERM")
    note("preempted, with USR2 and with SIGTERM alone", 2, "`preempted`, resumed, same bits", progress.lost())


def test_time_limit(tmp_path: Path, references: References, note: Note) -> None:
    """The run stands still until SLURM has sent the signal: its clock of limits ticks every half minute only."""
    run = Run(tmp_path / "runs")
    (id,) = start([run], "early").jobs
    pid = run.wait_advanced(1)["pid"]
    with watched(run) as progress:
        kill(pid, signal.SIGSTOP)
        client("scontrol", "update", f"jobid={id}", "timelimit=2")
        run.wait(lambda: run.ends() or signal.SIGUSR2 in pending_signals(pid), "no signal before the time limit")
        progress.fault(run)  # SLURM may have sent SIGCONT, too
        kill(pid, signal.SIGCONT)
        run.wait(lambda: scheduler.job(id)["JobState"] == "PENDING", "not in the queue again")
        client("scontrol", "update", f"jobid={id}", "timelimit=20")
        references.check(run)
    assert run.ends() == ["timeout", "complete"]
    assert run.lines("end")[0]["reason"] == "SIGUSR2; the time limit of 00:02:00 is near"
    note("time limit", 1, "`timeout`, resumed, same bits", progress.lost())


def test_a_signal_before_any_handler_is_set(tmp_path: Path, references: References, note: Note) -> None:
    """USR2 without pause, through SLURM and directly, from the first moment of a job on, over several restarts."""
    run, restarts, sent = Run(tmp_path / "runs"), 3, 0
    report = start([run])
    assert report.made
    deadline = time.monotonic() + 180
    while int((job := scheduler.job(report.jobs[0]))["Restarts"]) < restarts:
        if job["JobState"] == "RUNNING":
            subprocess.run(["scancel", "--signal=USR2", job["JobId"]], capture_output=True, timeout=30)
            sent += any(kill(pid, signal.SIGUSR2) for pid in tasks(report.made.jobs).values())
        assert time.monotonic() < deadline, f"{job}; {run.story()}"
        time.sleep(0.03)
    references.check(run)
    assert sent > restarts
    assert run.ends()[-1] == "complete"
    assert set(run.ends()[:-1]) <= {"interrupted", "requeued", "killed"}, run.story()
    note("USR2 from the first moment of a job on", restarts, "requeued each time, same bits", [])


# ---------------------------------------------------------------------------------------------- the cluster breaks


def test_a_node_is_lost(devcluster: Devcluster, tmp_path: Path, references: References, note: Note) -> None:
    run = Run(tmp_path / "runs")
    start([run])
    node = run.wait_advanced(1)["node"]
    with watched(run) as progress:
        progress.fault(run)
        devcluster.kill_node(node)
        client("scontrol", "update", f"nodename={node}", "state=down", "reason=test")
        references.check(run)
    assert run.ends() == ["node_fail", "complete"]
    assert run.lines("end")[0]["reason"].startswith(f"node {node} is down")
    assert run.lines("start")[1]["node"] != node
    note("node lost", 1, "`node_fail`, resumed elsewhere, same bits", progress.lost())


def test_the_controller_dies(
    devcluster: Devcluster, tmp_path: Path, references: References, note: Note, capfd: pytest.CaptureFixture[str]
) -> None:
    runs = runs_of(tmp_path / "runs", 3)
    (id,) = start(runs).jobs
    for run in runs:
        run.wait_advanced(1)
    client("scontrol", "update", f"jobid={id}", "comment=it-runs")
    saved = devcluster.root / "state/job_state"  # written every few seconds; what is newer dies with the controller
    wait(lambda: saved.exists() and b"it-runs" in saved.read_bytes(), "the controller saves no state")
    with watched(*runs) as progress:
        devcluster.kill("slurmctld")
        for run in runs:
            progress.fault(run)
        begun = runs[0].alive(1)
        assert begun, f"over too early: {runs[0].story()}"
        kill(begun["pid"])
        capfd.readouterr()
        for words in (["status"], ["submit", NAME, "--cluster", "faults"]):
            assert call([*words, "--runs", str(runs[0].runs)]) == 2
            (line,) = capfd.readouterr().err.splitlines()
            assert line.startswith("harness: squeue failed: ")
            assert "Unable to contact slurm controller" in line
        devcluster.start("slurmctld")
        references.check(*runs)
    assert [run.ends() for run in runs] == [["killed", "complete"], ["complete"], ["complete"]]
    first, *others = progress.lost()
    note("kill -9 while slurmctld is down", 1, "resumed when it is back, same bits", [first])
    note("slurmctld killed and started again", 1, "runs go on, one attempt each", others)


def test_the_disk_is_full(tmp_path: Path, references: References, note: Note) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("may not mount")
    try:
        run = Run(disk / "runs")
        (id,) = start([run]).jobs
        begun = run.wait_advanced(1)
        with watched(run) as progress:
            progress.fault(run)

            def full_and_over() -> bool:
                with contextlib.suppress(OSError), open(disk / "ballast", "ab", buffering=0) as ballast:
                    while True:
                        ballast.write(bytes(4096))
                return not Path(f"/proc/{begun['pid']}").exists()

            run.wait(full_and_over, "the attempt goes on with a full disk")
            wait(lambda: scheduler.job(id)["JobState"] != "RUNNING", "the job goes on")
            (disk / "ballast").unlink()
            if run.state().word not in states.IN_FLIGHT:
                resume(run.runs, [], None)
            references.check(run)
        assert run.ends()[-1] == "complete"
        note("disk full", 1, "resumed when there is room, same bits", progress.lost())
    finally:
        subprocess.run("squeue -h -o %A | xargs -r scancel", shell=True, check=True)
        wait(lambda: subprocess.run(["umount", disk], capture_output=True).returncode == 0, "the disk is in use")


# ---------------------------------------------------------------------------------------------- files and people


def test_a_checkpoint_that_was_cut(tmp_path: Path, references: References, note: Note) -> None:
    run = Run(tmp_path / "runs")
    start([run])
    with watched(run) as progress:
        begun = run.wait(
            lambda: len(list(run.path.glob("checkpoint-*.pt"))) == 2 and run.alive(1), "no two checkpoints"
        )
        progress.fault(run)
        kill(begun["pid"])
        wait(lambda: not Path(f"/proc/{begun['pid']}").exists(), "not dead")
        older, newest = sorted(run.path.glob("checkpoint-*.pt"))[-2:]
        newest.write_bytes(newest.read_bytes()[: newest.stat().st_size // 2])
        references.check(run)
    assert [line["reason"] for line in run.lines("warning")] == [
        f"{newest} is damaged (its checksum does not match its content)"
    ]
    assert run.lines("start")[1]["step"] == int(older.stem.removeprefix("checkpoint-"))
    note("newest checkpoint cut", 1, "the older one is used, same bits", progress.lost())


def test_cancelled_runs_wait_for_a_person_and_go_on_with_their_code(
    tmp_path: Path, references: References, note: Note, monkeypatch: pytest.MonkeyPatch
) -> None:
    running, pending = runs = runs_of(tmp_path / "runs", 2)
    (plain,) = items_of([(PLAIN, 0, ())])
    made = submit([*(run.item for run in runs), plain], running.runs, "one").made
    assert made
    running.wait_advanced(1)
    found = cancel(running.runs, [made.id])
    assert [found[item].word for item in (running.item, pending.item, plain)] == ["running", "pending", "pending"]
    wait(lambda: not scheduler.queue(), "jobs are left")
    assert running.ends() == ["cancelled"]
    assert {state.word for state in look(running.runs, []).values()} == {"cancelled"}
    assert not start(runs, asked=False).submitted  # what the controller asks
    plan = tmp_path / "plan.toml"
    plan.write_text(f'[[group]]\nrecipes = ["{PLAIN}"]\nseeds = 1\n')
    assert tick(str(plan), running.runs, "faults", None) == Tick(Counter(cancelled=1), [], 0, 0)

    def edited(runs: Path) -> Path:
        raise AssertionError("a copy of the code as it is now")

    monkeypatch.setattr(snapshot, "take", edited)
    (report,) = resume(running.runs, [], None)
    assert report.made
    assert (report.submitted, report.made.snapshot) == (3, made.snapshot)
    references.check(*runs)
    assert (running.ends(), pending.ends()) == (["cancelled", "complete"], ["complete"])
    wait((plain.path(running.runs) / "record.json").exists, "no record of the third")
    note("`harness cancel` of a running and two pending runs", 3, "not requeued; `resume` finishes, same bits", [])


# ---------------------------------------------------------------------------------------------- two nodes


def test_two_nodes_equal_one_process_and_a_killed_rank_takes_both_along(
    tmp_path: Path, references: References, note: Note
) -> None:
    """Every step is logged. A small learning rate, so that rounding stays rounding: see tests/test_processes.py."""
    settings = ("budget.epochs=40", "budget.batch=128", "budget.warmup=0", "data.train_images=128", "optimiser.lr=1e-5")
    whole, *cut = (Run(tmp_path / name, settings=settings) for name in ("whole", "rank0", "rank1"))
    reports = [start([run], "two") for run in (whole, *cut)]
    with watched(*cut) as progress:
        for rank, run in enumerate(cut):
            run.wait_advanced(1)
            assert scheduler.job(reports[1 + rank].jobs[0])["NumNodes"] == "2"
            both = tasks(reports[1 + rank].made.jobs)  # type: ignore[union-attr]
            assert sorted(both) == [0, 1]
            progress.fault(run)
            kill(both[rank])
            run.wait(lambda both=both: not any(Path(f"/proc/{pid}").exists() for pid in both.values()), "one lives on")
        for run in cut:
            assert run.record()["device"]["count"] == 2
            assert_same_end(whole.path, run.path)
    assert whole.ends() == ["complete"]
    assert cut[0].ends() == ["killed", "complete"]
    assert cut[1].ends() in (["killed", "complete"], ["crashed", "complete"])  # rank 0 may live to tell
    alone = Run(references.folder, settings=settings)
    train.run(registry.recipe(NAME, settings), 0, references.folder, device="cpu", show=False)
    one, two = curves(alone.path), curves(whole.path)
    assert list(one) == list(two) == list(range(1, 41))
    for step in range(1, 13):
        assert two[step]["loss"] == pytest.approx(one[step]["loss"], rel=1e-6)
    note("kill -9 of one rank of two, on two nodes", 2, "both end, resumed, same bits", progress.lost())
