"""TiCo: near to what a slow teacher makes of the other view, and far from where embeddings have lain.

Paper    Zhu, Moraes, Karakulak, Sobol, Canziani & LeCun, 2022, arXiv:2206.10698.
Loss     invariance [1 - mean <a, b'>] + covariance mean a' C a, C <- beta C + (1 - beta) mean aa' before the loss, the
         rows a of the student and b' of the teacher of norm 1
Oracle   lightly-ai/lightly@e8d317f, TiCoLoss, TiCoProjectionHead and benchmarks/imagenet/resnet50/tico.py; no code of
         the authors is known to us.
Departs  Nothing from the oracle, but codes disagree. No gradient goes through C, as in lightly since 6bd7553 (its pull
         request 1484: a figure of the paper suggests it); there before, and in sayannag/TiCo-pytorch@2259b83, one goes
         through this batch's part. Of rho both codes say that the paper has 8; rbalestr-lab/stable-pretraining@9aa93f8
         has 20, and a C that is centred and of both views.
Shapes   B images on this process, D = widths[-1]; C (D, D) takes 256 KiB at D = 256.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from harness.api import Backbone, Batch, Clock, Method, MethodConfig, Step, TrainSet, coefficient, tunable
from harness.nn import RunningMean, Teacher, cosine, full_precision, mlp


@dataclass(frozen=True, kw_only=True)
class Config(MethodConfig):
    """Defaults are those of the oracle's ImageNet benchmark."""

    title: ClassVar[str] = "TiCo"

    widths: tuple[int, ...] = (4096, 256)
    invariance: float = coefficient(1.0, low=0.25, high=4.0, source="1 in all codes; range ours, two octaves each way")
    covariance: float = coefficient(
        8.0, low=2.0, high=32.0, source="rho: the oracle 8, stable-pretraining 20; range ours, two octaves each way"
    )
    beta: float = tunable(0.9, low=0.0, high=0.999, source="the oracle; range ours, from C of this batch alone")
    momentum: float = tunable(  # of the teacher, to 1 along a cosine
        0.99, low=0.9, high=0.999, source="the oracle on ImageNet; 0.996 on Imagenette; range ours"
    )

    def __post_init__(self) -> None:
        if not 0 <= self.beta < 1:
            raise ValueError(f"TiCo's beta is {self.beta}, expected at least 0 and below 1, where C would stay 0")
        if not 0 <= self.momentum <= 1:
            raise ValueError(f"TiCo's momentum is {self.momentum}, expected 0 to 1")

    def build(self, backbone: Backbone, train: TrainSet) -> "TiCo":
        return TiCo(self, backbone)


class TiCo(Method[Config]):
    def __init__(self, config: Config, backbone: Backbone) -> None:
        super().__init__(config, backbone)
        D = config.widths[-1]
        self.projector = mlp(backbone.width, *config.widths, hidden_bias=False, last_bias=True)
        self.teacher = Teacher(nn.Sequential(backbone, self.projector))
        self.covariance = RunningMean(D, D, momentum=config.beta)

    def step(self, batch: Batch) -> Step:
        features = self.backbone(batch.views[0])
        a_BD, b_BD = self.projector(features), self.teacher(batch.views[1])
        self.covariance.update(second_moment(a_BD.detach()))
        terms = tico_terms(a_BD, b_BD, self.covariance.mean)
        loss = self.config.invariance * terms["invariance"] + self.config.covariance * terms["covariance"]
        return Step(loss, terms, features, a_BD)

    def after_step(self, clock: Clock) -> None:
        # the oracle updates before step i by momentum(i); its cosine ends with the last step
        progress = min(1.0, (clock.step + 1) / max(1, clock.steps - 1))
        self.teacher.update(nn.Sequential(self.backbone, self.projector), cosine(self.config.momentum, 1.0, progress))


@full_precision
def second_moment(z_BD: Tensor) -> Tensor:
    """Mean of the products (D, D) of the coordinates of normalised rows; not centred."""
    z_BD = F.normalize(z_BD, dim=1)
    return z_BD.T @ z_BD / len(z_BD)


@full_precision
def tico_terms(a_BD: Tensor, b_BD: Tensor, C_DD: Tensor) -> dict[str, Tensor]:
    """The unweighted terms, of this process's images; C is that of all."""
    a_BD, b_BD = F.normalize(a_BD, dim=1), F.normalize(b_BD, dim=1)
    return {
        "invariance": 1 - (a_BD * b_BD).sum(dim=1).mean(),
        "covariance": (a_BD @ C_DD * a_BD).sum(dim=1).mean(),
    }
