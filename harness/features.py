"""Features of a frozen encoder, extracted once and shared by all protocols.

Shapes: N images of a split, D the encoder's width, F factors, C classes.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from harness.api import Draws
from harness.data import Splits
from harness.errors import RunFailed, UnknownName
from harness.nn import world_size
from harness.processes import in_turn
from harness.recipe import View
from harness.seeding import generator
from harness.views import make_views, plain

Fitted = TypeVar("Fitted")
TOGETHER = 8  # batches that are queued before the host waits for their features


@dataclass
class Table:
    """x: (N, D) float32; labels: (N,) int64; factors: (N, F) float32. All on the CPU, in the order of the split."""

    x: Tensor
    labels: Tensor
    factors: Tensor


@dataclass
class Features:
    """pairs: split -> features (N, D) of two augmented views of its images; empty if no views were asked for.

    device: where protocols compute that have much to compute; the tables themselves stay on the CPU.
    online_probe: the classifier trained beside the encoder, (N, D) -> (N, C) logits (harness/evals/online_linear.py).
    """

    train: Table
    held_out: Table
    test: Table
    classes: int
    factor_names: tuple[str, ...] = ()
    pairs: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    online_probe: nn.Module | None = None
    device: torch.device | str = "cpu"
    _fits: dict[Hashable, Any] = field(default_factory=dict, repr=False)

    def table(self, split: str) -> Table:
        """The split a protocol is asked about. Errors: UnknownName."""
        if split not in ("held_out", "test"):
            raise UnknownName("split to evaluate on", split, ("held_out", "test"))
        return self.test if split == "test" else self.held_out

    def fitted(self, config: Hashable, fit: Callable[[], Fitted]) -> Fitted:
        """What `fit` returns, computed once per protocol: no split needs a second fit on the train features."""
        if config not in self._fits:
            self._fits[config] = fit()
        return self._fits[config]


def extract(
    encoder: nn.Module,
    splits: Splits,
    *,
    names: Sequence[str] = ("held_out", "test"),
    views: Sequence[View] = (),
    seed: int = 0,
    device: torch.device | str,
    batch: int = 512,
) -> Features:
    """Features of every image, once each and in order, in evaluation mode; the encoder is left as it was found.

    names: the splits to encode beside train; the table of another one has no rows.
    views: of the held-out and test images two augmented views are encoded too, by the first two global ones of these
        (fewer: no pairs). Both are taken from the image itself, whatever their source. Their random numbers depend on
        `seed` and `batch`.
    device: where the encoder is, and where protocols compute. Errors: RunFailed for features that are not finite.

    On several processes with the same encoder, which all call this, each encodes every W-th batch. Rank 0 gets what one
    process would get; the tables of the others have no rows.
    """
    looks = tuple(replace(view, count=1) for view in views for _ in range(view.count) if view.role == "global")[:2]
    together = TOGETHER if world_size() == 1 else 1
    mean, std = splits.mean.to(device), splits.std.to(device)
    named = {name: getattr(splits, name) for name in ("train", *names)}
    tables: dict[str, Table] = {}
    pairs: dict[str, tuple[Tensor, Tensor]] = {}

    def encode(name: str, batches: int, turn: int) -> list[Tensor]:
        """Features of some batches of a split as they are, and of their two augmented views."""
        found = []
        for number in range(turn * together, min(batches, (turn + 1) * together)):
            pixels = named[name].rows(number * batch, (number + 1) * batch).to(device)
            inputs = [plain(pixels, mean, std)]
            if len(looks) == 2 and name != "train":
                draws = Draws(generator(seed, "pairs", name, number), device)
                inputs += make_views((pixels, pixels), looks, draws, mean, std)
            found.append([encoder(x).float() for x in inputs])
        return [torch.cat(parts).cpu() for parts in zip(*found, strict=True)]

    modes = [(module, module.training) for module in encoder.modules()]
    encoder.eval()
    try:
        with torch.no_grad():
            for name, images in named.items():
                batches = max(1, -(-len(images.labels) // batch))
                rows = in_turn(partial(encode, name, batches), -(-batches // together))
                x, *sides = [_joined(parts, name) for parts in zip(*rows, strict=True)] or [torch.empty(0, 0)]
                tables[name] = Table(x, images.labels[: len(x)].cpu(), images.factors[: len(x)].cpu())
                if sides:
                    pairs[name] = sides[0], sides[1]
    finally:
        for module, mode in modes:
            module.training = mode
    none = Table(torch.empty(0, 0), torch.empty(0, dtype=torch.int64), torch.empty(0, 0))
    return Features(
        train=tables["train"],
        held_out=tables.get("held_out", none),
        test=tables.get("test", none),
        classes=splits.classes,
        factor_names=splits.train.factor_names,
        pairs=pairs,
        device=device,
    )


class Accuracy(float):
    """Percent of images classified correctly; `correct` (N,), bool, says which, in the order of the split."""

    correct: Tensor


def accuracy(scores: Tensor, labels: Tensor, top: int = 1) -> Accuracy:
    """Percent of rows of scores (N, C) whose label is among the `top` largest; of equal scores the lower class wins.

    A score that is not a number, as of a probe that diverged, is above all others, and never right.
    """
    own = scores.gather(1, labels[:, None])
    before = torch.arange(scores.shape[1]) < labels[:, None]
    rank = (~(scores <= own) | ((scores == own) & before)).sum(1)
    percent = Accuracy(100 * float((rank < top).double().mean()))
    percent.correct = rank < top
    return percent


def _joined(parts: Sequence[Tensor], name: str) -> Tensor:
    x = torch.cat(list(parts))
    bad = sum(int((~part.isfinite().all(1)).sum()) for part in parts)
    if bad:
        raise RunFailed(
            f"the encoder's features of {bad} of the {len(x)} {name} images are not finite; the run has diverged, "
            "lower its learning rate"
        )
    return x
