"""NNCLR against its equation in loops, four steps of solo-learn@9187ea3 and the loss of lightly@e8d317f.

No code of the authors was found. solo-learn: solo/methods/nnclr.py and solo/losses/nnclr.py. lightly:
lightly/loss/ntx_ent_loss.py and lightly/models/modules/nn_memory_bank.py.
"""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from contracts import TRAIN, build, config, make_batch, train
from torch import Tensor, nn

from harness.api import Backbone, Batch, Clock, Draws
from methods.nnclr import Config, contrast, neighbours

RECIPE = "nnclr_digits_r10w16_e50"
BOTH = pytest.mark.parametrize("all_negatives", [False, True])


def grid(n: int, d: int, a: float, b: float) -> Tensor:
    """The inputs of the recorded values: sin(a i + b j + 0.3 i j)."""
    i, j = torch.arange(n, dtype=torch.float64)[:, None], torch.arange(d, dtype=torch.float64)
    return torch.sin(a * i + b * j + 0.3 * i * j)


def unit(rows: Tensor) -> Tensor:
    return rows / rows.square().sum(1, keepdim=True).sqrt()


def weight(x: Tensor, y: Tensor, tau: float) -> Tensor:
    return (x.dot(y) / (x.dot(x) * y.dot(y)).sqrt() / tau).exp()


def restated(near: Tensor, predicted: Tensor, *, tau: float, all_negatives: bool) -> Tensor:
    """One neighbour (with `all_negatives`: one of both) at a time, against every prediction (and every other)."""
    n, loss = len(near), torch.zeros((), dtype=torch.float64)
    for i in range(n):
        own = weight(near[i], predicted[i], tau)
        across = sum((weight(near[i], p, tau) for p in predicted), torch.zeros((), dtype=torch.float64))
        if not all_negatives:
            loss = loss - (own / across).log() / n
            continue
        back = sum((weight(predicted[i], row, tau) for row in near), torch.zeros((), dtype=torch.float64))
        for j in range(n):
            if j != i:
                across = across + weight(near[i], near[j], tau)
                back = back + weight(predicted[i], predicted[j], tau)
        loss = loss - ((own / across).log() + (own / back).log()) / (2 * n)
    return loss


def nearest(z: Tensor, queue: Tensor) -> Tensor:
    """The row with the largest cosine, by looking at one after another."""
    found = []
    for x in z:
        best = queue[0]
        for row in queue:
            if x.dot(row) / row.dot(row).sqrt() > x.dot(best) / best.dot(best).sqrt():
                best = row
        found.append(best)
    return torch.stack(found)


# ---------------------------------------------------------------------------------------------- the loss


@BOTH
@pytest.mark.parametrize("tau", [0.1, 0.5])
def test_loss_is_the_restated_one(held: Callable[..., None], tau: float, all_negatives: bool) -> None:
    near, predicted = grid(6, 5, 0.9, 0.4), grid(6, 5, 1.3, 0.7)
    held(
        lambda *x: contrast(*x, tau, all_negatives),
        lambda *x: restated(*x, tau=tau, all_negatives=all_negatives),
        near,
        predicted,
    )


def test_loss_by_hand() -> None:
    """N images. Collapsed: log N, and of 2N - 1 others. Orthogonal and perfect: log(1 + (N - 1) exp(-1 / tau))."""
    e, N, tau = torch.eye(4, dtype=torch.float64), 4, 0.5
    alike = e[:1].repeat(N, 1)
    assert float(contrast(alike, 3 * alike, tau, False)) == pytest.approx(math.log(N), rel=1e-12)
    assert float(contrast(alike, 3 * alike, tau, True)) == pytest.approx(math.log(2 * N - 1), rel=1e-12)
    far = math.exp(-1 / tau)
    assert float(contrast(e, 2 * e, tau, False)) == pytest.approx(math.log(1 + (N - 1) * far), rel=1e-12)
    assert float(contrast(e, 2 * e, tau, True)) == pytest.approx(math.log(1 + 2 * (N - 1) * far), rel=1e-12)
    opposed = math.log(1 + (N - 1) / far)
    assert float(contrast(e, -e, tau, False)) == pytest.approx(opposed, rel=1e-12)


@BOTH
def test_loss_forgets_lengths_the_basis_and_the_order_of_images(all_negatives: bool) -> None:
    near, predicted = grid(6, 5, 0.9, 0.4), grid(6, 5, 1.3, 0.7)
    rotation = torch.linalg.qr(grid(5, 5, 0.5, 1.1))[0]
    loss = contrast(near, predicted, 0.1, all_negatives)
    for other in (
        contrast(2 * near, predicted * grid(6, 1, 0.3, 0.0).exp(), 0.1, all_negatives),
        contrast(near @ rotation, predicted @ rotation, 0.1, all_negatives),
        contrast(near.flip(0), predicted.flip(0), 0.1, all_negatives),
    ):
        torch.testing.assert_close(other, loss, rtol=1e-12, atol=1e-12)


def test_the_softmax_is_over_predictions() -> None:
    """Which side is summed over matters: neighbours that coincide leave log N here, and not the other way round."""
    near, predicted = torch.ones(3, 3, dtype=torch.float64), torch.eye(3, dtype=torch.float64)
    near[0] = predicted[0]
    over_predictions = contrast(near, predicted, 0.5, False)
    own = [math.exp(2.0) / (math.exp(2.0) + 2), 1 / 3, 1 / 3]
    assert float(over_predictions) == pytest.approx(-sum(math.log(p) for p in own) / 3, rel=1e-12)
    assert float(contrast(predicted, near, 0.5, False)) != pytest.approx(float(over_predictions), rel=0.01)


