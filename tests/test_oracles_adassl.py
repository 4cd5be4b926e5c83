"""AdaSSL against a restatement in numpy and the numbers of its official code (SkrighYZ/AdaSSL@8f7148f6)."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import TinyBackbone
from contracts import TRAIN
from torch import Tensor, nn

from harness.api import Backbone, Batch, Clock, Draws, JointEmbedding, MethodConfig, Step, TrainSet
from harness.backbones import build as build_backbone
from harness.nn.latent import (
    AdditiveEditor,
    GaussianLatent,
    RankOneEditor,
    SparseLatent,
    bernoulli,
    expected_l0,
    gaussian,
    kl_divergence,
    log_variance,
)
from harness.recipe import Encoder
from methods import byol, dino, simclr
from methods.adassl import AdaSSL, Config

SIMCLR = simclr.Config(widths=(10, 6), last_bias=False, temperature=0.1, clamp=20.0)
BYOL = byol.Config(widths=(10, 6))
BASES = {"simclr": SIMCLR, "byol": BYOL}


def grid(n: int, d: int, a: float, b: float) -> Tensor:
    i, j = torch.arange(n, dtype=torch.float64)[:, None], torch.arange(d, dtype=torch.float64)
    return torch.sin(a * i + b * j + 0.3 * i * j)


def make(config: Config) -> AdaSSL:
    torch.manual_seed(0)
    return config.build(TinyBackbone(), TRAIN).double()


def pair(images: int = 8, views: int = 2) -> list[Tensor]:
    """Views of images with a difference that is not noise alone: the second element is brighter at random."""
    generator = torch.Generator().manual_seed(1)
    first = torch.randn(images, 3, 8, 8, generator=generator, dtype=torch.float64)
    second = first + torch.randn(images, 1, 1, 1, generator=generator, dtype=torch.float64)
    return [first, second, second.roll(1, -1), first.roll(1, -1)][:views]


def batch(views: list[Tensor], step: int = 0, steps: int = 100) -> Batch:
    draws = Draws(torch.Generator().manual_seed(100 + step), dtype=torch.float64)
    return Batch(views, torch.arange(len(views[0])), Clock(step, steps, 10), draws)


# ------------------------------------------------------------------------------------------------ regularisers


def test_kl_meets_the_official_code() -> None:
    rows = kl_divergence(grid(3, 4, 0.5, 0.2), grid(3, 4, 0.1, 0.9), grid(3, 4, 0.3, 0.6), grid(3, 4, 0.8, 0.1))
    assert float(rows.mean()) == pytest.approx(0.5914417032826335, abs=1e-10)
    assert rows.tolist() == pytest.approx([0.5946921028, 0.5841606651, 0.5954723419], abs=1e-10)


def test_kl_is_that_of_torchs_distributions() -> None:
    q_mean, q_raw, p_mean, p_raw = (grid(5, 3, a, 0.4).requires_grad_() for a in (0.2, 1.7, 0.9, 2.3))
    rows = kl_divergence(q_mean, q_raw, p_mean, p_raw)
    q = torch.distributions.Normal(q_mean, (q_raw / 2).exp())
    p = torch.distributions.Normal(p_mean, (p_raw / 2).exp())
    expected = torch.distributions.kl_divergence(q, p).sum(1)
    torch.testing.assert_close(rows, expected, rtol=0, atol=1e-10)
    inputs = (q_mean, q_raw, p_mean, p_raw)
    ours, theirs = torch.autograd.grad(rows.sum(), inputs), torch.autograd.grad(expected.sum(), inputs)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)


def test_expected_l0_meets_the_official_code() -> None:
    assert float(expected_l0(grid(3, 4, 0.5, 0.2)).mean()) == pytest.approx(2.5100662170754546, abs=1e-10)


# ------------------------------------------------------------------------------------------------ samplers


def test_mask_is_one_with_the_probability_of_its_logit() -> None:
    logits = torch.tensor([-3.0, -1, 0, 1, 3], dtype=torch.float64)
    u = torch.rand(20_000, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mask = bernoulli(logits, u)
    assert set(mask.unique().tolist()) == {0.0, 1.0}
    np.testing.assert_allclose(mask.mean(0), [0.048, 0.267, 0.500, 0.733, 0.953], rtol=0, atol=0.015)
    np.testing.assert_array_equal(mask.numpy(), (u > torch.sigmoid(-logits)).numpy())


def test_mask_passes_the_gradient_of_the_soft_one() -> None:
    u = (torch.arange(1_000_000, dtype=torch.float64) + 0.5) / 1_000_000
    logits = torch.zeros_like(u).requires_grad_()
    bernoulli(logits, u).sum().backward()
    assert logits.grad is not None
    assert float(logits.grad.mean()) == pytest.approx(1 / 6, abs=1e-6)
    x = grid(4, 3, 0.7, 0.2).requires_grad_()
    noise, weight = grid(4, 3, 0.4, 0.9) / 2.5 + 0.5, grid(4, 3, 1.4, 0.3)
    (bernoulli(x, noise, temperature=0.5) * weight).sum().backward()
    u_np = noise.numpy()
    soft = 1 / (1 + np.exp(-(x.detach().numpy() + np.log(u_np / (1 - u_np))) / 0.5))
    assert x.grad is not None
    np.testing.assert_allclose(x.grad.numpy(), weight.numpy() * soft * (1 - soft) / 0.5, rtol=0, atol=1e-10)


def test_mask_noise_stops_short_of_the_ends_of_the_interval() -> None:
    ends = torch.tensor([20.0, -20.0], dtype=torch.float64, requires_grad=True)
    mask = bernoulli(ends, torch.tensor([0.0, 1.0], dtype=torch.float64))
    mask.sum().backward()
    assert mask.tolist() == [1.0, 0.0]
    soft = 1 / (1 + np.exp(-20.0) * (1 - 1e-6) / 1e-6)
    assert ends.grad is not None
    np.testing.assert_allclose(ends.grad.numpy(), soft * (1 - soft), rtol=1e-9, atol=0)


def test_gaussian_sample_and_its_spread() -> None:
    mean, raw, noise = grid(3, 2, 0.4, 0.1), 8 * grid(3, 2, 0.9, 0.5), grid(3, 2, 1.1, 0.7)
    sigma = np.log1p(np.exp(raw.numpy())) + 1e-6
    np.testing.assert_allclose(log_variance(raw).numpy(), np.clip(2 * np.log(sigma), -10, 10), rtol=0, atol=1e-10)
    sample = gaussian(mean, log_variance(raw), noise)
    kept = np.clip(sigma, np.exp(-5), np.exp(5))
    np.testing.assert_allclose(sample.numpy(), mean.numpy() + kept * noise.numpy(), rtol=0, atol=1e-10)
    assert log_variance(torch.tensor([-50.0, 500.0])).tolist() == [-10.0, 10.0]


# ------------------------------------------------------------------------------------------------ the whole step


class Near(MethodConfig):
    """A base whose loss is easy to restate: mean squared distance, with or without a teacher."""

    title = "Near"
    with_teacher = False

    def build(self, backbone: Backbone, train: TrainSet) -> "NearMethod":
        return NearMethod(self, backbone)


class NearWithTeacher(Near):
    with_teacher = True


class NearMethod(JointEmbedding[Near]):
    embedding_width = 6

    def __init__(self, config: Near, backbone: Backbone) -> None:
        super().__init__(config, backbone)
        self.projector = nn.Linear(backbone.width, 6)

    def embed(self, features: Tensor) -> Tensor:
        return self.projector(features)

    def target(self, view: Tensor, embedding: Tensor) -> Tensor:
        return torch.cos(3 * embedding).detach() if self.config.with_teacher else embedding

    def compare(self, predicted: tuple[Tensor, Tensor], targets: tuple[Tensor, Tensor]) -> Tensor:
        return sum(((p - t) ** 2).mean() * k for k, p, t in zip((1.0, 2.0), predicted, targets, strict=True))

    def step(self, batch: Batch) -> Step:
        raise AssertionError("only its parts are used")


def np_mlp(net: nn.Sequential, x: np.ndarray) -> np.ndarray:
    """Linear without bias, batch norm by the batch's own statistics, ReLU; the last layer linear."""
    layers = list(net)
    for layer in layers:
        if isinstance(layer, nn.Linear):
            assert (layer.bias is None) == (layer is not layers[-1] or layers[-1].bias is None)
            x = x @ layer.weight.detach().numpy().T
            x = x if layer.bias is None else x + layer.bias.detach().numpy()
        elif isinstance(layer, nn.BatchNorm1d):
            x = (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5)
            x = x * layer.weight.detach().numpy() + layer.bias.detach().numpy()
        else:
            x = np.maximum(x, 0)
    return x


