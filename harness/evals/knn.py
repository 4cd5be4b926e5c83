"""Weighted k-nearest-neighbour classification by cosine similarity.

Source   Wu et al. 2018 (instance discrimination); as facebookresearch/dino@7c446df, eval_knn.py: features are
         l2-normalised, each of the k nearest train images votes for its class with weight exp(similarity / T).
Departs  queries and bank go in tiles that bound the memory, not in exactly 100 queries; any number of test images will
         do. Weights are divided by the nearest neighbour's, which changes no vote and cannot overflow at a small T.
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
MIN_CLASSES = 2
QUERIES, BANK = 512, 2**16  # rows of a tile: 128 MiB of similarities, wide enough for products and topk at full speed


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
    if config.k > len(train.labels):
        raise BadRecipe(f"{config.id}: k = {config.k} is more than the {len(train.labels)} train images; lower k")


def run(config: Config, features: Features, split: str) -> Iterator[tuple[str, float]]:
    train, table = features.train, features.table(split)
    scores = votes(train.x, train.labels, table.x, features.classes, config.k, config.temperature, features.device)
    yield "top1", accuracy(scores, table.labels)
    if features.classes > 5:
        # a class without a vote is no guess: with k < 5 there are at most k guesses, as in the source
        yield "top5", accuracy(scores, table.labels, top=min(5, config.k))


def votes(
    bank: Tensor,
    labels: Tensor,
    queries: Tensor,
    classes: int,
    k: int,
    temperature: float,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Sums of weights (Q, C) for queries (Q, D) from a bank (N, D) with labels (N,); each row's largest weight is 1.

    Beside these the memory holds no more than Q (D + 4 k) + 2 BANK D + QUERIES (BANK + 6 k) numbers, whatever N: the
    queries normalised, what was found so far, and one tile. All of them are on `device`; the votes come to the CPU.
    """
    queries = F.normalize(queries.to(device), dim=1)
    near = queries.new_full((len(queries), k), -torch.inf)  # the k largest similarities so far, and whose they are
    whose = torch.zeros(len(queries), k, dtype=torch.int64, device=device)
    room = queries.new_empty(min(QUERIES, len(queries)) * min(BANK, len(bank)))  # new memory costs time, too
    for start in range(0, len(bank), BANK):
        tile = F.normalize(bank[start : start + BANK].to(device), dim=1)
        owner = labels[start : start + BANK].to(device)
        for rows in (slice(first, first + QUERIES) for first in range(0, len(queries), QUERIES)):
            block = queries[rows]
            similar = torch.mm(block, tile.T, out=room[: len(block) * len(tile)].view(len(block), len(tile)))
            values, column = similar.topk(min(k, len(tile)), dim=1)
            near[rows], place = torch.cat([near[rows], values], dim=1).topk(k, dim=1)
            whose[rows] = torch.cat([whose[rows], owner[column]], dim=1).gather(1, place)
        del tile  # before the next one is made
    scores = queries.new_zeros(len(queries), classes)
    scores.scatter_add_(1, whose, torch.exp((near - near[:, :1]) / temperature))
    return scores.cpu()
