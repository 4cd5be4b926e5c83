"""SimSiam: predict the other view, and let no gradient through what is predicted.

Paper    Chen & He, CVPR 2021, arXiv:2011.10566, eqs. 1 to 4, Algorithm 1.
Loss     - similarity [cos(p(a), sg b) + cos(p(b), sg a)] / 2, + variance and covariance as in VICReg
Oracle   facebookresearch/simsiam@a7bc177, simsiam/builder.py and main_simsiam.py.
Departs  The last projector layer has no bias (oracle: one that is not trained, before a batch norm that removes it).
         Without batch norm, which the oracle lacks, the hidden layers have a bias. Variance and covariance are VICReg's
         (arXiv:2105.04906, Table 4, App. C.4), of l2-normalised embeddings times sqrt(D): where embeddings are
         normalised its App. D.5 aims at a standard deviation of 1 / sqrt(D), and Fig. 4 shows it reached.
Shapes   B images on this process, D = widths[-1].
"""

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from harness.api import Backbone, Batch, Method, MethodConfig, ParamGroup, Step, TrainSet, coefficient
from harness.nn import all_gather, full_precision, hinge_std, mlp, off_diagonal_energy


@dataclass(frozen=True, kw_only=True)
class Config(MethodConfig):
    """The published setting for ResNet-50; the switches are those of the paper's sec. 4 and of VICReg's Table 4."""

    title: ClassVar[str] = "SimSiam"
    projects: ClassVar[bool] = True

    widths: tuple[int, ...] = (2048, 2048, 2048)  # projector
    bottleneck: int = 512  # of the predictor, sec. 3
    norm: bool = True  # batch norm in both heads, Table 3
    predictor: bool = True  # Table 1 (a)
    fixed_predictor_lr: bool = True  # Table 1 (c); --fix-pred-lr
    stop_gradient: bool = True  # Fig. 2
    similarity: float = coefficient(1.0, low=0.25, high=4.0, source="eq. 2; range ours, two octaves to each side")
    variance: float = coefficient(0.0, low=0.0, high=2.0, log=False, source="VICReg's mu, its App. C.4: 1; range ours")
    covariance: float = coefficient(
        0.0, low=0.0, high=0.1, log=False, source="VICReg's nu, its App. C.4: 0.01; range ours"
    )

    def build(self, backbone: Backbone, train: TrainSet) -> "SimSiam":
        return SimSiam(self, backbone)


class SimSiam(Method[Config]):
    def __init__(self, config: Config, backbone: Backbone) -> None:
        super().__init__(config, backbone)
        D, norm = config.widths[-1], config.norm
        self.projector = mlp(backbone.width, *config.widths, norm=norm, hidden_bias=not norm)
        if norm:
            self.projector.append(nn.BatchNorm1d(D, affine=False))
        self.predictor: nn.Module = nn.Identity()
        if config.predictor:
            self.predictor = mlp(D, config.bottleneck, D, norm=norm, hidden_bias=not norm, last_bias=True)

    def step(self, batch: Batch) -> Step:
        features = [self.backbone(view) for view in batch.views]
        a_BD, b_BD = (self.projector(f) for f in features)
        to_b, to_a = self.predictor(a_BD), self.predictor(b_BD)
        terms = simsiam_terms(a_BD, b_BD, to_b, to_a, self.config.stop_gradient)
        k = self.config
        loss = k.similarity * terms["similarity"] + k.variance * terms["variance"] + k.covariance * terms["covariance"]
        return Step(loss, terms, features[0], a_BD, projections=(a_BD, b_BD))

    def param_groups(self) -> list[ParamGroup]:
        rest = [*self.backbone.parameters(), *self.projector.parameters()]
        groups = [
            ParamGroup([p for p in rest if p.requires_grad]),
            ParamGroup(list(self.predictor.parameters()), fixed_lr=self.config.fixed_predictor_lr),
        ]
        return [group for group in groups if group.params]


@full_precision
def simsiam_terms(a_BD: Tensor, b_BD: Tensor, to_b: Tensor, to_a: Tensor, stop_gradient: bool) -> dict[str, Tensor]:
    """The unweighted terms of embeddings a and b and predictions of each from the other, all (B, D).

    Similarity is of the local shard, averaging gradients makes it global; the others are of the joined batch, the
    variance halved as in methods/vicreg.py.
    """
    a_ND, b_ND = (a_BD.shape[1] ** 0.5 * F.normalize(all_gather(z), dim=1) for z in (a_BD, b_BD))
    if stop_gradient:
        a_BD, b_BD = a_BD.detach(), b_BD.detach()
    cosines = F.cosine_similarity(to_b, b_BD, dim=1).mean() + F.cosine_similarity(to_a, a_BD, dim=1).mean()
    return {
        "similarity": -cosines / 2,  # eq. 4
        "variance": (hinge_std(a_ND) + hinge_std(b_ND)) / 2,
        "covariance": off_diagonal_energy(a_ND) + off_diagonal_energy(b_ND),
    }
