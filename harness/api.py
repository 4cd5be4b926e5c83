"""The contract between the harness and a method. A method file imports this module and `harness.nn`, nothing else.

A method file holds a frozen `Config` (its published defaults) and one final class (its loss). It owns no optimiser,
data set, augmentation, logging or device.

Shapes: B images on this process, N = B * world size, D the width of an embedding.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Generic, TypeVar

import torch
from torch import Tensor, nn

# ---------------------------------------------------------------------------------------------- configuration


@dataclass(frozen=True)
class Range:
    """How a sweep may vary one setting: from where to where, on which scale, and where the default is printed."""

    low: float
    high: float
    log: bool
    source: str


def coefficient(default: float, *, low: float, high: float, source: str, log: bool = True) -> Any:
    """Declare a `Config` field that weighs a loss term. Sweeps, logs and plots find it by this declaration."""
    return field(default=default, metadata={"coefficient": Range(low, high, log, source)})


def tunable(default: Any, *, low: float, high: float, source: str, log: bool = False) -> Any:
    """Declare a `Config` field that weighs no term and yet is worth a sweep: a temperature, a momentum."""
    return field(default=default, metadata={"tunable": Range(low, high, log, source)})


@dataclass(frozen=True)
class Requirements:
    """What a method asks of a recipe; the harness refuses a recipe that does not offer it.

    views: roles in the order of `Batch.views`, e.g. ("global", "global"); `local_views` says whether any number of
        views of role "local" may follow.
    sources: element of the pair each view is taken from; with pairs by augmentation both elements are one image.
    min_batch: fewest images per step for the loss to be defined.
    batch_divisor: the global batch must be a multiple of this (sub-batches).
    batch_divides: this must be a multiple of the global batch (a queue, which takes whole batches).
    index: `Batch.index` must name images, so the data set must hold images or vectors that come again.
    labels: the method reads `Batch.labels`, so it is no self-supervised one; its rows in tables say so.
    patches: the encoder must begin with a patch embedding, as a ViT does (`Backbone.patches`).
    """

    views: tuple[str, ...] = ("global", "global")
    sources: tuple[int, ...] = (0, 1)
    local_views: bool = False
    min_batch: int = 2
    batch_divisor: int = 1
    batch_divides: int | None = None
    index: bool = False
    labels: bool = False
    patches: bool = False


@dataclass(frozen=True)
class TrainSet:
    """What a method may know of the train split before it sees it: how many images, of how many classes."""

    images: int
    classes: int


@dataclass(frozen=True, kw_only=True)
class MethodConfig(ABC):
    """Hyper-parameters of a method. Subclasses are named `Config`, frozen, and default to the published values."""

    title: ClassVar[str]  # as the paper spells it
    projects: ClassVar[bool] = False  # whether steps hold `projections`, so that `Wrapped` may add a term of them

    @property
    def label(self) -> str:
        """The row of a table; a method with variants says here which one it is."""
        return f"{self.title} (labels)" if self.requirements().labels else self.title

    def requirements(self) -> Requirements:
        return Requirements()

    @abstractmethod
    def build(self, backbone: "Backbone", train: TrainSet) -> "Method[Any]":
        """The method around an initialised backbone. Errors: ValueError, in one line, for what cannot be built."""

    def weights(self) -> dict[str, float]:
        """The values of the coefficients, for the logs; a method that wraps another adds the other's."""
        return {name: getattr(self, name) for name in self.coefficients()}

    @classmethod
    def coefficients(cls) -> dict[str, Range]:
        return {f.name: f.metadata["coefficient"] for f in fields(cls) if "coefficient" in f.metadata}

    @classmethod
    def tunables(cls) -> dict[str, Range]:
        return {f.name: f.metadata["tunable"] for f in fields(cls) if "tunable" in f.metadata}


# ---------------------------------------------------------------------------------------------- what a step sees


