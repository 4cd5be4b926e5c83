"""Offline linear probe by SGD with momentum, as papers print it: learning rate, epochs and drops are theirs.

Source   He et al. 2020 (MoCo): learning rate 30, no weight decay, a tenth of it from epochs 60 and 80 on, of 100; other
         papers set other numbers, which a recipe states. Weights start at N(0, 0.01), biases at 0
         (facebookresearch/moco, main_lincls.py; tmllab/2022_NeurIPS_RSA@f4fa807, eval_single.py).
Departs  The features are those of the images as they are, each encoded once: no crop and no flip while the probe
         trains. The value is that of the last epoch, where the sources report the best one on the test images.
         A last batch that is not full is dropped.
         Of several learning rates (`lrs`), each a probe of its own, the one with the best top-1 on held_out counts (the
         smallest of equals); the sources that try several report the best on the test images.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from harness.data import Images
from harness.errors import BadRecipe
from harness.features import Features, Table, accuracy
from harness.nn.schedules import cosine
from harness.recipe import ProtocolConfig
from harness.seeding import generator

UNITS = {"top1": "percent", "top5": "percent", "lr": "learning rate"}
MIN_CLASSES = 2
LR = 30.0


@dataclass(frozen=True, kw_only=True)
class Config(ProtocolConfig):
    """lr: for the batch as it is. drops: epochs from which on the rate is a tenth; none: a cosine to 0, by epoch.

    lrs: learning rates of which the best on held_out counts, instead of `lr`; they are trained all at once.
    """

    protocol: ClassVar[str] = "linear_sgd"
    lr: float = LR
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 0.0
    epochs: int = 100
    batch: int = 256
    drops: tuple[int, ...] = (60, 80)
    lrs: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.lr <= 0 or self.epochs < 1 or self.batch < 1 or self.weight_decay < 0 or not 0 <= self.momentum < 1:
            raise BadRecipe(
                f"linear_sgd: lr {self.lr}, momentum {self.momentum}, weight_decay {self.weight_decay}, epochs "
                f"{self.epochs}, batch {self.batch}; expected lr > 0, momentum 0 to 1, weight_decay >= 0, others >= 1"
            )
        if self.lrs and (len(self.lrs) < 2 or self.lrs[0] <= 0 or list(self.lrs) != sorted(set(self.lrs))):
            raise BadRecipe(
                f"linear_sgd: lrs is {self.lrs}; expected two or more positive numbers, from the smallest up"
            )
        if self.lrs and self.lr != LR:
            raise BadRecipe(f"linear_sgd: lr is {self.lr} and lrs {self.lrs}; give one of them")

    @property
    def id(self) -> str:
        return f"linear_sgd_lr{self.rates}_wd{self.weight_decay:g}_e{self.epochs}"

    @property
    def rates(self) -> str:
        """The learning rate, or the range and the number of several: 0.1-100x9."""
        return f"{self.lrs[0]:g}-{self.lrs[-1]:g}x{len(self.lrs)}" if self.lrs else f"{self.lr:g}"

    def factor_at(self, epoch: int) -> float:
        """What learning rates are multiplied by in an epoch."""
        if not self.drops:
            return cosine(1.0, 0.0, epoch / self.epochs)
        return 0.1 ** sum(epoch >= drop for drop in self.drops)


def check(config: Config, train: Images | Table, classes: int) -> None:
    if config.batch > len(train.labels):
        raise BadRecipe(
            f"{config.id}: a batch of {config.batch} is more than the {len(train.labels)} train images; lower its batch"
        )


def run(config: Config, features: Features, split: str) -> Iterator[tuple[str, float]]:
    lr, weight, bias = features.fitted(config, lambda: select(config, features))
    table = features.table(split)
    scores = (table.x.to(features.device) @ weight.T + bias).cpu()
    yield "top1", accuracy(scores, table.labels)
    if features.classes > 5:
        yield "top5", accuracy(scores, table.labels, top=5)
    if config.lrs:
        yield "lr", lr


def select(config: Config, features: Features) -> tuple[float, Tensor, Tensor]:
    """Chosen learning rate, and weight (C, D) and bias (C,); `features.device` holds them and the train features."""
    lrs = config.lrs or (config.lr,)
    weights, biases = fit(config, lrs, features.train, features.classes, features.device)
    best = 0
    if len(lrs) > 1:
        x, labels = features.held_out.x.to(features.device), features.held_out.labels
        found = [accuracy((x @ w.T + b).cpu(), labels) for w, b in zip(weights, biases, strict=True)]
        best = found.index(max(found))
    return lrs[best], weights[best], biases[best]


def fit(
    config: Config, lrs: Sequence[float], train: Table, classes: int, device: torch.device | str = "cpu"
) -> tuple[Tensor, Tensor]:
    """Weights (L, C, D) and biases (L, C) after the last epoch, for each of L learning rates as if trained alone.

    All see the same batches, so one product of matrices serves them all; the gradient is written out.
    """
    L, C, B, D = len(lrs), classes, config.batch, train.x.shape[1]
    x, labels, rates = train.x.to(device), train.labels.to(device), torch.tensor(lrs, device=device)[:, None]
    weight = (0.01 * torch.randn(C, D, generator=generator(0, "linear_sgd", "init"))).to(device).repeat(L, 1)
    bias = torch.zeros(L * C, device=device)
    params, momentum, decay = (weight, bias), config.momentum, config.weight_decay
    velocities = torch.zeros_like(weight), torch.zeros_like(bias)
    for epoch in range(config.epochs):
        lr = (config.factor_at(epoch) * rates).expand(L, C).reshape(L * C)
        order = torch.randperm(len(labels), generator=generator(0, "linear_sgd", epoch)).to(device)
        for index in order[: len(order) // B * B].split(B):
            batch = x.index_select(0, index)
            own = labels.index_select(0, index)[:, None, None].expand(B, L, 1)
            error = torch.addmm(bias, batch, weight.T).view(B, L, C).softmax(2)
            error = error.scatter_add_(2, own, error.new_full((B, L, 1), -1.0)).view(B, L * C).div_(B)
            gradients = torch.addmm(weight, error.T, batch, beta=decay), error.sum(0).add_(bias, alpha=decay)
            for param, velocity, gradient, rate in zip(params, velocities, gradients, (lr[:, None], lr), strict=True):
                torch.add(gradient, velocity, alpha=momentum, out=velocity)
                step = gradient.add_(velocity, alpha=momentum) if config.nesterov else velocity
                param.addcmul_(rate, step, value=-1)
    return weight.view(L, C, D), bias.view(L, C)
