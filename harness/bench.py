"""How fast this machine's device trains a recipe: bare forward and backward of one step on fixed tensors.

No images are loaded, no views made, no optimiser runs: it is the ceiling of what the training loop can reach. The
network, its precision (float32) and memory format are the loop's own. The rate is that of `harness cost --tflops`.
"""

import statistics
import time
from dataclasses import dataclass, replace
from typing import Any

import torch

from harness import cost, provenance
from harness.errors import BadCommand, BadRecipe
from harness.recipe import Recipe, check

WARM_UP = 2  # steps: memory is allocated, kernels are chosen


@dataclass(frozen=True)
class Bench:
    """seconds: of each timed step. step_flops: of one step at this batch."""

    recipe: str
    device: str
    batch: int
    seconds: tuple[float, ...]
    step_flops: int

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    def to_data(self) -> dict[str, Any]:
        """images_per_s: at the median step, and at the slowest and the fastest one."""
        return {
            "recipe": self.recipe,
            "device": self.device,
            "batch": self.batch,
            "steps": len(self.seconds),
            "images_per_s": self.batch / self.median,
            "images_per_s_range": [self.batch / max(self.seconds), self.batch / min(self.seconds)],
            "tflops": self.step_flops / self.median / 1e12,
        }

    def __str__(self) -> str:
        found = self.to_data()
        low, high = found["images_per_s_range"]
        return (
            f"{self.recipe} on {self.device}, batch {self.batch}, float32, forward and backward: "
            f"{found['images_per_s']:.4g} images/s (median of {found['steps']} steps, {low:.4g} to {high:.4g}), "
            f"{found['tflops']:.3g} TFLOP/s"
        )


def bench(recipe: Recipe, batch: int | None = None, repeats: int = 10, device: str | None = None) -> Bench:
    """batch: images of a step, else the recipe's. Errors: BadRecipe; BadCommand where the batch does not fit."""
    if repeats < 1:
        raise BadCommand(f"--repeats is {repeats}; expected 1 or more")
    if not recipe.budget.epochs:
        raise BadRecipe(f"recipe {recipe.name!r} is never trained; there is no step to time")
    recipe = replace(recipe, budget=replace(recipe.budget, batch=recipe.budget.batch if batch is None else batch))
    check(recipe)
    size = recipe.budget.batch
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    flops = cost.step_flops(cost.build(recipe, "meta"), cost.fixed_batch(recipe, size, "meta"))
    try:
        seconds = _timed(recipe, size, device, repeats)
    except torch.OutOfMemoryError as error:
        raise BadCommand(
            f"a batch of {size} images of {recipe.name!r} does not fit on {device}; lower --batch"
        ) from error
    return Bench(recipe.name, provenance.device_name(device), size, seconds, flops)


def _timed(recipe: Recipe, size: int, device: str, repeats: int) -> tuple[float, ...]:
    method = cost.build(recipe, device)
    method.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    fixed, seconds = cost.fixed_batch(recipe, size, device), []
    for _ in range(WARM_UP + repeats):
        _synchronise(device)
        begun = time.perf_counter()
        method.zero_grad(set_to_none=True)
        method.step(fixed).loss.backward()
        _synchronise(device)
        seconds.append(time.perf_counter() - begun)
    return tuple(seconds[WARM_UP:])


def _synchronise(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()
