"""TiCo against its equations, written out in loops, and numbers of lightly's code; its covariance and its teacher."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from contracts import TRAIN, SmallBackbone, build, config, make_batch
from torch import Tensor

from harness import registry
from harness.api import Clock
from harness.errors import HarnessError
from methods.tico import Config, second_moment, tico_terms


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def grid(n: int, d: int, a: float, b: float) -> Tensor:
    """The inputs of the recorded values: sin(a i + b j + 0.3 i j)."""
    i, j = torch.arange(n, dtype=torch.float64)[:, None], torch.arange(d, dtype=torch.float64)
    return torch.sin(a * i + b * j + 0.3 * i * j)


def small(**changes: Any) -> Any:
    return build(config("tico", widths=(24, 5), **changes))


def loss_of(a: Tensor, b: Tensor, before: Tensor, beta: float = 0.9, rho: float = 8.0) -> Tensor:
    terms = tico_terms(a, b, beta * before + (1 - beta) * second_moment(a.detach()))
    return terms["invariance"] + rho * terms["covariance"]


def unit(z: Tensor) -> list[Tensor]:
    return [row / torch.sqrt(sum(x * x for x in row)) for row in z]


def restated(a: Tensor, b: Tensor, before: Tensor, beta: float = 0.9, rho: float = 8.0) -> Tensor:
    """One image and one entry of C after the other."""
    n, d = a.shape
    a_rows, b_rows = unit(a), unit(b)
    loss = a.new_ones(())
    for k in range(n):
        loss = loss - sum(a_rows[k][i] * b_rows[k][i] for i in range(d)) / n
    for i in range(d):
        for j in range(d):
            new = sum(row[i].detach() * row[j].detach() for row in a_rows) / n
            c = beta * before[i, j] + (1 - beta) * new
            loss = loss + rho * sum(row[i] * c * row[j] for row in a_rows) / n
    return loss


@pytest.mark.parametrize(("n", "d", "beta", "rho"), [(7, 5, 0.9, 8.0), (4, 6, 0.9, 20.0), (6, 4, 0.0, 1.0)])
def test_loss_and_gradients(held: Callable[..., None], n: int, d: int, beta: float, rho: float) -> None:
    a = normal(n, d, seed=1)
    b, before = a + 0.7 * normal(n, d, seed=2), second_moment(normal(9, d, seed=3))
    held(lambda x, y, C: loss_of(x, y, C, beta, rho), lambda x, y, C: restated(x, y, C, beta, rho), a, b, before)


def test_numbers_of_lightly() -> None:
    """lightly-ai/lightly@e8d317f, TiCoLoss() on three batches, one after the other: losses, gradients and C."""
    recorded = [
        (0.3160679727106065, -0.013487661759456315, -0.008064684981122604),
        (0.340415330457148, -0.003388951027721689, -0.0011478915590245505),
        (0.5303397960865331, -0.0074791469094237, 0.01084400664172704),
    ]
    method = small()
    for values, (p, q) in zip(recorded, [(0.7, 1.3), (0.9, 0.5), (1.7, 0.2)], strict=True):
        a = grid(8, 5, p, q).requires_grad_()
        b = grid(8, 5, p, q) + 0.5 * grid(8, 5, 1.1, 0.4)
        method.covariance.update(second_moment(a.detach()))
        terms = tico_terms(a, b, method.covariance.mean)
        loss = terms["invariance"] + method.config.covariance * terms["covariance"]
        gradient = torch.autograd.grad(loss, a)[0]
        assert (loss.item(), gradient[1, 2].item(), gradient[6, 4].item()) == pytest.approx(values, rel=1e-10)
    assert method.covariance.mean[0, 1].item() == pytest.approx(-0.0028565539488767727, rel=1e-10)
    assert method.covariance.mean.trace().item() == pytest.approx(1 - 0.9**3, rel=1e-12)


# ---------------------------------------------------------------------------------------------- by hand


@pytest.mark.parametrize(
    ("a", "b", "invariance", "covariance"),
    [
        (torch.ones(4, 3), torch.ones(4, 3), 0.0, 1.0),  # collapsed: the worst C
        (torch.eye(4), torch.eye(4), 0.0, 1 / 4),  # as many directions as dimensions: the best
        (torch.eye(4), -torch.eye(4), 2.0, 1 / 4),  # opposite views
        (torch.eye(4), torch.eye(4).roll(1, 0), 1.0, 1 / 4),  # orthogonal ones
        (torch.eye(6)[[0, 0, 1]], torch.eye(6)[[0, 0, 1]], 0.0, 5 / 9),  # two of three alike
    ],
)
def test_by_hand(a: Tensor, b: Tensor, invariance: float, covariance: float) -> None:
    a, b = a.double(), b.double()
    terms = tico_terms(a, b, second_moment(a))
    assert terms["invariance"].item() == pytest.approx(invariance, abs=1e-12)
    assert terms["covariance"].item() == pytest.approx(covariance, rel=1e-12)


def test_what_changes_nothing() -> None:
    """Lengths of rows, one rotation of everything, the order of the images."""
    a, b, before = normal(7, 5, seed=1), normal(7, 5, seed=2), second_moment(normal(9, 5, seed=3))
    rotation = torch.linalg.qr(normal(5, 5, seed=4)).Q
    found = loss_of(a, b, before)
    for other in (
        loss_of(a * normal(7, 1, seed=5).exp(), b * normal(7, 1, seed=6).exp(), before),
        loss_of(a @ rotation, b @ rotation, rotation.T @ before @ rotation),
        loss_of(a.flip(0), b.flip(0), before),
    ):
        torch.testing.assert_close(other, found, rtol=1e-12, atol=1e-12)
    assert not math.isclose(loss_of(a @ rotation, b, before).item(), found.item(), rel_tol=1e-3)


# ---------------------------------------------------------------------------------------------- steps


def test_step_takes_in_the_batch_and_then_compares_with_all_that_was() -> None:
    """C is a memory of every row seen: the term is the mean of squared cosines, batches weighed by age."""
    method = small(invariance=0.5, covariance=3.0, beta=0.6)
    seen: list[list[Tensor]] = []
    for step in range(3):
        batch = make_batch(method.config, step=step)
        batch.views = [view * (step + 1) for view in batch.views]
        a = unit(method.projector(method.backbone(batch.views[0])))
        b = unit(method.teacher(batch.views[1]))
        seen.append(a)
        out = method.step(batch)
        covariance = sum(
            0.4 * 0.6**age * sum((x @ y) ** 2 for x in a for y in rows) / (len(a) * len(rows))
            for age, rows in enumerate(reversed(seen))
        )
        invariance = 1 - sum(x @ y for x, y in zip(a, b, strict=True)) / len(a)
        torch.testing.assert_close(out.terms["covariance"], covariance, rtol=1e-10, atol=0)
        torch.testing.assert_close(out.terms["invariance"], invariance, rtol=1e-10, atol=1e-14)
        torch.testing.assert_close(out.loss, 0.5 * invariance + 3.0 * covariance, rtol=1e-10, atol=0)


def test_no_gradient_goes_through_the_covariance_or_the_teacher() -> None:
    """The gradient of a'Ca is 2 C a: twice what it is when one of its two factors a is held, too."""
    method = small(invariance=0.0, covariance=1.0)
    out = method.step(make_batch(method.config))
    found = torch.autograd.grad(out.loss, out.embedding)[0]
    z = out.embedding.detach().requires_grad_()
    rows = torch.nn.functional.normalize(z, dim=1)
    half = (rows * (rows @ method.covariance.mean).detach()).sum() / len(z)
    torch.testing.assert_close(found, 2 * torch.autograd.grad(half, z)[0], rtol=1e-10, atol=1e-14)
    assert not method.covariance.mean.requires_grad
    assert not any(p.requires_grad for p in method.teacher.parameters())


