"""A study on a real SLURM while all is hit at random: workers and the coordinator by kill -9, jobs by preemption.

Exactly as many trials end as were asked for, each with one run, and Optuna's storage tells what the files tell.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from same_end import assert_same_end
from slurm_runs import kill, tasks, write_profile
from study_files import assert_storage_follows_files

from harness import attempts, registry, train
from harness.studies import study as studies
from slurm import scheduler
from slurm.devcluster import Devcluster

pytestmark = [pytest.mark.slurm, pytest.mark.usefixtures("no_jobs_left")]
ROOT = Path(__file__).resolve().parent.parent
RECIPE, NAME, TRIALS, PARALLEL = "vicreg_digits_r10w16_e50", "hit", 60, 3
SETTINGS = ("budget.batch=64", "budget.warmup=0", "data.train_images=256")
KILLS, COORDINATOR_KILLS, PREEMPTIONS = 12, 8, 5
CODE = """
import sys
from pathlib import Path
from slurm import profiles
profiles.FOLDER = Path(sys.argv[1])
from harness.cli import call
sys.exit(call(sys.argv[2:]))
"""


def coordinator(clusters: Path, runs: Path, log: Path) -> subprocess.Popen[bytes]:
    """`harness sweep` as a process of its own, on the test's cluster."""
    words = [
        "sweep", RECIPE, "--study", NAME, "--trials", str(TRIALS), "--parallel", str(PARALLEL), "--cluster", "hit",
        "--coefficients", "variance,covariance,budget.epochs=4|8|24", "--every", "2", "--pruner", "median",
        "--seeds-final", "0", "--runs", str(runs),
    ]  # fmt: skip
    for setting in SETTINGS:
        words += ["--set", setting]
    with open(log, "ab") as out:
        return subprocess.Popen([sys.executable, "-c", CODE, str(clusters), *words], cwd=ROOT, stdout=out, stderr=out)


def workers(runs: Path) -> list[int]:
    """Process ids of trials' tasks that run now."""
    newest = sorted((runs / "submissions").glob("*/jobs"))[-3 * PARALLEL :]
    return [pid for folder in newest for pid in tasks(folder).values()]


