"""Sinkhorn-Knopp: soft assignments of images to prototypes that use all prototypes alike.

Source   Cuturi, NeurIPS 2013, arXiv:1306.0895; Caron et al., NeurIPS 2020, arXiv:2006.09882, eq. 5;
         facebookresearch/swav@06b1b7c, main_swav.py, distributed_sinkhorn.
Shapes   B rows on this process, N of all processes, K prototypes.
"""

import torch
from torch import Tensor

from harness.nn.collectives import all_gather
from harness.nn.precision import full_precision


@torch.no_grad()
@full_precision
def sinkhorn(scores_BK: Tensor, epsilon: float, iterations: int) -> Tensor:
    """The codes of this process's rows, without gradient: exp(scores / epsilon) with columns and rows scaled in turn.

    Columns to equal sums over the rows of all processes, then rows to 1; so in the end rows sum to 1 and columns nearly
    to N / K. In logarithms, which no epsilon overflows; the source's products, but for rounding.
    """
    log_q = scores_BK / epsilon
    for _ in range(iterations):
        log_q = log_q - all_gather(log_q.logsumexp(0, keepdim=True)).logsumexp(0)
        log_q = log_q - log_q.logsumexp(1, keepdim=True)
    return log_q.exp()
