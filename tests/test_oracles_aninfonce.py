"""AnInfoNCE against its equation, restated pair by pair, and numbers of the official code."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from contracts import build, config, make_batch
from test_oracles import EXACT, assert_gradient, grid, normal
from torch import Tensor

from methods.aninfonce import aninfonce


def oracle(a: Tensor, b: Tensor, sharpness: Tensor) -> Tensor:
    """Mean over both points of every pair of log(sum over candidates of exp(similarity)) - similarity of the pair."""
    n = len(a)
    total = torch.zeros(())

    def similarity(x: Tensor, y: Tensor) -> Tensor:
        return -0.5 * sum(s * (p - q) ** 2 for s, p, q in zip(sharpness, x, y, strict=True))

    for i in range(n):
        positive = similarity(a[i], b[i])
        across = [similarity(a[i], b[j]) for j in range(n) if j != i]  # also for the anchor in b, as the oracle has it
        for view in (a, b):
            within = [similarity(view[i], view[j]) for j in range(n) if j != i]
            total = total + sum(s.exp() for s in [positive, *across, *within]).log() - positive
    return total / (2 * n)


@pytest.mark.parametrize("n", [2, 7])
def test_aninfonce_is_the_equation(n: int, held: Callable[..., None]) -> None:
    a, b = (torch.nn.functional.normalize(normal(n, 5, seed=seed), dim=1) for seed in (1, 2))
    sharpness = 20 * normal(5, seed=3).abs()
    held(aninfonce, oracle, a, b, sharpness)
    assert_gradient(aninfonce, a, b, sharpness)


# brendel-group/AnInfoNCE@c6907e5, losses.py, AnInfoNCELoss on `grid` inputs: the loss, and the norms of its gradients
OFFICIAL = {
    (8, 4, (-1, 0, 1, 3)): (2.328773298752341, 0.4640030042920544, 0.3854123873594611, 0.173977992554024),
    (12, 5, (5, 2, 0, -2, 20)): (6.671879516341972, 2.271591176053611, 2.375787711223343, 0.2503887935969621),
}


@pytest.mark.parametrize("case", OFFICIAL)
def test_aninfonce_meets_the_official_numbers(case: tuple[int, int, tuple[int, ...]]) -> None:
    n, d, values = case
    inputs = [grid(n, d, 0.7, 1.1), grid(n, d, 0.9, 0.4)]
    a, b = (torch.nn.functional.normalize(x.requires_grad_(), dim=1) for x in inputs)
    raw = torch.tensor(values, dtype=torch.float64, requires_grad=True)
    loss = aninfonce(a, b, torch.nn.functional.softplus(raw))
    norms = [gradient.norm().item() for gradient in torch.autograd.grad(loss, [*inputs, raw])]
    assert [loss.item(), *norms] == pytest.approx(OFFICIAL[case], abs=1e-10)


def test_the_step_normalises_and_learns_the_sharpness() -> None:
    method = build(config("aninfonce"))
    batch = make_batch(method.config)
    out = method.step(batch)
    raw = method.raw_sharpness.detach()
    assert 0 < raw.abs().mean() < 0.2  # a tenth of a standard normal at first
    sharpness = np.log1p(np.exp(raw.numpy()))
    a, b = (method.backbone(view).detach() for view in batch.views)
    a, b = (x / x.norm(dim=1, keepdim=True) for x in (a, b))
    assert out.loss.item() == pytest.approx(oracle(a, b, torch.from_numpy(sharpness)).item(), abs=1e-10)
    assert out.diagnostics["sharpness_max"].item() == pytest.approx(sharpness.max())
    own = [group for group in method.param_groups() if group.own_adam]
    assert [(group.params[0] is method.raw_sharpness, group.own_adam) for group in own] == [(True, 1e-3)]


def test_infonce_weighs_all_dimensions_alike() -> None:
    """On unit vectors it is the cross-entropy of cosines over the temperature."""
    method = build(config("aninfonce-infonce"))
    batch = make_batch(method.config)
    a, b = (torch.nn.functional.normalize(method.backbone(view), dim=1) for view in batch.views)
    others = ~torch.eye(len(a), dtype=torch.bool)
    across, positive = (a @ b.T / 0.5).exp(), (a * b).sum(1) / 0.5
    within = [((x @ x.T / 0.5).exp() * others).sum(1) for x in (a, b)]
    want = torch.stack([(across.sum(1) + one).log() - positive for one in within]).mean()
    torch.testing.assert_close(method.step(batch).loss, want, **EXACT)
    assert method.config.label == "InfoNCE"
    assert not any(group.own_adam for group in method.param_groups())
    with pytest.raises(ValueError, match="AnInfoNCE's temperature is 0, expected None or a number above 0"):
        config("aninfonce", temperature=0)
