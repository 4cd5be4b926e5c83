"""Barlow Twins: the same dimension of the two views fully correlated, two different dimensions not at all.

Paper    Zbontar, Jing, Misra, LeCun & Deny, ICML 2021, arXiv:2103.03230, eqs. 1 and 2.
Loss     invariance sum_i (1 - C_ii)^2 + redundancy sum_{i != j} C_ij^2, C = a'b / N of a and b, each dimension of which
         has mean 0 and variance 1 over the batch
Oracle   facebookresearch/barlowtwins@8e8d284, main.py, class BarlowTwins.
Departs  On W processes the gradient is that of the joined batch; the oracle's is 1 / W of it, as its sum over processes
         passes none back. The oracle gives biases and norms a learning rate of their own; here a recipe has one.
Shapes   B images on this process, N = B * world size, D = widths[-1].
"""

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from harness.api import Backbone, Batch, Method, MethodConfig, Step, TrainSet, coefficient
from harness.nn import all_gather, full_precision, mlp


@dataclass(frozen=True, kw_only=True)
class Config(MethodConfig):
    """The published setting. Codes that scale their whole loss (solo-learn's scale_loss) scale both coefficients."""

    title: ClassVar[str] = "Barlow Twins"
    projects: ClassVar[bool] = True

    widths: tuple[int, ...] = (8192, 8192, 8192)  # main.py, --projector
    invariance: float = coefficient(
        1.0, low=0.02, high=1.0, source="eq. 1; whole losses are scaled by 1/32 (main.py@f13c949) or 0.1 (solo-learn)"
    )
    redundancy: float = coefficient(
        5.1e-3, low=1e-4, high=5e-2, source="lambda, eq. 1; main.py, --lambd; range ours, a decade up, and scaled down"
    )

    def build(self, backbone: Backbone, train: TrainSet) -> "BarlowTwins":
        return BarlowTwins(self, backbone)


class BarlowTwins(Method[Config]):
    def __init__(self, config: Config, backbone: Backbone) -> None:
        super().__init__(config, backbone)
        self.projector = mlp(backbone.width, *config.widths, hidden_bias=False)

    def step(self, batch: Batch) -> Step:
        features = [self.backbone(view) for view in batch.views]
        a_BD, b_BD = (self.projector(f) for f in features)
        terms = barlow_twins_terms(a_BD, b_BD)
        loss = self.config.invariance * terms["invariance"] + self.config.redundancy * terms["redundancy"]
        return Step(loss, terms, features[0], a_BD, projections=(a_BD, b_BD))


@full_precision
def barlow_twins_terms(a_BD: Tensor, b_BD: Tensor) -> dict[str, Tensor]:
    """The unweighted terms, of the joined batch of all processes."""
    # as nn.BatchNorm1d(D, affine=False): the variance is biased, and 1e-5 is added to it
    a_ND, b_ND = (F.batch_norm(all_gather(z), None, None, training=True) for z in (a_BD, b_BD))
    N, D = a_ND.shape
    diagonal_D = (a_ND * b_ND).sum(dim=0) / N
    # the sum of the squares of a'b is that of the elementwise product of aa' and bb', which are smaller where N < D
    squares = (a_ND @ a_ND.T) * (b_ND @ b_ND.T) if N < D else (a_ND.T @ b_ND).square()
    return {
        "invariance": (1 - diagonal_D).square().sum(),
        "redundancy": squares.sum() / N**2 - diagonal_D.square().sum(),
    }
