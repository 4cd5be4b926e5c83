"""The precision of a training step, and of losses that half precision would spoil."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import wraps
from typing import Any, TypeVar

import torch
from torch import Tensor

ResultT = TypeVar("ResultT")


def full_precision(loss: Callable[..., ResultT]) -> Callable[..., ResultT]:
    """Run a function whose first argument is a tensor in float32 at least: half tensors are widened, autocast is off.

    float64 stays float64. For losses of small differences and long sums (covariances, kernels, softmax over a batch).
    """

    @wraps(loss)
    def wide(first: Tensor, *others: Any) -> ResultT:
        device = first.device.type  # "meta", where costs are counted, has no autocast
        off = torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext()
        with off:
            return loss(*(_widen(argument) for argument in (first, *others)))

    return wide


def autocast(precision: str, device: torch.device | str) -> AbstractContextManager[Any]:
    """In which a training step computes: as it is for "float32", else by autocast to `precision`."""
    if precision == "float32":
        return nullcontext()
    return torch.autocast(torch.device(device).type, getattr(torch, precision))


def _widen(argument: Any) -> Any:
    half = isinstance(argument, Tensor) and argument.dtype in (torch.float16, torch.bfloat16)
    return argument.float() if half else argument
