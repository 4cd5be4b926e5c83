"""W-MSE against its equations in loops of scalars, numbers of the official code, what Cholesky whitening implies."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from contracts import build, config, make_batch
from torch import Tensor

from harness import registry, train
from harness.errors import BadRecipe
from harness.nn import mlp
from methods.w_mse import Config, w_mse, whiten

RECIPE = "w_mse_digits_r10w16_e50"
ORDER = torch.tensor([[5 * i % 12 for i in range(12)], [7 * i % 12 for i in range(12)]])


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def grid(n: int, d: int, a: float, b: float) -> Tensor:
    """The inputs of the recorded official values: sin(a i + b j + 0.3 i j)."""
    i, j = torch.arange(n, dtype=torch.float64)[:, None], torch.arange(d, dtype=torch.float64)
    return torch.sin(a * i + b * j + 0.3 * i * j)


VIEWS = [grid(12, 3, 0.7, 0.9), grid(12, 3, 0.8, 0.85), grid(12, 3, 0.6, 1.0), grid(12, 3, 0.75, 0.95)]


def whitened_rows(rows: list[list[Tensor]], eps: float) -> list[list[Tensor]]:
    """Cholesky-Banachiewicz and forward substitution, entry by entry."""
    S, D = len(rows), len(rows[0])
    mean = [sum((row[j] for row in rows), start=torch.zeros(())) / S for j in range(D)]
    centred = [[row[j] - mean[j] for j in range(D)] for row in rows]
    low: list[list[Tensor]] = [[torch.zeros((), dtype=torch.float64)] * D for _ in range(D)]
    for j in range(D):
        for k in range(j + 1):
            c = (1 - eps) * sum((row[j] * row[k] for row in centred), start=torch.zeros(())) / (S - 1)
            c = c + eps * (j == k) - sum((low[j][m] * low[k][m] for m in range(k)), start=torch.zeros(()))
            low[j][k] = c.sqrt() if j == k else c / low[k][k]
    out = []
    for row in centred:
        y: list[Tensor] = []
        for j in range(D):
            y.append((row[j] - sum((low[j][m] * y[m] for m in range(j)), start=torch.zeros(()))) / low[j][j])
        out.append(y)
    return out


def restated(views: list[Tensor], orders: Tensor, sub_batch: int, eps: float) -> Tensor:
    """Every partition, sub-batch, pair of views and image in turn."""
    losses = []
    for order in orders.tolist():
        for start in range(0, len(order), sub_batch):
            chosen = order[start : start + sub_batch]
            white = [whitened_rows([list(view[i]) for i in chosen], eps) for view in views]
            for p in range(len(views)):
                for q in range(p + 1, len(views)):
                    for x, y in zip(white[p], white[q], strict=True):
                        dot, xx, yy = (
                            sum((s * t for s, t in zip(u, v, strict=True)), start=torch.zeros(()))
                            for u, v in ((x, y), (x, x), (y, y))
                        )
                        losses.append(2 - 2 * dot / (xx.sqrt() * yy.sqrt()))
    return torch.stack(losses).mean()


def ours(views: list[Tensor], orders: Tensor, sub_batch: int, eps: float = 0.0) -> Tensor:
    return w_mse(torch.stack(views), orders, sub_batch, eps)


@pytest.mark.parametrize(("views", "partitions", "eps"), [(2, 1, 0.0), (4, 2, 0.0), (2, 2, 0.1)])
def test_loss_and_gradients(held: Callable[..., None], views: int, partitions: int, eps: float) -> None:
    inputs = [normal(12, 3, seed=1 + v) + 0.5 for v in range(views)]
    order = ORDER[:partitions]
    held(lambda *z: ours(list(z), order, 6, eps), lambda *z: restated(list(z), order, 6, eps), *inputs)


@pytest.mark.parametrize(
    ("views", "partitions", "eps", "value", "gradient"),
    [
        (2, 1, 0.0, 0.4727229806849331, 0.5488364157220367),
        (4, 2, 0.0, 0.4998163419287916, 0.07881749247594111),
        (2, 2, 0.1, 0.44514848320787703, 0.2711017568444774),
    ],
)
def test_numbers_of_the_official_code(views: int, partitions: int, eps: float, value: float, gradient: float) -> None:
    """htdt/self-supervised@d9662c8 on the permutations of ORDER: loss, and norm of the first view's gradient."""
    first = VIEWS[0].clone().requires_grad_()
    loss = ours([first, *VIEWS[1:views]], ORDER[:partitions], 6, eps)
    loss.backward()
    assert loss.item() == pytest.approx(value, rel=1e-10)
    assert first.grad is not None
    assert first.grad.norm().item() == pytest.approx(gradient, rel=1e-10)


