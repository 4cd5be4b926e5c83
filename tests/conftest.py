"""Fixtures for all tests: one thread, no network, small networks."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from torch import Tensor, nn

import harness  # noqa: F401  (the torchvision hook comes before any import of torchvision)
from harness.api import Backbone


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-golden", action="store_true", help="write tests/golden anew")


class TinyBackbone(Backbone):
    """A linear map of the mean-pooled image and a non-linearity: no batch norm, any image size."""

    width = 12

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(4)
        self.linear = nn.Linear(48, self.width)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.linear(self.pool(x).flatten(1)))


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def tiny_backbone() -> TinyBackbone:
    torch.manual_seed(0)
    return TinyBackbone()