def np_predict(m: AdaSSL, context: np.ndarray, seen: np.ndarray, noise: np.ndarray) -> tuple[np.ndarray, float]:
    R = m.config.latent
    out = np_mlp(m.latent.posterior, np.hstack([context, seen]))
    if m.config.variant == "v":
        prior = np_mlp(m.latent.prior, context)
        q_sigma, p_sigma = (np.log1p(np.exp(o[:, R:])) + 1e-6 for o in (out, prior))
        r = out[:, :R] + noise * q_sigma
        cost = 0.0
        for b in range(len(out)):
            for k in range(R):
                gap = (out[b, k] - prior[b, k]) ** 2
                cost += np.log(p_sigma[b, k] / q_sigma[b, k])
                cost += (q_sigma[b, k] ** 2 + gap) / (2 * p_sigma[b, k] ** 2) - 0.5
    else:
        p = 1 / (1 + np.exp(-out[:, :R]))
        r = np.where(noise > 1 - p, out[:, R:], 0.0)
        cost = p.sum()
    return np_edit(m.editor, context, r), cost / len(out)


def np_edit(editor: nn.Module, z: np.ndarray, r: np.ndarray) -> np.ndarray:
    if isinstance(editor, AdditiveEditor):
        return z + r
    if isinstance(editor, RankOneEditor):
        A, a, B = (p.detach().numpy() for p in (editor.read.weight, editor.read.bias, editor.write.weight))
        out = z.copy()
        for k in range(r.shape[1]):  # a sum of rank-1 changes
            out += np.outer(np.tanh(r[:, k]) * (z @ A[k] + a[k]), B[:, k])
        return out
    return np_mlp(editor.net, np.hstack([z, r]))


