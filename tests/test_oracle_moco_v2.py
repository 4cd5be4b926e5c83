"""MoCo v2 against its equation in loops and the numbers of the authors' code.

Recorded: facebookresearch/moco@4397a04, moco/builder.py, and @f736491, colab/moco_cifar10_demo.ipynb (symmetric).
"""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from conftest import TinyBackbone
from contracts import TRAIN, build, config, make_batch, train
from torch import Tensor, nn

from harness import registry
from harness.api import Batch, Clock, Draws
from harness.errors import BadRecipe
from harness.recipe import check
from methods.moco_v2 import Config, MoCoV2, info_nce

RECIPE = "moco_v2_digits_r10w16_e50"
CASES = ("moco_v2", "moco_v2-sym", "moco_v2-sym2q")


def grid(n: int, d: int, a: float, b: float) -> Tensor:
    """The inputs of the recorded values: sin(a i + b j + 0.3 i j)."""
    i, j = torch.arange(n, dtype=torch.float64)[:, None], torch.arange(d, dtype=torch.float64)
    return torch.sin(a * i + b * j + 0.3 * i * j)


def unit(rows: Tensor) -> Tensor:
    return rows / rows.square().sum(1, keepdim=True).sqrt()


def restated(query: Tensor, key: Tensor, queue: Tensor, *, tau: float) -> Tensor:
    """Eq. 1 of arXiv:1911.05722, image by image and key by key."""
    total = torch.zeros((), dtype=torch.float64)
    for i in range(len(query)):
        q = query[i] / query[i].dot(query[i]).sqrt()
        positive = (q.dot(key[i]) / tau).exp()
        denominator = positive
        for other in queue:
            denominator = denominator + (q.dot(other) / tau).exp()
        total = total - (positive / denominator).log()
    return total / len(query)


# ---------------------------------------------------------------------------------------------- the loss


@pytest.mark.parametrize("tau", [0.07, 0.2, 1.0])
def test_loss_is_the_restated_one(held: Callable[..., None], tau: float) -> None:
    query, key, queue = grid(5, 7, 0.9, 0.4), unit(grid(5, 7, 1.3, 0.7)), unit(grid(12, 7, 0.2, 1.9))
    held(lambda *x: info_nce(*x, tau), lambda *x: restated(*x, tau=tau), query, key, queue)


def test_loss_by_hand() -> None:
    """All keys alike: log(K + 1). Others orthogonal: log(1 + K exp(-1 / tau)). Own opposed: log(1 + K exp(2 / tau))."""
    e = torch.eye(4, dtype=torch.float64)
    query, K, tau = 3.0 * e[:1], 6, 0.5
    assert float(info_nce(query, e[:1], e[:1].repeat(K, 1), tau)) == pytest.approx(math.log(K + 1), abs=1e-12)
    far = e[1:2].repeat(K, 1)
    assert float(info_nce(query, e[:1], far, tau)) == pytest.approx(math.log(1 + K * math.exp(-1 / tau)), abs=1e-12)
    opposed = math.log(1 + K * math.exp(2 / tau))
    assert float(info_nce(query, -e[:1], e[:1].repeat(K, 1), tau)) == pytest.approx(opposed, abs=1e-12)


def test_loss_forgets_the_order_of_the_queue_the_length_of_queries_and_the_basis() -> None:
    query, key, queue = grid(5, 7, 0.9, 0.4), unit(grid(5, 7, 1.3, 0.7)), unit(grid(12, 7, 0.2, 1.9))
    rotation = torch.linalg.qr(grid(7, 7, 0.5, 1.1))[0]
    loss = info_nce(query, key, queue, 0.2)
    for other in (
        info_nce(query, key, queue.flip(0), 0.2),
        info_nce(query * grid(5, 1, 0.3, 0.0).exp(), key, queue, 0.2),
        info_nce(query @ rotation, key @ rotation, queue @ rotation, 0.2),
        info_nce(query.flip(0), key.flip(0), queue, 0.2),
    ):
        torch.testing.assert_close(other, loss, rtol=1e-12, atol=1e-12)


# ---------------------------------------------------------------------------------------------- the authors' code


def images(step: int) -> list[Tensor]:
    first = grid(4, 48, 0.9 + step, 0.4)
    return [x.reshape(4, 3, 4, 4) for x in (first, first + 0.5 * grid(4, 48, 1.3, 0.2 + step))]


def recorded_setting(settings: Config) -> MoCoV2:
    """Weights, keys of the first step and queue as in the recording."""
    method = settings.build(TinyBackbone(), TRAIN).double()
    online = nn.Sequential(method.backbone, method.projector)
    with torch.no_grad():
        for i, p in enumerate(online.parameters()):
            p.copy_(0.5 * grid(p.shape[0], p[0].numel(), 0.7 + 0.1 * i, 1.1).reshape(p.shape))
    method.key_encoder.update(online, 0.0)
    method.queue.rows.copy_(unit(grid(settings.queue, 6, 0.6, 1.7)))
    return method


def three_steps(method: MoCoV2) -> list[float]:
    """Plain gradient descent, rate 0.5."""
    losses, trained = [], [p for group in method.param_groups() for p in group.params]
    for step in range(3):
        clock = Clock(step, steps=100, steps_per_epoch=10)
        out = method.step(Batch(images(step), torch.arange(4), clock, Draws(torch.Generator())))
        for p, gradient in zip(trained, torch.autograd.grad(out.loss, trained), strict=True):
            p.data -= 0.5 * gradient
        method.after_step(clock)
        losses.append(float(out.loss.detach()))
    return losses


