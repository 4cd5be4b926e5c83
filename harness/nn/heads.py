"""Projection and prediction heads."""

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def mlp(
    *widths: int,
    norm: bool = True,
    hidden_bias: bool = True,
    last_bias: bool = False,
    activation: type[nn.Module] = nn.ReLU,
) -> nn.Sequential:
    """Linear layers of the given widths; between two of them batch norm (if `norm`) and an activation.

    mlp(512, 2048, 128) is 512 -> 2048 -> 128. The last layer is linear, without norm.
    """
    layers: list[nn.Module] = []
    for before, after in pairwise(widths[:-1]):
        layers.append(nn.Linear(before, after, bias=hidden_bias))
        if norm:
            layers.append(nn.BatchNorm1d(after))
        layers.append(activation())
    layers.append(nn.Linear(widths[-2], widths[-1], bias=last_bias))
    return nn.Sequential(*layers)


class UnitLinear(nn.Module):
    """A linear map without bias whose rows are norm * direction / |direction|; the norms start at 1.

    torch.nn.utils.weight_norm with its g at 1 (facebookresearch/dino@7c446df, vision_transformer.py, DINOHead).
    `train_norm=False` keeps the norms where they are. They are 2-D, so weight decay reaches them when they are trained.
    """

    def __init__(self, before: int, after: int, *, train_norm: bool) -> None:
        super().__init__()
        self.direction = nn.Parameter(nn.init.kaiming_uniform_(torch.empty(after, before), a=math.sqrt(5)))
        self.norm = nn.Parameter(torch.ones(after, 1), requires_grad=train_norm)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.norm * F.normalize(self.direction))