def test_sixty_trials_while_everything_is_hit(
    devcluster: Devcluster, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    chance, clusters, runs, log = random.Random(0), tmp_path / "clusters", tmp_path / "runs", tmp_path / "log"
    clusters.mkdir()
    write_profile(clusters, "hit", partition="preemptible")
    hit: Counter[str] = Counter()
    begun = time.monotonic()
    due = {"worker": begun + 8, "coordinator": begun + 12, "preemption": begun + 16}
    process = coordinator(clusters, runs, log)
    try:
        while process.poll() is None:
            now = time.monotonic()
            assert now - begun < 1500, log.read_text()[-3000:]
            if now > due["worker"] and hit["worker"] < KILLS:
                if (found := workers(runs)) and kill(chance.choice(found)):
                    hit["worker"] += 1
                due["worker"] = now + chance.uniform(4, 12)
            if now > due["coordinator"] and hit["coordinator"] < COORDINATOR_KILLS:
                process.kill()
                process.wait()
                hit["coordinator"] += 1
                time.sleep(chance.uniform(0, 4))  # trials end meanwhile
                process = coordinator(clusters, runs, log)
                due["coordinator"] = time.monotonic() + chance.uniform(6, 20)
            if now > due["preemption"] and hit["preemption"] < PREEMPTIONS:
                busy = [line for line in squeue("%N|%j") if "harness-" in line]
                if busy:
                    node = chance.choice(busy).split("|")[0]
                    words = ["--partition=high", f"--nodelist={node}", "--exclusive", "--output=/dev/null"]
                    subprocess.run(["sbatch", *words, "--wrap=sleep 1"], check=True, capture_output=True, timeout=30)
                    hit["preemption"] += 1
                due["preemption"] = now + chance.uniform(8, 20)
            time.sleep(0.1)
    finally:
        process.send_signal(signal.SIGKILL)
    assert process.returncode == 0, log.read_text()[-3000:]
    assert hit == {"worker": KILLS, "coordinator": COORDINATOR_KILLS, "preemption": PREEMPTIONS}

    study, trials = studies.read(runs, NAME), studies.read_trials(runs, NAME)
    assert [trial.number for trial in trials] == list(range(TRIALS))
    outcomes = Counter(trial.outcome for trial in trials)
    assert outcomes["failed"] == 0, [trial.why for trial in trials]
    assert sum(outcomes[word] for word in ("complete", "pruned", "collapsed", "diverged")) == TRIALS
    assert outcomes["pruned"] > 0
    assert_storage_follows_files(study, runs)
    hurt = []
    directories = {trial.digest: runs / RECIPE / trial.digest / f"seed-{trial.seed}" for trial in trials}
    assert {path.parent.name for path in runs.glob(f"{RECIPE}/*/seed-*")} == set(directories)
    for trial in trials:
        path = directories[trial.digest]
        lines = attempts.read(path)
        ends = [line["status"] for line in lines if line["event"] == "end"]
        numbers = [line["attempt"] for line in lines if line["event"] == "start"]
        assert numbers == list(range(1, len(numbers) + 1)), lines  # one after the other, never two at once
        assert len(ends) == len(numbers), lines
        over = ends[-1] if (path / "record.json").exists() else "pruned"
        assert over == trial.outcome, lines
        assert sum(status in attempts.OVER for status in ends) == (path / "record.json").exists()
        if trial.outcome == "complete":
            record = json.loads((path / "record.json").read_text())
            assert trial.value == studies.score(study, record)
            assert {row["split"] for row in record["evals"]} == {"held_out"}
            if len(numbers) > 1:
                hurt.append(trial)
    assert hurt, "no complete trial was hit"
    torch.set_num_threads(1)
    for trial in hurt[:2]:  # what was hit ends with the bits of a run that was not
        recipe = registry.recipe(RECIPE, trial.overrides + study.watched())
        train.run(recipe, trial.seed, tmp_path / "same", device="cpu", show=False)
        own = tmp_path / "same" / RECIPE / trial.digest / f"seed-{trial.seed}"
        assert_same_end(own, directories[trial.digest])
    assert not scheduler.queue()
    print(f"{time.monotonic() - begun:.0f} s, {dict(outcomes)}, {len(hurt)} complete trials were hit")  # noqa: T201
    what = (
        f"a study of {TRIALS} trials: kill -9 of {KILLS} workers, {COORDINATOR_KILLS} coordinators; preemption of jobs"
    )
    record_property("fault", [what, str(sum(hit.values())), f"{TRIALS} trials end, each once, same bits", "–"])


def test_a_coordinator_that_is_a_job(devcluster: Devcluster, tmp_path: Path) -> None:
    """It is requeued by SLURM and killed, and goes on each time."""
    runs = tmp_path / "runs"
    words = [
        "sweep", RECIPE, "--study", NAME, "--trials", "4", "--parallel", "2", "--cluster", "devcluster", "--as-job",
        "--set", "budget.epochs=6", "--every", "2", "--pruner", "none", "--seeds-final", "0", "--runs", str(runs),
    ]  # fmt: skip
    for setting in SETTINGS:
        words += ["--set", setting]
    done = subprocess.run([sys.executable, "-m", "harness", *words], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    id = done.stdout.partition("its coordinator is job ")[2].partition(";")[0]
    folder = runs / "studies" / NAME
    hits: list[Callable[[], object]] = [
        lambda: kill(tasks(folder / "coordinator")[0]),
        lambda: subprocess.run(["scontrol", "requeue", id], check=True, timeout=30),
    ]
    begun = time.monotonic()
    for number, act in enumerate(hits):
        while len(list((folder / "trials").glob("*.json"))) <= number or not tasks(folder / "coordinator"):
            assert time.monotonic() - begun < 120
            time.sleep(0.1)
        act()
    while not (folder / "report.html").exists():
        assert time.monotonic() - begun < 300, [file.read_text()[-2000:] for file in folder.glob("coordinator/*.out")]
        time.sleep(0.3)
    trials = studies.read_trials(runs, NAME)
    assert [trial.outcome for trial in trials] == ["complete"] * 4
    assert_storage_follows_files(studies.read(runs, NAME), runs)
    while any(id in line for line in squeue("%i")):
        assert time.monotonic() - begun < 320, "the coordinator's job does not end"
        time.sleep(0.3)


def squeue(form: str) -> list[str]:
    words = ["squeue", "--noheader", "--states=RUNNING", f"--format={form}"]
    return subprocess.run(words, check=True, capture_output=True, text=True, timeout=30, env=os.environ).stdout.split()
