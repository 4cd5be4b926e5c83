"""SSL-HSIC: make embeddings depend on which image they come from, and on nothing else.

Paper    Li, Pogodin, Sutherland & Gretton, NeurIPS 2021, arXiv:2106.08320, eqs. 4 and 5.
Loss     gamma sqrt(HSIC(Z, Z)) - HSIC(Z, Y), Z the embeddings, Y the images' indices
Oracle   google-deepmind/ssl_hsic@d7ea38d, ssl_hsic/kernels.py and experiment.py.
Departs  Frequencies follow the exact law, not a grid of 10,000 points on [0, 100]; all processes share a draw (oracle:
         one per device); the target starts as a copy (oracle: its own initialisation); layers are initialised as torch
         does (oracle: as haiku does); the online probe is not part of the loss. Without target, which the oracle lacks:
         the projections of both views, no predictor.
Shapes   B images on this process, N = B * world size, K views, D = widths[-1], F random features.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.api import (
    Backbone,
    Batch,
    Clock,
    Draws,
    Method,
    MethodConfig,
    ParamGroup,
    Step,
    TrainSet,
    coefficient,
    tunable,
)
from harness.nn import Average, Teacher, all_gather, cosine, full_precision, mlp


@dataclass(frozen=True, kw_only=True)
class Config(MethodConfig):
    """Values of the oracle's config.py; it is trained with target."""

    title: ClassVar[str] = "SSL-HSIC"

    with_target: bool = True
    widths: tuple[int, ...] = (4096, 256)  # projector and predictor
    features: int = tunable(
        512, low=64, high=4096, log=True, source="num_rff_features; range ours, three octaves to each side"
    )
    gamma: float = coefficient(
        3.0, low=0.3, high=30.0, source="gamma, eq. 5; regul_weight; range ours, a decade to each side"
    )
    target_momentum: float = tunable(  # to 1 along a cosine
        0.99, low=0.9, high=0.999, source="base_target_ema; range ours, ten times faster and slower"
    )
    eval_decay: float = 0.999  # ema_decay: evaluation uses averaged weights
    scale_lr: float = 3e-4  # Adam of the kernel scale, experiment.py

    @property
    def label(self) -> str:
        return self.title if self.with_target else f"{self.title} (no target)"

    def build(self, backbone: Backbone, train: TrainSet) -> "SSLHSIC":
        return SSLHSIC(self, backbone)


class SSLHSIC(Method[Config]):
    def __init__(self, config: Config, backbone: Backbone) -> None:
        super().__init__(config, backbone)
        self.projector = mlp(backbone.width, *config.widths)
        if config.with_target:
            self.predictor = mlp(config.widths[-1], *config.widths)
            self.target = Teacher(nn.Sequential(backbone, self.projector))
        self.scale = nn.Parameter(torch.ones(()))  # c of the kernel
        self.average = Average(backbone)

    def step(self, batch: Batch) -> Step:
        a, b = batch.views
        features_a, features_b = self.backbone(a), self.backbone(b)
        outputs = [self.projector(features_a), self.projector(features_b)]
        if self.config.with_target:
            outputs = [self.predictor(z) for z in outputs] + [self.target(b), self.target(a)]
        terms, diagnostics = hsic_terms(torch.stack(outputs, dim=1), self.scale, self.config.features, batch.draws)
        loss = self.config.gamma * terms["gamma"] - terms["hsic_zy"] + terms["scale"]
        return Step(loss, terms, features_a, outputs[0], {"kernel_scale": self.scale.detach()} | diagnostics)

    def after_step(self, clock: Clock) -> None:
        if self.config.with_target:
            online = nn.Sequential(self.backbone, self.projector)
            self.target.update(online, cosine(self.config.target_momentum, 1.0, clock.progress))
        self.average.update(self.backbone, self.config.eval_decay, clock.step + 1)

    def param_groups(self) -> list[ParamGroup]:
        network = [p for p in self.parameters() if p.requires_grad and p is not self.scale]
        return [ParamGroup(network), ParamGroup([self.scale], own_adam=self.config.scale_lr)]

    def encoder(self) -> tuple[str, nn.Module]:
        return "ema", self.average.network


