"""Barlow Twins against its equations, written out in loops, and numbers of the authors' code."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from contracts import TRAIN, SmallBackbone, build, config, make_batch
from torch import Tensor

from methods.barlow_twins import barlow_twins_terms


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def grid(n: int, d: int, a: float, b: float) -> Tensor:
    """The inputs of the recorded official values: sin(a i + b j + 0.3 i j)."""
    i, j = torch.arange(n, dtype=torch.float64)[:, None], torch.arange(d, dtype=torch.float64)
    return torch.sin(a * i + b * j + 0.3 * i * j)


def weighted(a: Tensor, b: Tensor, invariance: float = 1.0, redundancy: float = 0.0051) -> Tensor:
    terms = barlow_twins_terms(a, b)
    return invariance * terms["invariance"] + redundancy * terms["redundancy"]


def restated(a: Tensor, b: Tensor, invariance: float = 1.0, redundancy: float = 0.0051) -> Tensor:
    """One entry of the cross-correlation matrix after the other."""
    n, d = a.shape
    loss = a.new_zeros(())
    for i in range(d):
        for j in range(d):
            x, y = a[:, i], b[:, j]
            x, y = x - x.sum() / n, y - y.sum() / n
            x_var, y_var = (x * x).sum() / n, (y * y).sum() / n
            c = (x * y).sum() / n / torch.sqrt((x_var + 1e-5) * (y_var + 1e-5))
            loss = loss + (invariance * (1 - c) ** 2 if i == j else redundancy * c**2)
    return loss


@pytest.mark.parametrize(("n", "d"), [(12, 5), (5, 9), (6, 6)])  # sums of squares go two ways, by n < d
@pytest.mark.parametrize("weights", [(1.0, 0.0051), (0.0, 1.0)])
def test_loss_and_gradients(held: Callable[..., None], n: int, d: int, weights: tuple[float, float]) -> None:
    a = 0.9 * normal(n, d, seed=1) + 0.5
    b = a + 0.7 * normal(n, d, seed=2)
    held(lambda x, y: weighted(x, y, *weights), lambda x, y: restated(x, y, *weights), a, b)


@pytest.mark.parametrize(
    ("n", "d", "loss", "of_a", "of_b"),
    [
        (8, 5, 0.05809577153945698, -0.0066073149428603675, -0.012378952993354383),
        (5, 7, 0.15146122708121237, -0.00958110512804949, -0.055493079940982924),
    ],
)
def test_the_authors_numbers(n: int, d: int, loss: float, of_a: float, of_b: float) -> None:
    """facebookresearch/barlowtwins@8e8d284, BarlowTwins.forward between identities: the loss, two of its gradients."""
    a = grid(n, d, 0.7, 1.3)
    b = (a + 0.5 * grid(n, d, 1.1, 0.4)).requires_grad_()
    a.requires_grad_()
    found = weighted(a, b)
    found.backward()
    assert a.grad is not None
    assert b.grad is not None
    assert [found.item(), a.grad[1, 2].item(), b.grad[3, 0].item()] == pytest.approx([loss, of_a, of_b], rel=1e-10)


def hadamard(n: int) -> Tensor:
    """Columns of +-1, each two orthogonal; the first is constant."""
    matrix = torch.ones(1, 1, dtype=torch.float64)
    while len(matrix) < n:
        matrix = torch.cat([torch.cat([matrix, matrix], 1), torch.cat([matrix, -matrix], 1)])
    return matrix


C = 1 / (1 + 1e-5)  # the largest correlation, of a variance of 1
H = hadamard(8)


@pytest.mark.parametrize(
    ("a", "b", "invariance", "redundancy"),
    [
        (H[:, 1:4], H[:, 1:4], 3 * (1 - C) ** 2, 0.0),  # identical views, decorrelated dimensions: the optimum
        (H[:, 1:4], -H[:, 1:4], 3 * (1 + C) ** 2, 0.0),  # opposite views
        (H[:, 1:4], H[:, 4:7], 3.0, 0.0),  # unrelated views
        (H[:, [1, 1, 1]], H[:, [1, 1, 1]], 3 * (1 - C) ** 2, 6 * C**2),  # identical views of one thing, three times
        (H[:, [1, 2]], H[:, [2, 1]], 2.0, 2 * C**2),  # the dimensions of one view exchanged
        (H[:, [0, 0]], H[:, [0, 0]], 2.0, 0.0),  # collapsed: all images alike
        (
            hadamard(16)[:4, 4:12],
            hadamard(16)[:4, 4:12],
            6 * (1 - C) ** 2 + 2.0,
            6 * C**2,
        ),  # 4 images: twice a constant, and 3 pairs alike
    ],
)
def test_by_hand(a: Tensor, b: Tensor, invariance: float, redundancy: float) -> None:
    a = a.clone().requires_grad_()
    terms = barlow_twins_terms(a, b)
    assert terms["invariance"].item() == pytest.approx(invariance, rel=1e-9, abs=1e-12)
    assert terms["redundancy"].item() == pytest.approx(redundancy, rel=1e-9, abs=1e-12)
    assert torch.autograd.grad(sum(terms.values(), a.new_zeros(())), a)[0].isfinite().all()


@pytest.mark.parametrize(("n", "d"), [(12, 5), (5, 9)])
def test_what_changes_nothing(n: int, d: int) -> None:
    """Each dimension of each view scaled and shifted (far above the 1e-5), images in another order, views exchanged."""
    a = 1e6 * normal(n, d, seed=1)
    b = a + 1e6 * normal(n, d, seed=2)
    before = weighted(a, b)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(0))
    signs = torch.ones(d, dtype=torch.float64).copysign(normal(d, seed=6))
    for x, y in (
        (a * normal(d, seed=3).exp() + 1e6 * normal(d, seed=4), b * normal(d, seed=5).exp() - 1e6),
        (a * signs, b * signs),
        (a[order], b[order]),
        (b, a),
    ):
        torch.testing.assert_close(weighted(x, y), before, rtol=1e-9, atol=0)
    assert not math.isclose(weighted(a * signs, b).item(), before.item(), rel_tol=1e-3)
    assert not math.isclose(weighted(a[order], b).item(), before.item(), rel_tol=1e-3)


def test_step_is_the_weighted_sum_of_one_pass_per_view() -> None:
    method: Any = build(config("barlow_twins", widths=(24, 24, 8), invariance=0.3, redundancy=0.05))
    batch = make_batch(method.config)
    a, b = (method.projector(method.backbone(view)) for view in batch.views)
    out = method.step(batch)
    assert out.loss.item() == pytest.approx(restated(a, b, 0.3, 0.05).item(), rel=1e-10)
    assert all(torch.equal(x, y) for x, y in zip(out.projections, (a, b), strict=True))


def test_a_scaled_loss_is_one_of_scaled_coefficients() -> None:
    """solo-learn's scale_loss of 0.1, as the recipes of CIFAR-10 have it."""
    a, b = normal(8, 5, seed=1), normal(8, 5, seed=2)
    torch.testing.assert_close(weighted(a, b, 0.1, 5.1e-4), 0.1 * restated(a, b, 1.0, 5.1e-3))


def test_projector_is_the_published_one() -> None:
    method: Any = config("barlow_twins").build(SmallBackbone(), TRAIN)
    layers = list(method.projector)
    assert [type(layer).__name__ for layer in layers] == ["Linear", "BatchNorm1d", "ReLU"] * 2 + ["Linear"]
    assert not any(layer.bias is not None for layer in layers if isinstance(layer, torch.nn.Linear))
