"""DCL and DCLW against their equations in loops, numbers of two public implementations, and NT-Xent."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from contracts import build, config, make_batch
from torch import Tensor

from harness import registry
from harness.errors import BadRecipe
from methods.dcl import dcl_terms
from methods.simclr import nt_xent

RECIPE = "dcl_digits_r10w16_e50"


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def grid(n: int, d: int, a: float, b: float) -> Tensor:
    """The inputs of the recorded values: sin(a i + b j + 0.3 i j)."""
    i, j = torch.arange(n, dtype=torch.float64)[:, None], torch.arange(d, dtype=torch.float64)
    return torch.sin(a * i + b * j + 0.3 * i * j)


def dcl(a: Tensor, b: Tensor, tau: float, sigma: float | None = None, weight_gradient: bool = True) -> Tensor:
    return sum(dcl_terms(a, b, tau, sigma, weight_gradient).values(), start=torch.zeros(()))


def cosine(x: Tensor, y: Tensor) -> Tensor:
    return (x * y).sum() / ((x * x).sum() * (y * y).sum()).sqrt()


def restated(a: Tensor, b: Tensor, tau: float, sigma: float | None = None, weight_gradient: bool = True) -> Tensor:
    """NT-Xent's denominator of each of the 2N rows, less its positive; weights image by image."""
    n, rows = len(a), [*a, *b]
    weights = [torch.ones((), dtype=torch.float64) for _ in range(n)]
    if sigma is not None:
        powers = [torch.exp(cosine(a[i], b[i]) / sigma) for i in range(n)]
        powers = powers if weight_gradient else [power.detach() for power in powers]
        mean = sum(powers, start=torch.zeros(())) / n
        weights = [2 - power / mean for power in powers]
    losses = []
    for i in range(2 * n):
        other = (i + n) % (2 * n)
        positive = cosine(rows[i], rows[other]) / tau
        nt_xent_sum = sum((torch.exp(cosine(rows[i], rows[k]) / tau) for k in range(2 * n) if k != i), torch.zeros(()))
        losses.append(-weights[i % n] * positive + torch.log(nt_xent_sum - torch.exp(positive)))
    return torch.stack(losses).mean()


@pytest.mark.parametrize(("sigma", "weight_gradient"), [(None, True), (0.5, True), (0.5, False)])
def test_loss_and_gradients(held: Callable[..., None], sigma: float | None, weight_gradient: bool) -> None:
    rest = (0.3, sigma, weight_gradient)
    held(lambda a, b: dcl(a, b, *rest), lambda a, b: restated(a, b, *rest), normal(5, 4, seed=1), normal(5, 4, seed=2))


@pytest.mark.parametrize(
    ("sigma", "weight_gradient", "directions", "value", "gradient"),
    [
        (None, True, 2, -11.613608243953488, 4.605642499463297),  # raminnakhli@0b9b76d, DCL, its two directions added
        (0.5, True, 2, -11.570234440847623, 4.707785396220378),  # DCLW
        (None, False, 1, -5.806804121976744, 2.302821249731649),  # lightly@e8d317f, DCLLoss
        (0.5, False, 1, -5.785117220423813, 2.328069873367901),  # DCLWLoss
    ],
)
def test_numbers_of_public_code(
    sigma: float | None, weight_gradient: bool, directions: int, value: float, gradient: float
) -> None:
    """Loss, and norm of the first view's gradient, at tau 0.1."""
    a = grid(6, 5, 0.7, 0.9).requires_grad_()
    loss = directions * dcl(a, grid(6, 5, 0.8, 0.85), 0.1, sigma, weight_gradient)
    loss.backward()
    assert loss.item() == pytest.approx(value, rel=1e-10)
    assert a.grad is not None
    assert a.grad.norm().item() == pytest.approx(gradient, rel=1e-10)


@pytest.mark.parametrize("sigma", [None, 0.5])
def test_collapsed_and_orthogonal_batches(sigma: float | None) -> None:
    """Where all positives are alike, every weight is 1."""
    one, apart = torch.ones(4, 3, dtype=torch.float64), torch.eye(4, dtype=torch.float64)
    assert dcl(one, one, 0.1, sigma).item() == pytest.approx(math.log(6), rel=1e-10)  # the temperature cancels
    assert dcl(apart, apart, 0.1, sigma).item() == pytest.approx(-10 + math.log(6), rel=1e-10)


