"""The same work in another library: its transforms, loader, loss and optimiser, in a plain loop around our network.

Each library is a file `against_<name>.py` with one class. The network (backbone and head) is the recipe's own, built
as for a run; images come from the same pixels, as PIL images, to loader processes that run the library's transforms.
The loop is the one of the libraries' examples: views to the device one by one, loss, backward, update. What their
trainers add (logging, schedules) is left out, to their advantage. The network's memory format is the library's.
"""

import importlib.util
import signal
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from harness import cost, data
from harness.bench.loop import WARM_UP, timed
from harness.bench.turns import children
from harness.errors import BadRecipe, Unavailable
from harness.nn.precision import autocast
from harness.recipe import Recipe, View

WARM_UP_S = 10.0  # seconds
CALM = 1e-4  # learning rate: there is no warm-up, and what has diverged may take another time


class Library(ABC):
    """One of our recipes in another library. workers: processes that make its views.

    Errors: BadRecipe where it has no such method or views; Unavailable where it cannot be imported.
    """

    name: str  # as on the command line
    package: str
    install: str  # how to have it
    methods: tuple[str, ...]  # names of ours that it has, too
    memory_format: torch.memory_format

    def __init__(self, recipe: Recipe, device: str, data_root: Path | None, workers: int) -> None:
        self.recipe, self.device, self.workers = recipe, device, workers
        self.check(recipe)
        warnings.simplefilter("ignore")  # of what it imports, about what that imports
        try:
            self.load()
        except ImportError as error:
            raise Unavailable(f"--against {self.name}: it cannot be imported ({error}); {self.install}") from error
        splits = data.load(recipe.data, data_root)
        method = cost.build(recipe, device)
        self.backbone: nn.Module = method.backbone
        (self.head,) = (part for name, part in method.named_children() if name != "backbone")
        self.probe = nn.Linear(method.backbone.width, splits.classes).to(device) if recipe.online_probe else None
        self.parts = nn.ModuleList([self.backbone, self.head, *([self.probe] if self.probe else [])])
        self.parts.to(memory_format=self.memory_format)  # type: ignore[call-overload]
        self.loss = self.make_loss(recipe.method)
        self.optimiser = self.make_optimiser()
        views = [self.make_view(view, splits.mean.tolist(), splits.std.tolist()) for view in recipe.views]
        self.batches = self._endless(self.make_loader(Pictures(splits.train, views), recipe.budget.batch, workers))
        fixed = cost.fixed_batch(recipe, recipe.budget.batch, device).views
        self.fixed = [view.to(memory_format=self.memory_format) for view in fixed]

    @classmethod
    def check(cls, recipe: Recipe) -> None:
        """Refuse, before anything is started, what it has no counterpart of. Errors: BadRecipe, Unavailable."""
        where = f"--against {cls.name}: recipe {recipe.name!r}"
        method = recipe.resolved()["method"]["name"]
        if method not in cls.methods:
            raise BadRecipe(f"{where} trains {recipe.method.label}; possible are the methods {', '.join(cls.methods)}")
        if recipe.data.pairs != "augmentation" or any(view.count != 1 for view in recipe.views):
            raise BadRecipe(f"{where} has other pairs than two views of one image, which are all that is possible")
        if importlib.util.find_spec(cls.package) is None:
            raise Unavailable(f"--against {cls.name}: it is not installed; {cls.install}")

    # ------------------------------------------------------------------------------------------ what a library has

    @abstractmethod
    def load(self) -> None:
        """Import it. Errors: ImportError."""

    @abstractmethod
    def make_loss(self, config: Any) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
        """The loss of two embeddings (B, D) and the images' indices (B,) at the settings of our method's `Config`."""

    @abstractmethod
    def make_view(self, view: View, mean: list[float], std: list[float]) -> Callable[[Image.Image], Tensor]:
        """A view of an image: normalised (3, px, px)."""

    @abstractmethod
    def lars(self, trust: float, **settings: Any) -> torch.optim.Optimizer:
        """Its LARS with these settings of ours, further ones: lr, momentum, weight_decay."""

    def make_loader(self, pictures: "Pictures", batch: int, workers: int) -> DataLoader[Any]:
        return DataLoader(
            pictures, batch, shuffle=True, drop_last=True, num_workers=workers, persistent_workers=workers > 0,
            pin_memory=self.device.startswith("cuda"),
        )  # fmt: skip

    def make_optimiser(self) -> torch.optim.Optimizer:
        s, params, lr = self.recipe.optimiser, self.parts.parameters(), CALM
        if s.name == "lars":
            return self.lars(s.trust, lr=lr, momentum=s.momentum, weight_decay=s.weight_decay)
        if s.name == "sgd":
            return torch.optim.SGD(params, lr=lr, momentum=s.momentum, weight_decay=s.weight_decay)
        return {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[s.name](
            params, lr=lr, weight_decay=s.weight_decay
        )

    # ------------------------------------------------------------------------------------------ what is timed

    def warm_up(self) -> None:
        """Until what the loaders keep ready is what they keep ready in a long run, or for long enough."""
        begun = time.monotonic()
        for done in range(WARM_UP + 2 * self.workers):
            if done < WARM_UP or time.monotonic() - begun < WARM_UP_S:
                self.full(1)
        for _ in range(WARM_UP):
            self.bare(1)

    def bare(self, n: int) -> float:
        """Seconds of forward and backward on fixed tensors, as `Ours.bare`."""
        index = torch.arange(self.recipe.budget.batch, device=self.device)

        def one() -> None:
            self.optimiser.zero_grad()
            with autocast(self.recipe.precision, self.device):
                a, b = (self.head(self.backbone(view)) for view in self.fixed)
                loss = self.loss(a, b, index)
            loss.backward()

        return timed(one, n, self.device)

    def full(self, n: int) -> float:
        """Seconds of a step of the loop. Outside of it the loaders stand still, so that they get nothing ready."""
        children(signal.SIGCONT)
        seconds = timed(self._step, n, self.device)
        children(signal.SIGSTOP)
        return seconds

    def _step(self) -> None:
        index, views, labels = next(self.batches)
        index, labels = index.to(self.device), labels.to(self.device)
        with autocast(self.recipe.precision, self.device):
            features = [self.backbone(view.to(self.device, memory_format=self.memory_format)) for view in views]
            a, b = (self.head(each) for each in features)
            loss = self.loss(a, b, index)
            if self.probe:
                loss = loss + F.cross_entropy(self.probe(features[0].detach()), labels)
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()

    def _endless(self, loader: DataLoader[Any]) -> Iterator[Any]:
        while True:
            yield from loader


class Pictures(Dataset[Any]):
    """A split as PIL images: (index, views, label)."""

    def __init__(self, images: data.Images, views: Sequence[Callable[[Image.Image], Tensor]]) -> None:
        self.pixels = images.pixels.permute(0, 2, 3, 1).contiguous().cpu().numpy()
        self.labels, self.views = images.labels.tolist(), views

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> tuple[int, list[Tensor], int]:
        image = Image.fromarray(self.pixels[i])
        return i, [make(image) for make in self.views], self.labels[i]
