"""VICReg: keep the two views close, each dimension alive, and the dimensions uncorrelated.

Paper    Bardes, Ponce & LeCun, ICLR 2022, arXiv:2105.04906, eqs. 1, 2, 5 and 6, Algorithm 1.
Loss     lambda mean |a - b|^2 / D + mu [v(a) + v(b)] / 2 + nu [c(a) + c(b)], v the mean over dimensions of
         max(0, 1 - std), c the sum of squared covariances of two dimensions, over D
Oracle   facebookresearch/vicreg@4e12602, main_vicreg.py, class VICReg.
Departs  From the oracle: the loss is computed in float32 also where the network is not. From the paper, as the oracle:
         invariance is a mean over D too (eq. 5 sums), variance is halved.
Shapes   B images on this process, N = B * world size, D = widths[-1].
"""

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from harness.api import Backbone, Batch, Method, MethodConfig, Step, TrainSet, coefficient
from harness.nn import all_gather, full_precision, hinge_std, mlp, off_diagonal_energy


@dataclass(frozen=True, kw_only=True)
class Config(MethodConfig):
    """The published setting; Table 7 varies invariance and variance from 0 to 50 at covariance 0 or 1."""

    title: ClassVar[str] = "VICReg"
    projects: ClassVar[bool] = True

    widths: tuple[int, ...] = (
        8192,
        8192,
        8192,
    )  # expander (main_vicreg.py, --mlp); Table 12 varies it from 256 to 16384
    invariance: float = coefficient(25.0, low=1.0, high=50.0, source="lambda, eq. 6; range of Table 7")
    variance: float = coefficient(25.0, low=1.0, high=50.0, source="mu, eq. 6; range of Table 7")
    covariance: float = coefficient(1.0, low=0.1, high=10.0, source="nu, eq. 6; range ours, a decade to each side")

    def build(self, backbone: Backbone, train: TrainSet) -> "VICReg":
        return VICReg(self, backbone)


class VICReg(Method[Config]):
    def __init__(self, config: Config, backbone: Backbone) -> None:
        super().__init__(config, backbone)
        self.expander = mlp(backbone.width, *config.widths)

    def step(self, batch: Batch) -> Step:
        features = [self.backbone(view) for view in batch.views]  # one pass per view: batch norm sees one at a time
        a_BD, b_BD = (self.expander(f) for f in features)
        terms = vicreg_terms(a_BD, b_BD)
        k = self.config
        loss = k.invariance * terms["invariance"] + k.variance * terms["variance"] + k.covariance * terms["covariance"]
        return Step(loss, terms, features[0], a_BD, projections=(a_BD, b_BD))


@full_precision
def vicreg_terms(a_BD: Tensor, b_BD: Tensor) -> dict[str, Tensor]:
    """The three unweighted terms; statistics are those of the joined batch of all processes."""
    a_ND, b_ND = all_gather(a_BD), all_gather(b_BD)
    return {
        "invariance": F.mse_loss(a_BD, b_BD),  # eq. 5 / D; of the local shard, averaging gradients makes it global
        "variance": (hinge_std(a_ND) + hinge_std(b_ND)) / 2,  # eq. 1, halved
        "covariance": off_diagonal_energy(a_ND) + off_diagonal_energy(b_ND),  # Algorithm 1
    }
