"""BYOL: predict what a slowly moving copy of the network makes of the other view.

Paper    Grill et al., NeurIPS 2020, arXiv:2006.07733.
Loss     distance * [1 - cos(q(a), sg b') + 1 - cos(q(b), sg a')], b' and a' the teacher's
Oracle   google-deepmind/deepmind-research@f5de0ed, byol/byol_experiment.py and byol/utils.
Departs  The target starts as a copy (oracle: its own initialisation, which by its own comment made no difference);
         layers are initialised as torch does (oracle: as haiku does); the online probe is not part of the loss.
Shapes   B images on this process, D = widths[-1].
"""

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from harness.api import Backbone, Batch, Clock, JointEmbedding, MethodConfig, Step, TrainSet, coefficient, tunable
from harness.nn import Teacher, cosine, full_precision, mlp


@dataclass(frozen=True, kw_only=True)
class Config(MethodConfig):
    """Values of the oracle's configs/byol.py for 1000 epochs."""

    title: ClassVar[str] = "BYOL"
    projects: ClassVar[bool] = True

    widths: tuple[int, ...] = (4096, 256)  # projector and predictor
    momentum: float = tunable(  # of the target, to 1 along a cosine
        0.996, low=0.9, high=0.999, source="the oracle: 0.97 for 40 epochs, 0.99 for 100 and 300; range ours"
    )
    distance: float = coefficient(
        2.0, low=0.5, high=8.0, source="2 - 2 cos (the oracle); 1 in SkrighYZ/AdaSSL; range ours"
    )

    def build(self, backbone: Backbone, train: TrainSet) -> "BYOL":
        return BYOL(self, backbone)


class BYOL(JointEmbedding[Config]):
    def __init__(self, config: Config, backbone: Backbone) -> None:
        super().__init__(config, backbone)
        self.embedding_width = config.widths[-1]
        self.projector = mlp(backbone.width, *config.widths)
        self.predictor = mlp(config.widths[-1], *config.widths)
        self.teacher = Teacher(nn.Sequential(backbone, self.projector))

    def embed(self, features: Tensor) -> Tensor:
        return self.projector(features)

    def target(self, view: Tensor, embedding: Tensor) -> Tensor:
        return self.teacher(view)

    def compare(self, predicted: tuple[Tensor, Tensor], targets: tuple[Tensor, Tensor]) -> Tensor:
        return self.config.distance * self.distances(predicted, targets)

    def distances(self, predicted: tuple[Tensor, Tensor], targets: tuple[Tensor, Tensor]) -> Tensor:
        """1 - cos of prediction and target, summed over both directions, mean over the images of this process."""
        pairs = zip(predicted, targets, strict=True)
        return sum((cosine_distance(self.predictor(z), target) for z, target in pairs), predicted[0].new_zeros(()))

    def step(self, batch: Batch) -> Step:
        features = [self.backbone(view) for view in batch.views]
        a_BD, b_BD = (self.embed(f) for f in features)
        targets = (self.target(batch.views[0], a_BD), self.target(batch.views[1], b_BD))
        distances = self.distances((b_BD, a_BD), targets)
        loss = self.config.distance * distances
        return Step(loss, {"distance": distances}, features[0], a_BD, projections=(a_BD, b_BD))

    def after_step(self, clock: Clock) -> None:
        momentum = cosine(self.config.momentum, 1.0, clock.progress)  # byol/utils/schedules.py, target_ema
        self.teacher.update(nn.Sequential(self.backbone, self.projector), momentum)


@full_precision
def cosine_distance(x_BD: Tensor, y_BD: Tensor) -> Tensor:
    """Mean over images of 1 - cos."""
    return 1 - F.cosine_similarity(x_BD, y_BD, dim=1).mean()