def test_three_steps_meet_the_official_code() -> None:
    method = recorded_setting(Config(widths=(12, 6), queue=8, momentum=0.9))
    assert three_steps(method) == pytest.approx([0.20097510669525126, 1.7109813589343401, 1.8764553510302642], rel=1e-9)
    newest = [0.4178976959260942, 0.1863976780416071, 0.1362301211797527]  # of the third step, over the first's
    second = [0.19699499973637602, 0.2310496714835075, 0.6169542640470463]
    assert method.queue.rows[0, :3].tolist() == pytest.approx(newest, rel=1e-9)
    assert method.queue.rows[4, :3].tolist() == pytest.approx(second, rel=1e-9)


def test_three_symmetric_steps_meet_the_authors_notebook() -> None:
    settings = Config(widths=(6,), queue=16, momentum=0.9, symmetric=True, contrastive=2.0)
    recorded = [0.7276687759689078, 3.2914204423579596, 4.89298374291303]
    assert three_steps(recorded_setting(settings)) == pytest.approx(recorded, rel=1e-9)


# ---------------------------------------------------------------------------------------------- the step


def settings_of(case: str) -> Config:
    settings = config(case, contrastive=3.0, queue=32)
    assert isinstance(settings, Config)
    return settings


@pytest.mark.parametrize("case", CASES)
def test_step_is_the_mean_of_its_directions_and_reads_before_it_pushes(case: str) -> None:
    settings = settings_of(case)
    method: Any = build(settings)
    train(method, 2, lr=0.05)  # until queue and key encoder differ from their beginnings
    batch = make_batch(settings)
    B, a, b = len(batch.index), *batch.views
    with torch.no_grad():
        keys = {name: unit(method.key_encoder.network(view)) for name, view in (("a", a), ("b", b))}
        queries = [method.projector(method.backbone(view)) for view in (a, b)]
    queue = method.queue.rows.clone()
    expected = [restated(queries[0], keys["b"], queue, tau=settings.temperature)]
    pushed = {"queue": ["b"]}
    if settings.symmetric:
        other = method.first_queue.rows.clone() if settings.queue_per_view else queue
        expected.append(restated(queries[1], keys["a"], other, tau=settings.temperature))
        pushed = {"queue": ["b"], "first_queue": ["a"]} if settings.queue_per_view else {"queue": ["b", "a"]}
    places = {name: int(getattr(method, name).next) for name in pushed}
    out = method.step(batch)
    total = torch.stack(expected).mean()
    torch.testing.assert_close(out.terms["contrastive"], total, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(out.loss, 3 * total, rtol=1e-10, atol=1e-12)
    for name, views in pushed.items():
        rows = getattr(method, name).rows.roll(-places[name], 0)[: B * len(views)]
        torch.testing.assert_close(rows, torch.cat([keys[view] for view in views]), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("final", "expected"), [(None, (0.99, 0.99, 0.99)), (0.999, (0.99, 0.9945, 0.999))])
def test_key_encoder_follows_at_the_momentum_of_the_step(final: float | None, expected: tuple[float, ...]) -> None:
    method: Any = build(replace(settings_of("moco_v2"), momentum=0.99, final_momentum=final))
    slow, fast = method.key_encoder.network[1][0].weight, method.projector[0].weight
    for step, momentum in zip((0, 500, 1000), expected, strict=True):
        with torch.no_grad():
            slow.fill_(1.0)
            fast.fill_(0.0)
        method.after_step(Clock(step, steps=1000, steps_per_epoch=100))
        torch.testing.assert_close(slow, torch.full_like(slow, momentum), rtol=1e-12, atol=1e-12)


def test_head_is_the_published_one_and_the_query_encoder_is_evaluated() -> None:
    method: Any = build(Config(queue=8))
    layers = [(type(layer).__name__, getattr(layer, "bias", None) is not None) for layer in method.projector]
    assert layers == [("Linear", True), ("ReLU", False), ("Linear", True)]
    assert [method.projector[0].out_features, method.projector[2].out_features] == [2048, 128]
    assert method.encoder() == ("student", method.backbone)


def test_variants_are_named_apart() -> None:
    assert [settings_of(case).label for case in CASES] == ["MoCo v2", "MoCo v2 (symmetric)", "MoCo v2 (symmetric)"]


# ---------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temperature": 0.0}, r"MoCo v2's temperature is 0\.0, expected a number above 0$"),
        ({"momentum": 1.5}, r"MoCo v2's momenta \(at the start, at the end\) are \(1\.5, 1\.5\), expected 0 to 1$"),
        ({"final_momentum": -0.1}, r"MoCo v2's momenta \(at the start, at the end\) are \(0\.999, -0\.1\), expected"),
        ({"queue": 0}, r"MoCo v2's queue holds 0 keys, expected a multiple of the batch$"),
        ({"queue_per_view": True}, r"MoCo v2 has keys of one view only; set symmetric=True or queue_per_view=False$"),
    ],
)
def test_impossible_settings_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Config(**changes)  # type: ignore[arg-type]


def test_a_queue_that_takes_no_whole_batches_is_refused() -> None:
    message = r"batch 128 does not divide 500, the queue of MoCo v2; change budget\.batch or method\.queue$"
    with pytest.raises(BadRecipe, match=message):
        check(registry.recipe(RECIPE, ("method.queue=500",)))