@dataclass(frozen=True)
class Clock:
    """Where the run is. `step` counts optimiser steps from 0; at `after_step` it is the step just taken."""

    step: int
    steps: int
    steps_per_epoch: int

    @property
    def epoch(self) -> int:
        return self.step // self.steps_per_epoch

    @property
    def epochs(self) -> int:
        return -(-self.steps // self.steps_per_epoch)

    @property
    def progress(self) -> float:
        return self.step / max(1, self.steps)


class Draws:
    """The random numbers of one step, from a generator that depends only on the seed and the step.

    They are drawn on the CPU for the global batch and sliced, so that neither the device, nor the number of
    processes, nor an interruption changes them.
    """

    def __init__(
        self,
        generator: torch.Generator,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.generator, self.device, self.dtype, self.rank, self.world = generator, device, dtype, rank, world

    def normal(self, *shape: int, shared: bool = False) -> Tensor:
        """Standard normal numbers. `shape[0]` is B, one row per image, unless `shared` (same on every process)."""
        return self._draw(torch.randn, shape, shared)

    def uniform(self, *shape: int, shared: bool = False, on_cpu: bool = False) -> Tensor:
        """Uniform numbers in [0, 1); see `normal`. on_cpu: left where they are drawn, not sent to the device."""
        return self._draw(torch.rand, shape, shared, on_cpu)

    def _draw(self, sample: Any, shape: tuple[int, ...], shared: bool, on_cpu: bool = False) -> Tensor:
        if not shared:
            B = shape[0]
            shape = (B * self.world, *shape[1:])
        drawn = sample(shape, generator=self.generator, dtype=self.dtype)
        if not shared:
            drawn = drawn[self.rank * B : (self.rank + 1) * B]
        if on_cpu:
            return drawn
        if torch.device(self.device).type == "cuda":  # from pageable memory the copy would wait for the device
            drawn = drawn.pin_memory()
        return drawn.to(self.device, non_blocking=True)


@dataclass
class Batch:
    """views: images (B, 3, H, W), normalised, ordered as `Requirements.views`, then local ones; or vectors (B, n).

    index: (B,) positions in the train split; they name nothing where every step draws its pairs anew.
    labels: (B,) classes, for methods whose requirements ask for them; None for all others.
    """

    views: list[Tensor]
    index: Tensor
    clock: Clock
    draws: Draws
    labels: Tensor | None = None


@dataclass
class Step:
    """What a method returns.

    loss: scalar. On several processes either the mean over the local shard or the full loss of the gathered batch
        (the same on every process); both average to the right gradient.
    terms: the unweighted parts of the loss, scalars, by the name of their coefficient where they have one.
    features: (B, width) backbone output of one view, for the online probe.
    embedding: (B, D) what the loss sees, for the collapse diagnostics.
    diagnostics: further scalars worth a curve.
    projections: (B, D) what the loss compares, of each global view, with gradient; if the config `projects`.
    """

    loss: Tensor
    terms: dict[str, Tensor]
    features: Tensor
    embedding: Tensor
    diagnostics: dict[str, Tensor] = field(default_factory=dict)
    projections: tuple[Tensor, ...] = ()


# ---------------------------------------------------------------------------------------------- the method


class Backbone(nn.Module):
    """An encoder (B, 3, H, W) -> (B, width), or (B, n) -> (B, width). parts: see `Budget.accumulate`."""

    width: int
    parts: int = 1

    @property
    def patches(self) -> nn.Module:
        """What turns an image into tokens. Errors: ValueError where there is none."""
        raise ValueError("the encoder has no patch embedding; use a ViT")


@dataclass
class ParamGroup:
    """Parameters that the optimiser treats alike. Weight decay and LARS adaptation skip 1-D tensors in any group.

    lr_scale multiplies the recipe's learning rate; `fixed_lr` keeps it at the peak, without schedule.
    frozen_epochs: no update during that many first epochs.
    own_adam: trained by an Adam of its own at this constant learning rate instead of the recipe's optimiser.
    """

    params: list[nn.Parameter]
    lr_scale: float = 1.0
    fixed_lr: bool = False
    frozen_epochs: int = 0
    own_adam: float | None = None


ConfigT = TypeVar("ConfigT", bound=MethodConfig)


class Method(nn.Module, ABC, Generic[ConfigT]):
    """A method under training. Everything it must remember is a parameter or a buffer, so a checkpoint has it all."""

    def __init__(self, config: ConfigT, backbone: Backbone) -> None:
        super().__init__()
        self.config = config
        self.backbone = backbone

    @abstractmethod
    def step(self, batch: Batch) -> Step:
        """The loss of one batch."""

    def after_step(self, clock: Clock) -> None:
        """Called after each optimiser step: teachers, running moments."""

    def param_groups(self) -> list[ParamGroup]:
        return [ParamGroup([p for p in self.parameters() if p.requires_grad])]

    def encoder(self) -> tuple[str, nn.Module]:
        """The network to evaluate and export, and what it is: "student", "teacher" or "ema"."""
        return "student", self.backbone


class JointEmbedding(Method[ConfigT]):
    """A method that compares two embeddings. AdaSSL puts an edit between `embed` and `compare`."""

    embedding_width: int

    @abstractmethod
    def embed(self, features: Tensor) -> Tensor:
        """Backbone features (B, width) -> embedding (B, D), with gradient."""

    @abstractmethod
    def target(self, view: Tensor, embedding: Tensor) -> Tensor:
        """What the other view is compared with: the embedding itself, or a teacher's of the same view (B, D)."""

    @abstractmethod
    def compare(self, predicted: tuple[Tensor, Tensor], targets: tuple[Tensor, Tensor]) -> Tensor:
        """Loss of predictions (a from b, b from a), each (B, D), against the targets (a, b)."""


@dataclass(frozen=True, kw_only=True)
class WrappedConfig(MethodConfig):
    """A method around another one, `base`: what it does not say itself is the base's."""

    base: MethodConfig

    @property
    def label(self) -> str:
        return f"{self.title} ({self.base.label})"

    def requirements(self) -> Requirements:
        return self.base.requirements()

    def weights(self) -> dict[str, float]:
        return self.base.weights() | super().weights()


class Wrapped(Method[ConfigT]):
    """See `WrappedConfig`. The parameters that it adds are a group of their own."""

    def __init__(self, config: ConfigT, base: Method[Any]) -> None:
        super().__init__(config, base.backbone)
        self.base = base

    def after_step(self, clock: Clock) -> None:
        self.base.after_step(clock)

    def param_groups(self) -> list[ParamGroup]:
        groups = self.base.param_groups()
        theirs = {id(p) for group in groups for p in group.params}
        added = [p for p in self.parameters() if p.requires_grad and id(p) not in theirs]
        return [*groups, ParamGroup(added)] if added else groups

    def encoder(self) -> tuple[str, nn.Module]:
        return self.base.encoder()