# ---------------------------------------------------------------------------------------------- whitening


def test_whitened_rows_have_mean_0_and_covariance_1() -> None:
    z = whiten(normal(2, 40, 7) @ normal(7, 7, seed=1) + 3, 0.0)
    torch.testing.assert_close(z.mean(1), torch.zeros(2, 7, dtype=torch.float64), rtol=0, atol=1e-12)
    torch.testing.assert_close(z.mT @ z / 39, torch.eye(7, dtype=torch.float64).expand(2, 7, 7), rtol=0, atol=1e-12)


def test_whitening_is_gram_schmidt_over_dimensions() -> None:
    z = normal(20, 4) + 1
    basis: list[Tensor] = []
    for column in (z - z.mean(0)).T:
        for one in basis:
            column = column - (column @ one) * one
        basis.append(column / column.norm())
    torch.testing.assert_close(whiten(z, 0.0), math.sqrt(19) * torch.stack(basis, dim=1), rtol=1e-10, atol=1e-12)


def test_each_view_may_be_moved_scaled_and_mixed_upwards() -> None:
    """A triangular map of positive diagonal, another for each view, changes nothing; any other linear map may."""
    a, b = normal(12, 3, seed=1), normal(12, 3, seed=2)
    maps = [normal(3, 3, seed=seed).triu(1) + torch.diag(normal(3, seed=seed).abs() + 0.1) for seed in (3, 4)]
    moved = [a @ maps[0] + 5, b @ maps[1] - 7]
    assert ours(moved, ORDER, 6).item() == pytest.approx(ours([a, b], ORDER, 6).item(), rel=1e-10)
    turned = [a @ normal(3, 3, seed=5), b @ normal(3, 3, seed=5)]
    assert abs(ours(turned, ORDER, 6).item() - ours([a, b], ORDER, 6).item()) > 1e-3


def test_values_by_hand() -> None:
    a = normal(12, 3)
    assert ours([a, 3 * a + 2], ORDER, 6).item() == pytest.approx(0, abs=1e-12)
    assert ours([a, -a], ORDER, 6).item() == pytest.approx(4, rel=1e-12)
    # one dimension: the cosine is the product of the signs of what lies around the mean, -+, -- and ++
    x, y = torch.tensor([[0.0], [1.0], [5.0]]).double(), torch.tensor([[3.0], [0.0], [3.0]]).double()
    assert ours([x, y], torch.tensor([[0, 1, 2]]), 3).item() == pytest.approx(4 / 3, rel=1e-12)


def test_four_views_are_the_mean_of_six_pairs() -> None:
    pairs = [ours([VIEWS[p], VIEWS[q]], ORDER, 6).item() for p in range(4) for q in range(p + 1, 4)]
    assert ours(VIEWS, ORDER, 6).item() == pytest.approx(sum(pairs) / 6, rel=1e-12)


def test_a_sub_batch_has_no_order_and_the_whole_batch_needs_no_permutation() -> None:
    pair = VIEWS[:2]
    same = torch.cat([ORDER[:1, :6].flip(1), ORDER[:1, 6:]], dim=1)
    assert ours(pair, same, 6).item() == pytest.approx(ours(pair, ORDER[:1], 6).item(), rel=1e-12)
    assert ours(pair, ORDER[:1], 12).item() == pytest.approx(ours(pair, ORDER[1:], 12).item(), rel=1e-12)
    assert abs(ours(pair, ORDER[:1], 6).item() - ours(pair, ORDER[1:], 6).item()) > 1e-4


