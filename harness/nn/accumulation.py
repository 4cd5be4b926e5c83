"""Gradient accumulation that leaves the loss alone: an encoder takes a batch in parts, and keeps none of their insides.

The outputs of all parts are joined, so heads and losses see the whole batch; the backward pass computes each part again
(Gao et al., arXiv:2101.06983, do the same for contrastive losses). Memory: the insides of one part. Cost: one forward
pass more.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def in_parts(network: nn.Module, x: Tensor, parts: int) -> Tensor:
    """`network` of x (B, ...), B / parts rows at a time. In training mode batch norms normalise each part by itself."""
    if parts == 1 or not network.training:
        return network(x)
    if not torch.is_grad_enabled():
        return torch.cat([network(part) for part in x.chunk(parts)])

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _statistics_kept(network)

    outputs = [checkpoint(network, part, use_reentrant=False, context_fn=contexts) for part in x.chunk(parts)]
    return torch.cat(outputs)


@contextmanager
def _statistics_kept(network: nn.Module) -> Iterator[None]:
    """The second computation of a part moves no running statistics of batch norms."""
    norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._NormBase)]
    momenta = [norm.momentum for norm in norms]
    counts = [None if norm.num_batches_tracked is None else norm.num_batches_tracked.clone() for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum, count in zip(norms, momenta, counts, strict=True):
            norm.momentum = momentum
            if count is not None:
                norm.num_batches_tracked = count
