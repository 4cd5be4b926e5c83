"""AnInfoNCE: InfoNCE whose similarity weighs every dimension by a sharpness of its own, which is learned.

Paper    Rusak, Reizinger, Juhos, Bringmann, Zimmermann & Brendel, arXiv:2407.00143.
Loss     - mean log [exp(-d(a, a')) / sum over the points b of both views of exp(-d(a, b))],
         d(a, b) = sum_k Lambda_k (a_k - b_k)^2 / 2
Oracle   brendel-group/AnInfoNCE@c6907e5, losses.py, AnInfoNCELoss.
Departs  Nothing. As the oracle, the second view's anchors take the first view's similarities to the second view for
         their negatives across views. With a temperature it is InfoNCE, every sharpness fixed at its inverse.
Shapes   B pairs on this process, N = B * world size, D the backbone's width; there is no head.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.api import Backbone, Batch, Method, MethodConfig, ParamGroup, Step, TrainSet, tunable
from harness.nn import all_gather, full_precision, rank


@dataclass(frozen=True, kw_only=True)
class Config(MethodConfig):
    """temperature: None learns a sharpness per dimension, AnInfoNCE; a number fixes all at its inverse, InfoNCE."""

    title: ClassVar[str] = "AnInfoNCE"
    projects: ClassVar[bool] = True

    temperature: float | None = None
    sharpness_lr: float = tunable(
        1e-3, low=1e-4, high=1e-2, log=True, source="main_mlp.py, --lr-lambda; range ours, a decade to each side"
    )

    def __post_init__(self) -> None:
        if self.temperature is not None and self.temperature <= 0:
            raise ValueError(f"AnInfoNCE's temperature is {self.temperature}, expected None or a number above 0")

    @property
    def label(self) -> str:
        return self.title if self.temperature is None else "InfoNCE"

    def build(self, backbone: Backbone, train: TrainSet) -> "AnInfoNCE":
        return AnInfoNCE(self, backbone)


class AnInfoNCE(Method[Config]):
    def __init__(self, config: Config, backbone: Backbone) -> None:
        super().__init__(config, backbone)
        if config.temperature is None:
            self.raw_sharpness = nn.Parameter(0.1 * torch.randn(backbone.width))  # main_mlp.py, lambda_init

    def sharpness(self) -> Tensor | float:
        """Lambda: (D,) under softplus, or one number for all dimensions."""
        return F.softplus(self.raw_sharpness) if self.config.temperature is None else 1 / self.config.temperature

    def step(self, batch: Batch) -> Step:
        features = [self.backbone(view) for view in batch.views]
        a_BD, b_BD = (F.normalize(f, dim=1) for f in features)
        sharpness = torch.as_tensor(self.sharpness(), dtype=a_BD.dtype, device=a_BD.device)
        loss = aninfonce(a_BD, b_BD, sharpness)
        known = sharpness.detach()
        diagnostics = {"sharpness_min": known.min(), "sharpness_max": known.max()}
        return Step(loss, {"contrastive": loss}, features[0], a_BD, diagnostics, tuple(features))

    def param_groups(self) -> list[ParamGroup]:
        groups = [ParamGroup(list(self.backbone.parameters()))]
        if self.config.temperature is None:
            groups.append(ParamGroup([self.raw_sharpness], own_adam=self.config.sharpness_lr))
        return groups


@full_precision
def aninfonce(a_BD: Tensor, b_BD: Tensor, sharpness: Tensor) -> Tensor:
    """Cross-entropy of each pair among 2 (N - 1) negatives, under -1/2 sum_k sharpness_k (a_k - b_k)^2 as logits.

    An anchor's negatives are the other points of its own view and, across the views, those of the second. Mean over
    the 2B anchors of this process.
    """
    a_BD, b_BD = a_BD * sharpness.sqrt(), b_BD * sharpness.sqrt()
    a_ND, b_ND = all_gather(a_BD), all_gather(b_BD)
    own = rank() * len(a_BD) + torch.arange(len(a_BD), device=a_BD.device)[:, None]
    across = logits(a_BD, b_ND)
    positive = across.gather(1, own)[:, 0]
    across = across.logsumexp(1)
    within = [logits(x, y).scatter(1, own, -torch.inf).logsumexp(1) for x, y in ((a_BD, a_ND), (b_BD, b_ND))]
    return torch.stack([torch.logaddexp(across, others) - positive for others in within]).mean()


def logits(x_BD: Tensor, y_ND: Tensor) -> Tensor:
    """Minus half the squared distances (B, N)."""
    return x_BD @ y_ND.T - x_BD.square().sum(1)[:, None] / 2 - y_ND.square().sum(1) / 2