def restated(m: AdaSSL, at: Batch) -> tuple[float, float]:
    """Base loss and mean cost of the two directions."""
    z = [m.base.embed(m.backbone(view)).detach().numpy() for view in at.views]
    targets = [np.cos(3 * t) for t in z] if m.config.base.with_teacher else z
    seen_y, seen_x = (z[2], z[3]) if m.config.third_view else (targets[1], targets[0])
    generator = torch.Generator().manual_seed(100 + at.clock.step)
    draw = torch.randn if m.config.variant == "v" else torch.rand
    shape = len(z[0]), m.config.latent
    noise = [draw(shape, generator=generator, dtype=torch.float64).numpy() for _ in range(2)]
    y_hat, y_cost = np_predict(m, z[0], seen_y, noise[0])
    x_hat, x_cost = np_predict(m, z[1], seen_x, noise[1])
    loss = ((x_hat - targets[0]) ** 2).mean() + 2 * ((y_hat - targets[1]) ** 2).mean()
    return float(loss), float((x_cost + y_cost) / 2)


@pytest.mark.parametrize("base", [Near(), NearWithTeacher()], ids=["plain", "teacher"])
@pytest.mark.parametrize("third_view", [False, True])
@pytest.mark.parametrize(
    ("variant", "editor"),
    [("v", None), ("v", "linear"), ("v", "mlp"), ("v", "additive"), ("v", "rank1"), ("s", None), ("s", "additive")],
)
def test_step_is_the_restated_one(
    variant: Any, editor: Any, third_view: bool, base: Near, record_property: Callable[[str, object], None]
) -> None:
    config = Config(
        base=base,
        variant=variant,
        editor=editor,
        latent=6 if editor == "additive" else 4,
        hidden=(9, 7),
        editor_hidden=(8,),
        third_view=third_view,
        beta=0.3,
        beta_warmup=10,
    )
    method = make(config)
    if isinstance(method.editor, RankOneEditor):
        nn.init.normal_(method.editor.write.weight)  # away from the identity
    at = batch(pair(views=4 if third_view else 2), step=4)
    out = method.step(at)
    loss, cost = restated(method, at)
    assert float(out.terms["ssl"].detach()) == pytest.approx(loss, abs=1e-10)
    assert float(out.terms["beta"].detach()) == pytest.approx(cost, abs=1e-10)
    assert float(out.loss.detach()) == pytest.approx(loss + 0.3 * 5 / 10 * cost, abs=1e-10)
    record_property("oracle_error", float(abs(float(out.loss.detach()) / (loss + 0.3 * 5 / 10 * cost) - 1)))
    assert float(out.diagnostics["beta"]) == pytest.approx(0.15, abs=1e-6)
    out.loss.backward()
    assert all(p.grad is not None for p in method.parameters())


