"""A mean over the steps so far, the newest weighing most: DINO's centre, TiCo's covariance."""

import torch
from torch import Tensor, nn

from harness.nn.collectives import all_mean


class RunningMean(nn.Module):
    """An exponential moving average of a tensor of fixed shape, in a buffer; 0 at first."""

    mean: Tensor

    def __init__(self, *shape: int, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("mean", torch.zeros(shape))

    @torch.no_grad()
    def update(self, value: Tensor) -> None:
        """mean <- momentum * mean + (1 - momentum) * value, with the mean of `value` over all processes."""
        self.mean.lerp_(all_mean(value.detach().to(self.mean.dtype)), 1 - self.momentum)
