"""The parts of a recipe's training, to be timed in turn: views, bare steps, and the loop of `harness run` itself."""

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from harness import allocator, cost, data, evals
from harness.api import Clock
from harness.bench import evaluation
from harness.errors import RunFailed
from harness.nn.precision import autocast
from harness.progress import Bar
from harness.recipe import Recipe
from harness.runs import RunDirectory, read_lines
from harness.train import LOG_EVERY, Attempt

WARM_UP = 2  # rounds of one step each: memory is allocated, kernels are chosen


class Ours:
    """A run in a folder that is thrown away, of which each part can be called for.

    begun: `time.time()` when this process was started. The bare steps and the loop's share one network.
    """

    def __init__(self, recipe: Recipe, device: str, data_root: Path | None, begun: float) -> None:
        moments = [begun, time.time()]
        allocator.keep()  # as `harness run`
        self.recipe, self.device = recipe, device
        self.splits = data.load(recipe.data, data_root).to(device)
        moments.append(time.time())
        self.folder = tempfile.TemporaryDirectory(prefix="harness-bench-")
        directory = RunDirectory(Path(self.folder.name), recipe, 0)
        directory.path.mkdir(parents=True)
        self.attempt, self.bar = Attempt(directory, self.splits, device), Bar("", 0, 0, show=False)
        self.attempt.method.train()
        moments.append(time.time())
        self._one_step()
        synchronise(device)
        moments.append(time.time())
        parts = ("imports", "data", "network", "first_step")
        self.startup = {part: end - start for part, start, end in zip(parts, moments, moments[1:], strict=False)}
        self.startup["total"] = moments[-1] - begun
        self.fixed = cost.fixed_batch(recipe, recipe.budget.batch, device)
        self.drawn = 0
        # an epoch's first logged step: rounds of the loop end on it
        self.until = min(LOG_EVERY, self.attempt.per_epoch, self.attempt.steps)
        self.logged_share = -(-self.attempt.per_epoch // LOG_EVERY) / self.attempt.per_epoch

    def warm_up(self) -> tuple[float, int]:
        """Seconds of a bare step, and how many steps a round of the loop may have."""
        seconds = float("inf")
        for _ in range(WARM_UP):
            self.full(1)
            self.views(1)
            seconds = min(seconds, self.bare(1))
        self.lines = len(read_lines(self.attempt.directory.metrics))
        return seconds, max(1, self.until - 1)

    def views(self, n: int) -> float:
        """Seconds of a step's batch: indices, images and their views."""
        attempt = self.attempt

        def one() -> None:
            attempt.feed.batch(Clock(self.drawn % attempt.per_epoch, attempt.steps, attempt.per_epoch))
            self.drawn += 1

        return timed(one, n, self.device)

    def bare(self, n: int) -> float:
        """Seconds of forward and backward on fixed tensors, in the recipe's precision."""
        method = self.attempt.method

        def one() -> None:
            method.zero_grad(set_to_none=True)
            with autocast(self.recipe.precision, self.device):
                loss = method.step(self.fixed).loss
            loss.backward()

        return timed(one, n, self.device)

    def full(self, n: int) -> float:
        """Seconds of a step of the loop: n plain ones and a logged one, weighed as in an epoch."""
        self.attempt.step = max(0, self.until - n - 1)
        plain = timed(self._one_step, n, self.device)
        logged = timed(self._one_step, 1, self.device)
        return plain + self.logged_share * (logged - plain)

    def ceiling(self) -> float:
        """FLOP/s of a product of two large matrices in the recipe's precision: what no network can exceed."""
        n = 8192 if self.device.startswith("cuda") else 1024
        a = torch.rand(n, n, device=self.device, dtype=getattr(torch, self.recipe.precision))
        return 2 * n**3 / min(timed(lambda: a @ a, 5, self.device) for _ in range(WARM_UP + 3))

    def _one_step(self) -> None:
        status, reason = self.attempt.one_step(self.bar)
        if status == "diverged":
            raise RunFailed(f"{self.recipe.name}: diverged while it was timed, {reason}")

    def memory(self) -> int:
        """Bytes: most that the device has held so far; on a CPU, this process."""
        if self.device.startswith("cuda"):
            return torch.cuda.max_memory_allocated()
        return peak_rss()

    def found(self) -> dict[str, Any]:
        """What the loop has said of itself, and of its start."""
        lines = read_lines(self.attempt.directory.metrics)[self.lines :]
        return {
            "threads": torch.get_num_threads(),
            "startup_s": self.startup,
            "data_wait": [line["data_wait"] for line in lines],
            "train_images": len(self.splits.train),
        }

    def encode(self) -> float:
        """Seconds of the encoder's features of one batch, as an evaluation takes them."""
        _, encoder = self.attempt.method.encoder()
        encoder.eval()
        with torch.no_grad():
            seconds = timed(lambda: encoder(self.fixed.views[0]), 1, self.device)
        self.attempt.method.train()
        return seconds

    def evaluations(self) -> list[dict[str, Any]]:
        """See `evaluation.timings`."""
        evals.check(self.recipe.evals, self.splits)
        return evaluation.timings(self.recipe.evals, self.splits, self.attempt.method.backbone.width, self.device)


def timed(work: Callable[[], object], n: int, device: str) -> float:
    """Seconds of one of n calls, with all that they ask of the device."""
    synchronise(device)
    begun = time.perf_counter()
    for _ in range(n):
        work()
    synchronise(device)
    return (time.perf_counter() - begun) / n


def synchronise(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def peak_rss() -> int:
    """Bytes that this process has held at most. Linux's own figure, since ru_maxrss there counts the parent's too."""
    if sys.platform == "linux":
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        return int(status["VmHWM"].split()[0]) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