def test_gradient_is_that_of_the_restated_loss() -> None:
    """Central differences of the numpy loss along random directions, all networks of V together."""
    method = make(Config(base=Near(), latent=3, hidden=(7,), editor="mlp", editor_hidden=(8,), beta=0.3))
    at = batch(pair())
    method.step(at).loss.backward()
    params, generator = list(method.parameters()), torch.Generator().manual_seed(7)
    for _ in range(4):
        direction = [torch.randn(p.shape, generator=generator, dtype=torch.float64) for p in params]
        slope = sum(float((p.grad * d).sum()) for p, d in zip(params, direction, strict=True) if p.grad is not None)
        values = []
        for sign in (1, -1):
            move(params, direction, sign * 1e-6)
            loss, cost = restated(method, at)
            values.append(loss + 0.3 * cost)
            move(params, direction, -sign * 1e-6)
        assert slope == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-5)


@torch.no_grad()
def move(params: list[nn.Parameter], direction: list[Tensor], size: float) -> None:
    for p, d in zip(params, direction, strict=True):
        p.add_(d, alpha=size)


def test_beta_warms_up_as_the_official_counter() -> None:
    config = Config(base=SIMCLR, beta=0.5, beta_warmup=10)
    per_call = [config.beta_at(step) for step in range(12) for _ in range(2)]
    expected, counter = [], 0.0
    for _ in range(24):  # half a count per call, two calls per step
        counter += 0.5
        expected.append(0.5 * np.ceil(counter) / 10 if counter < 10 else 0.5)
    assert per_call == pytest.approx(expected, abs=1e-15)
    assert per_call[:4] == pytest.approx([0.05, 0.05, 0.1, 0.1], abs=1e-15)
    assert per_call[16:21] == pytest.approx([0.45, 0.45, 0.5, 0.5, 0.5], abs=1e-15)
    assert [Config(base=SIMCLR, beta=0.5).beta_at(step) for step in (0, 9)] == [0.5, 0.5]


# ------------------------------------------------------------------------------------------------ over SimCLR and BYOL


@pytest.mark.parametrize("base", BASES)
def test_sparse_edit_starts_as_the_identity(base: str) -> None:
    method = make(Config(base=BASES[base], variant="s", latent=4, hidden=(9,)))
    out = method.step(batch(pair()))
    torch.manual_seed(0)
    plain = BASES[base].build(TinyBackbone(), TRAIN).double()
    torch.testing.assert_close(out.terms["ssl"], plain.step(batch(pair())).loss, rtol=0, atol=1e-10)
    assert float(out.diagnostics["edit"]) == 0


