"""One run: a recipe and a seed become a run directory. Read from `run` downwards, one function per phase.

Nothing here knows a method, a cluster or MLflow by name. A run can be killed at any moment and started again; on CPU it
then ends with the same bits as an uninterrupted one, because all randomness is a function of (seed, step)
(harness/seeding.py) and everything else is in the checkpoint.
"""

import contextlib
import math
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness import allocator, attempts, backbones, checkpoint, data, provenance, signals
from harness.api import Clock, Method, Step, TrainSet
from harness.attempts import Place
from harness.data import Splits
from harness.data.large import LargeImages
from harness.errors import BadRecipe, HarnessError, Interrupted, LeaseLost, NotWritable, RunFailed
from harness.evals import check as check_protocols
from harness.evals import evaluate
from harness.evals.collapse import effective_rank, embedding_std
from harness.evals.online_linear import OnlineProbe
from harness.features import extract
from harness.feed import Resident
from harness.interval import ASKED, Interval
from harness.nn import all_gather, rank, world_size
from harness.nn.collectives import synchronise_batch_norm
from harness.nn.precision import autocast
from harness.optim import Training
from harness.processes import Follower, any_of, first, held_by_first, means, parallel
from harness.progress import Bar
from harness.recipe import Recipe, check_processes
from harness.runs import RunDirectory, cancelled, now, read_lines
from harness.seeding import seed_global
from harness.signals import Stop
from harness.stream import Streamed

LOG_EVERY = 50  # steps; at least once per epoch
LOOK_EVERY = 10  # steps on a GPU, where looking at a loss waits for it; on a CPU each is looked at
CHECKPOINT_EVERY_S = 60.0
COLLAPSE_AFTER = 0.2  # ours: share of the run before which a collapse may still recover
COLLAPSE_LINES = 3  # ours: logged lines in a row


def run(
    recipe: Recipe,
    seed: int,
    root: Path,
    *,
    data_root: Path | None = None,
    device: str | None = None,
    wait: bool = False,
    show: bool = True,
    checkpoint_every_s: float = CHECKPOINT_EVERY_S,
    stop: Stop | None = None,
    place: Place | None = None,
) -> dict[str, Any]:
    """Train, evaluate and record; a finished run is returned as it is, an interrupted one goes on.

    wait: for a living process that holds the run directory. stop: set by signals that the caller handles; without it
    they are handled here. Returns the record. Errors: any HarnessError; Interrupted after a signal.

    Several processes, joined by the launcher, all call this, each with a device of its own. Rank 0 alone holds the
    directory, writes, evaluates, and returns the record; the others return {} as soon as it has the features, since an
    evaluation may take longer than a collective waits.
    """
    directory = (RunDirectory if rank() == 0 else Follower)(root, recipe, seed)
    place = place or Place()
    with (
        contextlib.nullcontext(stop) if stop else signals.noted() as stop,
        held_by_first(directory.leased(wait, **place.fields)),
    ):
        if record := first(directory.record):
            return record
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        allocator.keep()
        torch.backends.cudnn.benchmark = True  # steps are all of one shape, so the fastest kernels are looked for once
        try:
            splits = data.load(recipe.data, data_root).to(device)
            attempt = Attempt(directory, splits, device)
        except HarnessError:
            directory.forget()
            raise
        return attempt.run(stop, place, show, checkpoint_every_s)