def test_whitening_is_in_float64_whatever_the_embeddings_are() -> None:
    """Two dimensions that differ by 1e-4 of their spread: a condition number of 1e8."""
    z = normal(2, 128, 8)
    z[..., 1] = z[..., 0] + 1e-4 * z[..., 1]
    z = z.float()
    assert whiten(z, 0.0).dtype == torch.float32
    torch.testing.assert_close(whiten(z, 0.0), whiten(z.double(), 0.0).float(), rtol=1e-6, atol=0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert w_mse(z.bfloat16(), torch.arange(128)[None], 128, 0.0).dtype == torch.float32


# ---------------------------------------------------------------------------------------------- the step


@pytest.mark.parametrize("case", ["w_mse", "w_mse-v4"])
def test_step_whitens_what_the_draws_chose(case: str) -> None:
    method: Any = build(config(case, iterations=2))
    batch, again = make_batch(method.config), make_batch(method.config)
    out = method.step(batch)
    z = method.projector(torch.cat([method.backbone(view) for view in batch.views])).unflatten(
        0, (len(batch.views), -1)
    )
    order = again.draws.uniform(2, z.shape[1], shared=True).argsort(dim=1)
    assert out.loss.item() == pytest.approx(w_mse(z, order, method.config.sub_batch, 0.0).item(), rel=1e-12)
    torch.testing.assert_close(torch.stack(out.projections), z)
    assert len(batch.views) == method.config.views


def test_each_step_partitions_anew() -> None:
    method = build(config("w_mse"))
    method.eval()  # no running statistics
    batch_size = 2 * method.config.sub_batch
    losses = {method.step(make_batch(method.config, batch_size, step=step)).loss.item() for step in range(3)}
    assert len(losses) == 3


# ---------------------------------------------------------------------------------------------- what goes wrong


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_singular_covariance_is_not_a_number_and_no_exception(dtype: torch.dtype) -> None:
    z = normal(3, 12, 4).to(dtype)
    z[0] = 1.0  # collapsed; the second has a dimension that is constant, the third is as it should be
    z[1, :, 2] = 0.5
    white = whiten(z, 0.0)
    assert white[:2].isnan().all()
    assert white[2].isfinite().all()
    assert w_mse(z[:2], torch.arange(12)[None], 6, 0.0).isnan()
    assert whiten(z, 0.01).isfinite().all()
    assert whiten(torch.full((12, 4), torch.nan, dtype=dtype), 0.0).isnan().all()


def test_a_run_with_a_singular_covariance_is_diverged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flat(*widths: int) -> torch.nn.Sequential:
        """A head whose first output is always 0."""
        head = mlp(*widths)
        torch.nn.init.zeros_(head[-1].weight[0])  # type: ignore[index]
        return head

    monkeypatch.setattr("methods.w_mse.mlp", flat)
    record = train.run(registry.recipe(RECIPE), 0, tmp_path, device="cpu", show=False)
    assert record["status"] == "diverged"
    assert record["reason"] == "loss is nan at step 0 (w_mse nan)"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "method.sub_batch=32",
            "W-MSE whitens 32 dimensions by sub_batch=32 images, whose covariance is singular; expected sub_batch of "
            "33 or more, such as 64, or a narrower widths[-1]",
        ),
        ("method.views=1", "W-MSE has views=1, expected 2 or more"),
        ("method.iterations=0", "W-MSE has iterations=0, expected 1 or more"),
        ("method.eps=1.0", "W-MSE's eps is 1.0, expected 0 or more, under 1"),
        (
            "budget.batch=96",
            "batch 96 is not a multiple of 64, as W-MSE 2 needs; change budget.batch",
        ),
        (
            "method.views=4",
            "W-MSE 4 needs the views [global of element 0, global of element 1, global of element 0, global of element "
            "1]; the recipe gives [global of element 0, global of element 1]",
        ),
    ],
)
def test_refusals(override: str, message: str) -> None:
    with pytest.raises(BadRecipe) as caught:
        registry.recipe(RECIPE, (override,))
    assert str(caught.value) == f"recipe '{RECIPE}': {message}"


def test_a_shrunk_covariance_may_be_of_few_images() -> None:
    assert Config(widths=(8, 8), sub_batch=4, eps=0.1).label == "W-MSE 2"
