"""DINO: from any crop the student predicts what a slow teacher, centred and sharpened, says of the other global crop.

Paper    Caron et al., ICCV 2021, arXiv:2104.14294.
Loss     - mean over pairs of crops of softmax((t - c) / tau_t) . log softmax(s / tau_s)
Oracle   facebookresearch/dino@7c446df5, main_dino.py (DINOLoss) and vision_transformer.py (DINOHead).
Departs  A temperature warm-up longer than the run stops on its way, where the oracle fails.
Shapes   B images on this process; views are 2 global crops (B, 3, H, W), then any number of local ones, V in all;
         D = backbone.width, K = out_dim; rows of stacked crops are ordered crop by crop: (V * B, K).
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.api import Backbone, Batch, Clock, Method, MethodConfig, ParamGroup, Requirements, Step, TrainSet, tunable
from harness.nn import RunningMean, Teacher, UnitLinear, cosine, full_precision, linear, mlp, multi_crop


@dataclass(frozen=True, kw_only=True)
class Config(MethodConfig):
    """Defaults are those of the oracle's command line; the paper's main runs differ where a comment says so."""

    title: ClassVar[str] = "DINO"

    out_dim: int = 65536  # K, App. C
    hidden: int = 2048
    bottleneck: int = 256
    layers: int = 3  # linear maps before the last layer, App. C
    use_bn: bool = False  # App. C
    norm_last_layer: bool = True  # norms of the last layer stay 1; ViT-S runs better without, less stably
    freeze_last_layer: int = 1  # epochs
    student_temperature: float = tunable(
        0.1, low=0.05, high=0.2, log=True, source="tau_s of the oracle; range ours, half to twice"
    )
    teacher_temperature: float = tunable(  # after the warm-up; paper: 0.07, App. D
        0.04, low=0.02, high=0.08, source="tau_t, App. D: 0 to 0.08, of which 0 has no softmax"
    )
    warmup_teacher_temperature: float = 0.04  # in epoch 0
    warmup_teacher_epochs: int = 0  # paper: 30
    centre_momentum: float = tunable(0.9, low=0.0, high=0.999, source="m, App. D: 0 to 0.999")
    teacher_momentum: float = tunable(  # at step 0; a cosine to 1; at 0 there is none, the teacher is the student
        0.996, low=0.9, high=0.9999, source="0.9995 advised for a batch of 256; range ours, from runs of 450 steps up"
    )

    def __post_init__(self) -> None:
        temperatures = (self.student_temperature, self.teacher_temperature, self.warmup_teacher_temperature)
        if min(temperatures) <= 0:
            raise ValueError(
                f"DINO's temperatures (student, teacher, teacher's warm-up) are {temperatures}, expected above 0"
            )
        if not (0 <= self.centre_momentum <= 1 and 0 <= self.teacher_momentum <= 1):
            momenta = (self.centre_momentum, self.teacher_momentum)
            raise ValueError(f"DINO's momenta (centre, teacher) are {momenta}, expected 0 to 1")
        if self.layers < 1:
            raise ValueError(f"DINO's head has layers={self.layers}, expected at least 1")

    def requirements(self) -> Requirements:
        return Requirements(local_views=True)

    def temperature(self, epoch: int) -> float:
        """The teacher's: one value per epoch, numpy.linspace(start, end, epochs of warm-up), then the end."""
        if epoch >= self.warmup_teacher_epochs:
            return self.teacher_temperature
        progress = epoch / max(1, self.warmup_teacher_epochs - 1)
        return linear(self.warmup_teacher_temperature, self.teacher_temperature, progress)

    def build(self, backbone: Backbone, train: TrainSet) -> "DINO":
        return DINO(self, backbone)


class Head(nn.Module):
    """(rows, D) -> (rows, K)."""

    def __init__(self, width: int, c: Config) -> None:
        super().__init__()
        hidden = [c.hidden] * (c.layers - 1)
        self.mlp = mlp(width, *hidden, c.bottleneck, norm=c.use_bn, last_bias=True, activation=nn.GELU)
        for module in self.mlp:
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        self.last = UnitLinear(c.bottleneck, c.out_dim, train_norm=not c.norm_last_layer)

    def forward(self, features: Tensor) -> Tensor:
        return self.last(F.normalize(self.mlp(features), dim=1))


class DINO(Method[Config]):
    def __init__(self, config: Config, backbone: Backbone) -> None:
        super().__init__(config, backbone)
        self.head = Head(backbone.width, config)
        self.teacher_backbone, self.teacher_head = Teacher(backbone), Teacher(self.head)
        self.centre = RunningMean(1, config.out_dim, momentum=config.centre_momentum)

    def step(self, batch: Batch) -> Step:
        B, temperature = len(batch.index), self.config.temperature(batch.clock.epoch)
        features, logits = multi_crop(self.teacher_backbone, self.teacher_head, batch.views[:2])
        _, student = multi_crop(self.backbone, self.head, batch.views)
        loss, entropy = self.loss(student, logits, temperature)
        self.centre.update(logits.mean(0, keepdim=True))  # after the loss; of the raw logits of both global crops
        diagnostics = {
            "teacher_entropy": entropy,  # fig. 7: 0 or log K once collapsed
            "kl": loss.detach() - entropy,  # fig. 7: 0 once collapsed
            "temperature": torch.tensor(temperature),
            "momentum": torch.tensor(self.momentum(batch.clock)),
        }
        return Step(loss, {"cross_entropy": loss}, features[:B], student[:B], diagnostics)

    def loss(self, student: Tensor, teacher: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        """Cross-entropy and the teacher's entropy, nats, of raw logits (V * B, K) and (2 * B, K)."""
        return distillation(
            student / self.config.student_temperature, (teacher.detach() - self.centre.mean) / temperature
        )

    def momentum(self, clock: Clock) -> float:
        start = self.config.teacher_momentum
        return cosine(start, 1.0, clock.progress) if start else 0.0  # 0 throughout: Fig. 6 and Table 15, no momentum

    def after_step(self, clock: Clock) -> None:
        self.teacher_backbone.update(self.backbone, self.momentum(clock))
        self.teacher_head.update(self.head, self.momentum(clock))

    def param_groups(self) -> list[ParamGroup]:
        rest, last = (*self.backbone.parameters(), *self.head.mlp.parameters()), self.head.last.parameters()
        return [
            ParamGroup([p for p in rest if p.requires_grad]),
            ParamGroup([p for p in last if p.requires_grad], frozen_epochs=self.config.freeze_last_layer),
        ]

    def encoder(self) -> tuple[str, nn.Module]:
        return "teacher", self.teacher_backbone.network


@full_precision
def distillation(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy over pairs of a global crop (teacher) and another crop (student), and mean teacher entropy.

    Sharpened logits (V * B, K) and (2 * B, K), rows ordered crop by crop, the global crops first.
    """
    log_q = F.log_softmax(teacher, dim=1)
    first, second = log_q.exp().chunk(2)
    # -q . log softmax(s) = logsumexp(s) - q . s, so the student's log-probabilities are never stored; and what one crop
    # is compared with comes at once: each global crop with the other, each local one with both
    crops = student.chunk(2 * len(student) // len(teacher))
    against = (second, first) + (first + second,) * (len(crops) - 2)
    targets = (1, 1) + (2,) * (len(crops) - 2)
    losses = [n * s.logsumexp(1) - torch.linalg.vecdot(q, s) for n, s, q in zip(targets, crops, against, strict=True)]
    return torch.stack(losses).sum() / (sum(targets) * len(first)), -torch.linalg.vecdot(log_q.exp(), log_q).mean()