def test_nt_xent_has_the_positive_in_its_denominator() -> None:
    """On a batch whose rows are all alike, so that the means can be undone."""
    a = torch.eye(4, dtype=torch.float64)
    sums = [math.exp(loss.item() + 2) for loss in (nt_xent(a, a, a, a, 2.0, None), dcl(a, a, 0.5))]
    assert sums[0] - sums[1] == pytest.approx(math.exp(2), rel=1e-10)


def test_weights_by_hand() -> None:
    """Cosines 1 and 0 at sigma 0.5: softmax e^2 / (e^2 + 1), so the harder pair weighs more, and they sum to 2."""
    a = torch.eye(4, dtype=torch.float64)[:2]
    b = torch.eye(4, dtype=torch.float64)[[0, 2]]
    share = math.exp(2) / (math.exp(2) + 1)
    assert dcl_terms(a, b, 0.1, 0.5, True)["positive"].item() == pytest.approx(-(2 - 2 * share) * 10 / 2, rel=1e-10)
    c = a.clone().requires_grad_()
    dcl_terms(c, b, 0.1, 0.5, False)["positive"].backward()
    assert c.grad is not None
    assert c.grad[1, 2].item() == pytest.approx(-2 * share * 10 / 2, rel=1e-10)  # the weight 2 - 2 (1 - share)


def test_an_easy_positive_is_pulled_as_hard_as_any() -> None:
    """The decoupling: the slope along the positive's cosine is -1 / tau wherever it is; NT-Xent's fades."""
    cosines, slopes = (0.0, 0.9), {"dcl": [], "nt_xent": []}  # type: ignore[var-annotated]
    for value in cosines:
        for name in slopes:
            x = torch.tensor(value, dtype=torch.float64, requires_grad=True)
            e = torch.eye(4, dtype=torch.float64)
            b = torch.stack([x * e[0] + (1 - x * x).sqrt() * e[2], x * e[1] + (1 - x * x).sqrt() * e[3]])
            loss = dcl(e[:2], b, 0.1) if name == "dcl" else nt_xent(b, e[:2], e[:2], b, 10.0, None)
            slopes[name].append(torch.autograd.grad(loss, x)[0].item())
    assert slopes["dcl"] == pytest.approx([-10, -10], rel=1e-10)
    assert slopes["nt_xent"][0] < -2
    assert slopes["nt_xent"][1] > -0.01


@pytest.mark.parametrize("case", ["dcl", "dcl-weighted"])
def test_step_is_the_sum_of_both_terms(case: str) -> None:
    method: Any = build(config(case))
    batch = make_batch(method.config)
    out = method.step(batch)
    a, b = (method.projector(method.backbone(view)) for view in batch.views)
    assert out.loss.item() == pytest.approx(restated(a, b, 0.1, 0.5 if "weighted" in case else None).item(), rel=1e-10)
    assert out.loss.item() == pytest.approx(sum(term.item() for term in out.terms.values()), rel=1e-12)
    torch.testing.assert_close(torch.stack(out.projections), torch.stack([a, b]))


def test_head_ends_with_a_batch_norm_where_it_is_asked_for() -> None:
    method: Any = build(config("dcl", last_norm=True))
    last = list(method.projector)[-2:]
    assert [type(layer).__name__ for layer in last] == ["Linear", "BatchNorm1d"]
    assert last[0].bias is None


def test_labels() -> None:
    assert [config(case).label for case in ("dcl", "dcl-weighted")] == ["DCL", "DCLW"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("method.temperature=0.0", "DCL's temperature is 0.0 and its sigma 0.5, expected numbers above 0"),
        ("method.sigma=-1.0", "DCL's temperature is 0.1 and its sigma -1.0, expected numbers above 0"),
    ],
)
def test_refusals(override: str, message: str) -> None:
    with pytest.raises(BadRecipe) as caught:
        registry.recipe(RECIPE, (override,))
    assert str(caught.value) == f"recipe '{RECIPE}': {message}"
