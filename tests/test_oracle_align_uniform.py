"""Alignment and uniformity against their equations pair by pair, numbers of the official code, and our own metrics."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from contracts import build, make_batch
from test_oracles import grid, normal
from torch import Tensor, nn

from harness import registry
from harness.api import Method
from harness.errors import BadRecipe
from harness.evals import collapse
from methods import align_uniform
from methods.align_uniform import alignment, uniformity

NAME = "align_uniform_digits_r10w16_e50"


def head(method: Method[Any]) -> nn.Sequential:
    assert isinstance(method.projector, nn.Sequential)
    return method.projector


def unit(row: Tensor) -> Tensor:
    return row / sum((x * x for x in row), row.new_zeros(())).sqrt()


def squared(x: Tensor, y: Tensor) -> Tensor:
    return sum(((p - q) ** 2 for p, q in zip(unit(x), unit(y), strict=True)), x.new_zeros(()))


def restated_alignment(a: Tensor, b: Tensor, alpha: float) -> Tensor:
    return sum((squared(x, y).sqrt() ** alpha for x, y in zip(a, b, strict=True)), a.new_zeros(())) / len(a)


def restated_uniformity(z: Tensor, t: float) -> Tensor:
    pairs = [torch.exp(-t * squared(z[i], z[j])) for i in range(len(z)) for j in range(i)]
    return (sum(pairs, z.new_zeros(())) / len(pairs)).log()


@pytest.mark.parametrize(("alpha", "t"), [(2.0, 2.0), (1.0, 3.0), (3.0, 0.5)])
@pytest.mark.parametrize(("n", "d"), [(2, 3), (9, 4)])
def test_the_equations(alpha: float, t: float, n: int, d: int, held) -> None:  # type: ignore[no-untyped-def]
    def ours(a: Tensor, b: Tensor) -> Tensor:
        return 1.5 * alignment(a, b, alpha) + 0.7 * (uniformity(a, t) + uniformity(b, t)) / 2

    def restated(a: Tensor, b: Tensor) -> Tensor:
        spread = (restated_uniformity(a, t) + restated_uniformity(b, t)) / 2
        return 1.5 * restated_alignment(a, b, alpha) + 0.7 * spread

    held(ours, restated, normal(n, d), normal(n, d, seed=1))


# SsnL/align_uniform@e256d47, align_loss and uniform_loss of normalised `grid` inputs, averaged over views as in
# examples/stl10/main.py: (alpha, t) -> alignment, uniformity, and the norms of the gradients of their sum
OFFICIAL = {
    (2.0, 2.0): (2.055651019476827, -3.1725801860682927, 0.8782413509480919, 0.7794534990311811),
    (1.0, 3.0): (1.4002824666683225, -4.094621348869129, 1.425706964042684, 1.2533731781241482),
    (3.0, 0.5): (3.149962877692964, -1.0264168781194547, 0.9305185832202351, 0.8771382809309146),
}


@pytest.mark.parametrize(("alpha", "t"), OFFICIAL)
def test_the_official_numbers(alpha: float, t: float) -> None:
    a, b = grid(7, 5, 0.9, 1.7).requires_grad_(), grid(7, 5, 1.3, 0.6).requires_grad_()
    found = alignment(a, b, alpha), (uniformity(a, t) + uniformity(b, t)) / 2
    norms = [gradient.norm().item() for gradient in torch.autograd.grad(found[0] + found[1], [a, b])]
    assert [found[0].item(), found[1].item(), *norms] == pytest.approx(OFFICIAL[alpha, t], abs=1e-10)


def test_the_loss_is_what_the_collapse_protocol_measures() -> None:
    a, b = normal(40, 6), normal(40, 6, seed=1)
    for alpha, t in ((2.0, 2.0), (1.0, 3.0)):
        assert alignment(a, b, alpha).item() == pytest.approx(collapse.alignment(a, b, alpha), rel=1e-12)
        assert uniformity(a, t).item() == pytest.approx(collapse.uniformity(a, t), rel=1e-12)


def test_orthogonal_opposite_and_identical_vectors() -> None:
    identity = torch.eye(6, dtype=torch.float64)
    assert uniformity(3 * identity, 2.0).item() == pytest.approx(-2 * 2, rel=1e-12)  # |z_i - z_j|^2 = 2
    opposite = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], dtype=torch.float64)
    assert uniformity(opposite, 2.0).item() == pytest.approx(-4 * 2, rel=1e-12)
    assert alignment(opposite, -opposite, 3.0).item() == pytest.approx(2**3, rel=1e-12)
    assert alignment(identity, 5 * identity, 2.0).item() == 0
    two_of_four = torch.cat([opposite, opposite])  # of 6 pairs 2 coincide and 4 are opposite
    assert uniformity(two_of_four, 1.0).item() == pytest.approx(math.log((2 + 4 * math.exp(-4)) / 6), rel=1e-12)


@pytest.mark.parametrize("alpha", [1.0, 1.5, 2.0])
def test_collapse_is_the_worst_uniformity_and_has_finite_gradients(alpha: float) -> None:
    z = torch.tensor([[0.6, 0.8, 0.0]] * 5, dtype=torch.float64).requires_grad_()
    loss = alignment(z, z.clone(), alpha) + uniformity(z, 2.0)
    (gradient,) = torch.autograd.grad(loss, z)
    assert loss.item() == pytest.approx(0, abs=1e-12)
    assert gradient.isfinite().all()
    assert all(uniformity(normal(5, 3, seed=seed), 2.0) < 0 for seed in range(5))


def test_rotation_size_and_order_change_nothing() -> None:
    a, b = normal(9, 5), normal(9, 5, seed=1)
    rotation, order = torch.linalg.qr(normal(5, 5, seed=3))[0], torch.randperm(9)
    for x, y in ((a @ rotation, b @ rotation), (2 * a, 0.3 * b), (a[order], b[order])):
        torch.testing.assert_close(alignment(x, y, 2.0), alignment(a, b, 2.0), rtol=1e-12, atol=0)
        torch.testing.assert_close(uniformity(x, 2.0), uniformity(a, 2.0), rtol=1e-12, atol=0)


def test_step_is_the_weighted_sum_of_one_pass_per_view() -> None:
    method = build(align_uniform.Config(widths=(24, 8), alpha=1.0, t=3.0, alignment=3.0, uniformity=0.5))
    batch = make_batch(method.config)
    a, b = (head(method)(method.backbone(view)) for view in batch.views)
    want = 3 * restated_alignment(a, b, 1.0) + 0.5 * (restated_uniformity(a, 3.0) + restated_uniformity(b, 3.0)) / 2
    out = method.step(batch)
    assert out.loss.item() == pytest.approx(want.item(), rel=1e-10)
    assert set(out.terms) == {"alignment", "uniformity"}


def test_published_setting() -> None:
    """One layer with a bias, as fc8, before it layers as fc6 and fc7."""
    settings = align_uniform.Config()
    assert (settings.alpha, settings.t, settings.weights()) == (2.0, 2.0, {"alignment": 1.0, "uniformity": 1.0})
    (layer,) = head(build(settings))
    assert [tuple(p.shape) for p in layer.parameters()] == [(128, 32), (128,)]
    layers = list(head(build(align_uniform.Config(widths=(24, 8)))))
    assert [type(layer).__name__ for layer in layers] == ["Linear", "BatchNorm1d", "ReLU", "Linear"]
    assert layers[0].bias is None


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "method.alpha=0.5",
            "Alignment's alpha is 0.5, expected 1 or more: below, equal views have no finite gradient",
        ),
        ("method.t=0", "Uniformity's t is 0.0, expected a number above 0"),
    ],
)
def test_impossible_settings_are_refused(override: str, message: str) -> None:
    with pytest.raises(BadRecipe) as caught:
        registry.recipe(NAME, (override,))
    assert str(caught.value) == f"recipe '{NAME}': {message}"


def test_views_do_not_see_each_other_in_uniformity() -> None:
    """It is the mean over views of each one's own pairs, so equal views give what one gives."""
    z = F.normalize(normal(6, 4), dim=1)
    assert (uniformity(z, 2.0) + uniformity(z.clone(), 2.0)).item() / 2 == uniformity(z, 2.0).item()
