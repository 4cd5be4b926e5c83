"""Whether the features still fill their space: spread, effective rank, alignment, uniformity.

embedding_std   spread of l2-normalised features: 0 if all are one point, 1 if they point everywhere alike.
rankme          effective rank, Garrido et al. 2023 (arXiv:2210.02885); between 1 and the width.
alignment       mean |a - b|^alpha of l2-normalised features of two augmented views; 0 is best.
uniformity      log mean exp(-t |a_i - a_j|^2) over pairs i < j, the mean of both views; lower is more uniform.
                Both: Wang & Isola 2020 (arXiv:2005.10242; github.com/SsnL/align_uniform), alpha 2 and t 2.

The training loop uses `embedding_std` and `effective_rank` on the embeddings of a step.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.data import Images
from harness.features import Features, Table
from harness.recipe import ProtocolConfig

UNITS = {"embedding_std": "fraction", "rankme": "dimensions", "alignment": "distance", "uniformity": "nats"}
CHUNK = 2**24  # distances held at once: 64 MiB


@dataclass(frozen=True, kw_only=True)
class Config(ProtocolConfig):
    protocol: ClassVar[str] = "collapse"
    alpha: float = 2.0
    t: float = 2.0


def check(config: Config, train: Images | Table, classes: int) -> None:
    """Every data set will do."""


def run(config: Config, features: Features, split: str) -> Iterator[tuple[str, float]]:
    """Alignment and uniformity are of `features.pairs`, so only of splits whose augmented views were encoded."""
    x = features.table(split).x
    yield "embedding_std", embedding_std(x)
    yield "rankme", effective_rank(x)
    if split in features.pairs:
        a, b = features.pairs[split]
        yield "alignment", alignment(a, b, config.alpha)
        yield "uniformity", (uniformity(a, config.t) + uniformity(b, config.t)) / 2


def embedding_std(z: Tensor) -> float:
    """sqrt(D) times the mean over dimensions of the standard deviation of l2-normalised z (N, D)."""
    z = F.normalize(z.detach().float(), dim=1)
    return float(z.std(0, correction=0).mean()) * z.shape[1] ** 0.5


def effective_rank(z: Tensor) -> float:
    """exp(entropy of p), p_k = s_k / sum(s) + 1e-7 with the singular values s of z (N, D), not centred.

    From the eigenvalues of the smaller Gram matrix, in float64 so that squaring costs no digit that counts. nan if z
    is not finite, 0 if it is 0.
    """
    z = z.detach().double()
    if not bool(z.isfinite().all()):
        return float("nan")
    gram = z @ z.T if z.shape[0] < z.shape[1] else z.T @ z
    s = torch.linalg.eigvalsh(gram).clamp_min(0).sqrt()
    if float(s.sum()) == 0:
        return 0.0
    p = s / s.sum() + 1e-7
    return float((-(p * p.log()).sum()).exp())


def alignment(a: Tensor, b: Tensor, alpha: float = 2.0) -> float:
    """Mean distance to the power alpha of a (N, D) and b (N, D), rows l2-normalised."""
    return float((F.normalize(a, dim=1) - F.normalize(b, dim=1)).norm(dim=1).pow(alpha).double().mean())


def uniformity(z: Tensor, t: float = 2.0) -> float:
    """log of the mean over pairs of rows of exp(-t |z_i - z_j|^2); z (N, D), N > 1, rows l2-normalised."""
    z = F.normalize(z, dim=1)
    n = len(z)
    step = max(1, CHUNK // n)
    total = 0.0
    for start in range(0, n, step):
        kernel = torch.exp(2 * t * (z[start : start + step] @ z.T - 1))  # |z_i - z_j|^2 = 2 - 2 z_i z_j
        kernel.diagonal(start).zero_()
        total += float(kernel.sum(dtype=torch.float64))
    return float(torch.tensor(total / (n * (n - 1)), dtype=torch.float64).log())
