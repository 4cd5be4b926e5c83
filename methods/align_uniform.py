"""Alignment and uniformity: keep the two views close on the unit sphere, and all images spread over it.

Paper    Wang & Isola, ICML 2020, arXiv:2005.10242: L_align and L_uniform.
Loss     w_a mean |a - b|^alpha + w_u [u(a) + u(b)] / 2 of l2-normalised a and b, u(z) the log of the mean over pairs
         i < j of exp(-t |z_i - z_j|^2)
Oracle   SsnL/align_uniform@e256d47, align_uniform/__init__.py and examples/stl10/main.py.
Departs  Nothing in the loss. The two views pass the network one after the other (oracle: in one batch), so batch norm
         sees one at a time; layers are initialised as torch does (oracle: N(0, 0.02)).
Shapes   B images on this process, N = B * world size, D = widths[-1].
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.api import Backbone, Batch, Method, MethodConfig, Step, TrainSet, coefficient, tunable
from harness.nn import all_gather, full_precision, mlp

IMAGENET = "ImageNet-100, SsnL/moco_align_uniform@4d690c3"


@dataclass(frozen=True, kw_only=True)
class Config(MethodConfig):
    """The oracle's setting for STL-10, where fc6 and fc7 are layers of the encoder and fc8 is the head."""

    title: ClassVar[str] = "Alignment and Uniformity"
    projects: ClassVar[bool] = True

    widths: tuple[int, ...] = (128,)  # encoder.py, fc8; hidden layers, if any, as its fc6 and fc7
    alpha: float = tunable(2.0, low=1.0, high=4.0, source="main.py, --align_alpha; range ours")
    t: float = tunable(2.0, low=0.5, high=8.0, log=True, source=f"main.py, --unif_t; {IMAGENET}: 3; range ours")
    alignment: float = coefficient(
        1.0, low=0.25, high=4.0, source=f"w_a, main.py, --align_w; {IMAGENET}: 3; range ours, two octaves to each side"
    )
    uniformity: float = coefficient(
        1.0, low=0.25, high=4.0, source="w_u, main.py, --unif_w; range ours, two octaves to each side"
    )

    def __post_init__(self) -> None:
        if self.alpha < 1:
            raise ValueError(
                f"Alignment's alpha is {self.alpha}, expected 1 or more: below, equal views have no finite gradient"
            )
        if self.t <= 0:
            raise ValueError(f"Uniformity's t is {self.t}, expected a number above 0")

    def build(self, backbone: Backbone, train: TrainSet) -> "AlignUniform":
        return AlignUniform(self, backbone)


class AlignUniform(Method[Config]):
    def __init__(self, config: Config, backbone: Backbone) -> None:
        super().__init__(config, backbone)
        self.projector = mlp(backbone.width, *config.widths, hidden_bias=False, last_bias=True)

    def step(self, batch: Batch) -> Step:
        features = [self.backbone(view) for view in batch.views]
        a_BD, b_BD = (self.projector(f) for f in features)
        k = self.config
        spread = uniformity(a_BD, k.t) + uniformity(b_BD, k.t)
        terms = {"alignment": alignment(a_BD, b_BD, k.alpha), "uniformity": spread / 2}
        loss = k.alignment * terms["alignment"] + k.uniformity * terms["uniformity"]
        return Step(loss, terms, features[0], a_BD, projections=(a_BD, b_BD))


@full_precision
def alignment(a_BD: Tensor, b_BD: Tensor, alpha: float) -> Tensor:
    """Mean of |a - b|^alpha, rows l2-normalised; of the local shard, averaging gradients makes it global."""
    return (F.normalize(a_BD, dim=1) - F.normalize(b_BD, dim=1)).norm(dim=1).pow(alpha).mean()


@full_precision
def uniformity(z_BD: Tensor, t: float) -> Tensor:
    """log of the mean over pairs of different images of exp(-t |z_i - z_j|^2), rows l2-normalised."""
    z_ND = F.normalize(all_gather(z_BD), dim=1)
    N = len(z_ND)
    exponents = 2 * t * (z_ND @ z_ND.T - 1)  # |z_i - z_j|^2 = 2 - 2 z_i z_j; a matrix product, no square root
    self_pairs = torch.eye(N, dtype=torch.bool, device=z_ND.device)
    return exponents.masked_fill(self_pairs, -torch.inf).flatten().logsumexp(0) - math.log(N * (N - 1))
