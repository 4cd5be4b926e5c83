"""SupCon against its equations, pair by pair, NT-Xent, and numbers of the official code and of solo-learn's."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from contracts import build, config, make_batch
from torch import Tensor

from harness import registry
from harness.errors import BadRecipe
from harness.recipe import check
from methods.simclr import nt_xent
from methods.supcon import Config, SupCon, supcon_loss

EXACT = {"rtol": 1e-10, "atol": 1e-12}
LABELS = torch.tensor([0, 1, 0, 2, 1, 0])


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def grid(n: int, d: int, a: float, b: float) -> Tensor:
    """The inputs of the recorded official values: sin(a i + b j + 0.3 i j)."""
    i, j = torch.arange(n, dtype=torch.float64)[:, None], torch.arange(d, dtype=torch.float64)
    return torch.sin(a * i + b * j + 0.3 * i * j)


def restated(a: Tensor, b: Tensor, labels: Tensor, tau: float, inside: bool) -> Tensor:
    """Eqs. 2 and 3 over I = {1 ... 2N}, one anchor and one positive at a time; the mean over anchors."""
    z = [row / (row * row).sum().sqrt() for row in (*a, *b)]
    y = [*labels.tolist(), *labels.tolist()]
    total = a.new_zeros(())
    for i in range(len(z)):
        others = [k for k in range(len(z)) if k != i]
        score = {k: torch.exp((z[i] * z[k]).sum() / tau) for k in others}
        shares = [score[p] / sum(score.values()) for p in others if y[p] == y[i]]
        if inside:
            total = total - torch.log(sum(shares) / len(shares))
        else:
            total = total - sum(torch.log(share) for share in shares) / len(shares)
    return total / len(z)


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("tau", [0.1, 0.5])
def test_loss_and_gradients(held: Callable[..., None], tau: float, inside: bool) -> None:
    held(
        lambda a, b: supcon_loss(a, b, LABELS, tau, inside),
        lambda a, b: restated(a, b, LABELS, tau, inside),
        normal(6, 5),
        normal(6, 5, seed=1),
    )


@pytest.mark.parametrize("inside", [False, True])
def test_with_a_class_for_every_image_it_is_nt_xent(held: Callable[..., None], inside: bool) -> None:
    held(
        lambda a, b: supcon_loss(a, b, torch.arange(6).flip(0), 0.2, inside),
        lambda a, b: nt_xent(b, a, a, b, 1 / 0.2, None),
        normal(6, 5),
        normal(6, 5, seed=1),
    )


@pytest.mark.parametrize("inside", [False, True])
def test_closed_forms(inside: bool) -> None:
    tau, C, n = 0.5, 3, 4  # classes, images of each
    labels = torch.arange(C).repeat(n)
    alike = normal(1, 5).expand(C * n, 5)
    assert supcon_loss(alike, alike, labels, tau, inside).item() == pytest.approx(math.log(2 * C * n - 1), rel=1e-12)
    classes = torch.eye(C, dtype=torch.float64)[labels]  # each class at one point, orthogonal to the others
    friends, strangers = 2 * n - 1, 2 * n * (C - 1)
    expected = math.log(friends + strangers * math.exp(-1 / tau))
    assert supcon_loss(classes, 7 * classes, labels, tau, inside).item() == pytest.approx(expected, rel=1e-12)


def test_of_one_class_the_mean_inside_the_logarithm_learns_nothing_and_the_one_outside_draws_together() -> None:
    a, b, same = normal(6, 5).requires_grad_(), normal(6, 5, seed=1), torch.zeros(6, dtype=torch.long)
    inside, outside = (supcon_loss(a, b, same, 0.1, choice) for choice in (True, False))
    assert inside.item() == pytest.approx(math.log(11), rel=1e-12)
    assert torch.autograd.grad(inside, a)[0].abs().max() < 1e-12
    assert torch.autograd.grad(outside, a)[0].abs().max() > 1e-2


@pytest.mark.parametrize("seed", range(5))
def test_inside_is_never_above_outside(seed: int) -> None:
    """Jensen's inequality, sec. 3.2.2."""
    a, b = normal(6, 5, seed=seed), normal(6, 5, seed=10 + seed)
    assert supcon_loss(a, b, LABELS, 0.1, True) < supcon_loss(a, b, LABELS, 0.1, False)


