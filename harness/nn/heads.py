"""Projection and prediction heads."""

from torch import nn


def mlp(*widths: int, norm: bool = True, hidden_bias: bool = True, last_bias: bool = False) -> nn.Sequential:
    """Linear layers of the given widths; between two of them batch norm (if `norm`) and ReLU.

    mlp(512, 2048, 128) is 512 -> 2048 -> 128. The last layer is linear, without norm.
    """
    layers: list[nn.Module] = []
    for before, after in zip(widths[:-2], widths[1:-1], strict=True):
        layers.append(nn.Linear(before, after, bias=hidden_bias))
        if norm:
            layers.append(nn.BatchNorm1d(after))
        layers.append(nn.ReLU())
    layers.append(nn.Linear(widths[-2], widths[-1], bias=last_bias))
    return nn.Sequential(*layers)
