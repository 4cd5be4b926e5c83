"""Where the batches of a run come from. `batch(clock)` is a function of the seed and the step alone, whoever asks.

Order: the epoch's permutation; step s of an epoch takes the s-th slice of it, of which each process takes its part.
Views come from the step's own random numbers. Both are of the batch of all processes.
"""

import torch
from torch import Tensor

from harness.api import Batch, Clock, Draws
from harness.data import Splits
from harness.nn import rank, world_size
from harness.recipe import Recipe
from harness.seeding import generator
from harness.views import make_views


class Resident:
    """Images that are on the device, all of them."""

    def __init__(self, splits: Splits, recipe: Recipe, seed: int, device: torch.device | str) -> None:
        self.splits, self.recipe, self.seed, self.device = splits, recipe, seed, device
        self.labelled = recipe.method.requirements().labels
        self.order: tuple[int, Tensor] = (-1, torch.empty(0))  # epoch and its permutation

    def batch(self, clock: Clock) -> tuple[Batch, Tensor]:
        """The batch of a step on this process, and its labels (B,)."""
        train, size = self.splits.train, self.recipe.budget.batch // world_size()
        if self.order[0] != clock.epoch:
            fresh = torch.randperm(len(train), generator=generator(self.seed, "order", clock.epoch))
            self.order = clock.epoch, fresh.to(self.device)
        at = (clock.step % clock.steps_per_epoch) * self.recipe.budget.batch + rank() * size
        index = self.order[1][at : at + size]
        pairs, looks, inner = (
            Draws(generator(self.seed, what, clock.step), self.device, rank=rank(), world=world_size())
            for what in ("pairs", "views", "method")
        )
        views = make_views(train.elements(index, pairs), self.recipe.views, looks, self.splits.mean, self.splits.std)
        labels = train.labels[index]
        return Batch(views, index, clock, inner, labels if self.labelled else None), labels

    def close(self) -> None:
        """Nothing here works ahead."""
