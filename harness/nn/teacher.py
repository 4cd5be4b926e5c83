"""A network that follows another one by an exponential moving average."""

import copy

import torch
from torch import nn


class Teacher(nn.Module):
    """A copy of `student` without gradient; parameters move by `update`.

    Its buffers are its own: in training mode its batch norms keep statistics of what it sees (BYOL, DINO, SSL-HSIC and
    AdaSSL average parameters only). It drops nothing: dropout and stochastic depth are for the student alone
    (facebookresearch/dino@7c446df, main_dino.py, gives its teacher no drop path).
    """

    def __init__(self, student: nn.Module) -> None:
        super().__init__()
        self.network = copy.deepcopy(student).requires_grad_(False)
        for module in self.network.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
            elif isinstance(getattr(module, "drop_prob", None), float):  # timm's DropPath
                module.drop_prob = 0.0  # type: ignore[assignment]

    @torch.no_grad()
    def forward(self, *args: torch.Tensor) -> torch.Tensor:
        return self.network(*args)

    @torch.no_grad()
    def update(self, student: nn.Module, momentum: float) -> None:
        """teacher <- momentum * teacher + (1 - momentum) * student."""
        _lerp(self.network, student, 1 - momentum)


class Average(nn.Module):
    """The running mean of a network's parameters, for evaluation; its buffers are the network's newest.

    Zero-debiased (google-deepmind/ssl_hsic@d7ea38d, experiment.py): after `count` updates the weights decay^0,
    decay^1, ... of the parameters seen so far, newest first, are normalised to sum 1. Before the first update it is
    the network as initialised.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).requires_grad_(False)

    @torch.no_grad()
    def update(self, network: nn.Module, decay: float, count: int) -> None:
        """Take in the parameters of `network`; this is update number `count`, counted from 1."""
        weight = (1 - decay) / (1 - decay**count)
        _lerp(self.network, network, weight)
        for own, newest in zip(self.network.buffers(), network.buffers(), strict=True):
            own.copy_(newest)


def _tensors(network: nn.Module) -> list[torch.Tensor]:
    return list(network.parameters())


def _lerp(slow: nn.Module, fast: nn.Module, weight: float) -> None:
    """Move all parameters of one network towards another's by a share of the way."""
    torch._foreach_lerp_(_tensors(slow), _tensors(fast), weight)
