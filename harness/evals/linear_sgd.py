"""Offline linear probe by SGD with momentum, as papers print it: learning rate, epochs and drops are theirs.

Source   He et al. 2020 (MoCo): learning rate 30, no weight decay, a tenth of it from epochs 60 and 80 on, of 100; other
         papers set other numbers, which a recipe states. Weights start at N(0, 0.01), biases at 0
         (facebookresearch/moco, main_lincls.py; tmllab/2022_NeurIPS_RSA@f4fa807, eval_single.py).
Departs  The features are those of the images as they are, each encoded once: no crop and no flip while the probe
         trains. The value is that of the last epoch, where the sources report the best one on the test images.
         A last batch that is not full is dropped.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.data import Images
from harness.errors import BadRecipe
from harness.features import Features, Table, accuracy
from harness.nn.schedules import cosine
from harness.recipe import ProtocolConfig
from harness.seeding import generator

UNITS = {"top1": "percent", "top5": "percent"}


@dataclass(frozen=True, kw_only=True)
class Config(ProtocolConfig):
    """lr: for the batch as it is. drops: epochs from which on the rate is a tenth; none: a cosine to 0, by epoch."""

    protocol: ClassVar[str] = "linear_sgd"
    lr: float = 30.0
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 0.0
    epochs: int = 100
    batch: int = 256
    drops: tuple[int, ...] = (60, 80)

    def __post_init__(self) -> None:
        if self.lr <= 0 or self.epochs < 1 or self.batch < 1 or self.weight_decay < 0 or not 0 <= self.momentum < 1:
            raise BadRecipe(
                f"linear_sgd: lr {self.lr}, momentum {self.momentum}, weight_decay {self.weight_decay}, epochs "
                f"{self.epochs}, batch {self.batch}; expected lr > 0, momentum 0 to 1, weight_decay >= 0, others >= 1"
            )

    @property
    def id(self) -> str:
        return f"linear_sgd_lr{self.lr:g}_wd{self.weight_decay:g}_e{self.epochs}"

    def lr_at(self, epoch: int) -> float:
        if not self.drops:
            return cosine(self.lr, 0.0, epoch / self.epochs)
        return self.lr * 0.1 ** sum(epoch >= drop for drop in self.drops)


def check(config: Config, train: Images | Table, classes: int) -> None:
    if classes < 2:
        raise BadRecipe(f"{config.id}: the data set has {classes} class, at least 2 are needed; drop this protocol")
    if config.batch > len(train.labels):
        raise BadRecipe(
            f"{config.id}: a batch of {config.batch} is more than the {len(train.labels)} train images; lower its batch"
        )


def run(config: Config, features: Features, split: str) -> Iterator[tuple[str, float]]:
    weight, bias = features.fitted(config, lambda: fit(config, features.train, features.classes))
    table = features.table(split)
    scores = table.x @ weight.T + bias
    yield "top1", accuracy(scores, table.labels)
    if features.classes > 5:
        yield "top5", accuracy(scores, table.labels, top=5)


def fit(config: Config, train: Table, classes: int) -> tuple[Tensor, Tensor]:
    """Weight (C, D) and bias (C,) after the last epoch."""
    weight = 0.01 * torch.randn(classes, train.x.shape[1], generator=generator(0, "linear_sgd", "init"))
    params = [weight.requires_grad_(), torch.zeros(classes, requires_grad=True)]
    sgd = torch.optim.SGD(
        params, lr=config.lr, momentum=config.momentum, nesterov=config.nesterov, weight_decay=config.weight_decay
    )
    for epoch in range(config.epochs):
        sgd.param_groups[0]["lr"] = config.lr_at(epoch)
        order = torch.randperm(len(train.labels), generator=generator(0, "linear_sgd", epoch))
        for index in order[: len(order) // config.batch * config.batch].split(config.batch):
            loss = F.cross_entropy(train.x[index] @ params[0].T + params[1], train.labels[index])
            sgd.zero_grad()
            loss.backward()
            sgd.step()
    return params[0].detach(), params[1].detach()