class Attempt:
    """One start of a run on a machine: the objects of the loop and where it stands."""

    def __init__(self, directory: RunDirectory, splits: Splits, device: str) -> None:
        recipe, seed = directory.recipe, directory.seed
        check_processes(recipe, world_size())
        self.directory, self.recipe, self.seed, self.splits, self.device = directory, recipe, seed, splits, device
        per_epoch = len(splits.train.labels) // recipe.budget.batch
        if per_epoch == 0 and recipe.budget.epochs:
            raise BadRecipe(
                f"recipe {recipe.name!r}: batch {recipe.budget.batch} is larger than the {len(splits.train.labels)} "
                f"training images of {recipe.data.name!r}; lower budget.batch"
            )
        check_protocols(recipe.evals, splits)
        self.per_epoch, self.steps = per_epoch, recipe.budget.epochs * per_epoch
        if recipe.budget.steps is not None:
            if recipe.budget.steps > self.steps:
                raise BadRecipe(
                    f"recipe {recipe.name!r}: budget.steps is {recipe.budget.steps}, but {recipe.budget.epochs} epochs "
                    f"have {self.steps} steps; raise budget.epochs"
                )
            self.steps = recipe.budget.steps
        seed_global(seed, "init")
        px, vectors = data.side(recipe.data), recipe.data.name in data.VECTORS
        backbone = backbones.build(recipe.encoder, px, *(view.px for view in recipe.views), vectors=vectors)
        known = TrainSet(len(splits.train.labels), splits.classes)
        try:
            backbone.parts = recipe.budget.accumulate
            # channels_last: 15-100 % faster for convolutions on CPU (measured), known to help on GPUs too
            self.method: Method[Any] = recipe.method.build(backbone, known).to(device)
            self.method.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            if world_size() > 1:
                synchronise_batch_norm(self.method)
        except ValueError as error:
            raise BadRecipe(f"recipe {recipe.name!r}: {error}") from error
        self.training = Training(self.method, recipe.optimiser, recipe.budget.batch, recipe.budget.warmup * per_epoch)
        self.probe = OnlineProbe(backbone.width, splits.classes).to(device) if recipe.online_probe else None
        self.parallel = parallel(self.method) if world_size() > 1 and self.steps else None
        self.stop = Stop()
        self.agreed = ""  # why all of several processes stop, as of the last step
        self.code = provenance.code(methods_of(recipe))
        self.step = 0
        self.seconds = 0.0
        self.images = 0
        self.interval = Interval()
        self.low = 0  # logged lines in a row that look collapsed
        feed = Streamed if isinstance(splits.train, LargeImages) else Resident
        self.feed = feed(splits, recipe, seed, device)
        self._resume()

    # ------------------------------------------------------------------------------------------ state

    def state(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "seconds": self.seconds,
            "images": self.images,
            "low": self.low,
            "threads": torch.get_num_threads(),
            "code": self.code,
            "interval": self.interval.sums,
            "interval_steps": self.interval.steps,
            "method": self.method.state_dict(),
            "training": self.training.state_dict(),
            "probe": self.probe.state_dict() if self.probe else None,
        }

    def _resume(self) -> None:
        (state, warnings), threads = first(lambda: (checkpoint.newest(self.directory.path), torch.get_num_threads()))
        for warning in warnings:
            attempts.warn(self.directory, warning)
        if state is None:
            if world_size() > 1:
                torch.set_num_threads(threads)  # those that the checkpoint will name
            return
        self.step, self.seconds, self.images, self.low = state["step"], state["seconds"], state["images"], state["low"]
        torch.set_num_threads(state["threads"])  # sums in another order would end in other bits
        self.code = provenance.code(methods_of(self.recipe), state["code"])
        self.interval = Interval(state["interval"], state["interval_steps"])
        self.method.load_state_dict(state["method"])
        self.training.load_state_dict(state["training"])
        if self.probe:
            self.probe.load_state_dict(state["probe"])

    # ------------------------------------------------------------------------------------------ the attempt

    def run(self, stop: Stop, place: Place, show: bool, checkpoint_every_s: float) -> dict[str, Any]:
        """From where the run stands to its record; the attempt's start and end are noted whatever happens."""
        number = first(lambda: attempts.begin(self.directory, self.step, self.steps, place))
        try:
            status, reason = self.train(stop, show, checkpoint_every_s)
            record = self.finish(stop, status, reason)
        except Interrupted:
            by = cancelled(self.directory.path)
            if by is None and rank() == 0:
                status, reason = place.interrupted(self.agreed or stop.signal)
            else:
                status, reason = "cancelled", by or ""
            attempts.end(self.directory, number, self.step, status, reason)
            raise
        except Exception as error:
            with contextlib.suppress(NotWritable, LeaseLost):  # the next attempt will note that this one ended
                attempts.end(self.directory, number, self.step, "crashed", f"{type(error).__name__}: {error}")
            raise
        attempts.end(self.directory, number, self.step, status, reason)
        self.directory.write_record(record)
        return record

    def train(self, stop: Stop, show: bool, checkpoint_every_s: float) -> tuple[str, str]:
        """Run to the end or to a failure. Returns (status, reason). Errors: Interrupted, with a checkpoint written."""
        self.method.train()
        self.stop = stop
        saved, status, reason = time.monotonic(), "complete", ""
        name = f"{self.recipe.name} seed {self.seed}"
        with contextlib.closing(self.feed), Bar(name, self.steps, self.step, show and rank() == 0) as bar:
            while self.step < self.steps and status == "complete":
                status, reason = self.one_step(bar)
                if self.interval.pending:
                    continue  # several processes agree on what follows where they look at their losses
                asked = self.agreed if world_size() > 1 else stop.signal
                if asked and self.step < self.steps and status == "complete":
                    first(self.save)  # no process ends before it is written
                    raise self.interrupted(asked)
                if status == "complete" and time.monotonic() - saved >= checkpoint_every_s:
                    self.save()
                    saved = time.monotonic()
        if status == "complete" and not all(p.isfinite().all() for p in self.method.parameters()):
            status, reason = "diverged", f"weights are not finite after the last step, {self.step}"
        if self.steps and status == "complete":
            self.save()
        return status, reason

    def save(self) -> None:
        if rank() == 0:
            self.directory.check()
            checkpoint.save(self.directory.path, self.step, self.state())

    def interrupted(self, signal: str) -> Interrupted:
        return Interrupted(f"{self.directory.key} stopped at step {self.step} by {signal}; start it again to go on")

    # ------------------------------------------------------------------------------------------ the loop

    def one_step(self, bar: Bar) -> tuple[str, str]:
        """Nothing here waits for the device, except where the losses are looked at."""
        clock = Clock(self.step, self.steps, self.per_epoch)
        begun = time.perf_counter()
        others = [f"rank {rank()}"] if rank() else []  # its images are others, so dropout must be, too
        seed_global(self.seed, "step", self.step, *others)
        batch, labels = self.feed.batch(clock)
        ready = time.perf_counter()
        with autocast(self.recipe.precision, self.device):
            out = self.parallel(batch) if self.parallel else self.method.step(batch)
        self.interval.add(self.values(out))
        done = self.step + 1
        logged = done == self.steps or done % self.per_epoch == 0 or (done % self.per_epoch) % LOG_EVERY == 0
        if logged or self.device == "cpu" or len(self.interval.pending) == LOOK_EVERY:
            status, reason = self.look()
            if status != "complete":
                return status, reason
        self.training.step(out.loss, clock)
        self.method.after_step(clock)
        if self.probe:
            self.probe.update(out.features.detach(), labels)
        self.step = done
        self.images += self.recipe.budget.batch
        spent = time.perf_counter() - begun
        self.seconds += spent
        self.interval.time(spent, ready - begun)
        return self.log(clock, out, bar) if logged else ("complete", "")

    def values(self, out: Step) -> dict[str, Tensor]:
        """Loss and terms of this process, and of several whether this one was asked to stop."""
        values = {"loss": out.loss} | {f"terms/{name}": term for name, term in out.terms.items()}
        if world_size() > 1:
            values[ASKED] = torch.tensor(float(bool(self.stop.signal))).to(self.device, non_blocking=True)
        return values

    def look(self) -> tuple[str, str]:
        """At the losses since the last look, of the joined batch; several processes agree on whether to stop."""
        start = self.step + 1 - len(self.interval.pending)
        looked = self.interval.look()
        if any(values.get(ASKED) for values in looked):
            self.agreed = any_of([self.stop.signal] if self.stop.signal else [])
        last = looked[-1]
        if math.isfinite(last["loss"]):
            return "complete", ""
        terms = ", ".join(f"{k.removeprefix('terms/')} {v:.4g}" for k, v in last.items() if k.startswith("terms/"))
        return "diverged", f"loss is {last['loss']} at step {start + len(looked) - 1} ({terms})"

    def log(self, clock: Clock, out: Step, bar: Bar) -> tuple[str, str]:
        """One line of metrics.jsonl, of the joined batch, and the check for collapse."""
        averages, images_per_s, data_wait = self.interval.close(self.recipe.budget.batch)
        embedding = all_gather(out.embedding.detach().float())
        line: dict[str, Any] = {
            "step": self.step,
            "epoch": clock.epoch + 1,
            "time": now(),
            "loss": averages.pop("loss"),
            "terms": {name.removeprefix("terms/"): value for name, value in averages.items()},
            "coefficients": self.recipe.method.weights(),
            "lr": self.training.lr(clock),
            "weight_decay": self.training.weight_decay(clock),
            "embedding_std": float(embedding_std(embedding)),
            "embedding_scale": float(embedding.std(0).mean()),
            "effective_rank": float(effective_rank(embedding)),
            "images_per_s": images_per_s,
            "data_wait": data_wait,
            "diagnostics": means(out.diagnostics, self.device),
        }
        if held_out := self.measure():
            line["held_out"] = held_out
        return first(lambda: self.judge(line, clock, bar))  # by one, so that rounding divides no two processes

    def measure(self) -> dict[str, float]:
        """What the recipe's monitor asks for at this step, as `<protocol>/<metric>`: often nothing."""
        monitor, (epoch, rest) = self.recipe.monitor, divmod(self.step, self.per_epoch)
        due = self.step == self.steps or not (rest or epoch % monitor.every)
        wanted = [one for one in self.recipe.evals if one.id == monitor.protocol]
        if not wanted or not due:
            return {}
        network, encoder = self.method.encoder()
        try:
            features = extract(encoder, self.splits, names=("held_out",), device=self.device)
        except RunFailed:  # not finite
            return {monitor.protocol: math.nan}
        if rank() > 0:
            return {}
        features.online_probe = self.probe
        (row,) = evaluate(wanted, features, ("held_out",), network=network)
        return {f"{row['protocol']}/{metric}": value for metric, value in row["metrics"].items()}

    def judge(self, line: dict[str, Any], clock: Clock, bar: Bar) -> tuple[str, str]:
        self.directory.append("metrics.jsonl", line)
        bar.update(line["step"], line["epoch"], line["loss"], line["terms"], line["images_per_s"])
        if not all(math.isfinite(value) for value in line.get("held_out", {}).values()):
            return "diverged", f"features are not finite at step {self.step}"
        self.low = self.low + 1 if is_collapsed(line) else 0
        if self.low >= COLLAPSE_LINES and clock.progress >= COLLAPSE_AFTER:
            return "collapsed", (
                f"embedding std {line['embedding_std']:.3g}, scale {line['embedding_scale']:.3g}, "
                f"effective rank {line['effective_rank']:.3g} at step {self.step}"
            )
        return "complete", ""

    # ------------------------------------------------------------------------------------------ the end

    def finish(self, stop: Stop, status: str, reason: str) -> dict[str, Any]:
        """Evaluate and write the encoder. Returns the record. Errors: Interrupted between two protocols."""
        network, encoder = self.method.encoder()
        recipe = self.recipe
        path = self.directory.path / "encoder.safetensors"
        if rank() == 0 and recipe.encoder.name != "pixels":
            backbones.export(encoder, recipe.encoder, path)
        evals: list[dict[str, Any]] = []
        features = None
        if status != "diverged":
            names = ("held_out", *(name for name in recipe.splits if name != "held_out"))  # what is selected, is there
            features = extract(
                encoder, self.splits, names=names, views=recipe.views, seed=self.seed, device=self.device
            )
        if rank() > 0:
            return {}
        if features:
            features.online_probe = self.probe
            for protocol in recipe.evals:
                if stop.signal:
                    raise self.interrupted(stop.signal)
                evals += evaluate((protocol,), features, recipe.splits, network=network)
        lines = read_lines(self.directory.metrics)
        return {
            "schema": 1,
            "recipe": recipe.name,
            "digest": recipe.digest,
            "seed": self.seed,
            "overrides": list(recipe.overrides),
            "method": recipe.resolved()["method"]["name"],
            "label": recipe.method.label,
            "dataset": recipe.data.name,
            "encoder": recipe.encoder.label or recipe.encoder.name,
            "px": data.side(recipe.data),
            "epochs": recipe.budget.epochs,
            "batch": recipe.budget.batch,
            "steps": self.step,
            "status": status,
            "reason": reason,
            "code": self.code,
            "network": network,
            "data": {"name": self.splits.name, "revision": self.splits.revision},
            "packages": provenance.packages(),
            "device": {"name": provenance.device_name(self.device), "count": world_size()},
            "started": read_lines(self.directory.path / "attempts.jsonl")[0]["time"],
            "ended": now(),
            "train_seconds": round(self.seconds, 3),
            "images_per_s": round(self.images / self.seconds, 1) if self.seconds else None,
            "last": lines[-1] if lines else None,
            "evals": evals,
            "resolved": recipe.resolved(),
        }


def is_collapsed(line: dict[str, Any]) -> bool:
    """All embeddings in one direction (std), or on a line (rank), or shrunk to a point (scale).

    0.01 is where VICReg's variance term loses its gradient: the square root of its epsilon, 1e-4. The others are ours.
    """
    return line["embedding_std"] < 0.02 or line["effective_rank"] < 1.5 or line["embedding_scale"] < 0.01


def methods_of(recipe: Recipe) -> tuple[str, ...]:
    """Names of the method files a recipe uses: the method and what it wraps."""
    names, node = [], recipe.resolved()["method"]
    while isinstance(node, dict) and "name" in node:
        names.append(node["name"])
        node = node.get("base")
    return tuple(names)
