"""SwAV against its equations in plain loops and the numbers of its official code (facebookresearch/swav@06b1b7c)."""

import math
from collections.abc import Callable

import pytest
import torch
from contracts import TRAIN, SmallBackbone, make_batch, train
from torch import Tensor, nn

from harness import registry
from harness.api import Backbone, Batch, Clock, Draws
from harness.errors import BadRecipe
from methods.swav import Config, SwAV, cosines, swapped_prediction

SMALL = Config(widths=(12, 6), prototypes=5)
QUEUED = Config(widths=(12, 6), prototypes=5, queue=16, queue_from=0)
RECIPE = "swav_digits_r10w16_e50_queue"


def grid(n: int, d: int, a: float, b: float) -> Tensor:
    """The inputs of the recorded official values: sin(a i + b j + 0.3 i j)."""
    i, j = torch.arange(n, dtype=torch.float64)[:, None], torch.arange(d, dtype=torch.float64)
    return torch.sin(a * i + b * j + 0.3 * i * j)


def build(settings: Config, backbone: Backbone | None = None) -> SwAV:
    torch.manual_seed(0)
    return settings.build(backbone or SmallBackbone(), TRAIN).double()


def loss_of(prototypes: Tensor, *crops: Tensor) -> Tensor:
    """Ours, of the outputs of V crops, without a queue."""
    scores, B = cosines(torch.cat(crops), prototypes), len(crops[0])
    codes, _ = build(SMALL).codes((crops[0], crops[1]), (scores[:B], scores[B : 2 * B]), Clock(0, 1, 1))
    return swapped_prediction(scores / 0.1, *codes)


# ---------------------------------------------------------------------------------------------- the official code


class Vectors(Backbone):
    """The views are the features."""

    width = 6

    def forward(self, x: Tensor) -> Tensor:
        return x


def official_run(V: int, queue: int) -> tuple[SwAV, list[float]]:
    """Six steps of plain SGD on four images in V crops, prototypes frozen for two; the queue begins at step 1."""
    settings = Config(widths=(3,), prototypes=5, queue=queue, queue_from=1)
    method = build(settings, Vectors())
    with torch.no_grad():
        head = method.projector[0]
        assert isinstance(head, nn.Linear)
        head.weight.copy_(grid(3, 6, 0.4, 1.3))
        head.bias.copy_(grid(1, 3, 0.2, 0.5)[0])
        method.prototypes.weight.copy_(grid(5, 3, 0.9, 0.6))
        method.normalise_prototypes()
    losses = []
    for t in range(6):
        views = [grid(4, 6, 0.7 + 0.1 * t, 1.1 + 0.2 * v) for v in range(V)]
        clock = Clock(t, steps=6, steps_per_epoch=1)
        out = method.step(Batch(views, torch.arange(4), clock, Draws(torch.Generator())))
        trained = [*head.parameters(), *method.prototypes.parameters()][: 2 if t < 2 else 3]
        for p, gradient in zip(trained, torch.autograd.grad(out.loss, trained), strict=True):
            p.data -= 0.1 * gradient
        method.after_step(clock)
        losses.append(float(out.loss.detach()))
    return method, losses


OFFICIAL = {  # (crops, queue): the losses of six steps, then the first prototype
    (2, 0): """3.1657932860067106 2.8369837044764665 2.05672961826057
        0.5720094019974846 0.8803379646379554 0.9247224890701504
        0.056515854588911354 0.5151198129695371 0.8111740830867261""",
    (4, 0): """4.931437811250942 3.6706905684664424 2.7036253866952054
        1.4309727784905415 1.2400058813648407 0.6660708895003027
        0.08635186008443971 0.4952501423570954 0.7988507222007485""",
    (4, 8): """4.931437811250942 3.6706905684664424 2.7036253866952054
        1.4067260102488648 1.0909650210731403 0.6344152185172423
        0.08891614672689885 0.5118119461253136 0.8044372335201887""",
}


@pytest.mark.parametrize(("V", "queue"), OFFICIAL)
def test_six_steps_are_those_of_the_official_code(V: int, queue: int) -> None:
    """Its `train`: the order of normalising, assigning, filling the queue and updating, and when the queue has a part.

    With the queue of eight the first three losses are those without: it fills at steps 1 and 2.
    """
    numbers = [float(number) for number in OFFICIAL[V, queue].split()]
    method, losses = official_run(V, queue)
    assert losses == pytest.approx(numbers[:6], rel=1e-10)
    prototype = torch.tensor(numbers[6:], dtype=torch.float64)
    torch.testing.assert_close(method.prototypes.weight[0].detach(), prototype / prototype.norm(), rtol=1e-10, atol=0)


