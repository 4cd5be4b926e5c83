"""ReSSL against its equation in loops and four steps of the authors' code (KyleZheng1997/ReSSL@4d67daa)."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from contracts import TRAIN, build, config, make_batch, train
from torch import Tensor, nn

from harness import registry
from harness.api import Backbone, Batch, Clock, Draws
from harness.nn import cosine
from methods.ressl import Config, relational

RECIPE = "ressl_digits_r10w16_e50"


def grid(n: int, d: int, a: float, b: float) -> Tensor:
    """The inputs of the recorded values: sin(a i + b j + 0.3 i j)."""
    i, j = torch.arange(n, dtype=torch.float64)[:, None], torch.arange(d, dtype=torch.float64)
    return torch.sin(a * i + b * j + 0.3 * i * j)


def unit(rows: Tensor) -> Tensor:
    return rows / rows.square().sum(1, keepdim=True).sqrt()


def relation(x: Tensor, queue: Tensor, tau: float) -> list[Tensor]:
    """The distribution of one image over the queue, a list of K probabilities."""
    weights = [(x.dot(row) / x.dot(x).sqrt() / tau).exp() for row in queue]
    total = sum(weights, torch.zeros((), dtype=torch.float64))
    return [weight / total for weight in weights]


def restated(q: Tensor, k: Tensor, queue: Tensor, *, tau_s: float, tau_t: float) -> Tensor:
    """The cross-entropy, image by image and row by row; the teacher's side is a constant."""
    loss = torch.zeros((), dtype=torch.float64)
    for i in range(len(q)):
        student, teacher = relation(q[i], queue, tau_s), relation(k[i].detach(), queue, tau_t)
        for p, t in zip(student, teacher, strict=True):
            loss = loss - t * p.log() / len(q)
    return loss


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    return grid(5, 7, 0.9, 0.4), grid(5, 7, 1.3, 0.7), unit(grid(11, 7, 0.2, 1.9))


# ---------------------------------------------------------------------------------------------- the loss


@pytest.mark.parametrize(("tau_s", "tau_t"), [(0.1, 0.04), (0.3, 0.3), (1.0, 0.5)])
def test_loss_is_the_restated_one(held: Callable[..., None], tau_s: float, tau_t: float) -> None:
    q, k, queue = inputs()
    held(
        lambda q, k: relational(q, k, queue, tau_s, tau_t)[0],
        lambda q, k: restated(q, k, queue, tau_s=tau_s, tau_t=tau_t),
        q,
        k,
    )


def test_loss_is_the_teachers_entropy_and_a_divergence() -> None:
    q, k, queue = inputs()
    loss, entropy = relational(q, k, queue, 0.1, 0.04)
    rows = [relation(x, queue, 0.04) for x in k]
    assert float(entropy) == pytest.approx(sum(-float(p * p.log()) for row in rows for p in row) / len(k), rel=1e-12)
    assert float(loss) > float(entropy) > 0
    same, entropy = relational(k, k, queue, 0.04, 0.04)
    torch.testing.assert_close(same, entropy, rtol=1e-12, atol=1e-12)


def test_gradient_vanishes_where_student_and_teacher_relate_alike_and_none_reaches_the_teacher() -> None:
    q, k, queue = inputs()
    q, k = k.clone().requires_grad_(), k.requires_grad_()
    loss, _ = relational(q, k, queue, 0.1, 0.1)
    gradient, none = torch.autograd.grad(loss, [q, k], allow_unused=True)
    assert float(gradient.abs().max()) < 1e-14
    assert none is None


