"""How busy a sweep keeps its slots, and what pruning saves, on a real SLURM of its own; ratios of one run.

    python tests/benchmarks/sweep.py slots      # busy slot-seconds over available, against one batch after the other
    python tests/benchmarks/sweep.py pruning    # what pruners would have saved of a study without, and what they lose

Slots: trials of VICReg on digits whose number of epochs differs up to eightfold, the same settings in the same order in
both ways. A slot is busy while SLURM calls its job running, seen every quarter of a second. Available are the slots
from the first job's start to the last one's end, so the last trials, which nothing follows, count, too.

Pruning: random settings all trained to the end, whose curves each pruner then sees in many random orders. The same
settings for all, so that a better best value is no luck of the sampler.
"""

import argparse
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from statistics import fmean

import optuna

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))
os.environ.setdefault("OMP_NUM_THREADS", "1")

from harness.signals import Stop  # noqa: E402
from harness.studies import optimise, request  # noqa: E402
from harness.studies import study as studies  # noqa: E402
from slurm import profiles  # noqa: E402
from slurm.coordinator import Coordinator  # noqa: E402
from slurm.devcluster import Devcluster  # noqa: E402

RECIPE = "vicreg_digits_r10w16_e50"
PROFILE = (
    'launcher = "slurm"\none_machine = true\npartition = "normal"\nmem_gb = 1\ncheckpoint_every_s = 20\ntime_min = 60\n'
)
REPLAYS = 200
EPOCHS = "budget.epochs=10|20|40|80"


class Batches(Coordinator):
    """As a batch-synchronous sweeper does it: the next trials when all of the last ones are over."""

    def ask(self) -> None:
        if not self.open():
            super().ask()


class Watch(threading.Thread):
    """Counts SLURM's running jobs."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.over = threading.Event()
        self.seen: list[tuple[float, int]] = []

    def run(self) -> None:
        words = ["squeue", "--noheader", "--states=RUNNING", "--format=%i"]
        while not self.over.wait(0.25):
            done = subprocess.run(words, capture_output=True, text=True)
            self.seen.append((time.monotonic(), len(done.stdout.split())))

    def busy(self, slots: int) -> tuple[float, float]:
        """Share of the slot-seconds that were busy, and the seconds from the first start to the last end."""
        self.over.set()
        self.join()
        running = [i for i, (_, count) in enumerate(self.seen) if count]
        seen = self.seen[running[0] : running[-1] + 2]
        spans = [(later - at, min(count, slots)) for (at, count), (later, _) in pairwise(seen)]
        seconds = sum(span for span, _ in spans)
        return sum(span * count for span, count in spans) / (slots * seconds), seconds


def sweep(kind: type[Coordinator], runs: Path, slots: int, given: dict[str, object]) -> studies.Study:
    study = request.study(RECIPE, {"seeds_final": 0} | given, runs)
    study.folder(runs).mkdir(parents=True)
    kind(study, runs, "sweep", slots, None, say).work(Stop())
    return study


def measure_slots(root: Path, trials: int, slots: int) -> None:
    given = {"parameters": ("variance", "invariance", EPOCHS), "trials": trials, "sampler": "random", "pruner": "none"}
    rows = []
    for name, kind in (("asynchronous", Coordinator), ("batch after batch", Batches)):
        runs, watch = root / name.split()[0], Watch()
        watch.start()
        study = sweep(kind, runs, slots, given | {"overrides": ("budget.warmup=0",)})
        share, seconds = watch.busy(slots)
        lengths = [trial.seconds for trial in studies.read_trials(runs, study.name)]
        rows.append([name, f"{share:.3f}", f"{seconds:.0f}", f"{min(lengths):.0f} to {max(lengths):.0f}"])
    say(f"{trials} trials on {slots} slots")
    say(table(["way", "busy", "seconds", "seconds of a trial"], rows))


def measure_pruning(root: Path, trials: int, slots: int) -> None:
    study = sweep(Coordinator, root / "runs", slots, {"trials": trials, "sampler": "random", "pruner": "none"})
    found = studies.read_trials(root / "runs", study.name)
    complete = [trial for trial in found if trial.outcome == "complete"]
    curves = [studies.curve(study, root / "runs", trial) for trial in complete]
    every, best = sum(max(curve) for curve in curves), max(trial.value or 0.0 for trial in complete)
    say(f"{len(curves)} complete trials of {len(found)}; best {best:.2f}; replayed in {REPLAYS} random orders")
    rows = []
    for name in ("none", "median", "hyperband"):
        costs, losses = zip(
            *(replay(replace(study, pruner=name), curves, order) for order in range(REPLAYS)), strict=True
        )
        kept = sum(loss == 0 for loss in losses) / REPLAYS
        rows.append([name, f"{fmean(costs) / every:.2f}", f"{kept:.2f}", f"{fmean(losses):.2f}"])
    say(table(["pruner", "epochs trained, share", "best trial kept, share", "points lost on average"], rows))


def replay(study: studies.Study, curves: Sequence[Mapping[int, float]], order: int) -> tuple[int, float]:
    """Epochs trained, and how far the best value stays below that of all trials, had the pruner seen these curves."""
    made = optuna.create_study(study_name=f"replay {order}", direction="maximize", pruner=optimise.pruner(study))
    epochs = 0
    for i in random.Random(order).sample(range(len(curves)), len(curves)):
        trial, curve, state = made.ask(), curves[i], optuna.trial.TrialState.COMPLETE
        for epoch in sorted(curve):
            trial.report(curve[epoch], epoch)
            if trial.should_prune() and epoch < max(curve):
                state = optuna.trial.TrialState.PRUNED
                break
        epochs += epoch
        made.tell(trial, curve[max(curve)] if state == optuna.trial.TrialState.COMPLETE else None, state=state)
    return epochs, max(curve[max(curve)] for curve in curves) - made.best_value


def table(head: list[str], rows: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows])


def say(text: str) -> None:
    print(text, flush=True)  # noqa: T201


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("slots", "pruning"))
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--slots", type=int, default=2)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hdc-", dir="/tmp") as folder:
        Path(folder).chmod(0o755)  # munged insists
        cluster = Devcluster.up(Path(folder) / "c")
        os.environ.update(cluster.env)
        profiles.FOLDER = Path(folder) / "clusters"
        profiles.FOLDER.mkdir()
        (profiles.FOLDER / "sweep.toml").write_text(PROFILE)
        try:
            if asked.what == "slots":
                measure_slots(Path(folder), asked.trials, asked.slots)
            else:
                measure_pruning(Path(folder), asked.trials, asked.slots)
        finally:
            cluster.down()


if __name__ == "__main__":
    main()