@full_precision  # HSIC(Z, Z) is of order 1e-4 to 1e-3
def hsic_terms(
    z_BKD: Tensor, scale: Tensor, features: int, draws: Draws
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The terms: sqrt(HSIC(Z, Z)) and HSIC(Z, Y), which train the network only, and one that trains the scale only.

    And diagnostics: how many times too large HSIC(Z, Z) were with one draw on both sides, and the mean of
    3 c^2 / (s + c^2) over squared distances s, which is 1 where the scale is at its best.
    """
    z_NKD, c = all_gather(F.normalize(z_BKD, dim=-1, eps=1e-6)), scale.detach()
    # one draw serves all views, else products across views estimate nothing; two draws, else HSIC(Z, Z) is inflated
    phi_NKF, other_NKF = (random_features(z_NKD, c, features, draws) for _ in range(2))
    dependence, s = hsic_zz(phi_NKF, other_NKF), squared_distances(z_NKD.detach(), draws)
    terms = {
        "gamma": dependence.sqrt(),  # no epsilon, as the oracle: a full collapse ends in NaN
        "hsic_zy": hsic_zy(phi_NKF),
        "scale": scale_objective(s, scale),
    }
    with torch.no_grad():
        inflation = hsic_zz(phi_NKF, phi_NKF) / dependence
        return terms, {"one_draw_inflation": inflation, "scale_balance": (3 * c.square() / (s + c.square())).mean()}


def random_features(z_NKD: Tensor, c: Tensor, features: int, draws: Draws) -> Tensor:
    """Features (N, K, F) of a fresh draw: E phi(x).phi(y) = c / sqrt(c^2 + |x - y|^2), the inverse multiquadric."""
    omega_DF = frequencies(z_NKD.shape[-1], features, draws).to(z_NKD.dtype)
    phase_F = 2 * math.pi * draws.uniform(features, shared=True).to(z_NKD.dtype)
    return math.sqrt(2 / features) * torch.cos(z_NKD @ omega_DF / c + phase_F)


def frequencies(D: int, features: int, draws: Draws) -> Tensor:
    """(D, F) from the kernel's spectrum at c = 1: t ~ Gamma(1/2, 1), omega ~ N(0, 2 t I); sqrt(2 t) is |N(0, 1)|."""
    return draws.normal(features, shared=True).abs() * draws.normal(D, features, shared=True)


def hsic_zy(phi_NKF: Tensor) -> Tensor:
    """Dependence on the image. Pairs of a view with itself are included: about 1 / (K - 1) too much, a constant."""
    N, K, _ = phi_NKF.shape
    sum_NF = phi_NKF.sum(dim=1)
    return sum_NF.square().sum() / (N * K * (K - 1)) - sum_NF.sum(dim=0).square().sum() / (N * K) ** 2


def hsic_zz(phi_NKF: Tensor, other_NKF: Tensor) -> Tensor:
    """Dependence of the embedding on itself, tr(K H K H) / (N K)^2, from two independent draws."""
    phi_MF, other_MF = ((x - x.mean(dim=0)) for x in (phi_NKF.flatten(0, 1), other_NKF.flatten(0, 1)))
    return (phi_MF.T @ other_MF).square().sum() / len(phi_MF) ** 2


def squared_distances(z_NKD: Tensor, draws: Draws) -> Tensor:
    """Between two samples of 1024 rows, as many of each view, drawn with replacement."""
    N, K, _ = z_NKD.shape
    row_2KM = (draws.uniform(2, K, 1024 // K, shared=True) * N).long()
    x, y = z_NKD[row_2KM, torch.arange(K, device=z_NKD.device)[:, None]].flatten(1, 2)
    return torch.cdist(x, y).square()


def scale_objective(s: Tensor, c: Tensor) -> Tensor:
    """- mean log |dk / ds| of the kernel at squared distances s: least where distances move the kernel most."""
    slope = c / 2 * (s + c.square()) ** -1.5
    return -0.5 * slope.square().clamp_min(1e-14).log().mean()
