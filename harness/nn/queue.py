"""A queue of what earlier steps saw, for methods that want more negatives or neighbours than a batch holds."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.nn.collectives import all_gather


class RingQueue(nn.Module):
    """The newest K rows (K, D) of all processes, without gradient, in a buffer; random unit vectors at first.

    `push` overwrites the oldest rows by the joined batch in rank order, so every process holds the same queue. A method
    that reads before it pushes does not find there what it pushes (MoCo, ReSSL). K is a multiple of the global batch,
    which `Requirements.batch_divides` sees to.
    """

    rows: Tensor
    next: Tensor

    def __init__(self, K: int, D: int) -> None:
        super().__init__()
        self.register_buffer("rows", F.normalize(torch.randn(K, D), dim=1))
        self.register_buffer("next", torch.zeros((), dtype=torch.long))  # the oldest row

    @torch.no_grad()
    def push(self, rows_BD: Tensor) -> None:
        """Take in the rows of this process's part of the batch. Errors: ValueError if K is no multiple of the batch."""
        joined = all_gather(rows_BD.detach()).to(self.rows.dtype)
        if len(self.rows) % len(joined):
            raise ValueError(f"a queue of {len(self.rows)} does not take whole batches of {len(joined)}")
        at = self.next + torch.arange(len(joined), device=self.rows.device)
        self.rows.index_copy_(0, at, joined)
        self.next.copy_((self.next + len(joined)) % len(self.rows))

    def read(self) -> Tensor:
        """A copy of the rows (K, D), which a later push leaves alone: a loss of them may still be differentiated."""
        return self.rows.clone()
