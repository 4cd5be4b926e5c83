"""DCL: NT-Xent whose denominator leaves the positive out, so that easy pairs no longer still the gradient.

Paper    Yeh, Hong, Hsu, Liu, Chen & LeCun, ECCV 2022, arXiv:2110.06848: DCL, and DCLW with weighted positives.
Loss     mean of - w_i cos(z_i, z_i') / tau + log of the sum over other images' views k of exp(cos(z_i, z_k) / tau)
         where w_i = 1, in DCLW 2 - N softmax_i(cos(z_i, z_i') / sigma)
Oracle   raminnakhli/Decoupled-Contrastive-Learning@0b9b76d, loss/dcl.py; lightly-ai/lightly@e8d317f, loss/dcl_loss.py.
Departs  Mean over both directions, as lightly (the other oracle adds them up, and leaves e^-103 of the masked entries).
         Masks, negatives and weights are of the joined batch (lightly weighs each process's images by themselves).
Shapes   B images on this process, N = B * world size, D = widths[-1].
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.api import Backbone, Batch, Method, MethodConfig, Step, TrainSet, tunable
from harness.nn import all_gather, full_precision, mlp, rank


@dataclass(frozen=True, kw_only=True)
class Config(MethodConfig):
    """weighted: DCLW. weight_gradient: whether its weights are differentiated, too."""

    title: ClassVar[str] = "DCL"
    projects: ClassVar[bool] = True

    widths: tuple[int, ...] = (512, 128)  # of both oracles
    last_norm: bool = False  # lightly: a batch norm for the last layer's bias
    temperature: float = tunable(0.1, low=0.05, high=1.0, log=True, source="tau of both oracles: 0.1; range ours")
    weighted: bool = False
    sigma: float = tunable(0.5, low=0.1, high=2.0, log=True, source="sigma of both oracles: 0.5; range ours")
    weight_gradient: bool = True  # the first oracle; lightly: none

    def __post_init__(self) -> None:
        if self.temperature <= 0 or self.sigma <= 0:
            raise ValueError(
                f"DCL's temperature is {self.temperature} and its sigma {self.sigma}, expected numbers above 0"
            )

    @property
    def label(self) -> str:
        return "DCLW" if self.weighted else self.title

    def build(self, backbone: Backbone, train: TrainSet) -> "DCL":
        return DCL(self, backbone)


class DCL(Method[Config]):
    def __init__(self, config: Config, backbone: Backbone) -> None:
        super().__init__(config, backbone)
        self.projector = mlp(backbone.width, *config.widths, last_bias=not config.last_norm)
        if config.last_norm:
            self.projector.append(nn.BatchNorm1d(config.widths[-1]))

    def step(self, batch: Batch) -> Step:
        c = self.config
        features = [self.backbone(view) for view in batch.views]
        a_BD, b_BD = (self.projector(f) for f in features)
        terms = dcl_terms(a_BD, b_BD, c.temperature, c.sigma if c.weighted else None, c.weight_gradient)
        return Step(terms["positive"] + terms["negative"], terms, features[0], a_BD, projections=(a_BD, b_BD))


@full_precision
def dcl_terms(
    a_BD: Tensor, b_BD: Tensor, temperature: float, sigma: float | None, weight_gradient: bool
) -> dict[str, Tensor]:
    """The two halves of the loss, whose sum it is; means over the 2B views of this process. sigma: None for DCL.

    Negatives of a view are both views of all N - 1 other images.
    """
    a_BD, b_BD = F.normalize(a_BD, dim=1), F.normalize(b_BD, dim=1)
    columns = torch.cat([all_gather(a_BD), all_gather(b_BD)])
    logits = torch.cat([a_BD, b_BD]) @ columns.T / temperature
    B, N = len(a_BD), len(columns) // 2
    own = (rank() * B + torch.arange(B, device=logits.device)).repeat(2)
    logits = logits.scatter(1, torch.stack([own, own + N], dim=1), -torch.inf)
    cosine_B = (a_BD * b_BD).sum(1)
    positive_B = cosine_B / temperature
    if sigma is not None:
        scaled_B = cosine_B / sigma if weight_gradient else cosine_B.detach() / sigma
        positive_B = (2 - N * torch.exp(scaled_B - all_gather(scaled_B).logsumexp(0))) * positive_B
    return {"positive": -positive_B.mean(), "negative": logits.logsumexp(1).mean()}
