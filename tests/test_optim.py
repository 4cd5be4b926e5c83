"""Optimisers against restatements of the papers' updates, and the official code's numbers."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from harness.api import Batch, Clock, Method, MethodConfig, ParamGroup, Step
from harness.optim import LARS, Training, clip_per_tensor
from harness.recipe import Optimiser


def grid(n: int, d: int, a: float, b: float) -> torch.Tensor:
    i, j = torch.arange(n, dtype=torch.float64)[:, None], torch.arange(d, dtype=torch.float64)
    return torch.sin(a * i + b * j + 0.3 * i * j)


class TwoLayers(Method[Any]):
    """A weight, a bias, a scalar, and a group of each special kind."""

    def __init__(self, special: Callable[[nn.Parameter], ParamGroup] | None = None) -> None:
        nn.Module.__init__(self)
        self.weight = nn.Parameter(grid(3, 4, 0.5, 0.2))
        self.bias = nn.Parameter(grid(1, 4, 0.1, 0.4)[0])
        self.last = nn.Parameter(grid(2, 4, 0.3, 0.7))
        self.special = special

    def param_groups(self) -> list[ParamGroup]:
        if not self.special:
            return super().param_groups()
        return [ParamGroup([self.weight, self.bias]), self.special(self.last)]

    def step(self, batch: Batch) -> Step:
        raise AssertionError("only the optimiser is under test")

    def loss(self) -> torch.Tensor:
        return sum((p.sin() * (k + 1)).sum() for k, p in enumerate(self.parameters()))  # type: ignore[return-value]


def test_lars_is_the_papers_update() -> None:
    method = TwoLayers()
    training = Training(method, Optimiser(name="lars", lr=0.3, lr_batch=256, weight_decay=1e-2, trust=1e-3), 512, 0)
    ours = {name: p.detach().numpy().copy() for name, p in method.named_parameters()}
    buffers = {name: np.zeros_like(value) for name, value in ours.items()}
    for step in range(5):
        clock = Clock(step, 10, 10)
        lr = 0.3 * 512 / 256 * 0.5 * (1 + np.cos(np.pi * step / 10))
        for k, (name, w) in enumerate(ours.items()):
            g = np.cos(w) * (k + 1)
            if name != "bias":
                g = g + 1e-2 * w
                g = g * 1e-3 * np.linalg.norm(w) / np.linalg.norm(g)
            buffers[name] = 0.9 * buffers[name] + g
            ours[name] = w - lr * buffers[name]
        training.step(method.loss(), clock)
    for name, p in method.named_parameters():
        np.testing.assert_allclose(p.detach().numpy(), ours[name], rtol=0, atol=1e-12)


def test_lars_ratio_is_one_for_a_zero_weight() -> None:
    w = nn.Parameter(torch.zeros(2, 2, dtype=torch.float64))
    optimiser = LARS([w], lr=0.1, momentum=0.0, weight_decay=0.1)
    w.grad = torch.ones_like(w)
    optimiser.step()
    torch.testing.assert_close(w.detach(), torch.full_like(w, -0.1))


def test_clip_per_tensor_meets_dinos_code() -> None:
    layer = nn.Linear(3, 2).double()
    layer.weight.grad = 10 * grid(2, 3, 0.5, 0.2)
    layer.bias.grad = torch.tensor([0.1, 0.2], dtype=torch.float64)
    assert layer.weight.grad.norm() == pytest.approx(14.57406827, abs=1e-8)
    clip_per_tensor(layer.parameters(), 3.0)
    assert layer.weight.grad.norm() == pytest.approx(2.99999979, abs=1e-8)
    assert layer.bias.grad.norm() == pytest.approx(0.2236068, abs=1e-7)


def test_dino_schedules_meet_the_official_code() -> None:
    """facebookresearch/dino@7c446df: 100 epochs of 10 iterations, 10 of warm-up, batch 512."""
    settings = Optimiser(
        name="adamw",
        lr=5e-4,
        lr_batch=256,
        weight_decay=0.04,
        weight_decay_end=0.4,
        final_lr=1e-6 / 1e-3,
        reach_peak_early=True,
    )
    training = Training(TwoLayers(), settings, 512, 100)
    lr = {it: training.lr(Clock(it, 1000, 10)) for it in (0, 1, 50, 99, 100, 550, 999)}
    expected = {0: 0, 1: 1.01010101e-5, 50: 5.05050505e-4, 99: 1e-3, 100: 1e-3, 550: 5.005e-4, 999: 1.00304312e-6}
    assert lr == pytest.approx(expected, abs=1e-12, rel=1e-8)
    decay = [training.weight_decay(Clock(it, 1000, 10)) for it in (0, 500, 999)]
    assert decay == pytest.approx([0.04, 0.22, 0.399999112], abs=1e-9)


def test_weight_decay_skips_one_dimensional_tensors_only() -> None:
    training = Training(TwoLayers(), Optimiser(name="adamw", lr=1e-3, weight_decay=0.1), 256, 0)
    training.step(training.params[0].sum() * 0, Clock(0, 10, 10))
    decays = {group["weight_decay"]: [p.ndim for p in group["params"]] for group in training.main.param_groups}
    assert decays == {0.1: [2, 2], 0.0: [1]}


def test_a_frozen_group_moves_only_after_its_epochs() -> None:
    method = TwoLayers(lambda p: ParamGroup([p], frozen_epochs=1))
    training = Training(method, Optimiser(name="sgd", lr=0.1, momentum=0.0, schedule="constant"), 256, 0)
    before = method.last.detach().clone()
    training.step(method.loss(), Clock(1, 10, 2))
    assert torch.equal(method.last, before)
    training.step(method.loss(), Clock(2, 10, 2))
    assert not torch.equal(method.last, before)


def test_a_group_of_its_own_adam_keeps_its_rate_and_its_state_is_saved() -> None:
    def build() -> tuple[TwoLayers, Training]:
        method = TwoLayers(lambda p: ParamGroup([p], own_adam=3e-4))
        return method, Training(method, Optimiser(name="lars", lr=0.3), 256, 5)

    method, training = build()
    before = method.last.detach().clone()
    training.step(method.loss(), Clock(0, 10, 5))  # step 0 of the warm-up: the recipe's rate is 0
    assert (method.last.detach() - before).abs().max() == pytest.approx(3e-4, rel=1e-4)
    other, resumed = build()
    other.load_state_dict(method.state_dict())
    resumed.load_state_dict(copy.deepcopy(training.state_dict()))
    for step in (1, 2):
        training.step(method.loss(), Clock(step, 10, 5))
        resumed.step(other.loss(), Clock(step, 10, 5))
    for a, b in zip(method.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)


def test_method_config_is_abstract() -> None:
    with pytest.raises(TypeError, match="abstract"):
        MethodConfig()  # type: ignore[abstract]
