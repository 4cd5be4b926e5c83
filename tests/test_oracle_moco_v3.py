"""MoCo v3 against its algorithm in loops and the numbers of its code (facebookresearch/moco-v3@c349e6e)."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from conftest import TinyBackbone
from contracts import TRAIN, build, config, make_batch, train
from torch import Tensor, nn

from harness import backbones, registry
from harness.api import Batch, Clock, Draws
from harness.errors import BadRecipe
from harness.recipe import check
from methods.moco_v3 import Config, moco_v3_loss

RECIPE = "moco_v3_digits_r10w16_e50"
VIT = "moco_v3_digits_vt2_e50_frozen"


def grid(n: int, d: int, a: float, b: float) -> Tensor:
    """The inputs of the recorded values: sin(a i + b j + 0.3 i j)."""
    i, j = torch.arange(n, dtype=torch.float64)[:, None], torch.arange(d, dtype=torch.float64)
    return torch.sin(a * i + b * j + 0.3 * i * j)


def restated(to_b: Tensor, to_a: Tensor, a: Tensor, b: Tensor, *, tau: float) -> Tensor:
    """Algorithm 1, pair by pair."""
    total = torch.zeros((), dtype=torch.float64)
    for queries, keys in ((to_b, b), (to_a, a)):
        for i in range(len(queries)):
            q = queries[i] / queries[i].dot(queries[i]).sqrt()
            exps = [(q.dot(k) / k.dot(k).sqrt() / tau).exp() for k in keys]
            total = total - 2 * tau * (exps[i] / torch.stack(exps).sum()).log() / len(queries)
    return total


# ---------------------------------------------------------------------------------------------- the loss


def inputs() -> list[Tensor]:
    return [grid(5, 7, 0.9, 0.4), grid(5, 7, 1.3, 0.7), grid(5, 7, 0.2, 1.9), grid(5, 7, 0.5, 1.2)]


@pytest.mark.parametrize("tau", [0.2, 1.0])
def test_loss_is_the_restated_one(held: Callable[..., None], tau: float) -> None:
    held(lambda *x: moco_v3_loss(*x, tau), lambda *x: restated(*x, tau=tau), *inputs())


def test_loss_by_hand() -> None:
    """Collapsed: 4 tau log N. Orthogonal images, met by their keys: 4 tau log(1 + (N - 1) exp(-1 / tau))."""
    N, tau = 5, 0.5
    same, apart = torch.ones(N, 3, dtype=torch.float64), torch.eye(N, dtype=torch.float64)
    assert float(moco_v3_loss(same, same, same, same, tau)) == pytest.approx(4 * tau * math.log(N), abs=1e-12)
    met = 4 * tau * math.log(1 + (N - 1) * math.exp(-1 / tau))
    assert float(moco_v3_loss(apart, apart, apart, apart, tau)) == pytest.approx(met, abs=1e-12)


def test_loss_forgets_lengths_the_basis_the_order_of_images_and_which_view_came_first() -> None:
    given = inputs()
    rotation = torch.linalg.qr(grid(7, 7, 0.5, 1.1))[0]
    loss = moco_v3_loss(*given, 0.2)
    to_b, to_a, a, b = given
    for other in (
        [x * grid(5, 1, 0.3, 0.0).exp() for x in given],
        [x @ rotation for x in given],
        [x.flip(0) for x in given],
        [to_a, to_b, b, a],
    ):
        torch.testing.assert_close(moco_v3_loss(*other, 0.2), loss, rtol=1e-12, atol=1e-12)


# ---------------------------------------------------------------------------------------------- the official code


@pytest.mark.parametrize(
    ("widths", "predictor_norm", "recorded"),
    [
        ((10, 6), False, [1.7968329994144554, 3.3909815022152685, 2.1238076775680548, 3.8479899306720045]),
        ((10, 10, 6), True, [3.642877784939812, 1.8228757108858213, 3.1261695785822514, 2.2828557799151934]),
    ],
    ids=["MoCo_ResNet", "MoCo_ViT"],
)
def test_four_steps_meet_the_official_code(
    widths: tuple[int, ...], predictor_norm: bool, recorded: list[float]
) -> None:
    """Two epochs of two steps, momentum from 0.9 to 1, plain gradient descent with rate 0.5."""
    settings = Config(widths=widths, predictor_hidden=10, predictor_norm=predictor_norm, temperature=0.5, momentum=0.9)
    method = settings.build(TinyBackbone(), TRAIN).double()
    online = nn.Sequential(method.backbone, method.projector)
    trained = [*online.parameters(), *method.predictor.parameters()]
    with torch.no_grad():
        for i, p in enumerate(trained):
            p.copy_(0.5 * grid(p.shape[0], p[0].numel(), 0.7 + 0.1 * i, 1.1).reshape(p.shape))
    method.key_encoder.update(online, 0.0)
    losses = []
    for step in range(4):
        clock = Clock(step, steps=4, steps_per_epoch=2)
        first = grid(4, 48, 0.9 + step, 0.4)
        views = [x.reshape(4, 3, 4, 4) for x in (first, first + 0.5 * grid(4, 48, 1.3, 0.2 + step))]
        loss = method.step(Batch(views, torch.arange(4), clock, Draws(torch.Generator()))).loss
        for p, gradient in zip(trained, torch.autograd.grad(loss, trained), strict=True):
            p.data -= 0.5 * gradient
        method.after_step(clock)
        losses.append(float(loss.detach()))
    assert losses == pytest.approx(recorded, rel=1e-9)


# ---------------------------------------------------------------------------------------------- the step


@pytest.mark.parametrize("case", ["moco_v3", "moco_v3-frozen"])
def test_step_compares_predictions_with_keys_of_the_other_view(case: str) -> None:
    method: Any = build(config(case))
    train(method, 2, lr=0.05)  # until the key encoder differs
    batch = make_batch(method.config)
    with torch.no_grad():
        projections = [method.projector(method.backbone(view)) for view in batch.views]
        predictions = [method.predictor(z) for z in projections]
        keys = [method.key_encoder.network(view) for view in batch.views]
    out = method.step(batch)
    total = restated(*predictions, *keys, tau=method.config.temperature)
    torch.testing.assert_close(out.loss, total, rtol=1e-10, atol=1e-12)
    assert torch.equal(out.terms["contrastive"], out.loss)
    torch.testing.assert_close(list(out.projections), projections, rtol=1e-10, atol=1e-12)


def test_heads_are_the_published_ones() -> None:
    def spelled(net: nn.Sequential) -> list[str]:
        return [
            f"{layer.in_features}-{layer.out_features}" + (" bias" if layer.bias is not None else "")
            if isinstance(layer, nn.Linear)
            else f"{type(layer).__name__}" + (" affine" if getattr(layer, "affine", False) else "")
            for layer in net
        ]

    hidden, last = ["BatchNorm1d affine", "ReLU"], ["BatchNorm1d"]
    resnet: Any = build(Config())
    assert spelled(resnet.projector) == ["32-4096", *hidden, "4096-256", *last]
    assert spelled(resnet.predictor) == ["256-4096", *hidden, "4096-256"]
    vit: Any = build(Config(widths=(4096, 4096, 256), predictor_norm=True))
    assert spelled(vit.projector) == ["32-4096", *hidden, "4096-4096", *hidden, "4096-256", *last]
    assert spelled(vit.predictor) == ["256-4096", *hidden, "4096-256", *last]
    assert resnet.encoder() == ("student", resnet.backbone)


def test_frozen_patches_stay_and_everything_else_of_the_vit_moves() -> None:
    recipe = registry.recipe(VIT)
    torch.manual_seed(0)
    method: Any = recipe.method.build(backbones.build(recipe.encoder, 8), TRAIN)
    grouped = {id(p) for group in method.param_groups() for p in group.params}
    patches = {name for name, p in method.backbone.named_parameters() if id(p) not in grouped}
    assert patches == {"model.patch_embed.proj.weight", "model.patch_embed.proj.bias"}
    before = {name: p.detach().clone() for name, p in method.backbone.named_parameters()}
    generator = torch.Generator().manual_seed(0)
    optimiser = torch.optim.Adam([p for group in method.param_groups() for p in group.params], lr=1e-2)
    for step in range(2):
        views = [torch.randn(8, 3, 8, 8, generator=generator) for _ in range(2)]
        clock = Clock(step, steps=4, steps_per_epoch=2)
        out = method.step(Batch(views, torch.arange(8), clock, Draws(generator)))
        optimiser.zero_grad()
        out.loss.backward()
        optimiser.step()
        method.after_step(clock)
    stayed = {name for name, p in method.backbone.named_parameters() if torch.equal(p, before[name])}
    assert stayed == patches
    for name in patches:
        own = method.key_encoder.network[0].get_parameter(name)
        assert torch.equal(own, before[name])


# ---------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temperature": -0.2}, r"MoCo v3's temperature is -0\.2, expected a number above 0$"),
        ({"momentum": 1.5}, r"MoCo v3's momentum is 1\.5, expected 0 to 1$"),
    ],
)
def test_impossible_settings_are_refused(changes: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Config(**changes)  # type: ignore[arg-type]


def test_frozen_patches_of_a_resnet_are_refused_before_training() -> None:
    message = (
        r"MoCo v3 treats the patch embedding of a ViT apart, and encoder 'resnet18_small_stem' has none; use a ViT, or "
        r"turn that option of the method off$"
    )
    with pytest.raises(BadRecipe, match=message):
        check(registry.recipe(RECIPE, ("method.frozen_patches=True",)))
    with pytest.raises(ValueError, match=r"^the encoder has no patch embedding; use a ViT$"):
        replace(Config(), frozen_patches=True).build(TinyBackbone(), TRAIN)
