"""A network that follows another one by an exponential moving average."""

import copy

import torch
from torch import nn


class Teacher(nn.Module):
    """A copy of `student` without gradient; parameters move by `update`.

    Its buffers are its own: in training mode its batch norms keep statistics of what it sees (BYOL, DINO, SSL-HSIC and
    AdaSSL average parameters only).
    """

    def __init__(self, student: nn.Module) -> None:
        super().__init__()
        self.network = copy.deepcopy(student).requires_grad_(False)

    @torch.no_grad()
    def forward(self, *args: torch.Tensor) -> torch.Tensor:
        return self.network(*args)

    @torch.no_grad()
    def update(self, student: nn.Module, momentum: float) -> None:
        """teacher <- momentum * teacher + (1 - momentum) * student."""
        for slow, fast in zip(self.network.parameters(), student.parameters(), strict=True):
            slow.lerp_(fast.detach(), 1 - momentum)