def test_loss_by_hand() -> None:
    """A teacher that tells no past image from another: the mean over the queue. Two images: a coin of known odds."""
    e = torch.eye(3, dtype=torch.float64)
    loss, entropy = relational(e[2:], e[2:], e[:2], 0.1, 0.04)  # orthogonal to all: uniform on both sides
    assert [float(loss), float(entropy)] == pytest.approx([math.log(2), math.log(2)], rel=1e-12)
    p, t = 1 / (1 + math.exp(-1 / 0.5)), 1 / (1 + math.exp(-1 / 0.25))
    by_hand = -t * math.log(p) - (1 - t) * math.log(1 - p)
    assert float(relational(3 * e[:1], 7 * e[:1], e[:2], 0.5, 0.25)[0]) == pytest.approx(by_hand, rel=1e-12)
    alike = e[:1].repeat(6, 1)  # a collapsed queue
    assert float(relational(e[1:], e[:2], alike, 0.1, 0.04)[0]) == pytest.approx(math.log(6), rel=1e-12)


def test_a_sharp_teacher_gives_cross_entropy_with_its_nearest_row() -> None:
    q, k, queue = inputs()
    nearest = [max(range(len(queue)), key=lambda j, x=x: float(x.dot(queue[j]))) for x in unit(k)]  # type: ignore[misc]
    one_hot = sum(-relation(q[i], queue, 0.1)[j].log() for i, j in enumerate(nearest)) / len(q)
    loss, entropy = relational(q, k, queue, 0.1, 1e-4)
    torch.testing.assert_close(loss, one_hot, rtol=1e-12, atol=1e-12)
    assert 0 <= float(entropy) < 1e-12


def test_loss_forgets_the_order_of_the_queue_the_length_of_embeddings_and_the_basis() -> None:
    q, k, queue = inputs()
    rotation = torch.linalg.qr(grid(7, 7, 0.5, 1.1))[0]
    loss = relational(q, k, queue, 0.1, 0.04)[0]
    for other in (
        relational(q, k, queue.flip(0), 0.1, 0.04),
        relational(q * grid(5, 1, 0.3, 0.0).exp(), 3 * k, queue, 0.1, 0.04),
        relational(q @ rotation, k @ rotation, queue @ rotation, 0.1, 0.04),
        relational(q.flip(0), k.flip(0), queue, 0.1, 0.04),
    ):
        torch.testing.assert_close(other[0], loss, rtol=1e-12, atol=1e-12)


# ---------------------------------------------------------------------------------------------- the step


class Vectors(Backbone):
    """The images are the features."""

    width = 5

    def forward(self, x: Tensor) -> Tensor:
        return x


def test_four_steps_meet_the_official_code() -> None:
    """One linear layer, SGD at 0.1, momentum 0.9, a queue of two batches: losses, gradients, queue, teacher."""
    method = Config(widths=(4,), queue=6, momentum=0.9).build(Vectors(), TRAIN).double()
    (layer,) = method.projector
    assert isinstance(layer, nn.Linear)
    with torch.no_grad():
        layer.weight.copy_(grid(4, 5, 0.7, 1.1))
        layer.bias.copy_(grid(1, 4, 0.5, 0.9)[0])
        method.teacher.update(nn.Sequential(method.backbone, method.projector), 0.0)
        method.queue.rows.copy_(unit(grid(6, 4, 1.3, 0.6)))
    optimiser = torch.optim.SGD(method.projector.parameters(), lr=0.1)
    losses, slopes, queues, teachers = [], [], [], []
    for step in range(4):
        views, clock = [grid(3, 5, 0.9 + step, 0.4), grid(3, 5, 0.8 + step, 0.5)], Clock(step, 40, 10)
        teachers.append(next(method.teacher.parameters())[0].tolist())
        out = method.step(Batch(views, torch.arange(3), clock, Draws(torch.Generator())))
        optimiser.zero_grad()
        out.loss.backward()
        assert layer.weight.grad is not None
        slopes.append(float(layer.weight.grad.abs().sum()))
        optimiser.step()
        method.after_step(clock)
        losses.append(float(out.loss.detach()))
        queues.append((int(method.queue.next), float(method.queue.rows.sum())))
    expected = [0.15878859750582466, 0.2974889555713651, 0.3344006611284099, 0.3298537147426795]
    assert losses == pytest.approx(expected, rel=1e-9)
    expected = [2.6599569699543824, 1.5135924541886823, 0.518914083635954, 0.6443321310947105]
    assert slopes == pytest.approx(expected, rel=1e-9)
    assert [at for at, _ in queues] == [3, 0, 3, 0]
    expected = [4.220015636055113, 7.3615923364894815, 5.768085758102687, 5.627566992479232]
    assert [value for _, value in queues] == pytest.approx(expected, rel=1e-9)
    rows = [
        [0.0, 0.8912073600614354, 0.8084964038195901, -0.15774569414324865, -0.951602073889516],
        [-0.0008545187902648855, 0.8950976707328686, 0.8158751276595675, -0.14938167708710898, -0.944768799799184],
    ]
    assert teachers[0] == pytest.approx(rows[0], rel=1e-9)
    assert teachers[3] == pytest.approx(rows[1], rel=1e-9)


