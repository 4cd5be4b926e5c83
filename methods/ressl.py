"""ReSSL: relate a strongly augmented view to past images as a slow teacher relates the weakly augmented one.

Paper    Zheng et al., NeurIPS 2021, arXiv:2107.09282.
Loss     - mean_i sum_j softmax_j(k_i . Q / tau_t) log softmax_j(q_i . Q / tau_s), Q the queue of past k
Oracle   KyleZheng1997/ReSSL@4d67daa, network/ressl.py, network/head.py and ressl.py.
Departs  The oracle shuffles images between processes for its teacher's batch norms, which are of one process each; ours
         are of the joined batch, so that there is nothing to shuffle. One student view, not the five sizes of
         ressl_multi.py.
Shapes   B images on this process, D = widths[-1], K = queue.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.api import Backbone, Batch, Clock, Method, MethodConfig, Requirements, Step, TrainSet, tunable
from harness.nn import RingQueue, Teacher, cosine, full_precision, mlp


@dataclass(frozen=True, kw_only=True)
class Config(MethodConfig):
    """Defaults are those of the oracle, for ImageNet. Views: the student's, strong, then the teacher's, weak.

    momentum_rises: to 1 along a cosine, as solo-learn@9187ea3's does (solo/utils/momentum.py); the oracle's stays.
    """

    title: ClassVar[str] = "ReSSL"

    widths: tuple[int, ...] = (4096, 512)  # network/head.py, without batch norm
    queue: int = 131072
    student_temperature: float = tunable(
        0.1, low=0.05, high=0.2, log=True, source="tau_s of the oracle; range ours, half to twice"
    )
    teacher_temperature: float = tunable(
        0.04, low=0.01, high=0.1, log=True, source="tau_t of the oracle; range ours, up to the student's"
    )
    momentum: float = tunable(
        0.999, low=0.9, high=0.9999, source="m of the oracle; solo-learn for CIFAR: from 0.99; range ours"
    )
    momentum_rises: bool = False

    def __post_init__(self) -> None:
        temperatures = (self.student_temperature, self.teacher_temperature)
        if min(temperatures) <= 0:
            raise ValueError(f"ReSSL's temperatures (student, teacher) are {temperatures}, expected above 0")
        if not 0 <= self.momentum <= 1:
            raise ValueError(f"ReSSL's momentum is {self.momentum}, expected 0 to 1")
        if self.queue < 2:
            raise ValueError(f"ReSSL's queue is {self.queue}, expected at least 2 rows to relate an image to")

    def requirements(self) -> Requirements:
        return Requirements(batch_divides=self.queue)

    def build(self, backbone: Backbone, train: TrainSet) -> "ReSSL":
        return ReSSL(self, backbone)


class ReSSL(Method[Config]):
    def __init__(self, config: Config, backbone: Backbone) -> None:
        super().__init__(config, backbone)
        self.projector = mlp(backbone.width, *config.widths, norm=False, last_bias=True)
        self.teacher = Teacher(nn.Sequential(backbone, self.projector))
        self.queue = RingQueue(config.queue, config.widths[-1])

    def step(self, batch: Batch) -> Step:
        strong, weak = batch.views
        features = self.backbone(strong)
        q_BD, k_BD = self.projector(features), F.normalize(self.teacher(weak), dim=1)
        c = self.config
        loss, entropy = relational(q_BD, k_BD, self.queue.read(), c.student_temperature, c.teacher_temperature)
        self.queue.push(k_BD)  # after it was read: no image is related to itself
        diagnostics = {
            "teacher_entropy": entropy,  # log K where the teacher tells no past image from another
            "kl": loss.detach() - entropy,
            "momentum": torch.tensor(self.momentum(batch.clock)),
        }
        return Step(loss, {"relation": loss}, features, q_BD, diagnostics)

    def momentum(self, clock: Clock) -> float:
        start = self.config.momentum
        return cosine(start, 1.0, clock.progress) if self.config.momentum_rises else start

    def after_step(self, clock: Clock) -> None:
        # the oracle updates at the start of a step, which for a momentum that stays is the end of the one before
        self.teacher.update(nn.Sequential(self.backbone, self.projector), self.momentum(clock))


@full_precision
def relational(
    q_BD: Tensor, k_BD: Tensor, queue_KD: Tensor, student_temperature: float, teacher_temperature: float
) -> tuple[Tensor, Tensor]:
    """Cross-entropy of the student's similarities to the queue under the teacher's, and the teacher's entropy, nats.

    Of cosines; the rows of the queue are unit vectors. Means over the images of this process.
    """
    student_BK = F.normalize(q_BD, dim=1) @ queue_KD.T / student_temperature
    teacher_BK = F.log_softmax(F.normalize(k_BD.detach(), dim=1) @ queue_KD.T / teacher_temperature, dim=1)
    target_BK = teacher_BK.exp()
    # - t . log softmax(s) = logsumexp(s) - t . s, so the student's log-probabilities are never stored
    loss = (student_BK.logsumexp(1) - torch.linalg.vecdot(target_BK, student_BK)).mean()
    return loss, -torch.linalg.vecdot(target_BK, teacher_BK).mean()
