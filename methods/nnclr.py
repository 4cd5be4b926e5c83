"""NNCLR: an image's positive is not its other view but the nearest neighbour of that view among past images.

Paper    Dwibedi et al., ICCV 2021, arXiv:2104.14548.
Loss     - mean_i log softmax_k(NN(z_i, Q) . p'_k / tau)_i, and with the views' places exchanged, / 2; Q past z
Oracle   vturrisi/solo-learn@9187ea3, solo/losses/nnclr.py and solo/methods/nnclr.py; no code of the authors was found.
Departs  The paper was not at hand, so what is not in solo-learn's code is not claimed to be the paper's: the size of
         the queue is solo-learn's. As there and in lightly@e8d317f, both neighbours are looked up before the queue
         takes in the batch (stable-pretraining@9aa93f8 pushes first), and the queue holds the first view (lightly: the
         second). The projector's last layer has no bias, which its batch norm would take away. With `all_negatives` the
         loss is the NT-Xent of neighbours and predictions that lightly uses.
Shapes   B images on this process, N = B * world size, D = widths[-1], K = queue.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.api import Backbone, Batch, Method, MethodConfig, Requirements, Step, TrainSet, tunable
from harness.nn import RingQueue, all_gather, full_precision, mlp, rank


@dataclass(frozen=True, kw_only=True)
class Config(MethodConfig):
    """all_negatives: of neighbours and predictions, each is told from the 2N - 2 of other images (lightly)."""

    title: ClassVar[str] = "NNCLR"
    projects: ClassVar[bool] = True

    widths: tuple[int, ...] = (2048, 2048, 256)  # projector; solo-learn, lightly's NNCLRProjectionHead
    hidden: int = 4096  # of the predictor, in both of them
    queue: int = 65536  # solo-learn; lightly's bank by default as well
    temperature: float = tunable(
        0.1, low=0.05, high=0.5, log=True, source="tau: solo-learn's loss 0.1, its CIFAR recipe 0.2, lightly 0.5"
    )
    all_negatives: bool = False

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise ValueError(f"NNCLR's temperature is {self.temperature}, expected a number above 0")
        if self.queue < 1:
            raise ValueError(f"NNCLR's queue is {self.queue}, expected at least 1 row to find a neighbour in")

    @property
    def label(self) -> str:
        return f"{self.title} (NT-Xent)" if self.all_negatives else self.title

    def requirements(self) -> Requirements:
        return Requirements(batch_divides=self.queue)

    def build(self, backbone: Backbone, train: TrainSet) -> "NNCLR":
        return NNCLR(self, backbone)


class NNCLR(Method[Config]):
    def __init__(self, config: Config, backbone: Backbone) -> None:
        super().__init__(config, backbone)
        D = config.widths[-1]
        self.projector = mlp(backbone.width, *config.widths).append(nn.BatchNorm1d(D))
        self.predictor = mlp(D, config.hidden, D, last_bias=True)
        self.queue = RingQueue(config.queue, D)

    def step(self, batch: Batch) -> Step:
        features = [self.backbone(view) for view in batch.views]
        a_BD, b_BD = (self.projector(f) for f in features)
        to_a, to_b = self.predictor(b_BD), self.predictor(a_BD)
        queue_KD = self.queue.read()
        near = [neighbours(z, queue_KD) for z in (a_BD, b_BD)]
        pairs = [(near[0], to_a), (near[1], to_b)]
        halves = [contrast(*pair, self.config.temperature, self.config.all_negatives) for pair in pairs]
        self.queue.push(F.normalize(a_BD.detach(), dim=1))  # after the look-up: no view finds itself
        loss, same = (halves[0] + halves[1]) / 2, (near[0] == near[1]).all(1)
        diagnostics = {
            "neighbour_cosine": F.cosine_similarity(near[0], a_BD.detach(), dim=1).mean(),
            "neighbours_shared": same.float().mean(),  # share of images both of whose views have the same one
        }
        return Step(loss, {"contrastive": loss}, features[0], a_BD, diagnostics, projections=(a_BD, b_BD))


@full_precision
def neighbours(z_BD: Tensor, queue_KD: Tensor) -> Tensor:
    """The row of the queue with the largest cosine to each z, without gradient; the rows are unit vectors."""
    return queue_KD[(z_BD.detach() @ queue_KD.T).argmax(1)]


@full_precision
def contrast(near_BD: Tensor, predicted_BD: Tensor, temperature: float, all_negatives: bool) -> Tensor:
    """Cross-entropy of each neighbour's cosines to the predictions of all N images, the own one being the positive.

    Mean over the neighbours of this process. With `all_negatives` neighbours of other images are negatives, too, and
    each prediction is told from all others likewise: mean over the 2B of both.
    """
    near_BD, predicted_BD = F.normalize(near_BD, dim=1), F.normalize(predicted_BD, dim=1)
    rows, columns = near_BD, all_gather(predicted_BD)
    positive = rank() * len(rows) + torch.arange(len(rows), device=rows.device)
    if not all_negatives:
        return F.cross_entropy(rows @ columns.T / temperature, positive)
    itself = positive + len(columns)
    rows, columns = torch.cat([rows, predicted_BD]), torch.cat([columns, all_gather(near_BD)])
    positive, itself = torch.cat([positive, itself]), torch.cat([itself, positive])
    logits = (rows @ columns.T / temperature).scatter(1, itself[:, None], -torch.inf)
    return F.cross_entropy(logits, positive)
