"""Supervised: a linear classifier and its cross-entropy, with the labels; what a table of other methods has above it.

Paper    None; the usual training of a classifier.
Loss     - mean log softmax(W f + b) at the label, f the backbone's features
Oracle   HobbitLong/SupContrast@66a8fe5, main_ce.py: torch's linear layer and cross-entropy.
Departs  Nothing.
Shapes   B images on this process, C classes.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from harness.api import Backbone, Batch, Method, MethodConfig, Requirements, Step, TrainSet
from harness.nn import full_precision


@dataclass(frozen=True, kw_only=True)
class Config(MethodConfig):
    """There is nothing to set: the classifier is as wide as the data set has classes."""

    title: ClassVar[str] = "Supervised"

    def requirements(self) -> Requirements:
        return Requirements(views=("global",), sources=(0,), labels=True)

    def build(self, backbone: Backbone, train: TrainSet) -> "Supervised":
        return Supervised(self, backbone, train.classes)


class Supervised(Method[Config]):
    def __init__(self, config: Config, backbone: Backbone, classes: int) -> None:
        super().__init__(config, backbone)
        self.classifier = nn.Linear(backbone.width, classes)

    def step(self, batch: Batch) -> Step:
        assert batch.labels is not None
        features = self.backbone(batch.views[0])
        loss = cross_entropy(self.classifier(features), batch.labels)
        return Step(loss, {"cross_entropy": loss}, features, features)


@full_precision
def cross_entropy(logits_BC: Tensor, labels_B: Tensor) -> Tensor:
    """Mean over the images of this process; averaging gradients makes it global."""
    return F.cross_entropy(logits_BC, labels_B)
