"""Minimum spanning trees: against every tree there is, against SciPy, and where points coincide."""

from itertools import combinations

import numpy as np
import pytest
import torch
from scipy.sparse.csgraph import minimum_spanning_tree
from test_oracles import assert_gradient, normal
from torch import Tensor

from harness.nn.spanning_tree import spanning_tree, tree_length


def distances(z: Tensor) -> Tensor:
    return (z[:, None] - z[None]).norm(dim=2)


def joined(edges: list[tuple[int, int]]) -> set[int]:
    """The points that can be reached from point 0."""
    reached = {0}
    for _ in edges:
        reached |= {point for edge in edges if reached & set(edge) for point in edge}
    return reached


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
def test_no_tree_is_shorter(n: int) -> None:
    d = distances(normal(n, 3, seed=n))
    pairs = list(combinations(range(n), 2))
    trees = [list(edges) for edges in combinations(pairs, n - 1) if len(joined(list(edges))) == n]
    assert len(trees) == (n ** (n - 2) if n > 1 else 1)  # Cayley's formula
    shortest = min(sum(float(d[i, j]) for i, j in edges) for edges in trees)
    assert tree_length(normal(n, 3, seed=n)).item() == pytest.approx(shortest, rel=1e-12)


@pytest.mark.parametrize(("n", "d"), [(20, 2), (60, 5), (60, 100)])
def test_edges_are_those_of_scipy(n: int, d: int) -> None:
    z = normal(n, d, seed=n + d)
    ends = spanning_tree(distances(z).numpy())
    assert ends.shape == (2, n - 1)
    theirs = minimum_spanning_tree(distances(z).numpy()).tocoo()
    assert {frozenset(edge) for edge in ends.T.tolist()} == {
        frozenset(edge) for edge in zip(theirs.row.tolist(), theirs.col.tolist(), strict=True)
    }
    assert tree_length(z).item() == pytest.approx(theirs.sum(), rel=1e-12)


def test_points_that_coincide_are_joined_by_edges_without_length() -> None:
    """Where SciPy, to which 0 means no edge, reaches each of them from afar."""
    z = normal(5, 3)
    twice = torch.cat([z, z])
    ends = spanning_tree(distances(twice).numpy())
    assert joined([(int(i), int(j)) for i, j in ends.T]) == set(range(10))
    assert tree_length(twice).item() == pytest.approx(tree_length(z).item(), rel=1e-12)  # App. G, instance cloning
    assert minimum_spanning_tree(distances(twice).numpy()).sum() > 1.2 * tree_length(z).item()


def test_gradient_is_a_push_along_each_edge() -> None:
    """Eq. 3: the sum over a point's edges of the unit vector that leads away from the other end."""
    z = normal(9, 4).requires_grad_()
    tree_length(z).backward()
    want = torch.zeros(9, 4, dtype=torch.float64)
    for i, j in spanning_tree(distances(z.detach()).numpy()).T:
        away = (z[i] - z[j]).detach() / (z[i] - z[j]).detach().norm()
        want[i] += away
        want[j] -= away
    torch.testing.assert_close(z.grad, want)
    assert_gradient(tree_length, z)


@pytest.mark.parametrize("point", [[0.0, 0.0, 0.0], [0.3, -1.0, 2.0]])
def test_collapsed_points_have_length_and_gradient_zero(point: list[float]) -> None:
    z = torch.tensor([point] * 6).requires_grad_()
    length = tree_length(z)
    (gradient,) = torch.autograd.grad(length, z)
    assert length.item() == 0
    assert torch.equal(gradient, torch.zeros(6, 3))


def test_near_points_far_from_the_origin_keep_their_distances() -> None:
    """|a|^2 + |b|^2 - 2 ab has no digit left there: 1e-2 squared is below the rounding of 1e4 squared."""
    line = torch.arange(40.0)[:, None] / 128
    shuffled = 1e4 + torch.cat([line, torch.zeros(40, 1)], dim=1)[torch.randperm(40)]
    assert tree_length(shuffled).item() == pytest.approx(39 / 128, rel=1e-6)


def test_half_precision_is_widened_and_shapes_suffice_where_costs_are_counted() -> None:
    z = normal(12, 4)
    assert tree_length(z.bfloat16()).dtype == torch.float32
    assert tree_length(z.bfloat16()).item() == pytest.approx(tree_length(z).item(), rel=1e-2)
    assert tree_length(torch.empty(12, 4, device="meta")).shape == ()


def test_equal_distances_give_a_tree() -> None:
    ends = spanning_tree(np.ones((7, 7)))
    assert joined([(int(i), int(j)) for i, j in ends.T]) == set(range(7))