def test_neighbours_are_by_cosine_and_without_gradient() -> None:
    z, queue = grid(6, 4, 0.9, 0.4).requires_grad_(), unit(grid(12, 4, 1.3, 0.6))
    near = neighbours(z, queue)
    assert torch.equal(near, nearest(z.detach(), queue))
    assert not near.requires_grad
    assert torch.equal(neighbours(5 * z, queue), near)
    assert torch.equal(neighbours(z, queue.flip(0)), near)
    assert torch.equal(neighbours(queue, queue), queue)


# ---------------------------------------------------------------------------------------------- the libraries


class Vectors(Backbone):
    """The images are the features."""

    width = 5

    def forward(self, x: Tensor) -> Tensor:
        return x


def test_four_steps_meet_solo_learn() -> None:
    """Heads with batch norm, SGD at 0.05, a queue of two batches: losses, gradients, and what the queue holds."""
    method = Config(widths=(7, 7, 4), hidden=6, queue=12).build(Vectors(), TRAIN).double().train()
    with torch.no_grad():
        for place, net in enumerate((method.projector, method.predictor)):
            for i, layer in enumerate(net):
                if isinstance(layer, nn.Linear):
                    layer.weight.copy_(grid(layer.out_features, layer.in_features, 0.7 + i + place, 1.1))
                    if layer.bias is not None:
                        layer.bias.zero_()
        method.queue.rows.copy_(unit(grid(12, 4, 1.3, 0.6)))
    first, optimiser = next(method.projector.parameters()), torch.optim.SGD(method.parameters(), lr=0.05)
    losses, slopes, queues = [], [], []
    for step in range(4):
        views = [grid(6, 5, 0.9 + step, 0.4), grid(6, 5, 0.8 + step, 0.5)]
        out = method.step(Batch(views, torch.arange(6), Clock(step, 40, 10), Draws(torch.Generator())))
        optimiser.zero_grad()
        out.loss.backward()
        assert first.grad is not None
        slopes.append(float(first.grad.abs().sum()))
        optimiser.step()
        losses.append(float(out.loss.detach()))
        queues.append((int(method.queue.next), float(method.queue.rows.sum())))
    expected = [8.211999042688895, 10.27367052140587, 5.408430166275041, 2.9366185410068244]
    assert losses == pytest.approx(expected, rel=1e-9)
    expected = [163.0138967611016, 13.409523287815148, 4.893664385266554, 4.683795119968362]
    assert slopes == pytest.approx(expected, rel=1e-9)
    assert [at for at, _ in queues] == [6, 0, 6, 0]
    expected = [-1.3061440701925924, -2.4317394624554494, -0.979267840119977, -1.1867076137390595]
    assert [value for _, value in queues] == pytest.approx(expected, rel=1e-9)


def test_lightlys_neighbours_and_loss() -> None:
    bank, predicted = grid(12, 4, 1.3, 0.6), grid(6, 4, 0.5, 1.2).requires_grad_()
    near = neighbours(grid(6, 4, 0.9, 0.4), unit(bank))
    assert torch.equal(near, unit(bank)[[0, 1, 1, 2, 3, 4]])
    loss = contrast(near, predicted, 0.5, True)
    assert loss.item() == pytest.approx(1.8779764608003802, rel=1e-12)
    (gradient,) = torch.autograd.grad(loss, predicted)
    slope = [0.04105400202500456, -0.027091984514053723, -0.13092767862228116, -0.25690929409141805]
    assert gradient[0].tolist() == pytest.approx(slope, rel=1e-10)


# ---------------------------------------------------------------------------------------------- the step


@pytest.mark.parametrize("case", ["nnclr", "nnclr-ntxent"])
def test_step_is_the_mean_of_both_directions_and_looks_up_before_it_pushes(case: str) -> None:
    settings = config(case, queue=32)
    assert isinstance(settings, Config)
    method: Any = build(settings)
    train(method, 3, lr=0.05)  # until the queue holds what it was given
    batch = make_batch(settings)
    B, before, at = len(batch.index), method.queue.rows.clone(), int(method.queue.next)
    with torch.no_grad():
        a, b = (method.projector(method.backbone(view)) for view in batch.views)
        p_a, p_b = method.predictor(a), method.predictor(b)
    options: Any = {"tau": settings.temperature, "all_negatives": settings.all_negatives}
    halves = [restated(nearest(z, before), p, **options) for z, p in ((a, p_b), (b, p_a))]
    out = method.step(batch)
    torch.testing.assert_close(out.loss.detach(), (halves[0] + halves[1]) / 2, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(out.terms["contrastive"], out.loss)
    torch.testing.assert_close(method.queue.rows[at : at + B], unit(a))  # the first view's projections, of unit length
    others = [row for row in range(32) if not at <= row < at + B]
    assert torch.equal(method.queue.rows[others], before[others])
    for z, expected in zip(out.projections, (a, b), strict=True):
        torch.testing.assert_close(z.detach(), expected)


def test_heads_are_the_published_ones() -> None:
    method = Config(queue=64).build(Vectors(), TRAIN)
    hidden = ["Linear", "BatchNorm1d", "ReLU"]
    assert [type(layer).__name__ for layer in method.projector] == [*hidden, *hidden, "Linear", "BatchNorm1d"]
    assert [type(layer).__name__ for layer in method.predictor] == [*hidden, "Linear"]
    widths = [p.shape[0] for net in (method.projector, method.predictor) for p in net.parameters() if p.ndim == 2]
    assert widths == [2048, 2048, 256, 4096, 256]


# ---------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temperature": 0.0}, "NNCLR's temperature is 0.0, expected a number above 0"),
        ({"queue": 0}, "NNCLR's queue is 0, expected at least 1 row to find a neighbour in"),
    ],
)
def test_impossible_settings_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as error:
        Config(**changes)
    assert str(error.value) == message
