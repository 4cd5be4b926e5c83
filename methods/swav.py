"""SwAV: from any crop predict which prototypes the other crop of the image is assigned to.

Paper    Caron, Misra, Mairal, Goyal, Bojanowski & Joulin, NeurIPS 2020, arXiv:2006.09882, eqs. 1 to 6.
Loss     - mean over pairs of a global crop (code q) and another crop (z) of q . log softmax(C z / tau), with
         q = Sinkhorn-Knopp of C z' / epsilon over the batch and the queue; z, z' and the rows of C of norm 1
Oracle   facebookresearch/swav@06b1b7c, main_swav.py and src/resnet50.py.
Departs  Prototypes are frozen for whole epochs (the scripts: for an epoch and one step, 313 and 5005 steps). A queue
         that the batch does not divide is refused (oracle: it is shortened).
Shapes   B images on this process; views are 2 global crops, then any number of local ones, V in all; D = widths[-1],
         K = prototypes; rows of stacked crops are ordered crop by crop: (V * B, K).
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.api import Backbone, Batch, Clock, Method, MethodConfig, ParamGroup, Requirements, Step, TrainSet, tunable
from harness.nn import RingQueue, full_precision, mlp, multi_crop, rank, world_size
from harness.nn.sinkhorn import sinkhorn


@dataclass(frozen=True, kw_only=True)
class Config(MethodConfig):
    """Defaults are those of the oracle's command line."""

    title: ClassVar[str] = "SwAV"
    projects: ClassVar[bool] = True

    widths: tuple[int, ...] = (2048, 128)  # --hidden_mlp, --feat_dim
    prototypes: int = 3000
    frozen_epochs: int = 1  # --freeze_prototypes_niters 313, at a batch of 4096
    temperature: float = tunable(
        0.1, low=0.05, high=0.2, log=True, source="tau of the oracle; range ours, half to twice"
    )
    epsilon: float = tunable(
        0.05, low=0.02, high=0.1, log=True, source="oracle; its README advises 0.03 against collapse; range ours"
    )
    sinkhorn_iterations: int = 3
    queue: int = 0  # images whose features join the assignments; the scripts for a batch of 256: 3840
    queue_from: int = 15  # epoch from which on the queue is filled; once it is full, it is used

    def __post_init__(self) -> None:
        if min(self.temperature, self.epsilon) <= 0:
            raise ValueError(
                f"SwAV's temperature is {self.temperature} and its epsilon {self.epsilon}, expected numbers above 0"
            )
        if self.prototypes < 2 or self.sinkhorn_iterations < 1:
            raise ValueError(
                f"SwAV has prototypes={self.prototypes} and sinkhorn_iterations={self.sinkhorn_iterations}, "
                "expected at least 2 and 1"
            )
        if min(self.queue, self.queue_from, self.frozen_epochs) < 0:
            raise ValueError(
                f"SwAV has queue={self.queue}, queue_from={self.queue_from}, frozen_epochs={self.frozen_epochs}, "
                "expected 0 or more; queue=0 is none"
            )

    def requirements(self) -> Requirements:
        return Requirements(local_views=True, batch_divides=self.queue or None)

    def queue_is_full(self, clock: Clock, N: int) -> bool:
        """Whether N images of each step since epoch `queue_from` have filled the queue; else it holds random rows."""
        return (clock.step - self.queue_from * clock.steps_per_epoch) * N >= self.queue

    def build(self, backbone: Backbone, train: TrainSet) -> "SwAV":
        return SwAV(self, backbone)


class SwAV(Method[Config]):
    def __init__(self, config: Config, backbone: Backbone) -> None:
        super().__init__(config, backbone)
        D = config.widths[-1]
        self.projector = mlp(backbone.width, *config.widths, last_bias=True)
        self.prototypes = nn.Linear(D, config.prototypes, bias=False)
        self.queue = RingQueue(config.queue, 2 * D) if config.queue else None  # a row: both global crops of an image
        self.normalise_prototypes()

    def step(self, batch: Batch) -> Step:
        B = len(batch.index)
        features, z = multi_crop(self.backbone, self.projector, batch.views)
        scores = cosines(z, self.prototypes.weight)
        first, second = z[:B], z[B : 2 * B]
        codes, queued = self.codes((first, second), (scores[:B], scores[B : 2 * B]), batch.clock)
        loss = swapped_prediction(scores / self.config.temperature, *codes)
        diagnostics = {
            "code_entropy": torch.special.entr(torch.cat(codes)).sum(1).mean(),  # log K once collapsed
            "queue_used": torch.tensor(float(queued)),
        }
        return Step(loss, {"cross_entropy": loss}, features[:B], first, diagnostics, (first, second))

    @torch.no_grad()
    def codes(self, z: tuple[Tensor, Tensor], scores: tuple[Tensor, Tensor], clock: Clock) -> tuple[list[Tensor], bool]:
        """Codes (B, K) of both global crops, from their outputs (B, D) and scores (B, K), and if the queue had a part.

        The queue takes the batch in afterwards. Each process assigns its share of the queue beside its images.
        """
        B, rows = len(z[0]), list(scores)
        queued = self.queue is not None and self.config.queue_is_full(clock, B * world_size())
        if self.queue is not None and queued:
            older = self.queue.read().chunk(world_size())[rank()].chunk(2, dim=1)
            rows = [torch.cat([cosines(old, self.prototypes.weight), s]) for old, s in zip(older, scores, strict=True)]
        codes = [sinkhorn(s, self.config.epsilon, self.config.sinkhorn_iterations)[-B:] for s in rows]
        if self.queue is not None and clock.epoch >= self.config.queue_from:
            self.queue.push(torch.cat(z, dim=1))
        return codes, queued

    def after_step(self, clock: Clock) -> None:
        self.normalise_prototypes()

    @torch.no_grad()
    def normalise_prototypes(self) -> None:
        self.prototypes.weight.copy_(F.normalize(self.prototypes.weight, dim=1))

    def param_groups(self) -> list[ParamGroup]:
        rest = (*self.backbone.parameters(), *self.projector.parameters())
        return [
            ParamGroup([p for p in rest if p.requires_grad]),
            ParamGroup(list(self.prototypes.parameters()), frozen_epochs=self.config.frozen_epochs),
        ]


@full_precision
def cosines(z: Tensor, prototypes_KD: Tensor) -> Tensor:
    """Scores (rows, K) of outputs (rows, D), which are normalised here, by prototypes, which are so already."""
    return F.normalize(z, dim=1) @ prototypes_KD.T


@full_precision
def swapped_prediction(logits: Tensor, first_BK: Tensor, second_BK: Tensor) -> Tensor:
    """Mean cross-entropy over pairs of a code and another crop's logits (V * B, K), mean over this process's images."""
    crops = logits.split(len(first_BK))
    # what a crop is compared with comes at once: a global one with the other's code, a local one with both
    against = [second_BK, first_BK] + [first_BK + second_BK] * (len(crops) - 2)
    losses = [F.cross_entropy(crop, codes) for crop, codes in zip(crops, against, strict=True)]
    return torch.stack(losses).sum() / (2 * len(crops) - 2)
