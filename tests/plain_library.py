"""What tests/test_bench.py starts in processes of their own: a library that is always there, and what fails."""

import os
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from harness.bench.against import Library
from harness.errors import UnknownName
from harness.recipe import View


class Plain(Library):
    name, package, install = "plain", "torch", "it is always there"
    methods = ("vicreg",)
    memory_format = torch.contiguous_format

    def load(self) -> None:
        pass

    def make_loss(self, config: Any) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
        return lambda a, b, index: F.mse_loss(a, b) + 0 * index.sum()

    def make_view(self, view: View, mean: list[float], std: list[float]) -> Callable[[Image.Image], Tensor]:
        return v2.Compose([v2.ToImage(), v2.Resize(view.px), v2.ToDtype(torch.float32, scale=True)])

    def lars(self, trust: float, **settings: Any) -> torch.optim.Optimizer:
        raise AssertionError("the tests' recipes have another optimiser")


class Failing:
    """What a process of its own may do wrong."""

    def add(self, a: int, b: int) -> int:
        return a + b

    def fill(self) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    def misspell(self) -> None:
        raise UnknownName("data set", "digitz", ["digits"])

    def crash(self) -> float:
        return 1 / 0

    def die(self) -> None:
        os._exit(7)
