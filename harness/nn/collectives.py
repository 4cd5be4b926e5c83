"""Sums and gathers over processes that carry gradients; without torch.distributed each is the identity.

Convention: every process computes a loss, DistributedDataParallel averages the gradients. `all_gather` returns the
joined batch in rank order and its backward sums the gradients of all processes, so a loss of gathered tensors,
computed alike on every process, gets exactly the gradient of one process with the joined batch
(facebookresearch/vicreg@4e12602, main_vicreg.py, FullGatherLayer does the same).
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


def world_size() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


class _AllGather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        parts = [torch.empty_like(x) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        grad = grads[0].contiguous().clone()
        dist.all_reduce(grad)
        return grad.chunk(dist.get_world_size())[dist.get_rank()]


class _AllReduce(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x = x.contiguous().clone()
        dist.all_reduce(x)
        return x

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        grad = grads[0].contiguous().clone()
        dist.all_reduce(grad)
        return grad


def all_gather(x: Tensor) -> Tensor:
    """(B, ...) on each process -> (N, ...) on all, with gradient."""
    return x if world_size() == 1 else _AllGather.apply(x)


def all_sum(x: Tensor) -> Tensor:
    """Sum over processes, with gradient."""
    return x if world_size() == 1 else _AllReduce.apply(x)


def all_mean(x: Tensor) -> Tensor:
    """Mean over processes, with gradient."""
    return all_sum(x) / world_size()


class SyncBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch normalisation with statistics over all processes, on CPU (gloo) as well as GPU; torch's needs a GPU."""

    def _check_input_dim(self, input: Tensor) -> None:
        pass

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or world_size() == 1:
            return super().forward(x)
        dims = [d for d in range(x.ndim) if d != 1]
        shape = [1, -1] + [1] * (x.ndim - 2)
        count = x.numel() // x.shape[1] * world_size()
        mean = all_sum(x.sum(dims)) / count
        centred = x - mean.view(shape)
        var = all_sum(centred.square().sum(dims)) / count
        if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            momentum = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
            with torch.no_grad():
                self.running_mean.lerp_(mean, momentum)
                self.running_var.lerp_(var * count / (count - 1), momentum)
        y = centred * torch.rsqrt(var.view(shape) + self.eps)
        return y if self.weight is None else y * self.weight.view(shape) + self.bias.view(shape)


def synchronise_batch_norm(module: nn.Module) -> None:
    """Turn every BatchNorm of the module into `SyncBatchNorm`, in place, keeping parameters, buffers and names.

    Errors: ValueError for a batch norm of another kind, whose statistics would be those of one process.
    """
    for child in module.modules():
        if type(child) in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d):
            child.__class__ = SyncBatchNorm
        elif isinstance(child, nn.modules.batchnorm._BatchNorm) and not isinstance(child, SyncBatchNorm):
            raise ValueError(f"{type(child).__name__} layers cannot be shared by several processes; use one process")
