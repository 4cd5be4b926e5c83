"""Offline linear probe: multinomial logistic regression on frozen, standardised features, without augmentation.

Features are standardised with the mean and standard deviation of train and fitted on train by full-batch L-BFGS. The L2
strength is the one of a fixed grid with the best top-1 on held_out (the stronger of equals); no fit sees held_out.
The published linear probes train by SGD with augmentation, each paper in its own way: this one has no learning rate to
tune and gives the same number twice, but its values are not theirs.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.data import Images
from harness.errors import BadRecipe
from harness.features import Features, Table, accuracy
from harness.recipe import ProtocolConfig

UNITS = {"top1": "percent", "top5": "percent", "weight_decay": "L2 strength"}


@dataclass(frozen=True, kw_only=True)
class Config(ProtocolConfig):
    """weight_decays: grid of L2 strengths w in mean cross-entropy + w/2 |W|^2 (no bias), from strong to weak."""

    protocol: ClassVar[str] = "linear"
    weight_decays: tuple[float, ...] = (1.0, 1e-1, 1e-2, 1e-3, 1e-4)

    def __post_init__(self) -> None:
        grid = self.weight_decays
        if not grid or min(grid) <= 0 or list(grid) != sorted(grid, reverse=True):
            raise BadRecipe(
                f"linear: weight_decays is {grid}; expected positive numbers, from the largest to the smallest"
            )


def check(config: Config, train: Images | Table, classes: int) -> None:
    if classes < 2:
        raise BadRecipe(f"{config.id}: the data set has {classes} class, at least 2 are needed; drop this protocol")


def run(config: Config, features: Features, split: str) -> Iterator[tuple[str, float]]:
    weight_decay, weight, bias = features.fitted(config, lambda: select(config, features))
    table = features.table(split)
    scores = table.x @ weight + bias
    yield "top1", accuracy(scores, table.labels)
    if features.classes > 5:
        yield "top5", accuracy(scores, table.labels, top=5)
    yield "weight_decay", weight_decay


def select(config: Config, features: Features) -> tuple[float, Tensor, Tensor]:
    """Chosen L2 strength, and weight (D, C) and bias (C,) for features that are not standardised."""
    train, held_out = features.train, features.held_out
    mean, scale = train.x.mean(0), train.x.std(0, correction=0)
    # constant dimensions (dead units, collapsed encoders) become 0, not their rounding error
    scale = torch.where(scale > 1e-6 * (mean.abs() + scale), scale, torch.inf)
    best: tuple[float, Tensor, Tensor] | None = None
    best_top1 = -1.0
    z = (train.x - mean) / scale
    for weight_decay, (weight, bias) in path(z, train.labels, features.classes, config.weight_decays):
        weight = weight / scale[:, None]
        bias = bias - mean @ weight
        top1 = accuracy(held_out.x @ weight + bias, held_out.labels)
        if top1 > best_top1:
            best_top1, best = top1, (weight_decay, weight, bias)
    assert best is not None
    return best


def path(
    z: Tensor, labels: Tensor, classes: int, weight_decays: Sequence[float]
) -> Iterator[tuple[float, tuple[Tensor, Tensor]]]:
    """Logistic regression of labels (N,) on z (N, D) for each L2 strength, each started at the one before."""
    solution = z.new_zeros(z.shape[1] + 1, classes)  # last row: bias
    for weight_decay in weight_decays:
        solution = solution.clone().requires_grad_()
        lbfgs = torch.optim.LBFGS(
            [solution],
            max_iter=500,
            history_size=20,
            tolerance_grad=1e-5,
            tolerance_change=1e-9,
            line_search_fn="strong_wolfe",
        )

        def loss(solution: Tensor = solution, weight_decay: float = weight_decay) -> Tensor:
            weight, bias = solution[:-1], solution[-1]
            value = F.cross_entropy(z @ weight + bias, labels) + weight_decay / 2 * weight.square().sum()
            (solution.grad,) = torch.autograd.grad(value, [solution])
            return value.detach()

        lbfgs.step(loss)
        solution = solution.detach()
        yield weight_decay, (solution[:-1], solution[-1])
