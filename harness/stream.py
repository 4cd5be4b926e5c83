"""Batches of a large set for training: worker processes decode and crop, the device does the rest.

Which images a step sees and which boxes are cut from them is a function of the seed and the step, as it is for sets
held in memory (harness/views.py draws the same numbers from the same generators). So neither the number of workers nor
an interruption changes a batch.
"""

from typing import Any

import torch
from torch import Tensor

from harness.api import Batch, Clock, Draws
from harness.data import Splits, decode
from harness.data.ahead import Ahead
from harness.data.large import Encoded, LargeImages
from harness.nn import rank, world_size
from harness.recipe import Recipe, View
from harness.seeding import generator
from harness.views import DRAWN, boxes, finish_views


class Streamed:
    """Images that are decoded while the run trains; the batches of `feed.Resident`, from any step on.

    workers: processes that decode, else those of the train split.
    """

    def __init__(
        self, splits: Splits, recipe: Recipe, seed: int, device: torch.device | str, workers: int | None = None
    ) -> None:
        train = splits.train
        assert isinstance(train, LargeImages)
        self.splits, self.recipe, self.seed, self.device = splits, recipe, seed, torch.device(device)
        self.labelled = recipe.method.requirements().labels
        self.workers = train.workers if workers is None else workers
        self.crops = Crops(train.encoded, recipe.views, recipe.budget.batch, seed, rank(), world_size())
        self.ahead: Ahead | None = None
        self.step = -1  # that the next item of `ahead` is for

    def batch(self, clock: Clock) -> tuple[Batch, Tensor]:
        """The batch of a step on this process, and its labels (B,). Errors: DataMismatch, RunFailed."""
        if self.ahead is None or self.step != clock.step:
            self.close()
            pinned = self.device.type == "cuda"
            self.ahead = Ahead(self.crops, range(clock.step, clock.steps), self.workers, pinned)
        index, made = self.ahead.next()
        self.step = clock.step + 1
        index, *crops = (tensor.to(self.device, non_blocking=True) for tensor in (index, *made))
        looks, inner = (
            Draws(generator(self.seed, what, clock.step), self.device, rank=self.crops.rank, world=self.crops.world)
            for what in ("views", "method")
        )
        crops = [crop.contiguous() for crop in crops]
        views = finish_views(crops, self.recipe.views, looks, self.splits.mean, self.splits.std)
        labels = self.splits.train.labels[index]
        return Batch(views, index, clock, inner, labels if self.labelled else None), labels

    def close(self) -> None:
        """End the workers."""
        if self.ahead:
            self.ahead.close()
            self.ahead = None


class Crops:
    """What workers do for one step: (B,) positions in the train split, and for each view uint8 (B, 3, px, px)."""

    def __init__(
        self, encoded: Encoded, views: tuple[View, ...], batch: int, seed: int, rank: int = 0, world: int = 1
    ) -> None:
        self.encoded, self.batch, self.seed, self.rank, self.world = encoded, batch, seed, rank, world
        self.views = [view for view in views for _ in range(view.count)]
        self.order: tuple[int, Tensor] = (-1, torch.empty(0))  # epoch and its permutation

    def __call__(self, step: int) -> tuple[Tensor, list[Tensor]]:
        index = self.index(step)
        images = [self.encoded.open(position) for position in index.tolist()]
        W, H = torch.tensor([image.size for image in images]).unbind(1)
        draws = Draws(generator(self.seed, "views", step), rank=self.rank, world=self.world)
        sides = [view.px for view in self.views]
        each: list[Any] = [boxes(view, draws.uniform(len(index), DRAWN), H, W).tolist() for view in self.views]
        made = [torch.empty(len(index), px, px, 3, dtype=torch.uint8) for px in sides]
        for b, image in enumerate(images):
            try:
                for view, crop in zip(made, decode.crops(image, [box[b] for box in each], sides), strict=True):
                    view[b] = crop
            except Exception as error:  # however the image is damaged
                raise self.encoded.broken(int(index[b]), error) from error
        return index, [view.permute(0, 3, 1, 2) for view in made]

    def index(self, step: int) -> Tensor:
        """This process's slice of the step's part of the epoch's permutation."""
        epoch, within = divmod(step, len(self.encoded) // self.batch)
        if self.order[0] != epoch:
            self.order = epoch, torch.randperm(len(self.encoded), generator=generator(self.seed, "order", epoch))
        size = self.batch // self.world
        start = within * self.batch + self.rank * size
        return self.order[1][start : start + size]
