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
from torch import Tensor

from harness.data import Images
from harness.errors import BadRecipe
from harness.features import Features, Table, accuracy
from harness.recipe import ProtocolConfig

UNITS = {"top1": "percent", "top5": "percent", "weight_decay": "L2 strength"}
MIN_CLASSES = 2
ROWS = 4096  # of the features at once


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
    """Any set of two classes will do."""


def run(config: Config, features: Features, split: str) -> Iterator[tuple[str, float]]:
    weight_decay, weight, bias = features.fitted(config, lambda: select(config, features))
    table = features.table(split)
    scores = (table.x.to(features.device) @ weight + bias).cpu()
    yield "top1", accuracy(scores, table.labels)
    if features.classes > 5:
        yield "top5", accuracy(scores, table.labels, top=5)
    yield "weight_decay", weight_decay


def select(config: Config, features: Features) -> tuple[float, Tensor, Tensor]:
    """Chosen L2 strength, and weight (D, C) and bias (C,) for features that are not standardised.

    Both are on `features.device`, which holds one standardised copy of the train features and, at first, another one.
    """
    x, labels = (tensor.to(features.device) for tensor in (features.train.x, features.train.labels))
    held_out = features.held_out.x.to(features.device)
    mean, scale = x.mean(0), x.std(0, correction=0)
    # constant dimensions (dead units, collapsed encoders) become 0, not their rounding error
    scale = torch.where(scale > 1e-6 * (mean.abs() + scale), scale, torch.inf)
    best: tuple[float, Tensor, Tensor] | None = None
    best_top1 = -1.0
    z = (x - mean).div_(scale)
    del x
    for weight_decay, (weight, bias) in path(z, labels, features.classes, config.weight_decays):
        weight = weight / scale[:, None]
        bias = bias - mean @ weight
        top1 = accuracy((held_out @ weight + bias).cpu(), features.held_out.labels)
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
        solution = solution.clone()
        lbfgs = torch.optim.LBFGS(
            [solution],
            max_iter=500,
            history_size=20,
            tolerance_grad=1e-5,
            tolerance_change=1e-9,
            line_search_fn="strong_wolfe",
        )

        def loss(solution: Tensor = solution, weight_decay: float = weight_decay) -> Tensor:
            value, solution.grad = objective(z, labels, solution, weight_decay)
            return value

        lbfgs.step(loss)
        yield weight_decay, (solution[:-1], solution[-1])


def objective(z: Tensor, labels: Tensor, solution: Tensor, weight_decay: float) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy + weight_decay / 2 |W|^2, and its gradient, at a solution (D + 1, C).

    The gradient is written out, and rows go in parts whose logits stay in the cache. The value is summed in float64:
    near the minimum the line search asks for differences that float32 does not hold, and would stop too early.
    """
    weight, bias, gradient = solution[:-1], solution[-1], torch.zeros_like(solution)
    value = gradient.new_zeros((), dtype=torch.float64)
    for x, own in zip(z.split(ROWS), labels[:, None].split(ROWS), strict=True):
        log_p = torch.addmm(bias, x, weight).log_softmax(1)
        value -= log_p.gather(1, own).sum(dtype=torch.float64)
        error = log_p.exp_().scatter_add_(1, own, log_p.new_full(own.shape, -1.0))
        gradient[:-1].addmm_(x.T, error)
        gradient[-1] += error.sum(0)
    gradient /= len(z)
    gradient[:-1].add_(weight, alpha=weight_decay)
    return value / len(z) + weight_decay / 2 * weight.square().sum(dtype=torch.float64), gradient
