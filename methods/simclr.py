"""SimCLR: find the other view of an image among all other images of the batch.

Paper    Chen, Kornblith, Norouzi & Hinton, ICML 2020, arXiv:2002.05709: the NT-Xent loss.
Loss     - mean log [exp(cos(z_i, z_i') / tau) / sum over the 2N - 1 others k of exp(cos(z_i, z_k) / tau)]
Oracle   SkrighYZ/AdaSSL@8f7148f6, its contrastive loss (there with clamp 20).
Departs  Nothing in the loss. Temperature and head are those of vturrisi/solo-learn@07f8c3b for CIFAR-10
         (scripts/pretrain/cifar/simclr.yaml), not the paper's for ImageNet.
Shapes   B images on this process, N = B * world size, D = widths[-1].
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.api import Backbone, Batch, JointEmbedding, MethodConfig, Step, TrainSet, tunable
from harness.nn import all_gather, full_precision, mlp, rank


@dataclass(frozen=True, kw_only=True)
class Config(MethodConfig):
    """clamp: largest size of a scaled similarity. learnable_scale: a factor softplus(l) on similarities, 1 at first."""

    title: ClassVar[str] = "SimCLR"
    projects: ClassVar[bool] = True

    widths: tuple[int, ...] = (2048, 256)  # solo-learn: proj_hidden_dim, proj_output_dim
    norm: bool = False  # solo-learn and AdaSSL: no batch norm in the head
    last_bias: bool = True  # solo-learn; AdaSSL has none
    temperature: float = tunable(
        0.2, low=0.05, high=1.0, log=True, source="tau: solo-learn 0.2, AdaSSL 0.05 to 0.1; upper end ours"
    )
    clamp: float | None = None  # AdaSSL: 20
    learnable_scale: bool = False  # AdaSSL, on CelebA and iNat

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise ValueError(f"SimCLR's temperature is {self.temperature}, expected a number above 0")

    def build(self, backbone: Backbone, train: TrainSet) -> "SimCLR":
        return SimCLR(self, backbone)


class SimCLR(JointEmbedding[Config]):
    def __init__(self, config: Config, backbone: Backbone) -> None:
        super().__init__(config, backbone)
        self.embedding_width = config.widths[-1]
        self.projector = mlp(backbone.width, *config.widths, norm=config.norm, last_bias=config.last_bias)
        if config.learnable_scale:
            self.scale = nn.Parameter(torch.tensor(math.log(math.e - 1)))

    def embed(self, features: Tensor) -> Tensor:
        return self.projector(features)

    def target(self, view: Tensor, embedding: Tensor) -> Tensor:
        return embedding

    def compare(self, predicted: tuple[Tensor, Tensor], targets: tuple[Tensor, Tensor]) -> Tensor:
        scale = F.softplus(self.scale) if self.config.learnable_scale else 1.0
        return nt_xent(*predicted, *targets, scale / self.config.temperature, self.config.clamp)

    def step(self, batch: Batch) -> Step:
        features = [self.backbone(view) for view in batch.views]
        a_BD, b_BD = (self.embed(f) for f in features)
        targets = (self.target(batch.views[0], a_BD), self.target(batch.views[1], b_BD))
        loss = self.compare((b_BD, a_BD), targets)
        return Step(loss, {"contrastive": loss}, features[0], a_BD, projections=(a_BD, b_BD))


@full_precision
def nt_xent(
    from_b_BD: Tensor, from_a_BD: Tensor, a_BD: Tensor, b_BD: Tensor, sharpness: Tensor | float, clamp: float | None
) -> Tensor:
    """Cross-entropy of each prediction over all 2N targets but the one of the view it was made from.

    A prediction of a (made from b) has a as its positive and all images' other targets, 2N - 2, as negatives. For
    plain SimCLR the predictions are the embeddings themselves. Mean over the 2B predictions of this process.
    """
    rows = F.normalize(torch.cat([from_b_BD, from_a_BD]), dim=1)
    columns = F.normalize(torch.cat([all_gather(a_BD), all_gather(b_BD)]), dim=1)
    logits = rows @ columns.T * sharpness
    if clamp is not None:
        logits = logits.clamp(-clamp, clamp)
    B, N = len(a_BD), len(columns) // 2
    own = rank() * B + torch.arange(B, device=logits.device)
    positive, made_from = torch.cat([own, own + N]), torch.cat([own + N, own])
    logits = logits.scatter(1, made_from[:, None], -torch.inf)
    return F.cross_entropy(logits, positive)
