"""Online linear probe: a linear classifier trained beside the encoder, on its detached features of augmented views.

It sees each feature once, while the encoder still changes; its accuracy is not that of the offline probe (`linear`).
It belongs to the network whose features the method returns in `Step.features`. Where another network is evaluated (an
EMA teacher), the value says how well the two agree, too.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from harness.data import Images
from harness.errors import BadRecipe
from harness.features import Features, Table, accuracy
from harness.nn import all_gather
from harness.recipe import ProtocolConfig

UNITS = {"top1": "percent", "top5": "percent"}
MIN_CLASSES = 2


class OnlineProbe(nn.Module):
    """Softmax regression on batch-normalised features, trained by SGD with momentum, without weight decay or schedule.

    The batch norm (no scale or shift of its own) makes one learning rate fit encoders of any width and scale. The
    momentum is a buffer: `state_dict` holds all that an exact resume needs, as tensors.
    """

    weight: Tensor
    bias: Tensor
    weight_velocity: Tensor
    bias_velocity: Tensor

    def __init__(self, width: int, classes: int, *, lr: float = 0.03, momentum: float = 0.9) -> None:
        super().__init__()
        self.lr, self.momentum = lr, momentum
        self.norm = nn.BatchNorm1d(width, affine=False)
        for name in ("weight", "weight_velocity"):
            self.register_buffer(name, torch.zeros(classes, width))
        for name in ("bias", "bias_velocity"):
            self.register_buffer(name, torch.zeros(classes))

    def forward(self, features: Tensor) -> Tensor:
        """Logits (N, C) of features (N, width)."""
        return self.norm(features.to(self.weight.dtype)) @ self.weight.T + self.bias

    @torch.no_grad()
    def update(self, features: Tensor, labels: Tensor) -> Tensor:
        """One step of SGD on features (B, width) with labels (B,); returns the mean cross-entropy before it.

        On several processes each takes the step of the joined batch, so that their probes stay the same.
        """
        features, labels = all_gather(features.detach()), all_gather(labels)
        self.train()
        z = self.norm(features.to(self.weight.dtype))
        log_p = (z @ self.weight.T + self.bias).log_softmax(1)
        rows = torch.arange(len(labels), device=labels.device)
        error = log_p.exp()
        error[rows, labels] -= 1  # gradient of the cross-entropy in the logits
        error /= len(labels)
        self.weight_velocity.mul_(self.momentum).add_(error.T @ z)
        self.bias_velocity.mul_(self.momentum).add_(error.sum(0))
        self.weight.sub_(self.lr * self.weight_velocity)
        self.bias.sub_(self.lr * self.bias_velocity)
        return -log_p[rows, labels].mean()


@dataclass(frozen=True, kw_only=True)
class Config(ProtocolConfig):
    protocol: ClassVar[str] = "online_linear"


def check(config: Config, train: Images | Table, classes: int) -> None:
    """Any set of two classes will do."""


def run(config: Config, features: Features, split: str) -> Iterator[tuple[str, float]]:
    if features.online_probe is None:
        raise BadRecipe(f"{config.id}: no probe was trained beside this encoder; set online_probe=True in the recipe")
    table = features.table(split)
    probe = features.online_probe.eval()
    device = next(probe.buffers()).device
    with torch.no_grad():
        scores = probe(table.x.to(device)).cpu()
    yield "top1", accuracy(scores, table.labels)
    if features.classes > 5:
        yield "top5", accuracy(scores, table.labels, top=5)
