"""What evaluations cost at the sizes of a recipe's data set, on features of no encoder."""

import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from harness.data import Splits
from harness.evals import evaluate
from harness.features import Features, Table
from harness.recipe import ProtocolConfig
from harness.seeding import generator

TIMED = ("knn", "linear", "linear_sgd")
REPEATS, ENOUGH_S = 3, 5.0  # as many times, unless it takes long


def timings(protocols: Sequence[ProtocolConfig], splits: Splits, width: int, device: str) -> list[dict[str, Any]]:
    """Seconds of each k-NN and linear probe among the protocols, fitted on train and used on test.

    The features are drawn: a centre for each class and noise around it, (N, width), for the labels of the set.
    """
    centres = torch.randn(splits.classes, width, generator=generator(0, "bench", "centres"))
    train, held_out, test = (_table(getattr(splits, name), centres, name) for name in ("train", "held_out", "test"))
    rows = []
    for config in protocols:
        if config.protocol not in TIMED:
            continue
        seconds: list[float] = []
        while len(seconds) < REPEATS and sum(seconds) < ENOUGH_S:
            fresh = Features(train, held_out, test, splits.classes, device=device)  # what one has fitted, it keeps
            begun = time.perf_counter()
            evaluate((config,), fresh, ("test",), network="student")
            seconds.append(time.perf_counter() - begun)
        sizes = {"bank": len(train.labels), "queries": len(test.labels), "width": width}
        rows.append({"protocol": config.id, **sizes, "classes": splits.classes, "seconds": seconds})
    return rows


def _table(images: Any, centres: Tensor, name: str) -> Table:
    labels = images.labels.cpu()
    noise = torch.randn(len(labels), centres.shape[1], generator=generator(0, "bench", name))
    return Table(centres[labels] + 2 * noise, labels, images.factors.cpu())