def test_byols_posterior_sees_the_teacher_and_simclrs_the_embedding() -> None:
    for base in BASES.values():
        method = make(Config(base=base, latent=4, hidden=(9,)))
        for p in method.base.parameters():
            if not p.requires_grad:
                p.mul_(1.5)  # a teacher unlike the student
        seen: list[Tensor] = []
        method.latent.posterior.register_forward_pre_hook(lambda _, args, seen=seen: seen.append(args[0]))
        views = pair()
        z = [method.base.embed(method.backbone(view)) for view in views]
        targets = [method.base.target(view, e) for view, e in zip(views, z, strict=True)]
        method.step(batch(views))
        torch.testing.assert_close(seen[0], torch.cat([z[0], targets[1]], dim=1), rtol=0, atol=1e-12)
        torch.testing.assert_close(seen[1], torch.cat([z[1], targets[0]], dim=1), rtol=0, atol=1e-12)
        assert torch.equal(targets[1], z[1]) == (base is SIMCLR)


@pytest.mark.parametrize("base", BASES)
def test_third_view_reaches_the_posterior_with_gradient(base: str) -> None:
    method = make(Config(base=BASES[base], latent=4, hidden=(9,), third_view=True))
    views = [view.requires_grad_() for view in pair(views=4)]
    out = method.step(batch(views))
    grads = torch.autograd.grad(out.terms["beta"], views[2:])  # the KL sees them through the posterior alone
    assert all(float(g.abs().max()) > 0 for g in grads)


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize(("variant", "editor"), [("v", "linear"), ("v", "additive"), ("s", "rank1")])
def test_loss_falls_over_20_steps(base: str, variant: Any, editor: Any) -> None:
    method = make(Config(base=BASES[base], variant=variant, editor=editor, latent=6, hidden=(16,), beta=0.1))
    params = [p for group in method.param_groups() for p in group.params]
    adam, losses = torch.optim.Adam(params, lr=1e-2), []
    for step in range(20):
        now = batch(pair(), step, 20)
        out = method.step(now)
        adam.zero_grad()
        out.loss.backward()
        adam.step()
        method.after_step(now.clock)
        losses.append(float(out.loss.detach()))
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 0.1, losses


def test_after_step_and_encoder_are_the_bases() -> None:
    method = make(Config(base=BYOL, latent=4, hidden=(9,)))
    torch.manual_seed(0)
    plain = BYOL.build(TinyBackbone(), TRAIN).double()
    for one in (method.base, plain):
        with torch.no_grad():
            for p in one.parameters():
                if p.requires_grad:
                    p.add_(0.5)
    clock = Clock(3, 10, 10)
    method.after_step(clock)
    plain.after_step(clock)
    torch.testing.assert_close(dict(method.base.state_dict()), dict(plain.state_dict()), rtol=0, atol=0)
    assert method.encoder() == ("student", method.base.backbone)
    assert method.backbone is method.base.backbone


@pytest.mark.parametrize("base", BASES)
def test_parameters_are_grouped_once_and_the_state_comes_back(base: str) -> None:
    config = Config(base=BASES[base], latent=4, hidden=(9,))
    method, other = make(config), make(config)
    grouped = [id(p) for group in method.param_groups() for p in group.params]
    assert sorted(grouped) == sorted({id(p) for p in method.parameters() if p.requires_grad})
    with torch.no_grad():
        for p in method.parameters():
            p.add_(0.1)
    other.load_state_dict(method.state_dict())
    a, b = method.step(batch(pair(), step=5)), other.step(batch(pair(), step=5))
    assert torch.equal(a.loss, b.loss)


# ------------------------------------------------------------------------------------------------ sizes and settings

IDENT = simclr.Config(widths=(128, 16), last_bias=False, learnable_scale=True)
CELEBA = simclr.Config(widths=(1024, 128), last_bias=False, learnable_scale=True)
CELEBA_LATENT: dict[str, Any] = {"latent": 20, "hidden": (1024,)}
PROBES = {"3dident": 16 * 10 + 10, "celeba": 512 * 40 + 40 + 128 * 40 + 40}  # the oracle's online probes


