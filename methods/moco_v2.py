"""MoCo v2: tell an image's other view, as a slow copy of the network encodes it, from a long queue of earlier keys.

Paper    Chen, Fan, Girshick & He, 2020, arXiv:2003.04297; MoCo: He et al., CVPR 2020, arXiv:1911.05722, eq. 1.
Loss     - contrastive * log [exp(cos(q, k) / tau) / (exp(cos(q, k) / tau) + sum over the queue exp(cos(q, k_j) / tau))]
Oracle   facebookresearch/moco@4397a04, moco/builder.py; symmetric: @f736491, colab/moco_cifar10_demo.ipynb, and
         vturrisi/solo-learn@9187ea3, solo/methods/mocov2plus.py.
Departs  No shuffling of keys among processes: every batch norm sees the joined batch (oracle: each GPU its own part, so
         that unshuffled keys would tell which part they come from). Symmetric, both directions are averaged, as
         solo-learn does (the notebook sums them: contrastive=2).
Shapes   B images on this process, D = widths[-1], K = queue.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.api import Backbone, Batch, Clock, Method, MethodConfig, Requirements, Step, TrainSet, coefficient, tunable
from harness.nn import RingQueue, Teacher, cosine, full_precision, mlp


@dataclass(frozen=True, kw_only=True)
class Config(MethodConfig):
    """Defaults of the oracle's command line for MoCo v2 on a ResNet-50 (README: --mlp --moco-t 0.2)."""

    title: ClassVar[str] = "MoCo v2"

    widths: tuple[int, ...] = (2048, 128)  # no batch norm; hidden layer as wide as the features
    queue: int = 65536  # keys, K
    symmetric: bool = False  # each view is query and key in turn, the mean of both losses (solo-learn, lightly)
    queue_per_view: bool = False  # symmetric: a queue for the keys of each view (solo-learn), not one for both
    temperature: float = tunable(
        0.2, low=0.07, high=0.5, log=True, source="tau: MoCo v2 0.2, MoCo 0.07 (the oracle's default); upper end ours"
    )
    momentum: float = tunable(
        0.999, low=0.9, high=0.9999, source="m: the oracle 0.999, its notebook 0.99; range ours, from short runs up"
    )
    final_momentum: float | None = None  # at the end, along a cosine (solo-learn: 0.999); None: as at the start
    contrastive: float = coefficient(1.0, low=0.25, high=4.0, source="eq. 1; range ours, two octaves to each side")

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise ValueError(f"MoCo v2's temperature is {self.temperature}, expected a number above 0")
        momenta = (self.momentum, self.momentum if self.final_momentum is None else self.final_momentum)
        if not all(0 <= m <= 1 for m in momenta):
            raise ValueError(f"MoCo v2's momenta (at the start, at the end) are {momenta}, expected 0 to 1")
        if self.queue < 1:
            raise ValueError(f"MoCo v2's queue holds {self.queue} keys, expected a multiple of the batch")
        if self.queue_per_view and not self.symmetric:
            raise ValueError("MoCo v2 has keys of one view only; set symmetric=True or queue_per_view=False")

    @property
    def label(self) -> str:
        return f"{self.title} (symmetric)" if self.symmetric else self.title

    def requirements(self) -> Requirements:
        return Requirements(batch_divides=self.queue)

    def build(self, backbone: Backbone, train: TrainSet) -> "MoCoV2":
        return MoCoV2(self, backbone)


class MoCoV2(Method[Config]):
    def __init__(self, config: Config, backbone: Backbone) -> None:
        super().__init__(config, backbone)
        self.projector = mlp(backbone.width, *config.widths, norm=False, last_bias=True)
        self.key_encoder = Teacher(nn.Sequential(backbone, self.projector))
        self.queue = RingQueue(config.queue, config.widths[-1])
        if config.queue_per_view:
            self.first_queue = RingQueue(config.queue, config.widths[-1])  # the first view's keys, else in `queue`

    def step(self, batch: Batch) -> Step:
        k, directions = self.config, 2 if self.config.symmetric else 1
        features = [self.backbone(view) for view in batch.views[:directions]]
        queries = [self.projector(f) for f in features]
        keys = [unit(self.key_encoder(view)) for view in batch.views[::-1][:directions]]
        queues = [self.queue, self.first_queue if k.queue_per_view else self.queue][:directions]
        triples = zip(queries, keys, queues, strict=True)
        losses = [info_nce(query, key, queue.read(), k.temperature) for query, key, queue in triples]
        for key, queue in zip(keys, queues, strict=True):  # after all reading: no key is its own negative
            queue.push(key)
        contrastive = torch.stack(losses).mean()
        return Step(k.contrastive * contrastive, {"contrastive": contrastive}, features[0], queries[0])

    def after_step(self, clock: Clock) -> None:
        start, end = self.config.momentum, self.config.final_momentum
        momentum = cosine(start, start if end is None else end, clock.progress)
        self.key_encoder.update(nn.Sequential(self.backbone, self.projector), momentum)


@full_precision
def unit(rows_BD: Tensor) -> Tensor:
    return F.normalize(rows_BD, dim=1)


@full_precision
def info_nce(query_BD: Tensor, key_BD: Tensor, queue_KD: Tensor, temperature: float) -> Tensor:
    """Cross-entropy of each query's key among it and the queue, mean over the images of this process; unit keys."""
    query_BD = unit(query_BD)
    own = torch.linalg.vecdot(query_BD, key_BD)[:, None]
    logits = torch.cat([own, query_BD @ queue_KD.T], dim=1) / temperature
    return F.cross_entropy(logits, logits.new_zeros(len(logits), dtype=torch.long))
