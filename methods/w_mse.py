"""W-MSE: views agree once each part of the batch is whitened, so that they cannot agree by collapse.

Paper    Ermolov, Siarohin, Sangineto & Sebe, ICML 2021, arXiv:2007.06346.
Loss     mean over sub-batches and pairs of views of 2 - 2 cos(W z, W' z'), where W whitens a view's part of a sub-batch
Oracle   htdt/self-supervised@d9662c8, methods/w_mse.py, methods/whitening.py and cfg.py.
Departs  The last layer has no bias (oracle: one that the whitening removes). The whitening is in float64 (oracle:
         float32). Where a covariance is singular the loss is not a number and the run ends as diverged (oracle: an
         exception from the decomposition).
Shapes   B images on this process, N = B * world size, V views, D = widths[-1]; I partitions of a batch into G
         sub-batches of S images.
"""

from dataclasses import dataclass
from itertools import combinations
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.api import Backbone, Batch, Method, MethodConfig, Requirements, Step, TrainSet
from harness.nn import all_gather, full_precision, mlp


@dataclass(frozen=True, kw_only=True)
class Config(MethodConfig):
    """The oracle's defaults (cfg.py). README: 128 dimensions go with sub_batch=256 and, with 2 views, iterations=4."""

    title: ClassVar[str] = "W-MSE"
    projects: ClassVar[bool] = True

    views: int = 2  # num_samples; README: 4 with half as many images
    widths: tuple[int, ...] = (1024, 64)  # head_size, emb
    sub_batch: int = 128  # w_size: images that are whitened together
    iterations: int = 1  # w_iter: partitions of each batch
    eps: float = 0.0  # w_eps: the covariance is (1 - eps) C + eps

    def __post_init__(self) -> None:
        if self.views < 2:
            raise ValueError(f"W-MSE has views={self.views}, expected 2 or more")
        if self.iterations < 1:
            raise ValueError(f"W-MSE has iterations={self.iterations}, expected 1 or more")
        if not 0 <= self.eps < 1:
            raise ValueError(f"W-MSE's eps is {self.eps}, expected 0 or more, under 1")
        D = self.widths[-1] if self.widths else 0
        if self.eps == 0 and self.sub_batch <= D:
            raise ValueError(
                f"W-MSE whitens {D} dimensions by sub_batch={self.sub_batch} images, whose covariance is singular; "
                f"expected sub_batch of {D + 1} or more, such as {2 * D}, or a narrower widths[-1]"
            )

    @property
    def label(self) -> str:
        return f"{self.title} {self.views}"

    def requirements(self) -> Requirements:
        return Requirements(
            views=("global",) * self.views,
            sources=tuple(i % 2 for i in range(self.views)),
            batch_divisor=self.sub_batch,
        )

    def build(self, backbone: Backbone, train: TrainSet) -> "WMSE":
        return WMSE(self, backbone)


class WMSE(Method[Config]):
    def __init__(self, config: Config, backbone: Backbone) -> None:
        super().__init__(config, backbone)
        self.projector = mlp(backbone.width, *config.widths)

    def step(self, batch: Batch) -> Step:
        c = self.config
        features = [self.backbone(view) for view in batch.views]
        z_VBD = self.projector(torch.cat(features)).chunk(c.views)  # the head's batch norm sees all views at once
        z_VND = torch.stack([all_gather(z_BD) for z_BD in z_VBD])
        order_IN = batch.draws.uniform(c.iterations, z_VND.shape[1], shared=True).argsort(dim=1, stable=True)
        loss = w_mse(z_VND, order_IN, c.sub_batch, c.eps)
        return Step(loss, {"w_mse": loss}, features[0], z_VBD[0], projections=z_VBD)


@full_precision
def w_mse(z_VND: Tensor, order_IN: Tensor, sub_batch: int, eps: float) -> Tensor:
    """Each row of `order_IN` is a permutation, the same for all views, cut into sub-batches of that many images."""
    z_VIGSD = z_VND[:, order_IN].unflatten(2, (-1, sub_batch))
    z_VIGSD = F.normalize(whiten(z_VIGSD, eps), dim=-1)
    pairs = [(a * b).sum(-1).mean() for a, b in combinations(z_VIGSD, 2)]
    return 2 - 2 * torch.stack(pairs).mean()


def whiten(z: Tensor, eps: float) -> Tensor:
    """(..., S, D) -> the same of mean 0 and, over S - 1, covariance 1, by a triangular map; NaN if it is singular.

    In float64: after some hundred steps on digits the correlations of a sub-batch had condition numbers of 1e4 to 1e8
    (measured), and in float32 the decomposition failed at the last of them.
    """
    S, D = z.shape[-2:]
    centred = z.double() - z.double().mean(dim=-2, keepdim=True)
    covariance = (1 - eps) * (centred.mT @ centred) / (S - 1) + eps * torch.eye(D, dtype=z.dtype, device=z.device)
    lower, failed = torch.linalg.cholesky_ex(covariance)
    lower = lower.masked_fill((failed != 0)[..., None, None], torch.nan)
    return torch.linalg.solve_triangular(lower.mT, centred, upper=True, left=False).to(z.dtype)  # centred L^-T
