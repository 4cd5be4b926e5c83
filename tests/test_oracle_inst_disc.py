"""NPID against its equations, row by row, and numbers of the official code."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from contracts import SmallBackbone, build, config, make_batch
from torch import Tensor
from torch.nn.parameter import Parameter

from harness import registry
from harness.api import TrainSet
from harness.errors import BadRecipe
from harness.recipe import check
from methods.inst_disc import Config, InstDisc, instance_loss

EXACT = {"rtol": 1e-10, "atol": 1e-12}


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def grid(n: int, d: int, a: float, b: float) -> Tensor:
    """The inputs of the recorded official values: sin(a i + b j + 0.3 i j)."""
    i, j = torch.arange(n, dtype=torch.float64)[:, None], torch.arange(d, dtype=torch.float64)
    return torch.sin(a * i + b * j + 0.3 * i * j)


def with_bank(bank: Tensor, **settings: float) -> InstDisc:
    """The method with a bank of these rows."""
    images, width = bank.shape
    method = Config(widths=(width,), **settings).build(SmallBackbone(), TrainSet(images=images, classes=2))
    method = method.double().train()
    method.bank.copy_(bank)
    return method


def restated(z: Tensor, bank: Tensor, index: Tensor, tau: float) -> Tensor:
    """- mean over i of log P(i | z_i), eq. 2, one similarity at a time."""
    total = z.new_zeros(())
    for row, own in zip(z, index.tolist(), strict=True):
        length = sum(x * x for x in row).sqrt()
        scores = [sum(x / length * v for x, v in zip(row, other, strict=True)) / tau for other in bank]
        total = total - torch.log(torch.exp(scores[own]) / sum(torch.exp(score) for score in scores))
    return total / len(z)


def moved(row: Tensor, z: Tensor, momentum: float) -> Tensor:
    mixed = momentum * row + (1 - momentum) * z / (z * z).sum().sqrt()
    return mixed / (mixed * mixed).sum().sqrt()


@pytest.mark.parametrize("tau", [0.07, 0.1, 1.0])
def test_loss_and_gradients(held: Callable[..., None], tau: float) -> None:
    index = torch.tensor([3, 0, 8, 5])
    held(
        lambda z, bank: instance_loss(z, bank, index, tau),
        lambda z, bank: restated(z, bank, index, tau),
        normal(4, 5),
        F.normalize(normal(9, 5, seed=1), dim=1),
    )


def test_closed_forms() -> None:
    """Each image at its own of N orthogonal rows; at a row of another; all rows alike."""
    N, tau = 6, 0.5
    rows, index = torch.eye(N, dtype=torch.float64), torch.arange(N)
    at_own = math.log(1 + (N - 1) * math.exp(-1 / tau))
    assert instance_loss(3 * rows, rows, index, tau).item() == pytest.approx(at_own, rel=1e-12)
    assert instance_loss(rows, rows, index.roll(1), tau).item() == pytest.approx(at_own + 1 / tau, rel=1e-12)
    alike = rows[:1].expand(N, N)
    assert instance_loss(normal(N, N), alike, index, tau).item() == pytest.approx(math.log(N), rel=1e-12)


def test_loss_is_of_directions_and_of_which_image_is_which() -> None:
    z, bank, index = normal(4, 5), F.normalize(normal(9, 5, seed=1), dim=1), torch.tensor([3, 0, 8, 5])
    loss = instance_loss(z, bank, index, 0.1)
    rotation = torch.linalg.qr(normal(5, 5, seed=2)).Q
    order = torch.randperm(9, generator=torch.Generator().manual_seed(0))
    lengths = torch.tensor([[0.1], [1.0], [7.0], [3.0]], dtype=torch.float64)
    for same in (
        instance_loss(lengths * z, bank, index, 0.1),
        instance_loss(z @ rotation, bank @ rotation, index, 0.1),
        instance_loss(z.flip(0), bank, index.flip(0), 0.1),
        instance_loss(z, bank[order], order.argsort()[index], 0.1),
    ):
        torch.testing.assert_close(same, loss, **EXACT)
    assert (instance_loss(z, bank, index.roll(1), 0.1) - loss).abs() > 0.1


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.8])
def test_only_the_rows_of_the_batch_move_and_stay_unit_vectors(momentum: float) -> None:
    bank, z, index = F.normalize(normal(6, 4), dim=1), normal(3, 4, seed=1), torch.tensor([4, 1, 2])
    method = with_bank(bank, momentum=momentum)
    method.remember(z, index)
    for image in range(6):
        row = bank[image]
        if image in index:
            row = moved(row, z[index.tolist().index(image)], momentum)
        torch.testing.assert_close(method.bank[image], row, **EXACT)


def test_steps_take_the_logits_before_the_bank_moves() -> None:
    """Two steps by hand, the second on what the first remembered; the gradient is that of the unmoved bank."""
    method = with_bank(F.normalize(normal(9, 4), dim=1))
    bank, tau, m = method.bank.clone(), method.config.temperature, method.config.momentum
    for step in range(2):
        batch = make_batch(method.config, B=6, step=step)
        batch.index = torch.arange(6) + 3 * step  # three images come again
        features = method.backbone(batch.views[0])
        out = method.step(batch)
        z = method.head(features)
        expected = restated(z, bank, batch.index, tau)
        torch.testing.assert_close(out.loss, expected, **EXACT)
        torch.testing.assert_close(out.terms["instance"], expected, **EXACT)
        weights: list[Parameter] = list(method.head.parameters())
        for ours, by_hand in zip(
            torch.autograd.grad(out.loss, weights), torch.autograd.grad(expected, weights), strict=True
        ):
            torch.testing.assert_close(ours, by_hand, **EXACT)
        for own, row in zip(batch.index.tolist(), z.detach(), strict=True):
            bank[own] = moved(bank[own], row, m)
        torch.testing.assert_close(method.bank, bank, **EXACT)


def test_a_bank_has_a_unit_row_for_every_train_image() -> None:
    method = build(config("inst_disc"))
    assert method.bank.shape == (256, 64)
    torch.testing.assert_close(method.bank.norm(dim=1), torch.ones(256, dtype=torch.float64), rtol=1e-6, atol=0)
    assert method.state_dict()["bank"] is not None


def test_official_code_gives_these_numbers() -> None:
    """zhirongw/lemniscate.pytorch@f7cfe29, lib/LinearAverage.py on `grid`: loss, sum |gradient|, the bank."""
    method = with_bank(F.normalize(grid(7, 4, 0.5, 1.3), dim=1))
    steps = (
        (3.4123750147860945, 11.432342934459665, [4, 1, 6]),
        (7.29755066308694, 10.29703987135876, [1, 0, 4]),
    )
    for step, (loss, slope, images) in enumerate(steps):
        z, index = grid(3, 4, 0.9 + 0.2 * step, 0.6).requires_grad_(), torch.tensor(images)
        ours = instance_loss(z, method.bank.clone(), index, 0.1)
        method.remember(z, index)
        (gradient,) = torch.autograd.grad(ours, z)
        assert ours.item() == pytest.approx(loss, rel=1e-10)
        assert gradient.abs().sum().item() == pytest.approx(slope, rel=1e-10)
    rows = {
        0: [0.33081930489654693, 0.7344114636458263, 0.3011384906186041, -0.5104057200319267],
        1: [0.3621982474142653, 0.8115636628153974, 0.4408994704744538, 0.12563641073763948],
        4: [0.9329200495468554, -0.3449244462068707, 0.0443537881850264, 0.09338120279806908],
        6: [0.6342096478740303, -0.2245616308629119, -0.02219821671662555, -0.7394980971322979],
    }
    for image, row in rows.items():
        assert method.bank[image].tolist() == pytest.approx(row, rel=1e-9)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("method.temperature=0", "NPID's temperature is 0.0, expected a number above 0"),
        ("method.momentum=1", "NPID's momentum is 1.0, expected 0 or more and less than 1"),
        ("method.momentum=-0.1", "NPID's momentum is -0.1, expected 0 or more and less than 1"),
        ("method.widths=(0,)", "method.widths is (0,), expected one or more positive widths"),
    ],
)
def test_impossible_settings_are_refused(override: str, message: str) -> None:
    with pytest.raises(BadRecipe) as caught:
        registry.recipe("inst_disc_digits_r10w16_e50", (override,))
    assert str(caught.value).endswith(message)
    assert "\n" not in str(caught.value)


def test_a_set_whose_images_never_come_again_is_refused() -> None:
    name = "aninfonce_sphere_mlp_s1001_bimodal"
    with pytest.raises(BadRecipe) as caught:
        check(replace(registry.recipe(name), method=Config()))
    assert str(caught.value) == (
        f"recipe {name!r}: NPID remembers images by their index, and data set 'sphere' draws its pairs anew in each "
        "step; use another data set"
    )


def test_a_second_view_is_refused() -> None:
    recipe = registry.recipe("simclr_digits_r10w16_e50")
    with pytest.raises(BadRecipe, match=r"NPID needs the views \[global of element 0\]; the recipe gives"):
        check(replace(recipe, method=Config()))
