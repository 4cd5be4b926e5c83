"""What a recipe costs, before anything is run: FLOPs of one real training step, and hours at a stated rate.

A step of the method on the recipe's views and batch, forward and backward, runs on torch's meta device, which has
shapes and no numbers, under torch.utils.flop_counter. Counted are matrix products and convolutions, a multiplication
and an addition as two: ResNet-50 at 224 px has 8.2 GFLOPs (4.1 GMACs). Not counted are element-wise work, views, the
optimiser and evaluations. The FLOPs are exact in this sense; hours are an estimate.
"""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from harness import backbones, data
from harness.api import Batch, Clock, Draws, Method, TrainSet
from harness.errors import BadRecipe
from harness.recipe import Recipe
from harness.seeding import generator

TFLOPS = 12.0  # the median of what published timings come to, rounded; tests/test_cost.py holds it to them
CALIBRATION = "the median of published timings on V100 and RTX A6000, `harness cost --timings`"


@dataclass(frozen=True)
class Cost:
    """encoder_flops: one image through the encoder. step_flops: one training step of the whole batch."""

    recipe: str
    encoder_parameters: int
    trained_parameters: int
    encoder_flops: int
    step_flops: int
    batch: int
    steps: int

    @property
    def image_flops(self) -> float:
        """Of training, per image of the batch with all its views."""
        return self.step_flops / self.batch

    @property
    def total_flops(self) -> int:
        return self.step_flops * self.steps

    def gpu_hours(self, tflops: float) -> float:
        """At so many 10^12 achieved FLOP/s."""
        return self.total_flops / (tflops * 1e12) / 3600

    def to_data(self, tflops: float) -> dict[str, Any]:
        return {
            **vars(self),
            "image_flops": self.image_flops,
            "total_flops": self.total_flops,
            "gpu_hours": self.gpu_hours(tflops),
        }


def build(recipe: Recipe, device: str) -> Method[Any]:
    """The initialised method of a recipe, on a device. Errors: UnknownName, BadRecipe."""
    try:
        with torch.device(device):
            sides, vectors = (view.px for view in recipe.views), recipe.data.name in data.VECTORS
            backbone = backbones.build(recipe.encoder, data.side(recipe.data), *sides, vectors=vectors)
            backbone.parts = recipe.budget.accumulate
            return recipe.method.build(backbone, TrainSet(data.train_size(recipe.data), data.classes(recipe.data)))
    except ValueError as error:
        raise BadRecipe(f"recipe {recipe.name!r}: {error}") from error


def fixed_batch(recipe: Recipe, size: int, device: str) -> Batch:
    """The first step's batch of `size` images, with noise for views."""
    sides = [view.px for view in recipe.views for _ in range(view.count)]
    views = [torch.rand(size, *data.shape(recipe.data, px), device=device) for px in sides]
    draws = Draws(generator(0, "method", 0), device)
    index = torch.arange(size, device=device)
    labels = index % data.classes(recipe.data) if recipe.method.requirements().labels else None
    return Batch(views, index, Clock(0, max(1, steps_of(recipe)), 1), draws, labels)


def steps_of(recipe: Recipe) -> int:
    whole = recipe.budget.epochs * (data.train_size(recipe.data) // recipe.budget.batch)
    return whole if recipe.budget.steps is None else recipe.budget.steps


def of(recipe: Recipe) -> Cost:
    """Errors: UnknownName, BadRecipe."""
    method = build(recipe, "meta")
    with FlopCounterMode(display=False) as encoder, torch.no_grad():
        method.backbone.eval()(torch.empty(1, *data.shape(recipe.data), device="meta"))
    method.train()
    return Cost(
        recipe=recipe.name,
        encoder_parameters=sum(p.numel() for p in method.backbone.parameters()),
        trained_parameters=sum(p.numel() for p in method.parameters() if p.requires_grad),
        encoder_flops=encoder.get_total_flops(),
        step_flops=step_flops(method, fixed_batch(recipe, recipe.budget.batch, "meta")) if recipe.budget.epochs else 0,
        batch=recipe.budget.batch,
        steps=steps_of(recipe),
    )


def step_flops(method: Method[Any], batch: Batch) -> int:
    """Forward and backward of one step."""
    with FlopCounterMode(display=False) as counter:
        method.step(batch).loss.backward()
    return int(counter.get_total_flops())


HEADER = ("recipe", "M params", "M trained", "GFLOPs forward", "GFLOPs per image", "steps", "EFLOPs", "GPU hours")


def row(cost: Cost, tflops: float) -> tuple[str, ...]:
    """One line of the table. params, forward: of the encoder, on one image; trained, per image: of the whole method."""
    return (
        cost.recipe,
        f"{cost.encoder_parameters / 1e6:.1f}",
        f"{cost.trained_parameters / 1e6:.1f}",
        f"{cost.encoder_flops / 1e9:.3g}",
        f"{cost.image_flops / 1e9:.3g}",
        f"{cost.steps:,}",
        f"{cost.total_flops / 1e18:.3g}",
        _hours(cost.gpu_hours(tflops)),
    )


def _hours(hours: float) -> str:
    return f"{hours:,.0f}" if hours >= 10 else f"{hours:.1f}" if hours >= 1 else f"{hours:.2g}"


# ---------------------------------------------------------------------------------------------- published timings


@dataclass(frozen=True)
class Timing:
    """How long somebody's run took. images: of one epoch; hours: of the whole run, on all GPUs at once."""

    recipe: str
    images: int
    epochs: int
    gpus: int
    gpu: str
    hours: float
    source: str

    def tflops(self, cost: Cost) -> float:
        """Achieved by each GPU, in 10^12 FLOP/s, whatever else the run did meanwhile."""
        return cost.image_flops * self.images * self.epochs / (self.hours * 3600 * self.gpus) / 1e12


def timings(path: Path) -> list[Timing]:
    return [Timing(**row) for row in tomllib.loads(path.read_text())["timing"]]
