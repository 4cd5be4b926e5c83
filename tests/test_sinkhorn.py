"""Sinkhorn-Knopp: closed forms, the products of the official code, and numbers recorded from it."""

from functools import partial

import pytest
import torch
from torch import Tensor

from harness.nn.sinkhorn import sinkhorn

same = partial(torch.testing.assert_close, rtol=1e-10, atol=1e-12)


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def by_products(scores: Tensor, epsilon: float, iterations: int) -> Tensor:
    """Columns to N / K, rows to 1, entry by entry."""
    q = torch.exp(scores / epsilon)
    N, K = q.shape
    for _ in range(iterations):
        for k in range(K):
            q[:, k] = q[:, k] / sum(q[n, k] for n in range(N)) * N / K
        for n in range(N):
            q[n] = q[n] / sum(q[n, k] for k in range(K))
    return q


def test_numbers_of_the_official_code() -> None:
    """facebookresearch/swav@06b1b7c, distributed_sinkhorn, epsilon 0.05, 3 iterations."""
    i, j = torch.arange(4, dtype=torch.float64)[:, None], torch.arange(3, dtype=torch.float64)
    expected = [
        [2.5566942245790164e-10, 0.15254314630834523, 0.8474568534359853],
        [0.001154982523884936, 0.9988450166481051, 8.280099308152961e-10],
        [0.9999999313812876, 6.861871041378324e-08, 1.931277973914148e-15],
        [0.9999997382157593, 2.6889272244247055e-14, 2.6178421390837294e-07],
    ]
    found = sinkhorn(torch.sin(0.7 * i + 1.1 * j + 0.3 * i * j), 0.05, 3)
    same(found, torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("iterations", [1, 3, 7])
def test_logarithms_are_the_products(iterations: int) -> None:
    scores = normal(6, 4)
    same(sinkhorn(scores, 0.3, iterations), by_products(scores, 0.3, iterations))


def test_rows_sum_to_one_and_in_the_limit_columns_to_their_share() -> None:
    ones = torch.ones(6, dtype=torch.float64)
    same(sinkhorn(normal(6, 4), 0.5, 1).sum(1), ones)
    q = sinkhorn(normal(6, 4), 0.5, 500)
    same(q.sum(1), ones)
    same(q.sum(0), ones[:4] * 6 / 4)


def test_equal_scores_give_the_uniform_matrix() -> None:
    q = sinkhorn(torch.full((6, 4), 0.7, dtype=torch.float64), 0.05, 3)
    same(q, torch.full_like(q, 1 / 4))


def test_a_prototype_for_each_image() -> None:
    """Nearly: by symmetry a softmax of 1 / epsilon against zeros, after any number of iterations."""
    q = sinkhorn(torch.eye(5, dtype=torch.float64), 0.5, 3)
    same(q, torch.softmax(2 * torch.eye(5, dtype=torch.float64), dim=1))


def test_two_by_two_in_closed_form() -> None:
    """The limit [[x, 1 - x], [1 - x, x]] has the odds (x / (1 - x))^2 = exp((a + d - b - c) / epsilon)."""
    scores = torch.tensor([[0.3, -0.2], [0.9, 0.8]], dtype=torch.float64)
    x = torch.sigmoid((scores[0, 0] + scores[1, 1] - scores[0, 1] - scores[1, 0]) / 0.1 / 2)
    same(sinkhorn(scores, 0.1, 500)[0], torch.stack([x, 1 - x]))


def test_constants_and_order_change_nothing() -> None:
    """Of any size added to all scores or to those of a prototype; images and prototypes in any order."""
    scores = normal(6, 4)
    q = sinkhorn(scores, 0.05, 3)
    same(sinkhorn(scores + 3.0, 0.05, 3), q, rtol=1e-9, atol=1e-12)
    same(sinkhorn(scores + normal(4), 0.05, 3), q, rtol=1e-9, atol=1e-12)
    same(sinkhorn(scores.flip(0), 0.05, 3), q.flip(0))
    same(sinkhorn(scores.flip(1), 0.05, 3), q.flip(1))


def test_no_epsilon_overflows_single_precision() -> None:
    q = sinkhorn(normal(6, 4).float(), 1e-3, 3)  # exp(2000) is no float
    assert q.isfinite().all()
    same(q.sum(1), torch.ones(6), rtol=1e-6)


def test_no_gradient_and_full_precision() -> None:
    assert not sinkhorn(normal(6, 4).requires_grad_(), 0.05, 3).requires_grad
    assert sinkhorn(normal(6, 4).bfloat16(), 0.05, 3).dtype == torch.float32
