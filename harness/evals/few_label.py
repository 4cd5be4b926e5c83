"""Classification from few labels: nearest class mean of n labelled train images per class, by cosine similarity.

Why the nearest class mean: it is defined from one label per class, and has no hyper-parameter; a regularised classifier
would need held-out labels, many more than the n it is about, to choose its strength.
The labelled images are drawn anew `draws` times with fixed seeds, the same for every encoder, so that two encoders are
compared on the same images; the draws of n = 1 are part of those of n = 2, and so on.
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
from harness.recipe import ProtocolConfig
from harness.seeding import generator

UNITS = {"top1": "percent", "top1_draw_std": "percent"}
MIN_CLASSES = 2


@dataclass(frozen=True, kw_only=True)
class Config(ProtocolConfig):
    """n: labelled images per class. draws: how often they are drawn; top1 is the mean over them."""

    protocol: ClassVar[str] = "few_label"
    n: int = 1
    draws: int = 100

    def __post_init__(self) -> None:
        if self.n < 1 or self.draws < 2:
            raise BadRecipe(f"few_label: n is {self.n} and draws {self.draws}; expected n >= 1, draws >= 2")

    @property
    def id(self) -> str:
        return f"few_label_n{self.n}"


def check(config: Config, train: Images | Table, classes: int) -> None:
    counts = torch.bincount(train.labels.cpu(), minlength=classes)
    fewest = int(counts.argmin())
    if counts[fewest] < config.n:
        raise BadRecipe(
            f"{config.id}: class {fewest} has {int(counts[fewest])} train images, {config.n} are needed; lower n"
        )


def run(config: Config, features: Features, split: str) -> Iterator[tuple[str, float]]:
    train, table = features.train, features.table(split)
    queries = F.normalize(table.x, dim=1)
    top1 = torch.empty(config.draws, dtype=torch.float64)
    for number in range(config.draws):
        chosen = draw(train.labels, features.classes, config.n, number)
        means = F.normalize(F.normalize(train.x[chosen], dim=2).mean(1), dim=1)
        top1[number] = accuracy(queries @ means.T, table.labels)
    yield "top1", float(top1.mean())
    yield "top1_draw_std", float(top1.std())


def draw(labels: Tensor, classes: int, n: int, number: int) -> Tensor:
    """Indices (C, n) into labels of n images per class."""
    order = torch.randperm(len(labels), generator=generator(0, "few_label", number))
    by_class = order[labels[order].argsort(stable=True)]
    counts = torch.bincount(labels, minlength=classes)
    return by_class[(counts.cumsum(0) - counts)[:, None] + torch.arange(n)]
