"""What a data set is once it is there: images with labels and what varies within them, in three splits."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from harness import factors, sphere
from harness.api import Draws


@dataclass
class Images:
    """One split. pixels: uint8 (N, 3, px, px); labels: int64 (N,); factors: float32 (N, F), F may be 0.

    Of a set of vectors, `pixels` holds those: float32 (N, n).
    identity: (N,) which object is shown, where the set knows it. latents: (N, L) of a rendered set.
    """

    pixels: Tensor
    labels: Tensor
    factors: Tensor
    factor_names: tuple[str, ...] = ()
    pairs: str = "augmentation"
    identity: Tensor | None = None
    latents: Tensor | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def px(self) -> int:
        """Side of the images as evaluations see them, in pixels, or the length of the vectors."""
        return self.pixels.shape[-1]

    def rows(self, start: int, stop: int) -> Tensor:
        """The pixels of some images in order: (b, 3, px, px), or (b, n)."""
        return self.pixels[start:stop]

    def elements(self, index: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        """Both images of B pairs, as `Data.pairs` says: those at `index` (B,) and their partners, or all drawn anew."""
        if self.pairs in sphere.PRECISION:
            first, second = sphere.pair(len(index), sphere.PRECISION[self.pairs], draws)
            return sphere.observe(first).to(self.pixels.device), sphere.observe(second).to(self.pixels.device)
        first = self.pixels.index_select(0, index)
        return first, first if self.pairs == "augmentation" else self.partner(index, draws)

    def partner(self, index: Tensor, draws: Draws) -> Tensor:
        """Another image than those at `index` (B,), of the same object or at changed latents: uint8 (B, 3, px, px)."""
        index = index.to(self.pixels.device)
        if self.pairs == "latent_change":
            assert self.latents is not None
            return factors.render(factors.change(self.latents[index], draws), self.pixels.shape[-1])
        return self.pixels[self._sibling(index, draws.uniform(len(index)))]

    def _sibling(self, index: Tensor, u: Tensor) -> Tensor:
        """Another position with the same identity, uniformly; the same where this split has no other."""
        assert self.identity is not None
        order = self.identity.argsort(stable=True)
        count = torch.bincount(self.identity)
        start = count.cumsum(0) - count
        place = torch.empty_like(order)
        place[order] = torch.arange(len(order), device=order.device)  # where a position stands in `order`
        family = self.identity[index]
        step = 1 + (u * (count[family] - 1)).long()
        return order[start[family] + (place[index] - start[family] + step) % count[family]]

    def first(self, n: int) -> "Images":
        return self._each(lambda tensor: tensor[:n])

    def to(self, device: torch.device | str) -> "Images":
        return self._each(lambda tensor: tensor.to(device))

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Images":
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        changed: dict[str, Any] = {name: change(v) for name, v in values.items() if isinstance(v, Tensor)}
        return replace(self, **changed)


@dataclass
class Splits:
    """A data set. mean, std: (3,) of the train split's pixels in [0, 1], whatever `Data.train_images` leaves of it.

    Those of vectors are 0 and 1: they are left as they are.
    """

    train: Images
    held_out: Images
    test: Images
    mean: Tensor
    std: Tensor
    classes: int
    name: str
    revision: str

    def to(self, device: torch.device | str) -> "Splits":
        moved = {name: getattr(self, name).to(device) for name in ("train", "held_out", "test", "mean", "std")}
        return replace(self, **moved)


def moments(pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation per channel in [0, 1], from exact counts of the 256 values; 0 and 1 of vectors."""
    if pixels.ndim == 2:
        return torch.zeros(pixels.shape[1]), torch.ones(pixels.shape[1])
    values = torch.arange(256, dtype=torch.float64) / 255
    counts = torch.stack([torch.bincount(channel.flatten(), minlength=256) for channel in pixels.unbind(1)])
    share = counts / counts.sum(1, keepdim=True, dtype=torch.float64)
    mean = share @ values
    std = (share * (values - mean[:, None]) ** 2).sum(1).sqrt()
    return mean.float(), std.float()