def test_step_reads_the_queue_before_the_teachers_weak_view_enters_it() -> None:
    settings = config("ressl", queue=32)
    method: Any = build(settings)
    train(method, 2, lr=0.05)  # until queue and teacher differ from their beginnings
    batch = make_batch(settings)
    strong, weak = batch.views
    before, at = method.queue.rows.clone(), int(method.queue.next)
    with torch.no_grad():
        q, k = method.projector(method.backbone(strong)), unit(method.teacher.network(weak))
    out = method.step(batch)
    expected = restated(q, k, before, tau_s=0.1, tau_t=0.04)
    torch.testing.assert_close(out.loss.detach(), expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(out.terms["relation"], out.loss)
    B = len(batch.index)
    torch.testing.assert_close(method.queue.rows[at : at + B], k)
    others = [row for row in range(32) if not at <= row < at + B]
    assert torch.equal(method.queue.rows[others], before[others])


@pytest.mark.parametrize("rises", [False, True])
def test_teacher_moves_after_the_step_by_the_momentum_of_the_step(rises: bool) -> None:
    method: Any = build(config("ressl", momentum=0.9, momentum_rises=rises))
    with torch.no_grad():
        for p in method.projector.parameters():
            p.add_(1.0)
    before = [p.clone() for p in method.teacher.parameters()]
    method.after_step(Clock(10, steps=40, steps_per_epoch=10))
    m = cosine(0.9, 1.0, 0.25) if rises else 0.9
    online = nn.Sequential(method.backbone, method.projector).parameters()
    for old, new, student in zip(before, method.teacher.parameters(), online, strict=True):
        torch.testing.assert_close(new, m * old + (1 - m) * student)
        assert not new.requires_grad
    assert (m == 0.9) != rises


def test_defaults_are_the_official_ones() -> None:
    method = Config(queue=64).build(Vectors(), TRAIN)
    layers = [type(layer).__name__ for layer in method.projector]
    assert layers == ["Linear", "ReLU", "Linear"]
    assert [tuple(p.shape) for p in method.projector.parameters()] == [(4096, 5), (4096,), (512, 4096), (512,)]
    assert (Config().queue, Config().momentum, Config().momentum_rises) == (2**17, 0.999, False)
    assert method.encoder() == ("student", method.backbone)


# ---------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"teacher_temperature": 0.0},
            "ReSSL's temperatures (student, teacher) are (0.1, 0.0), expected above 0",
        ),
        (
            {"student_temperature": -0.1},
            "ReSSL's temperatures (student, teacher) are (-0.1, 0.04), expected above 0",
        ),
        ({"momentum": 1.5}, "ReSSL's momentum is 1.5, expected 0 to 1"),
        ({"queue": 1}, "ReSSL's queue is 1, expected at least 2 rows to relate an image to"),
    ],
)
def test_impossible_settings_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as error:
        Config(**changes)
    assert str(error.value) == message


def test_every_recipes_first_view_is_the_strong_one() -> None:
    for name in (name for name, method in registry.recipe_names().items() if method == "ressl"):
        strong, weak = registry.recipe(name).views
        assert strong.jitter_p > weak.jitter_p == weak.blur == weak.grey == weak.solarize == 0
        assert (strong.scale, strong.flip) == (weak.scale, weak.flip)