def test_the_queue_holds_what_the_official_one_does() -> None:
    """The features of the last two steps, of each crop; ours are normalised when they are read."""
    method, _ = official_run(4, 8)
    assert method.queue is not None
    first, second = (nn.functional.normalize(rows, dim=1) for rows in method.queue.read().chunk(2, dim=1))
    newest = [0.9604635348389264, -0.1712453081999029, -0.21951046140044153]  # its row 0, image 0 of step 5
    oldest = [-0.0574201663373273, -0.15725607339408595, -0.9858871395238238]  # its row 7, image 3 of step 4
    assert int(method.queue.next) == 4  # steps 1 to 5 filled it two and a half times: step 4 is in rows 4 to 7
    assert first[0].tolist() == pytest.approx(newest, rel=1e-10)
    assert second[7].tolist() == pytest.approx(oldest, rel=1e-10)


# ---------------------------------------------------------------------------------------------- the equations


def restated_codes(z: Tensor, prototypes: Tensor, epsilon: float = 0.05) -> list[list[float]]:
    """Eq. 5 by products, 3 iterations: code of each row, no gradient."""
    N, K = len(z), len(prototypes)
    q = [[math.exp(float(z[n] @ prototypes[k] / z[n].norm()) / epsilon) for k in range(K)] for n in range(N)]
    for _ in range(3):
        shares = [sum(q[n][k] for n in range(N)) * K / N for k in range(K)]
        q = [[q[n][k] / shares[k] for k in range(K)] for n in range(N)]
        q = [[value / sum(row) for value in row] for row in q]
    return q