@pytest.mark.parametrize("inside", [False, True])
def test_loss_is_of_directions_and_not_of_order_or_of_the_names_of_classes(inside: bool) -> None:
    a, b = normal(6, 5), normal(6, 5, seed=1)
    loss = supcon_loss(a, b, LABELS, 0.1, inside)
    rotation = torch.linalg.qr(normal(5, 5, seed=2)).Q
    order = torch.tensor([4, 2, 0, 5, 1, 3])
    for same in (
        supcon_loss(3 * a, 0.2 * b, LABELS, 0.1, inside),
        supcon_loss(a @ rotation, b @ rotation, LABELS, 0.1, inside),
        supcon_loss(b, a, LABELS, 0.1, inside),
        supcon_loss(a[order], b[order], LABELS[order], 0.1, inside),
        supcon_loss(a, b, 7 - 2 * LABELS, 0.1, inside),
    ):
        torch.testing.assert_close(same, loss, **EXACT)
    assert (supcon_loss(a, b, LABELS.roll(1), 0.1, inside) - loss).abs() > 0.01


@pytest.mark.parametrize("inside", [False, True])
def test_step_compares_the_projections_of_both_views_by_their_labels(inside: bool) -> None:
    method = build(config("supcon", inside=inside))
    assert isinstance(method, SupCon)
    batch = make_batch(method.config)
    assert batch.labels is not None
    a, b = (method.projector(method.backbone(view)) for view in batch.views)
    out = method.step(batch)
    torch.testing.assert_close(out.loss, restated(a, b, batch.labels, 0.1, inside), **EXACT)
    assert all(torch.equal(z, other) for z, other in zip(out.projections, (a, b), strict=True))
    batch.labels = batch.labels.roll(1)
    assert (method.step(batch).loss - out.loss).abs() > 1e-4


OFFICIAL = {0.1: (8.563549086462343, 6.208227010183301, 7.07272571390177),
            0.5: (2.852974748343916, 1.0475175678791466, 1.1334726668409543)}  # fmt: skip
SOLO = {0.1: (4.081421129309345, 7.402563667914838, 8.897340858686682),
        0.5: (1.4470318291346782, 1.0060833173943946, 0.9851630295663442)}  # fmt: skip


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("tau", [0.1, 0.5])
def test_official_code_and_solo_learn_give_these_numbers(tau: float, inside: bool) -> None:
    """Loss and sum |gradient| of either view, on `grid` in float64.

    HobbitLong/SupContrast@66a8fe5, losses.py, with base_temperature at tau; vturrisi/solo-learn@9187ea3,
    solo/losses/simclr.py, whose loss lacks the mean of log |P|: 5 positives thrice, 3 twice, 1 once.
    """
    a, b = grid(6, 5, 0.7, 1.1).requires_grad_(), grid(6, 5, 0.4, 0.9).requires_grad_()
    loss, *slopes = (SOLO if inside else OFFICIAL)[tau]
    if inside:
        loss += (3 * math.log(5) + 2 * math.log(3)) / 6
    ours = supcon_loss(a, b, LABELS, tau, inside)
    assert ours.item() == pytest.approx(loss, rel=1e-10)
    found = [gradient.abs().sum().item() for gradient in torch.autograd.grad(ours, (a, b))]
    assert found == pytest.approx(slopes, rel=1e-10)


def test_tables_tell_the_variants_apart() -> None:
    assert [Config(inside=inside).label for inside in (False, True)] == ["SupCon (labels)", "SupCon L_in (labels)"]


def test_an_impossible_temperature_is_refused() -> None:
    with pytest.raises(BadRecipe) as caught:
        registry.recipe("supcon_digits_r10w16_e50", ("method.temperature=0",))
    assert str(caught.value).endswith("SupCon's temperature is 0.0, expected a number above 0")


def test_a_set_without_labels_is_refused() -> None:
    name = "aninfonce_sphere_mlp_s1001_bimodal"
    with pytest.raises(BadRecipe) as caught:
        check(replace(registry.recipe(name), method=Config()))
    assert str(caught.value) == (f"recipe {name!r}: SupCon (labels) learns from labels, and data set 'sphere' has none")
