"""VICReg, SSL-HSIC, SimCLR, BYOL and SimSiam against their equations restated, and numbers of the official code.

Losses and gradients agree to 1e-10 in float64 (finite differences to 1e-6). The restatements share no code with ours.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TinyBackbone
from contracts import TRAIN, SmallBackbone, build, config, make_batch, train
from numpy.typing import NDArray
from torch import Tensor, nn

from harness.api import Batch, Clock, Draws, Method, MethodConfig
from harness.nn import Average, cosine, full_precision
from methods.byol import cosine_distance
from methods.simclr import nt_xent
from methods.simsiam import simsiam_terms
from methods.ssl_hsic import frequencies, hsic_terms, hsic_zy, hsic_zz, random_features, scale_objective
from methods.vicreg import vicreg_terms

Array = NDArray[np.float64]
EXACT = {"rtol": 1e-10, "atol": 1e-12}


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def fresh_draws(seed: int = 0) -> Draws:
    return Draws(torch.Generator().manual_seed(seed), dtype=torch.float64)


def assert_gradient(loss: Callable[..., Tensor], *inputs: Tensor, size: float = 1e-5) -> None:
    """Autograd against central differences along three random directions of all inputs together."""
    inputs = tuple(x.detach().clone().requires_grad_() for x in inputs)
    gradients = torch.autograd.grad(loss(*inputs), inputs)
    for seed in range(3):
        directions = [normal(*x.shape, seed=50 + seed) for x in inputs]
        ahead, behind = (
            loss(*(x.detach() + sign * size * d for x, d in zip(inputs, directions, strict=True))) for sign in (1, -1)
        )
        slope = sum((g * d).sum() for g, d in zip(gradients, directions, strict=True))
        torch.testing.assert_close(slope, (ahead - behind) / (2 * size), rtol=1e-6, atol=1e-8)


def grid(n: int, d: int, a: float, b: float) -> Tensor:
    """The inputs of the recorded official values: sin(a i + b j + 0.3 i j)."""
    i, j = torch.arange(n, dtype=torch.float64)[:, None], torch.arange(d, dtype=torch.float64)
    return torch.sin(a * i + b * j + 0.3 * i * j)


def recorded_start(settings: MethodConfig, size: float) -> Method[Any]:
    """The method from which official runs were recorded: every trained parameter a grid, in their order."""
    method = settings.build(TinyBackbone(), TRAIN).double().train()
    with torch.no_grad():
        for i, p in enumerate(method.parameters()):
            p.copy_(size * grid(p.shape[0], p[0].numel(), 0.7 + 0.1 * i, 1.1).reshape(p.shape))
    return method


def four_steps(method: Method[Any], optimiser: torch.optim.SGD, schedule: Callable[[int], None]) -> list[float]:
    """Losses before each of four steps of new images."""
    losses = []
    for step in range(4):
        schedule(step)
        first = grid(6, 48, 0.9 + step, 0.4)
        views = [x.reshape(6, 3, 4, 4) for x in (first, first + 0.5 * grid(6, 48, 1.3, 0.2 + step))]
        batch = Batch(views, torch.arange(6), Clock(step, steps=4, steps_per_epoch=1), Draws(torch.Generator()))
        loss = method.step(batch).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses


def norms(*layers: nn.Module) -> list[float]:
    return [layer.get_parameter("weight").norm().item() for layer in layers]


# ---------------------------------------------------------------------------------------------- VICReg


def vicreg_oracle(a: Tensor, b: Tensor) -> dict[str, Tensor]:
    n, d = a.shape
    variance = covariance = torch.zeros(())
    for z in (a, b):
        mean = [sum(z[i, j] for i in range(n)) / n for j in range(d)]
        c = [
            [sum((z[i, j] - mean[j]) * (z[i, k] - mean[k]) for i in range(n)) / (n - 1) for k in range(d)]
            for j in range(d)
        ]
        variance = variance + sum((1 - (c[j][j] + 1e-4).sqrt()).clamp_min(0) for j in range(d)) / d / 2
        covariance = covariance + sum(c[j][k] ** 2 for j in range(d) for k in range(d) if j != k) / d
    invariance = sum((a[i, j] - b[i, j]) ** 2 for i in range(n) for j in range(d)) / (n * d)
    return {"invariance": invariance, "variance": variance, "covariance": covariance}


def vicreg_gradient(z: Array, other: Array, weights: tuple[float, float, float]) -> Array:
    """By hand, of the weighted loss with respect to one branch."""
    n, d = z.shape
    centred = z - z.mean(0)
    c = centred.T @ centred / (n - 1)
    std = np.sqrt(np.diag(c) + 1e-4)
    invariance = 2 * (z - other) / (n * d)
    variance = -centred * (std < 1) / ((n - 1) * std * d) / 2
    covariance = 4 * centred @ (c - np.diag(np.diag(c))) / ((n - 1) * d)
    return weights[0] * invariance + weights[1] * variance + weights[2] * covariance


@pytest.mark.parametrize(("n", "d"), [(12, 5), (6, 9), (7, 7)])  # the covariance goes two ways, by n < d
def test_vicreg_terms_and_gradients(n: int, d: int, held: Callable[..., None]) -> None:
    a, b = (0.9 * normal(n, d, seed=1)).requires_grad_(), (0.9 * normal(n, d, seed=2) + 0.5).requires_grad_()
    terms = vicreg_terms(a, b)
    expected = vicreg_oracle(a.detach(), b.detach())
    assert terms.keys() == expected.keys()
    for name, value in expected.items():
        assert value > 1e-3
        assert terms[name].item() == pytest.approx(value.item(), rel=1e-10)
        held(lambda *x, name=name: vicreg_terms(*x)[name], lambda *x, name=name: vicreg_oracle(*x)[name], a, b)
    weights = (25.0, 25.0, 1.0)
    sum(w * terms[name] for w, name in zip(weights, expected, strict=True)).backward()
    for z, other in ((a, b), (b, a)):
        by_hand = vicreg_gradient(z.detach().numpy(), other.detach().numpy(), weights)
        torch.testing.assert_close(z.grad, torch.from_numpy(by_hand), **EXACT)


def test_vicreg_step_is_the_weighted_sum_of_one_pass_per_view() -> None:
    method = build(config("vicreg", invariance=3.0, variance=5.0, covariance=0.5))
    batch = make_batch(method.config)
    a, b = (method.expander(method.backbone(view)) for view in batch.views)
    s, v, c = vicreg_oracle(a, b).values()
    torch.testing.assert_close(method.step(batch).loss, 3.0 * s + 5.0 * v + 0.5 * c, **EXACT)


def test_vicreg_expander_is_the_published_one() -> None:
    layers = list(config("vicreg").build(SmallBackbone(), TRAIN).expander)
    assert [type(layer).__name__ for layer in layers] == ["Linear", "BatchNorm1d", "ReLU"] * 2 + ["Linear"]
    assert [layer.bias is not None for layer in layers if isinstance(layer, torch.nn.Linear)] == [True, True, False]


@pytest.mark.parametrize(
    ("widths", "losses", "lengths"),
    [
        (
            (10, 10, 4),
            [17.89378118294971, 13.623334915746058, 10.487898163807944, 18.582531278611413],
            [17.309090529896846, 7.672875526714426, 4.262735114397613],
        ),
        (
            (10, 10, 9),
            [24.846338496126428, 10.357138735536438, 16.491957222763507, 12.500651088401105],
            [17.257057754429553, 7.653369629742045, 6.25106836453055],
        ),
    ],
)
def test_vicreg_four_steps_meet_the_official_code(
    widths: tuple[int, ...], losses: list[float], lengths: list[float]
) -> None:
    """Recorded from facebookresearch/vicreg@4e12602, VICReg.forward of one process, its expander after our backbone.

    Plain gradient descent; some dimensions have a standard deviation above 1, some below. The header's departure is
    one of precision, which float64 has none of.
    """
    method = recorded_start(config("vicreg", widths=widths), 1.0)
    optimiser = torch.optim.SGD(method.parameters(), 0.02)
    assert four_steps(method, optimiser, lambda step: None) == pytest.approx(losses, rel=1e-9)
    found = norms(method.backbone.linear, method.expander[0], method.expander[-1])
    assert found == pytest.approx(lengths, rel=1e-9)


def test_full_precision_widens_half_and_leaves_double() -> None:
    seen = []

    @full_precision
    def square(x: Tensor, name: str) -> Tensor:
        seen.append((x.dtype, (x @ x.T).dtype, name))
        return (x @ x.T).sum()

    with torch.autocast("cpu", dtype=torch.bfloat16):
        for dtype in (torch.bfloat16, torch.float32, torch.float64):
            square(normal(3, 2).to(dtype), "kept")
    wide = [torch.float32, torch.float32, torch.float64]
    assert seen == [(dtype, dtype, "kept") for dtype in wide]


# ---------------------------------------------------------------------------------------------- SSL-HSIC


def kernel(x: Array, y: Array, c: float) -> float:
    return c / math.sqrt(c**2 + float(((x - y) ** 2).sum()))


def exact_hsic_zy(z: Array, c: float) -> float:
    n, k, _ = z.shape
    positives = sum(kernel(z[i, p], z[i, q], c) for i in range(n) for p in range(k) for q in range(k) if p != q)
    rows = z.reshape(n * k, -1)
    return positives / (n * k * (k - 1)) - sum(kernel(x, y, c) for x in rows for y in rows) / (n * k) ** 2


def exact_hsic_zz(z: Array, c: float) -> float:
    rows = z.reshape(-1, z.shape[-1])
    m = len(rows)
    gram = np.array([[kernel(x, y, c) for y in rows] for x in rows])
    centring = np.eye(m) - 1 / m
    return float(np.trace(gram @ centring @ gram @ centring)) / m**2


def unit_rows(n: int, k: int, d: int) -> Tensor:
    """Views of an image are near each other, as in training."""
    return torch.nn.functional.normalize(normal(n, 1, d) + 0.7 * normal(n, k, d, seed=1), dim=-1)


def hsic_oracle(z: Array, c: float, features: int, draws: Draws) -> dict[str, float]:
    """Every sum written out, from the same random numbers: amplitude, direction, phase; twice; then the rows."""
    n, k, d = z.shape
    phi = []
    for _ in range(2):
        amplitude, direction, phase = (
            draws.normal(features, shared=True).numpy(),
            draws.normal(d, features, shared=True).numpy(),
            draws.uniform(features, shared=True).numpy(),
        )
        one = np.empty((n, k, features))
        for i in range(n):
            for view in range(k):
                for f in range(features):
                    angle = sum(abs(amplitude[f]) * direction[j, f] * z[i, view, j] for j in range(d)) / c
                    one[i, view, f] = math.sqrt(2 / features) * math.cos(angle + 2 * math.pi * phase[f])
        phi.append(one)
    per_image = [sum(phi[0][i, view] for view in range(k)) for i in range(n)]
    zy = (
        sum(float(s @ s) for s in per_image) / (n * k * (k - 1)) - float(sum(per_image) @ sum(per_image)) / (n * k) ** 2
    )
    means = [one.reshape(n * k, features).sum(0) / (n * k) for one in phi]
    products = sum(np.outer(phi[0][i, v] - means[0], phi[1][i, v] - means[1]) for i in range(n) for v in range(k))
    zz = float((products**2).sum()) / (n * k) ** 2
    rows = np.floor(draws.uniform(2, k, 1024 // k, shared=True).numpy() * n).astype(int)
    x, y = (np.concatenate([z[rows[side, view], view] for view in range(k)]) for side in range(2))
    s = (x**2).sum(1)[:, None] + (y**2).sum(1) - 2 * x @ y.T
    slope = -c / 2 / (c**2 + s) ** 1.5
    return {"gamma": math.sqrt(zz), "hsic_zy": zy, "scale": -float((0.5 * np.log(np.maximum(slope**2, 1e-14))).mean())}


@pytest.mark.parametrize(("k", "c"), [(4, 1.0), (2, 0.7)])
def test_ssl_hsic_terms_and_gradients(k: int, c: float, record_property: Callable[[str, object], None]) -> None:
    z, scale = unit_rows(5, k, 6), torch.tensor(c, dtype=torch.float64)
    terms, diagnostics = hsic_terms(z, scale, 7, fresh_draws())
    expected = hsic_oracle(z.numpy(), c, 7, fresh_draws())
    assert terms.keys() == expected.keys()
    for name, value in expected.items():
        assert terms[name].item() == pytest.approx(value, rel=1e-10)
        record_property("oracle_error", float(abs(terms[name].item() / value - 1)))
    assert_gradient(lambda x: 3 * (t := hsic_terms(x, scale, 7, fresh_draws())[0])["gamma"] - t["hsic_zy"], z)
    assert_gradient(lambda x: hsic_terms(z, x, 7, fresh_draws())[0]["scale"], scale)
    phi = random_features(z, scale, 7, fresh_draws())  # the first of the two draws
    assert diagnostics["one_draw_inflation"].item() == pytest.approx(hsic_zz(phi, phi).item() / expected["gamma"] ** 2)
    slope = torch.autograd.grad(hsic_terms(z, scale.requires_grad_(), 7, fresh_draws())[0]["scale"], scale)[0]
    assert diagnostics["scale_balance"].item() == pytest.approx(1 + c * slope.item(), rel=1e-10)  # 1 is stationary


@pytest.mark.parametrize("case", ["ssl_hsic", "ssl_hsic-no_target"])
def test_hsic_step_takes_predictions_and_the_target_of_both_views(case: str) -> None:
    method = build(config(case))
    train(method, 2, lr=0.05)  # until target and online network differ
    batch = make_batch(method.config)
    a, b = batch.views
    outputs = [method.projector(method.backbone(view)) for view in (a, b)]
    if method.config.with_target:
        outputs = [method.predictor(z) for z in outputs] + [method.target.network(view) for view in (b, a)]
    rows = torch.stack([z / z.norm(dim=1, keepdim=True) for z in outputs], 1).detach().numpy()
    c = method.scale.item()
    assert c != 1
    expected = hsic_oracle(rows, c, 64, make_batch(method.config).draws)
    total = 3 * expected["gamma"] - expected["hsic_zy"] + expected["scale"]
    assert method.step(batch).loss.item() == pytest.approx(total, rel=1e-10)


def test_hsic_target_moves_from_its_momentum_to_one() -> None:
    method = build(config("ssl_hsic"))
    slow, fast = method.target.network[0].layers[0].weight, method.backbone.layers[0].weight
    for step, tau in ((0, 0.99), (500, 0.995), (1000, 1.0)):
        with torch.no_grad():
            slow.fill_(1.0)
            fast.fill_(0.0)
        method.after_step(Clock(step, steps=1000, steps_per_epoch=100))
        torch.testing.assert_close(slow, torch.full_like(slow, tau), **EXACT)


def test_hsic_trains_the_network_and_the_scale_by_their_own_terms() -> None:
    method = build(config("ssl_hsic"))
    network = [p for p in method.parameters() if p.requires_grad and p is not method.scale]
    terms = method.step(make_batch(method.config)).terms
    hsic = 3 * terms["gamma"] - terms["hsic_zy"]
    assert torch.autograd.grad(hsic, [method.scale], allow_unused=True, retain_graph=True) == (None,)
    assert set(torch.autograd.grad(terms["scale"], network, allow_unused=True, retain_graph=True)) == {None}
    assert torch.autograd.grad(terms["scale"], [method.scale])[0] != 0
    groups = method.param_groups()
    assert [group.own_adam for group in groups] == [None, 3e-4]
    assert groups[1].params == [method.scale]


@pytest.mark.parametrize("d", [3, 64, 2048])
def test_frequencies_have_mean_square_d(d: int) -> None:
    """Exact at every width; a grid cut at 100 loses 16 % at 2048."""
    count = 4_000_000 // d
    squares = frequencies(d, count, fresh_draws(d)).square().sum(0) / d
    assert abs(squares.mean() - 1) < 4 * squares.std() / math.sqrt(count)
    assert squares.std() == pytest.approx(math.sqrt(2 + 6 / d), rel=0.15)


@pytest.mark.parametrize("c", [0.3, 1.0, 2.5])
def test_features_average_to_the_kernel(c: float) -> None:
    z = unit_rows(3, 2, 5)
    scale = torch.tensor(c, dtype=torch.float64)
    phi = random_features(z, scale, 200_000, fresh_draws()).flatten(0, 1)
    expected = [[kernel(x, y, c) for y in z.flatten(0, 1).numpy()] for x in z.flatten(0, 1).numpy()]
    torch.testing.assert_close(
        phi @ phi.T, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=4 / math.sqrt(2e5)
    )


def test_all_views_share_a_draw() -> None:
    z = unit_rows(4, 1, 5).expand(4, 3, 5)
    phi = random_features(z, torch.ones((), dtype=torch.float64), 16, fresh_draws())
    assert torch.equal(phi[:, 0], phi[:, 1])
    assert torch.equal(phi[:, 0], phi[:, 2])


def test_hsic_estimates_are_unbiased_with_two_draws_and_inflated_with_one() -> None:
    z, c, draws = unit_rows(16, 4, 8), torch.tensor(1.0, dtype=torch.float64), fresh_draws()
    zy, zz, inflated = [], [], []
    for _ in range(400):
        phi, other = (random_features(z, c, 64, draws) for _ in range(2))
        zy.append(hsic_zy(phi).item())
        zz.append(hsic_zz(phi, other).item())
        inflated.append(hsic_zz(phi, phi).item())
    error = {name: np.std(values) / math.sqrt(len(values)) for name, values in (("zy", zy), ("zz", zz))}
    exact_zz = exact_hsic_zz(z.numpy(), 1.0)
    assert (
        abs(np.mean(zy) - (exact_hsic_zy(z.numpy(), 1.0) + 1 / 3)) < 4 * error["zy"]
    )  # views with themselves: 1 / (k - 1)
    assert abs(np.mean(zz) - exact_zz) < 4 * error["zz"]
    assert np.mean(inflated) > 1.2 * exact_zz
    assert np.mean(inflated) - exact_zz > 20 * error["zz"]


def test_scale_settles_where_the_closed_form_says() -> None:
    s = torch.tensor(1.7, dtype=torch.float64)
    best = (s / 2).sqrt().requires_grad_()
    (gradient,) = torch.autograd.grad(scale_objective(s.expand(9), best), best)
    assert abs(gradient) < 1e-12
    for c in (0.5 * best, 0.9 * best, 1.1 * best, 2 * best):
        assert scale_objective(s, c) > scale_objective(s, best)
    various, c = normal(20).square() + 0.1, torch.tensor(0.8, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(scale_objective(various, c), c)
    stationary = (3 * c**2 / (various + c**2)).mean() - 1  # zero at the best c
    torch.testing.assert_close(gradient, stationary / c, **EXACT)


def test_average_is_zero_debiased_and_takes_the_newest_buffers() -> None:
    network = SmallBackbone().double()
    average, decay = Average(network), 0.9
    seen = []
    for count in (1, 2, 3, 4):
        with torch.no_grad():
            for p in network.parameters():
                p.add_(normal(*p.shape, seed=count))
            network.layers[1].running_mean.add_(count)
        seen.append(network.layers[0].weight.detach().clone())
        average.update(network, decay, count)
        weights = [(1 - decay) * decay ** (count - 1 - i) for i in range(count)]  # a mean that starts from zero
        plain = sum(w * p for w, p in zip(weights, seen, strict=True))
        torch.testing.assert_close(average.network.layers[0].weight, plain / (1 - decay**count), **EXACT)
    assert torch.equal(average.network.layers[1].running_mean, network.layers[1].running_mean)
    assert not any(p.requires_grad for p in average.parameters())


def test_hsic_is_evaluated_with_averaged_weights() -> None:
    method = build(config("ssl_hsic", eval_decay=0.5))
    train(method, 1)
    network, encoder = method.encoder()
    assert network == "ema"
    first = method.backbone.layers[0].weight.detach().clone()
    torch.testing.assert_close(encoder.layers[0].weight, first, **EXACT)
    train(method, 1, start=1)
    second = method.backbone.layers[0].weight
    torch.testing.assert_close(encoder.layers[0].weight, (0.5 * second + 0.25 * first) / 0.75, **EXACT)


# ---------------------------------------------------------------------------------------------- SimCLR


def nt_xent_oracle(predictions: Tensor, targets: Tensor, sharpness: float, clamp: float | None) -> Tensor:
    rows, columns = ([row / (row @ row).sqrt() for row in x] for x in (predictions, targets))
    count, total = len(rows), torch.zeros(())
    for i, row in enumerate(rows):
        logits = [sharpness * (row @ column) for column in columns]
        if clamp is not None:
            logits = [x.clamp(-clamp, clamp) for x in logits]
        twin = (i + count // 2) % count  # the other view, from which the prediction was made
        total = total + sum((x - logits[i]).exp() for j, x in enumerate(logits) if j != twin).log()
    return total / count


def halves(x: Tensor) -> tuple[Tensor, Tensor]:
    first, second = x.chunk(2)
    return first, second


@pytest.mark.parametrize(
    ("predictions", "targets", "temperature", "scale", "value"),
    [
        (grid(8, 4, 0.7, 1.1), grid(8, 4, 0.9, 0.4), 0.1, 1.0, 1.2413717779536844),
        (grid(8, 4, 0.7, 1.1), grid(8, 4, 0.7, 1.1), 0.1, 1.0, 0.1304418376685078),
        (grid(8, 4, 0.7, 1.1), grid(8, 4, 0.9, 0.4), 0.5, 1.0, 1.1477624529087835),
        (grid(8, 4, 0.7, 1.1), grid(8, 4, 0.9, 0.4), 0.05, 1.0, 2.228587222462726),
        (grid(8, 4, 0.7, 1.1), grid(8, 4, 0.9, 0.4), 0.1, 2.0, 2.228587222462726),
        (grid(8, 4, 0.7, 1.1), grid(8, 4, 0.7, 1.1), 0.05, 1.0, 0.08569836194192895),
        (grid(12, 5, 0.7, 1.1), grid(12, 5, 0.9, 0.4), 0.1, 0.7, 3.5879541866181417),
    ],
)
def test_nt_xent_meets_the_official_numbers(
    predictions: Tensor, targets: Tensor, temperature: float, scale: float, value: float
) -> None:
    """Recorded from SkrighYZ/AdaSSL@8f7148f6, whose similarities are clamped to +-20."""
    found = nt_xent(*halves(predictions), *halves(targets), scale / temperature, 20.0)
    assert found.item() == pytest.approx(value, rel=1e-10)


@pytest.mark.parametrize(("sharpness", "clamp"), [(5.0, None), (50.0, None), (50.0, 20.0)])
def test_simclr_loss_and_gradients(sharpness: float, clamp: float | None, held: Callable[..., None]) -> None:
    predictions, targets = normal(10, 4, seed=1), normal(10, 4, seed=2)
    inputs = (*halves(predictions), *halves(targets))

    def restated(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
        return nt_xent_oracle(torch.cat([a, b]), torch.cat([c, d]), sharpness, clamp)

    held(lambda *x: nt_xent(*x, sharpness, clamp), restated, *inputs)
    assert_gradient(lambda *x: nt_xent(*x, sharpness, clamp), *inputs, size=1e-6)
    if clamp is not None:
        without = nt_xent_oracle(predictions, targets, sharpness, None)
        assert restated(*inputs).item() != pytest.approx(without.item(), rel=1e-3)


def test_simclr_step_compares_each_view_with_the_other() -> None:
    for case, sharpness, clamp in (("simclr", 5.0, None), ("simclr-learnable", 5.0, 20.0)):
        method = build(config(case))
        batch = make_batch(method.config)
        a, b = (method.projector(method.backbone(view)).detach() for view in batch.views)
        expected = nt_xent_oracle(torch.cat([b, a]), torch.cat([a, b]), sharpness, clamp).item()
        tolerance = 1e-10 if clamp is None else 1e-6  # the scale starts at softplus of a float32 number
        assert method.step(batch).loss.item() == pytest.approx(expected, rel=tolerance)


def test_simclr_refuses_a_temperature_of_zero() -> None:
    with pytest.raises(ValueError, match=r"SimCLR's temperature is 0\.0, expected a number above 0"):
        config("simclr", temperature=0.0)


# ---------------------------------------------------------------------------------------------- BYOL


def byol_oracle(predictions: tuple[Tensor, Tensor], targets: tuple[Tensor, Tensor]) -> Tensor:
    total = torch.zeros(())
    for p, t in zip(predictions, targets, strict=True):
        n = len(p)
        total = total + sum(2 - 2 * (p[i] @ t[i]) / ((p[i] @ p[i]) * (t[i] @ t[i])).sqrt() for i in range(n)) / n
    return total


def test_byol_step_predicts_the_teacher_of_the_other_view(held: Callable[..., None]) -> None:
    method = build(config("byol"))
    train(method, 2)  # until teacher and student differ
    batch = make_batch(method.config)
    a, b = batch.views
    embeddings = [method.projector(method.backbone(view)) for view in (b, a)]
    targets = [method.teacher.network(view) for view in (a, b)]
    held(
        lambda p, q, s, t: method.compare((p, q), (s, t)),
        lambda p, q, s, t: byol_oracle((method.predictor(p), method.predictor(q)), (s, t)),
        *embeddings,
        *targets,
    )
    torch.testing.assert_close(method.step(batch).loss, method.compare(tuple(embeddings), tuple(targets)), **EXACT)
    assert_gradient(cosine_distance, normal(4, 3), normal(4, 3, seed=1))


def test_byol_distance_of_one_is_the_loss_of_adassl() -> None:
    """SkrighYZ/AdaSSL minimises - cos, whose gradient is half that of 2 - 2 cos."""
    z, targets = [(normal(6, 8, seed=s), normal(6, 8, seed=s + 2)) for s in (0, 2)]
    both = [build(config("byol", distance=distance)).compare(z, targets) for distance in (2.0, 1.0)]
    torch.testing.assert_close(both[0], 2 * both[1], **EXACT)
    predictor = build(config("byol")).predictor
    cosines = [torch.cosine_similarity(predictor(p), t).mean() for p, t in zip(z, targets, strict=True)]
    torch.testing.assert_close(both[1], 2 - sum(cosines), **EXACT)


@pytest.mark.parametrize(("step", "tau"), [(1, 0.996), (250, 0.996586), (500, 0.998), (750, 0.999414), (1000, 1.0)])
def test_byol_teacher_moves_by_the_official_schedule(step: int, tau: float) -> None:
    """Recorded from SkrighYZ/AdaSSL@8f7148f6 at steps of 1000, to six digits."""
    method = build(config("byol"))
    slow, fast = method.teacher.network[0].layers[0].weight, method.backbone.layers[0].weight
    with torch.no_grad():
        slow.fill_(1.0)
        fast.fill_(0.0)
    method.after_step(Clock(step, steps=1000, steps_per_epoch=100))
    torch.testing.assert_close(slow, torch.full_like(slow, tau), rtol=0, atol=5.1e-7)
    assert cosine(0.996, 1.0, step / 1000) == pytest.approx(
        1 - 0.004 * (math.cos(math.pi * step / 1000) + 1) / 2, rel=1e-14
    )


def test_byol_teacher_keeps_its_own_batch_norm_statistics() -> None:
    method = build(config("byol"))
    batch = make_batch(method.config)
    method.step(batch)
    own = method.teacher.network[0].layers[1].running_mean.clone()
    method.after_step(batch.clock)
    assert torch.equal(method.teacher.network[0].layers[1].running_mean, own)
    assert own.abs().max() > 0


# ---------------------------------------------------------------------------------------------- SimSiam


def simsiam_oracle(embeddings: tuple[Tensor, Tensor], predictions: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
    """predictions: of the first embedding, made from the second, and the other way round."""
    n, d = embeddings[0].shape
    similarity = torch.zeros(())
    for z, p in zip(embeddings, predictions, strict=True):
        for i in range(n):
            similarity = similarity - (z[i] @ p[i]) / ((z[i] @ z[i]) * (p[i] @ p[i])).sqrt() / n / 2
    a, b = (torch.stack([row * (d / (row @ row)).sqrt() for row in z]) for z in embeddings)
    regularisers = vicreg_oracle(a, b)
    return {"similarity": similarity, "variance": regularisers["variance"], "covariance": regularisers["covariance"]}


def test_simsiam_terms_and_gradients(held: Callable[..., None]) -> None:
    a, b, to_a, to_b = (normal(7, 5, seed=seed) + 0.3 for seed in range(4))
    terms = simsiam_terms(a, b, to_b, to_a, False)
    expected = simsiam_oracle((a, b), (to_a, to_b))
    assert terms.keys() == expected.keys()
    for name, value in expected.items():
        assert abs(value) > 1e-3
        held(
            lambda a, b, to_b, to_a, name=name: simsiam_terms(a, b, to_b, to_a, False)[name],
            lambda a, b, to_b, to_a, name=name: simsiam_oracle((a, b), (to_a, to_b))[name],
            *(a, b, to_b, to_a),
        )
    assert_gradient(lambda *x: sum(simsiam_terms(*x, False).values(), torch.zeros(())), a, b, to_b, to_a)


def test_simsiam_stops_the_gradient_of_what_is_predicted_and_of_nothing_else() -> None:
    """By hand, d(-cos / 2) with respect to p is (p cos - z) / (2 n |p|), of unit rows z and p / |p|."""
    a, b, to_b, to_a = (normal(6, 4, seed=seed).requires_grad_() for seed in range(4))
    terms = simsiam_terms(a, b, to_b, to_a, True)
    gradients = torch.autograd.grad(terms["similarity"], (to_b, to_a, a, b), allow_unused=True)
    assert gradients[2:] == (None, None)
    for found, p, z in zip(gradients, (to_b, to_a), (b, a), strict=False):
        p_unit, z_unit = (x / x.norm(dim=1, keepdim=True) for x in (p, z))
        cosine = (p_unit * z_unit).sum(1, keepdim=True)
        torch.testing.assert_close(found, (p_unit * cosine - z_unit) / (12 * p.norm(dim=1, keepdim=True)), **EXACT)
    for name in ("variance", "covariance"):  # of Z, App. C.4 of VICReg: no predictor and no stop
        for z in (a, b):
            (gradient,) = torch.autograd.grad(terms[name], z, retain_graph=True)
            assert gradient.abs().max() > 1e-4


@pytest.mark.parametrize("case", ["simsiam", "simsiam-regularised", "simsiam-siamese"])
def test_simsiam_step_predicts_each_view_from_the_other(case: str) -> None:
    method = build(config(case))
    batch = make_batch(method.config)
    a, b = (method.projector(method.backbone(view)) for view in batch.views)
    terms = simsiam_oracle((a, b), (method.predictor(b), method.predictor(a)))
    k = method.config
    expected = terms["similarity"] + k.variance * terms["variance"] + k.covariance * terms["covariance"]
    torch.testing.assert_close(method.step(batch).loss, expected, **EXACT)


@pytest.mark.parametrize(
    ("fixed", "losses", "lengths"),
    [
        (
            True,
            [-0.038444323471485964, 0.03255744628603486, -0.09498612213520116, -0.0673656357922427],
            [8.41500994062938, 3.6610437186657183, 2.4252368686735424],
        ),
        (
            False,
            [-0.038444323471485964, 0.03255744628603486, -0.09403654635958632, -0.06216761301347468],
            [8.415010337559549, 3.661045355842217, 2.4220347326641276],
        ),
    ],
    ids=["fix_pred_lr", "one_schedule"],
)
def test_simsiam_four_steps_meet_the_official_code(fixed: bool, losses: list[float], lengths: list[float]) -> None:
    """Recorded from facebookresearch/simsiam@a7bc177, builder.SimSiam and adjust_learning_rate, around our backbone.

    Four epochs of one step, momentum 0.9. The bias that we leave out (header, Departs) was 2 sin(0.6 i) there and
    stayed so; with a bias of 0 the same code gave the same numbers to 1e-13.
    """
    method = recorded_start(config("simsiam", widths=(12, 12, 8), bottleneck=5, fixed_predictor_lr=fixed), 0.5)
    groups = [{"params": group.params, "fixed": group.fixed_lr} for group in method.param_groups()]
    optimiser = torch.optim.SGD(groups, 0.1, momentum=0.9)

    def schedule(epoch: int) -> None:
        for group in optimiser.param_groups:
            group["lr"] = 0.1 if group["fixed"] else 0.1 * (1 + math.cos(math.pi * epoch / 4)) / 2

    assert four_steps(method, optimiser, schedule) == pytest.approx(losses, rel=1e-9)
    found = norms(method.backbone.linear, method.projector[-2], method.predictor[-1])
    assert found == pytest.approx(lengths, rel=1e-9)


def test_simsiam_heads_are_the_published_ones() -> None:
    method = config("simsiam", widths=(2048, 2048, 2048), bottleneck=512).build(SmallBackbone(), TRAIN)
    block = ["Linear", "BatchNorm1d", "ReLU"]
    assert [type(layer).__name__ for layer in method.projector] == [*block, *block, "Linear", "BatchNorm1d"]
    assert [type(layer).__name__ for layer in method.predictor] == [*block, "Linear"]
    biased = [layer.bias is not None for layer in (*method.projector, *method.predictor) if hasattr(layer, "bias")]
    assert biased == [False, True, False, True, False, False, False, True, True]
    assert method.predictor[0].weight.shape == (512, 2048)
    plain = config("simsiam-regularised").build(SmallBackbone(), TRAIN)
    assert not any(isinstance(layer, torch.nn.BatchNorm1d) for layer in (*plain.projector, *plain.predictor))


def test_simsiam_keeps_the_rate_of_its_predictor() -> None:
    for fixed in (True, False):
        method = build(config("simsiam", fixed_predictor_lr=fixed))
        _, predictor = method.param_groups()
        assert [id(p) for p in predictor.params] == [id(p) for p in method.predictor.parameters()]
        assert predictor.fixed_lr is fixed
