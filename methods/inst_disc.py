"""Instance discrimination (NPID): every image is a class of its own, and its prototype is what was last seen of it.

Paper    Wu, Xiong, Yu & Lin, CVPR 2018, arXiv:1805.01978: the non-parametric softmax.
Loss     - mean log [exp(z_i . v_i / tau) / sum over all images k of exp(z_i . v_k / tau)], v the memory bank
Oracle   zhirongw/lemniscate.pytorch@f7cfe29, cifar.py with --nce-k 0 and lib/LinearAverage.py.
Departs  The exact softmax alone: the estimates from 4,096 or 65,536 negatives, which the oracle's ImageNet models have,
         are left out. Rows of the bank are unit vectors from the start, as in sec. 3.2 (oracle: of norms near 1).
Shapes   B images on this process, N = images of the train split, D = widths[-1]. The bank is N * D numbers in the state
         and, from the forward to the backward pass, a copy of them; the logits are B * N.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.api import Backbone, Batch, Method, MethodConfig, Requirements, Step, TrainSet, tunable
from harness.nn import all_gather, full_precision, mlp


@dataclass(frozen=True, kw_only=True)
class Config(MethodConfig):
    """Defaults are those of the oracle's command for CIFAR-10."""

    title: ClassVar[str] = "NPID"
    projects: ClassVar[bool] = True

    widths: tuple[int, ...] = (128,)  # --low-dim, one linear layer
    temperature: float = tunable(0.1, low=0.05, high=0.5, log=True, source="README: 0.07 to 0.1 works well; range ours")
    momentum: float = tunable(0.5, low=0.0, high=0.9, source="--nce-m, README: 0.5 works well; range ours")

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise ValueError(f"NPID's temperature is {self.temperature}, expected a number above 0")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"NPID's momentum is {self.momentum}, expected 0 or more and less than 1")

    def requirements(self) -> Requirements:
        return Requirements(views=("global",), sources=(0,), index=True)

    def build(self, backbone: Backbone, train: TrainSet) -> "InstDisc":
        return InstDisc(self, backbone, train.images)


class InstDisc(Method[Config]):
    bank: Tensor

    def __init__(self, config: Config, backbone: Backbone, images: int) -> None:
        super().__init__(config, backbone)
        self.head = mlp(backbone.width, *config.widths, norm=False, last_bias=True)
        self.register_buffer("bank", F.normalize(torch.randn(images, config.widths[-1]), dim=1))

    def step(self, batch: Batch) -> Step:
        features = self.backbone(batch.views[0])
        z_BD = self.head(features)
        # a copy, because the rows of this batch change before the backward pass needs what the logits were made of
        loss = instance_loss(z_BD, self.bank.clone(), batch.index, self.config.temperature)
        self.remember(z_BD, batch.index)
        return Step(loss, {"instance": loss}, features, z_BD, projections=(z_BD,))

    @torch.no_grad()
    def remember(self, z_BD: Tensor, index_B: Tensor) -> None:
        """Move the rows of the joined batch towards its embeddings.

        No row is moved twice: a batch is a slice of the epoch's permutation, so no image comes twice in it.
        """
        index_N, z_ND = all_gather(index_B), F.normalize(all_gather(z_BD.detach()).to(self.bank.dtype), dim=1)
        self.bank[index_N] = F.normalize(torch.lerp(z_ND, self.bank[index_N], self.config.momentum), dim=1)


@full_precision
def instance_loss(z_BD: Tensor, bank_ND: Tensor, index_B: Tensor, temperature: float) -> Tensor:
    """Cross-entropy of each image over all images; the mean over those of this process, averaging makes it global."""
    return F.cross_entropy(F.normalize(z_BD, dim=1) @ bank_ND.T / temperature, index_B)
