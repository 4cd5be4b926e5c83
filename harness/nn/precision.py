"""Losses that half precision would spoil."""

from collections.abc import Callable
from contextlib import nullcontext
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


def _widen(argument: Any) -> Any:
    half = isinstance(argument, Tensor) and argument.dtype in (torch.float16, torch.bfloat16)
    return argument.float() if half else argument