@pytest.mark.parametrize(
    ("experiment", "config", "published"),
    [
        ("3dident", IDENT, 11_244_395),
        ("3dident", Config(base=IDENT), 11_293_099),
        ("3dident", Config(base=IDENT, editor="additive"), 11_292_587),
        ("3dident", Config(base=IDENT, variant="s"), 11_270_043),
        ("celeba", CELEBA, 11_850_897),
        ("celeba", Config(base=CELEBA, editor="mlp", **CELEBA_LATENT), 12_472_545),
        ("celeba", Config(base=CELEBA, variant="s", **CELEBA_LATENT), 12_161_229),
    ],
)
def test_parameters_are_as_many_as_in_the_official_models(
    experiment: str, config: MethodConfig, published: int
) -> None:
    stem = {"3dident": "resnet18", "celeba": "resnet18_small_stem"}[experiment]
    with torch.device("meta"):
        method = config.build(build_backbone(Encoder(name=stem), 64), TRAIN)
    assert sum(p.numel() for p in method.parameters() if p.requires_grad) == published - PROBES[experiment]


def test_networks_start_xavier_uniform_and_unbiased() -> None:
    torch.manual_seed(0)
    for latent in (GaussianLatent(16, (128, 128), 16), SparseLatent(16, (128, 128), 16)):
        linears = [m for m in latent.modules() if isinstance(m, nn.Linear)]
        assert [m.bias is None for m in linears[:3]] == [True, True, False]
        for m in linears:
            bound = np.sqrt(2) * np.sqrt(6 / (m.in_features + m.out_features))
            assert 0.98 * bound < float(m.weight.detach().abs().max()) <= bound
            assert m.bias is None or not m.bias.detach().any()
    assert not RankOneEditor(16, 4).write.weight.detach().any()


def test_labels_and_requirements() -> None:
    v, s = Config(base=SIMCLR), Config(base=BYOL, variant="s")
    assert (v.label, s.label) == ("AdaSSL-V (SimCLR)", "AdaSSL-S (BYOL)")
    assert v.requirements() == SIMCLR.requirements()
    needs = replace(v, third_view=True).requirements()
    assert (needs.views, needs.sources) == (("global",) * 4, (0, 1, 1, 0))
    assert list(Config.coefficients()) == ["beta"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"variant": "x"}, r"AdaSSL's variant is 'x', expected one of \('v', 's'\)"),
        ({"editor": "conv"}, r"AdaSSL's editor is 'conv', expected None or one of \('linear', "),
        ({"editor": "additive", "latent": 4}, "r is 4 wide and the embedding 6; set latent=6"),
        ({"base": dino.Config(out_dim=8)}, r"compares two embeddings \(simclr, byol\); DINO does not"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Config(**({"base": SIMCLR} | settings)).build(TinyBackbone(), TRAIN)


def test_contrastive_loss_of_edited_embeddings_uses_originals_as_negatives() -> None:
    """Rows x_hat, y_hat; columns f(x), f(y); neither edited row meets another edited one."""
    method = make(Config(base=SIMCLR, latent=4, hidden=(9,)))
    out, z = method.step(batch(pair())), [method.base.embed(method.backbone(view)) for view in pair()]
    again = batch(pair())
    y_hat, _ = method.predict(z[0], z[1], again.draws)
    x_hat, _ = method.predict(z[1], z[0], again.draws)
    rows, columns = (F.normalize(torch.cat(pair_)) for pair_ in ((x_hat, y_hat), z))
    S, B, loss = (rows @ columns.T / 0.1).clamp(-20, 20).detach().numpy(), 8, 0.0
    for i in range(2 * B):
        kept = [j for j in range(2 * B) if j not in (i + B, i - B)]
        loss += np.log(np.exp(S[i, kept]).sum()) - S[i, i]
    assert float(out.terms["ssl"].detach()) == pytest.approx(loss / (2 * B), abs=1e-10)
