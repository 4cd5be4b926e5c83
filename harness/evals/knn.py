"""Weighted k-nearest-neighbour classification by cosine similarity.

Source   Wu et al. 2018 (instance discrimination); as facebookresearch/dino@7c446df, eval_knn.py: features are
         l2-normalised, each of the k nearest train images votes for its class with weight exp(similarity / T).
Departs  queries go in chunks that bound the memory, not in exactly 100; any number of test images will do.
         Weights are divided by the nearest neighbour's, which changes no vote and cannot overflow at a small T.
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

UNITS = {"top1": "percent", "top5": "percent"}
CHUNK = 2**25  # similarities held at once: 128 MiB


@dataclass(frozen=True, kw_only=True)
class Config(ProtocolConfig):
    """k: neighbours. temperature: T. The defaults are DINO's; 200 neighbours are usual on CIFAR."""

    protocol: ClassVar[str] = "knn"
    k: int = 20
    temperature: float = 0.07

    def __post_init__(self) -> None:
        if self.k < 1 or self.temperature <= 0:
            raise BadRecipe(f"knn: k is {self.k} and temperature {self.temperature}; expected k >= 1, temperature > 0")

    @property
    def id(self) -> str:
        return f"knn_k{self.k}_t{self.temperature:g}"


def check(config: Config, train: Images | Table, classes: int) -> None:
    if classes < 2:
        raise BadRecipe(f"{config.id}: the data set has {classes} class, at least 2 are needed; drop this protocol")
    if config.k > len(train.labels):
        raise BadRecipe(f"{config.id}: k = {config.k} is more than the {len(train.labels)} train images; lower k")


def run(config: Config, features: Features, split: str) -> Iterator[tuple[str, float]]:
    train, table = features.train, features.table(split)
    scores = votes(train.x, train.labels, table.x, features.classes, config.k, config.temperature)
    yield "top1", accuracy(scores, table.labels)
    if features.classes > 5:
        # a class without a vote is no guess: with k < 5 there are at most k guesses, as in the source
        yield "top5", accuracy(scores, table.labels, top=min(5, config.k))


def votes(bank: Tensor, labels: Tensor, queries: Tensor, classes: int, k: int, temperature: float) -> Tensor:
    """Sums of weights (Q, C) for queries (Q, D) from a bank (N, D) with labels (N,); each row's largest weight is 1."""
    bank, queries = F.normalize(bank, dim=1), F.normalize(queries, dim=1)
    scores = bank.new_zeros(len(queries), classes)
    step = max(1, CHUNK // len(bank))
    for start in range(0, len(queries), step):
        near, index = (queries[start : start + step] @ bank.T).topk(k, dim=1)
        weights = torch.exp((near - near[:, :1]) / temperature)
        scores[start : start + step].scatter_add_(1, labels[index], weights)
    return scores