def restated_loss(crops: list[Tensor], prototypes: Tensor, older: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """Eqs. 1, 2 and 6: mean over codes, over other crops, over images; older: features that join the assignments."""
    B, K, V = len(crops[0]), len(prototypes), len(crops)
    loss = torch.zeros((), dtype=torch.float64)
    for i in range(2):
        z = crops[i].detach() if older is None else torch.cat([crops[i].detach(), older[i]])
        q = restated_codes(z, prototypes.detach())
        for v in range(V):
            for b in range(B if v != i else 0):
                scores = [crops[v][b] @ prototypes[k] / crops[v][b].norm() / 0.1 for k in range(K)]
                total = sum((s.exp() for s in scores), torch.zeros((), dtype=torch.float64))
                loss = loss - sum(q[b][k] * (scores[k] - total.log()) for k in range(K)) / (2 * (V - 1) * B)
    return loss


@pytest.mark.parametrize("V", [2, 3, 6])
def test_loss_and_gradients_are_the_restated_ones(held: Callable[..., None], V: int) -> None:
    prototypes = nn.functional.normalize(grid(5, 6, 0.9, 0.6), dim=1)
    crops = [grid(4, 6, 0.7 + 0.2 * v, 1.1 - 0.1 * v) for v in range(V)]
    held(loss_of, lambda c, *z: restated_loss(list(z), c), prototypes, *crops)


def test_step_is_the_restated_loss_on_the_real_path() -> None:
    """With local crops and a queue, whose features are those of the steps before; terms, embedding and projections."""
    method = build(QUEUED)
    seen: list[tuple[Tensor, ...]] = []
    for step in range(3):
        batch = make_batch(QUEUED, 8, step=step)
        batch.views = [view + 0.1 * step for view in batch.views]
        crops = [z.detach() for z in method.projector(_features(method, batch)).chunk(4)]
        older = None if step < 2 else (torch.cat([z[0] for z in seen]), torch.cat([z[1] for z in seen]))
        out = method.step(batch)
        expected = float(restated_loss(crops, method.prototypes.weight.detach(), older))
        assert float(out.loss.detach()) == pytest.approx(expected, rel=1e-10)
        assert out.terms["cross_entropy"] is out.loss
        assert float(out.diagnostics["queue_used"]) == float(step >= 2)
        for found, crop in zip((out.embedding, *out.projections), (crops[0], crops[0], crops[1]), strict=True):
            torch.testing.assert_close(found.detach(), crop, rtol=1e-10, atol=1e-12)
        seen.append((crops[0], crops[1]))
        method.after_step(batch.clock)


def _features(method: SwAV, batch: Batch) -> Tensor:
    """Batch norms see the global crops together, then the local ones."""
    return torch.cat([method.backbone(torch.cat(batch.views[:2])), method.backbone(torch.cat(batch.views[2:]))])


# ---------------------------------------------------------------------------------------------- closed forms


def test_collapsed_features_cost_log_k() -> None:
    """One feature for all images: codes are uniform. So is the prediction where it lies alike to all prototypes."""
    prototypes, same = torch.eye(4, dtype=torch.float64), torch.ones(8, 4, dtype=torch.float64)
    assert float(loss_of(prototypes, same, same, same)) == pytest.approx(math.log(4), abs=1e-12)
    tilted = torch.eye(4, dtype=torch.float64)[:1].expand(8, 4)  # scores 1, 0, 0, 0 against the uniform code
    expected = math.log(math.exp(10) + 3) - 10 / 4
    assert float(loss_of(prototypes, tilted, tilted)) == pytest.approx(expected, abs=1e-12)


def test_each_image_at_a_prototype_of_its_own() -> None:
    """Codes e^20 : 1 : 1 : 1 by symmetry, predictions e^10 : 1 : 1 : 1."""
    eye = torch.eye(4, dtype=torch.float64)
    total_q, total_p = math.exp(20) + 3, math.exp(10) + 3
    expected = math.log(total_p) - 10 * math.exp(20) / total_q
    assert float(loss_of(eye, eye, eye)) == pytest.approx(expected, rel=1e-10)


def test_lengths_order_and_rotations_change_nothing() -> None:
    """Of the features; the order of images and prototypes; the order of the global crops and that of the local ones."""
    a, b, c, d = (grid(6, 4, 0.7 + 0.3 * v, 1.1 - 0.2 * v) for v in range(4))
    prototypes = nn.functional.normalize(grid(5, 4, 0.9, 0.6), dim=1)
    loss = float(loss_of(prototypes, a, b, c, d))
    turn = torch.linalg.qr(grid(4, 4, 1.7, 0.8)).Q
    for again in (
        loss_of(prototypes, 3 * a, b / 2, c, 7 * d),
        loss_of(prototypes.flip(0), *(z.flip(0) for z in (a, b, c, d))),
        loss_of(prototypes, b, a, d, c),
        loss_of(prototypes @ turn, *(z @ turn for z in (a, b, c, d))),
    ):
        assert float(again) == pytest.approx(loss, rel=1e-10)
    assert float(loss_of(prototypes, a, c, b, d)) != pytest.approx(loss, rel=1e-4)  # a local crop has no code


# ---------------------------------------------------------------------------------------------- prototypes and queue


def test_prototypes_have_norm_one_and_their_group_is_frozen() -> None:
    method = build(SMALL)
    for rtol in (1e-6, 1e-12):  # initialised in single precision
        torch.testing.assert_close(method.prototypes.weight.norm(dim=1), torch.ones(5).double(), rtol=rtol, atol=0)
        train(method, 2, lr=0.1)
    groups = method.param_groups()
    assert [group.frozen_epochs for group in groups] == [0, 1]
    assert [p is method.prototypes.weight for p in groups[1].params] == [True]
    assert build(Config(widths=(6,), frozen_epochs=2)).param_groups()[1].frozen_epochs == 2


def test_the_queue_joins_once_full_and_fills_from_its_epoch_on() -> None:
    """Batches of 8, ten steps an epoch, a queue of 16 from epoch 1: it fills at steps 10 and 11."""
    settings = Config(widths=(12, 6), prototypes=5, queue=16, queue_from=1)
    method = build(settings)
    assert method.queue is not None
    before, used = method.queue.read(), []
    for step in (0, 8, 9, 10, 11, 12, 13):
        out = method.step(make_batch(settings, 8, step=step))
        used.append(int(out.diagnostics["queue_used"]))
        if step == 9:
            assert torch.equal(method.queue.read(), before)
        if step == 10:
            assert torch.equal(method.queue.read()[8:], before[8:])
    assert used == [0, 0, 0, 0, 0, 1, 1]


def test_random_rows_of_a_new_queue_have_no_part() -> None:
    first, second = (build(QUEUED) for _ in range(2))
    assert second.queue is not None
    second.queue.rows.mul_(-1)
    assert [out.loss.item() for out in train(first, 4, 8)] == [out.loss.item() for out in train(second, 4, 8)]


# ---------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"temperature": 0.0},
            "SwAV's temperature is 0.0 and its epsilon 0.03, expected numbers above 0",
        ),
        (
            {"epsilon": -1.0},
            "SwAV's temperature is 0.1 and its epsilon -1.0, expected numbers above 0",
        ),
        ({"prototypes": 1}, "SwAV has prototypes=1 and sinkhorn_iterations=3, expected at least 2 and 1"),
        ({"sinkhorn_iterations": 0}, "SwAV has prototypes=256 and sinkhorn_iterations=0, expected at least 2 and 1"),
        (
            {"queue": -1},
            "SwAV has queue=-1, queue_from=0, frozen_epochs=1, expected 0 or more; queue=0 is none",
        ),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, float], message: str) -> None:
    overrides = tuple(f"method.{name}={value}" for name, value in settings.items())
    with pytest.raises(BadRecipe) as refusal:
        registry.recipe(RECIPE, overrides)
    assert str(refusal.value) == f"recipe {RECIPE!r}: {message}"


def test_a_queue_that_the_batch_does_not_divide_is_refused() -> None:
    with pytest.raises(BadRecipe) as refusal:
        registry.recipe(RECIPE, ("method.queue=500",))
    assert str(refusal.value) == (
        f"recipe {RECIPE!r}: batch 128 does not divide 500, the queue of SwAV; change budget.batch or method.queue"
    )
    registry.recipe(RECIPE, ("method.queue=0",))  # none is fine with any batch
