"""MoCo v3: predict which image of the batch a slow copy of the network saw another view of; no queue.

Paper    Chen, Xie & He, ICCV 2021, arXiv:2104.02057, Algorithm 1.
Loss     - 2 tau log [exp(cos(q_i, k_i) / tau) / sum over all N keys exp(cos(q_i, k_j) / tau)], for both directions
Oracle   facebookresearch/moco-v3@c349e6e, moco/builder.py, main_moco.py, vits.py.
Departs  A ViT starts, and knows positions, as timm's does (oracle: uniform weights by Xavier, fixed sine and cosine).
Shapes   B images on this process, N = B * world size, D = widths[-1].
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.api import Backbone, Batch, Clock, Method, MethodConfig, Requirements, Step, TrainSet, tunable
from harness.nn import Teacher, all_gather, cosine, full_precision, mlp, rank


@dataclass(frozen=True, kw_only=True)
class Config(MethodConfig):
    """Values of the oracle's builder.py and command line for a ResNet-50; its values for a ViT in the comments."""

    title: ClassVar[str] = "MoCo v3"
    projects: ClassVar[bool] = True

    widths: tuple[int, ...] = (4096, 256)  # projector; ViT: (4096, 4096, 256)
    predictor_hidden: int = 4096
    predictor_norm: bool = False  # batch norm after the predictor's last layer; ViT: True
    frozen_patches: bool = False  # the patch embedding stays as it starts; ViT: True (--stop-grad-conv1)
    temperature: float = tunable(
        1.0,
        low=0.1,
        high=2.0,
        log=True,
        source="tau: the oracle 1.0, for a ViT 0.2 (CONFIG.md); range ours, half to twice",
    )
    momentum: float = tunable(  # at step 0, to 1 along a cosine (CONFIG.md: --moco-m-cos throughout)
        0.99, low=0.9, high=0.999, source="m: the oracle 0.99, for 1000 epochs 0.996 (CONFIG.md); range ours"
    )

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise ValueError(f"MoCo v3's temperature is {self.temperature}, expected a number above 0")
        if not 0 <= self.momentum <= 1:
            raise ValueError(f"MoCo v3's momentum is {self.momentum}, expected 0 to 1")

    def requirements(self) -> Requirements:
        return Requirements(patches=self.frozen_patches)

    def build(self, backbone: Backbone, train: TrainSet) -> "MoCoV3":
        return MoCoV3(self, backbone)


class MoCoV3(Method[Config]):
    def __init__(self, config: Config, backbone: Backbone) -> None:
        super().__init__(config, backbone)
        if config.frozen_patches:
            backbone.patches.requires_grad_(False)
        D = config.widths[-1]
        self.projector = head(backbone.width, *config.widths, last_norm=True)
        self.predictor = head(D, config.predictor_hidden, D, last_norm=config.predictor_norm)
        self.key_encoder = Teacher(nn.Sequential(backbone, self.projector))

    def step(self, batch: Batch) -> Step:
        features = [self.backbone(view) for view in batch.views]
        a_BD, b_BD = (self.projector(f) for f in features)
        keys = [self.key_encoder(view) for view in batch.views]
        loss = moco_v3_loss(self.predictor(a_BD), self.predictor(b_BD), *keys, self.config.temperature)
        return Step(loss, {"contrastive": loss}, features[0], a_BD, projections=(a_BD, b_BD))

    def after_step(self, clock: Clock) -> None:
        """The oracle moves its key encoder when the next step starts, with that step's momentum: the same."""
        momentum = cosine(self.config.momentum, 1.0, (clock.step + 1) / clock.steps)
        self.key_encoder.update(nn.Sequential(self.backbone, self.projector), momentum)


def head(*widths: int, last_norm: bool) -> nn.Sequential:
    """Linear layers without bias, each with batch norm and, but for the last, ReLU; the last norm is optional."""
    net = mlp(*widths, hidden_bias=False)
    if last_norm:
        net.append(nn.BatchNorm1d(widths[-1], affine=False))
    return net


@full_precision
def moco_v3_loss(to_b_BD: Tensor, to_a_BD: Tensor, a_BD: Tensor, b_BD: Tensor, temperature: float) -> Tensor:
    """Both directions' cross-entropies times 2 tau, summed: predictions (of b from a, of a from b), then keys.

    A query's classes are the keys of all N images; mean over the images of this process.
    """
    B = len(a_BD)
    own = rank() * B + torch.arange(B, device=a_BD.device)
    loss = a_BD.new_zeros(())
    for query, key in ((to_b_BD, b_BD), (to_a_BD, a_BD)):
        logits = F.normalize(query, dim=1) @ F.normalize(all_gather(key), dim=1).T / temperature
        loss = loss + 2 * temperature * F.cross_entropy(logits, own)
    return loss
