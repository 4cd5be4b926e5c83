"""How submitting, watching and the controller scale with the number of runs: seconds and scheduler calls.

    python tests/benchmarks/scale.py 100 1000 10000              # jobs stay in SLURM's queue, runs are simulated
    python tests/benchmarks/scale.py 1000 --execute              # SLURM runs every job, which writes its run directory

On a devcluster of its own. The fake jobs write what a run writes, without training. Programs of the same names stand
before SLURM's on the PATH and count calls.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

from harness import registry  # noqa: E402
from slurm import control, fill, profiles, states, submission, submit, watch  # noqa: E402
from slurm.devcluster import Devcluster  # noqa: E402
from slurm.submission import Item  # noqa: E402

RECIPE = "vicreg_digits_r10w16_e50"
PROFILE = 'launcher = "slurm"\none_machine = true\npartition = "normal"\nmem_gb = 0.1\narray_parallelism = 16\n'


@dataclass(frozen=True)
class FakeTask:
    """A job that writes a run directory and nothing else."""

    path: str

    def __call__(self) -> None:
        folder = Path(self.path)
        folder.mkdir(parents=True, exist_ok=True)
        start = {"event": "start", "attempt": 1, "step": 0, "steps": 8, "time": "2026-03-01T12:00:00+00:00"}
        end = start | {"event": "end", "status": "complete", "reason": ""}
        with open(folder / "attempts.jsonl", "a") as file:
            file.write(json.dumps(start) + "\n" + json.dumps(end) + "\n")
        (folder / "record.json").write_text(json.dumps({"evals": []}))

    def checkpoint(self) -> Any:
        import submitit

        return submitit.helpers.DelayedSubmission(self)


class Calls:
    """Counts calls of SLURM's programs by programs of the same names before them on the PATH."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "calls"
        (folder / "bin").mkdir()
        for name in ("sbatch", "squeue", "scontrol", "sinfo", "scancel", "sacct"):
            real = shutil.which(name)
            if real:
                program = folder / "bin" / name
                program.write_text(f'#!/bin/sh\necho {name} >> {self.file}\nexec {real} "$@"\n')
                program.chmod(0o755)
        os.environ["PATH"] = f"{folder / 'bin'}:{os.environ['PATH']}"

    def during(self, work: Callable[[], Any]) -> tuple[Any, float, str]:
        """Result, seconds, and calls."""
        self.file.unlink(missing_ok=True)
        begun = time.perf_counter()
        result = work()
        seconds = time.perf_counter() - begun
        names = Counter(self.file.read_text().split() if self.file.exists() else [])
        return result, seconds, " ".join(f"{name} {count}" for name, count in sorted(names.items())) or "none"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=int, nargs="+")
    parser.add_argument("--execute", action="store_true")
    wanted = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="hsc-", dir="/tmp"))
    folder.chmod(0o755)  # munged wants to be reachable
    profiles.FOLDER = folder
    hold = "" if wanted.execute else "[extra]\nhold = true\n"
    (folder / "fake.toml").write_text(PROFILE + hold)
    cluster = Devcluster.up(folder / "cluster")
    os.environ.update(cluster.env)
    calls = Calls(folder)
    submit._tasks = lambda made, array, profile: [FakeTask(str(item.path(made.runs))) for item in array.items]  # type: ignore
    print(f"{'runs':>6} {'what':44} {'s':>8}  calls")  # noqa: T201
    try:
        for number in wanted.runs:
            measure(number, folder / f"runs-{number}", calls, wanted.execute)
            subprocess.run("squeue -h -o %A | sort -u | xargs -r scancel", shell=True, check=True)
    finally:
        cluster.down()
        shutil.rmtree(folder)


def measure(number: int, runs: Path, calls: Calls, execute: bool) -> None:
    digest = registry.recipe(RECIPE).digest
    items = [Item(RECIPE, seed, (), digest) for seed in range(number)]
    plan = runs.with_suffix(".toml")
    plan.write_text(f'[[group]]\nrecipes = ["{RECIPE}"]\nseeds = {number}\n')

    def tell(what: str, work: Callable[[], Any]) -> Any:
        result, seconds, names = calls.during(work)
        print(f"{number:6} {what:44} {seconds:8.3f}  {names}", flush=True)  # noqa: T201
        return result

    def tick() -> Any:
        return fill.tick(str(plan), runs, "fake", None)

    report = tell("harness submit", lambda: submit.submit(items, runs, "fake"))
    begun = time.perf_counter()
    tell("harness submit again: all under way", lambda: submit.submit(items, runs, "fake"))
    if execute:
        while (left := tick().left) and time.perf_counter() - begun < 3000:
            print(f"       {left} left after {time.perf_counter() - begun:.0f} s", flush=True)  # noqa: T201
            time.sleep(30)
        print(f"{number:6} {'all run by SLURM':44} {time.perf_counter() - begun:8.1f}", flush=True)  # noqa: T201
        starts = [len((item.path(runs) / "attempts.jsonl").read_text().splitlines()) for item in items]
        assert starts == [2] * number, "a run was lost, or run twice"
        return
    tell("harness status: all pending", lambda: watch.look(runs, ()))
    tell("controller: all pending", tick)
    half = [one for array in report.made.arrays for one in array.items[: len(array.items) // 2]]
    for item in half:
        FakeTask(str(item.path(runs)))()
    jobs = {item: state.job for item, state in states.survey(submission.read_all(runs)).items()}
    tell("harness cancel's scancel of half of them", lambda: control.scheduler.cancel([jobs[item] for item in half]))
    tell("controller: half are newly finished", tick)
    tell("controller: half are known to be finished", tick)
    for item in {*items} - {*half}:
        FakeTask(str(item.path(runs)))()
    subprocess.run("squeue -h -o %A | sort -u | xargs -r scancel", shell=True, check=True)
    tell("controller: the rest is newly finished", tick)
    tell("controller: all are known to be finished", tick)
    tell("harness status: all finished", lambda: watch.look(runs, ()))


if __name__ == "__main__":
    main()
