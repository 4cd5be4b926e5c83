"""SupCon: find all other views of the same class among all other views of the batch.

Paper    Khosla et al., NeurIPS 2020, arXiv:2004.11362: eq. 2 (L_out), eq. 3 (L_in).
Loss     - mean over anchors i and positives p of log [exp(cos(z_i, z_p) / tau) / sum over k != i of exp(cos / tau)]
Oracle   HobbitLong/SupContrast@66a8fe5, losses.py (SupConLoss, contrast_mode "all"); with `inside`
         vturrisi/solo-learn@9187ea3, solo/losses/simclr.py, as its solo/methods/supcon.py calls it.
Departs  The mean over anchors (paper: the sum), without the first oracle's factor tau / 0.07, which is a factor of the
         learning rate. With `inside` eq. 3 keeps its 1 / |P|, which the second oracle drops: a constant of the batch.
Shapes   B images on this process, N = B * world size, D = widths[-1].
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.api import Backbone, Batch, Method, MethodConfig, Requirements, Step, TrainSet, tunable
from harness.nn import all_gather, full_precision, mlp, rank


@dataclass(frozen=True, kw_only=True)
class Config(MethodConfig):
    """inside: the mean over positives is taken inside the logarithm (L_in), not outside (L_out)."""

    title: ClassVar[str] = "SupCon"
    projects: ClassVar[bool] = True

    widths: tuple[int, ...] = (2048, 128)  # sec. 3.1; no batch norm, biases: networks/resnet_big.py
    temperature: float = tunable(
        0.1, low=0.05, high=0.5, log=True, source="tau: README of SupContrast, CIFAR-10; solo-learn 0.2; range ours"
    )
    inside: bool = False  # sec. 3.2.2: L_out is better; solo-learn: True

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise ValueError(f"SupCon's temperature is {self.temperature}, expected a number above 0")

    @property
    def label(self) -> str:
        return f"{self.title}{' L_in' if self.inside else ''} (labels)"

    def requirements(self) -> Requirements:
        return Requirements(labels=True)

    def build(self, backbone: Backbone, train: TrainSet) -> "SupCon":
        return SupCon(self, backbone)


class SupCon(Method[Config]):
    def __init__(self, config: Config, backbone: Backbone) -> None:
        super().__init__(config, backbone)
        self.projector = mlp(backbone.width, *config.widths, norm=False, last_bias=True)

    def step(self, batch: Batch) -> Step:
        assert batch.labels is not None
        features = [self.backbone(view) for view in batch.views]
        a_BD, b_BD = (self.projector(f) for f in features)
        loss = supcon_loss(a_BD, b_BD, batch.labels, self.config.temperature, self.config.inside)
        return Step(loss, {"contrastive": loss}, features[0], a_BD, projections=(a_BD, b_BD))


@full_precision
def supcon_loss(a_BD: Tensor, b_BD: Tensor, labels_B: Tensor, temperature: float, inside: bool) -> Tensor:
    """Mean over the 2B anchors of this process; positives and negatives are of the joined batch, 2N - 1 to an anchor.

    Every anchor has a positive, its other view.
    """
    rows = F.normalize(torch.cat([a_BD, b_BD]), dim=1)
    columns = F.normalize(torch.cat([all_gather(a_BD), all_gather(b_BD)]), dim=1)
    B, N = len(a_BD), len(columns) // 2
    own = rank() * B + torch.arange(B, device=rows.device)
    itself = torch.cat([own, own + N])[:, None]
    logits = (rows @ columns.T / temperature).scatter(1, itself, -torch.inf)
    positive = labels_B.repeat(2)[:, None] == all_gather(labels_B).repeat(2)
    positive = positive.scatter(1, itself, False)
    count = positive.sum(1, dtype=logits.dtype)
    if inside:
        attracted = logits.where(positive, -torch.inf).logsumexp(1) - count.log()
    else:
        attracted = logits.where(positive, 0.0).sum(1) / count
    return (logits.logsumexp(1) - attracted).mean()