@pytest.mark.parametrize(
    ("step", "momentum"),
    [(0, 1 - 0.1 * (1 + math.cos(math.pi / 10)) / 2), (4, 0.95), (9, 1.0), (10, 1.0)],
)
def test_teacher_follows_by_the_momentum_of_the_step_to_come(step: int, momentum: float) -> None:
    """lightly moves it before step i of 11, along a cosine from 0.9 at step 0, which is without effect, to 1 at 10."""
    method = small(momentum=0.9)
    before = [p.clone() for p in method.teacher.parameters()]
    with torch.no_grad():
        for p in (*method.backbone.parameters(), *method.projector.parameters()):
            p += 1
    method.after_step(Clock(step, steps=11, steps_per_epoch=11))
    for was, now in zip(before, method.teacher.parameters(), strict=True):
        torch.testing.assert_close(now, was + (1 - momentum), rtol=1e-12, atol=1e-14)


def test_a_run_of_one_step_has_a_schedule() -> None:
    small().after_step(Clock(0, steps=1, steps_per_epoch=1))


def test_heads_and_what_is_evaluated() -> None:
    method: Any = config("tico").build(SmallBackbone(), TRAIN)
    layers = list(method.projector)
    assert [type(layer).__name__ for layer in layers] == ["Linear", "BatchNorm1d", "ReLU", "Linear"]
    assert [layer.bias is not None for layer in (layers[0], layers[-1])] == [False, True]
    assert method.encoder() == ("student", method.backbone)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("method.beta=1", "TiCo's beta is 1.0, expected at least 0 and below 1, where C would stay 0"),
        ("method.beta=-0.1", "TiCo's beta is -0.1, expected at least 0 and below 1, where C would stay 0"),
        ("method.momentum=1.5", "TiCo's momentum is 1.5, expected 0 to 1"),
    ],
)
def test_impossible_settings_are_refused(override: str, message: str) -> None:
    with pytest.raises(HarnessError) as refusal:
        registry.recipe("tico_digits_r10w16_e50", (override,))
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_published_defaults() -> None:
    assert Config().weights() == {"invariance": 1.0, "covariance": 8.0}
    assert (Config().beta, Config().momentum, Config().widths) == (0.9, 0.99, (4096, 256))
