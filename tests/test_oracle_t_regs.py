"""T-REGS against its equations in plain loops, with Kruskal's algorithm for its tree, and its theorem."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from contracts import build, config, make_batch
from test_oracles import normal
from torch import Tensor, nn

import sweeps.t_regs
from harness import registry
from harness.api import Method, MethodConfig, Step
from harness.errors import BadRecipe
from methods import adassl, aninfonce, byol, dino, simclr, simsiam, t_regs, untrained, vicreg
from methods.t_regs import squared_distance, t_reg

SMALL: dict[str, MethodConfig] = {
    "simclr": simclr.Config(widths=(24, 8)),
    "vicreg": vicreg.Config(widths=(24, 24, 24)),
    "byol": byol.Config(widths=(24, 8)),
    "simsiam": simsiam.Config(widths=(24, 24, 8), bottleneck=4),
    "aninfonce": aninfonce.Config(),
}
ALONE = t_regs.Config(widths=(24, 24, 8))


def base_of(method: Method[Any]) -> Method[Any]:
    assert isinstance(method.base, Method)
    return method.base


def projector(method: Method[Any]) -> nn.Sequential:
    inside = base_of(method).projector
    assert isinstance(inside, nn.Sequential)
    return inside


def distance(x: Tensor, y: Tensor) -> Tensor:
    total = x.new_zeros(())
    for p, q in zip(x, y, strict=True):
        total = total + (p - q) ** 2
    return total.sqrt()


def kruskal(z: Tensor) -> Tensor:
    """Length of the tree: from the shortest pair up, a pair is an edge if no earlier edges join its points."""
    pairs = sorted(
        ((distance(z[i], z[j]), i, j) for i in range(len(z)) for j in range(i)), key=lambda pair: pair[0].item()
    )
    group = list(range(len(z)))
    total = z.new_zeros(())
    for length, i, j in pairs:
        if group[i] != group[j]:
            total = total + length
            group = [group[j] if g == group[i] else g for g in group]
    return total


def sphere(z: Tensor) -> Tensor:
    """Eq. 5."""
    return sum(((distance(row, torch.zeros_like(row)) - 1) ** 2 for row in z), z.new_zeros(())) / len(z)


def restated(a: Tensor, b: Tensor, beta: float, gamma: float, lambd: float) -> Tensor:
    """Algorithm 1."""
    invariance = sum((distance(x, y) ** 2 for x, y in zip(a, b, strict=True)), a.new_zeros(())) / len(a)
    regs = [gamma * -kruskal(z) / len(z) + lambd * sphere(z) for z in (a, b)]
    return beta * invariance + regs[0] + regs[1]


def ours(a: Tensor, b: Tensor, beta: float, gamma: float, lambd: float) -> Tensor:
    (e_a, s_a), (e_b, s_b) = t_reg(a), t_reg(b)
    return beta * squared_distance(a, b) + gamma * (e_a + e_b) + lambd * (s_a + s_b)


# ---------------------------------------------------------------------------------------------- the equations


@pytest.mark.parametrize(("n", "d"), [(2, 3), (9, 4), (16, 2), (12, 30)])
@pytest.mark.parametrize("weights", [(10.0, 0.2, 8e-4), (1.0, 2.0, 3.0)])
def test_the_equations(n: int, d: int, weights: tuple[float, ...], held) -> None:  # type: ignore[no-untyped-def]
    held(lambda a, b: ours(a, b, *weights), lambda a, b: restated(a, b, *weights), normal(n, d), normal(n, d, seed=1))


def test_orthogonal_unit_vectors() -> None:
    """All distances are sqrt 2, and N - 1 of them make the tree; all lie on the sphere."""
    length, off_sphere = t_reg(torch.eye(5, dtype=torch.float64))
    assert length.item() == pytest.approx(-4 * math.sqrt(2) / 5, rel=1e-12)
    assert off_sphere.item() == 0


def test_points_on_a_line() -> None:
    z = torch.tensor([[0.0], [7.0], [1.0], [3.0]], dtype=torch.float64)
    length, off_sphere = t_reg(z)
    assert length.item() == -7 / 4
    assert off_sphere.item() == (1 + 36 + 0 + 4) / 4
    assert squared_distance(z, z).item() == 0
    assert squared_distance(z.expand(4, 3), z.expand(4, 3) + 2).item() == 12  # summed over D


@pytest.mark.parametrize("size", [0.0, 3.0])
def test_collapse_has_finite_gradients(size: float) -> None:
    z = torch.zeros(6, 4, dtype=torch.float64)
    z[:, 0] = size
    z.requires_grad_()
    length, off_sphere = t_reg(z)
    (gradient,) = torch.autograd.grad(length + off_sphere + squared_distance(z, z), z)
    assert (length.item(), off_sphere.item()) == (0, (size - 1) ** 2)
    assert gradient.isfinite().all()


def simplex(n: int, d: int) -> Tensor:
    """n unit vectors in d >= n - 1 dimensions, each two of them as far apart as any."""
    centred = torch.eye(n, dtype=torch.float64) - 1 / n
    basis = torch.linalg.svd(centred)[2][: n - 1]
    points = torch.zeros(n, d, dtype=torch.float64)
    points[:, : n - 1] = torch.nn.functional.normalize(centred @ basis.T, dim=1)
    return points


@pytest.mark.parametrize(("n", "d"), [(2, 1), (4, 3), (6, 5), (6, 9)])
def test_the_regular_simplex_is_the_best_of_up_to_d_plus_1_points(n: int, d: int) -> None:
    """Theorem 4.1 and eq. 7, edges of sqrt(2 n / (n - 1)); no other points of the ball reach it."""
    best = t_reg(simplex(n, d))[0].item()
    assert best == pytest.approx(-(n - 1) / n * math.sqrt(2 * n / (n - 1)), rel=1e-12)
    for seed in range(50):
        step = normal(n, d, seed=seed) * 10.0 ** -(seed % 5)
        z = simplex(n, d) + step
        z = z / z.norm(dim=1, keepdim=True).clamp_min(1)
        assert t_reg(z)[0].item() >= best - 1e-12


def test_no_tree_is_longer_than_the_mean_distance_allows() -> None:
    """Lemma 4.3: 2 / n times the sum over pairs of distances."""
    for seed in range(20):
        z = normal(10, 3, seed=seed) ** 3
        assert -t_reg(z)[0].item() * 10 <= 2 / 10 * float(torch.nn.functional.pdist(z).sum())


def test_rotation_and_order_change_nothing_and_size_scales_the_length() -> None:
    z = normal(12, 5)
    rotation = torch.linalg.qr(normal(5, 5, seed=3))[0]
    for moved in (z @ rotation, z[torch.randperm(12)]):
        torch.testing.assert_close(t_reg(moved), t_reg(z), rtol=1e-12, atol=0)
    torch.testing.assert_close(t_reg(3 * z + 5)[0], 3 * t_reg(z)[0])
    torch.testing.assert_close(squared_distance(z @ rotation, -z @ rotation), squared_distance(z, -z))


# ---------------------------------------------------------------------------------------------- the step


def test_step_alone_is_algorithm_1() -> None:
    method = build(replace(ALONE, ssl=3.0, length=0.7, sphere=0.1))
    batch = make_batch(method.config)
    a, b = (projector(method)(method.backbone(view)) for view in batch.views)
    out = method.step(batch)
    assert set(out.terms) == {"ssl", "length", "sphere"}
    assert out.loss.item() == pytest.approx(restated(a, b, 3.0, 0.7, 0.1).item(), rel=1e-10)
    assert torch.equal(out.embedding, out.projections[0])


@pytest.mark.parametrize("name", SMALL)
def test_step_over_a_method_adds_to_its_loss(name: str) -> None:
    base = SMALL[name]
    settings = t_regs.Config(base=base, ssl=3.0, length=0.7, sphere=0.1)
    batch = make_batch(settings)
    plain = build(base).step(batch)
    out = build(settings).step(batch)
    regs = [0.7 * -kruskal(z) / len(z) + 0.1 * sphere(z) for z in plain.projections]
    assert len(regs) == 2
    assert out.loss.item() == pytest.approx((3 * plain.loss + sum(regs)).item(), rel=1e-10)
    assert {k: v.item() for k, v in out.terms.items() if k in plain.terms} == {
        k: v.item() for k, v in plain.terms.items()
    }
    assert set(out.terms) - set(plain.terms) == {"ssl", "length", "sphere"}
    assert out.terms["ssl"].item() == plain.loss.item()
    assert settings.weights() == base.weights() | {"ssl": 3.0, "length": 0.7, "sphere": 0.1}
    assert settings.label == f"T-REGS ({base.label})"
    assert settings.requirements() == base.requirements()


@pytest.mark.parametrize("name", SMALL)
def test_without_its_terms_it_is_the_base(name: str) -> None:
    outs: list[Step] = []
    gradients = []
    for settings in (SMALL[name], t_regs.Config(base=SMALL[name], ssl=1.0, length=0.0, sphere=0.0)):
        method = build(settings)
        outs.append(method.step(make_batch(settings)))
        outs[-1].loss.backward()
        gradients.append([p.grad for p in method.backbone.parameters()])
    assert outs[0].loss.item() == outs[1].loss.item()
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-12, atol=1e-14)


def test_teachers_and_groups_are_the_base_s() -> None:
    method = build(t_regs.Config(base=SMALL["simsiam"]))
    assert [group.fixed_lr for group in method.param_groups()] == [False, True]
    method = build(t_regs.Config(base=SMALL["byol"]))
    parts = dict(base_of(method).named_children())
    before = [p.clone() for p in parts["teacher"].parameters()]
    with torch.no_grad():
        for p in method.backbone.parameters():
            p.add_(1)
    method.after_step(make_batch(method.config).clock)
    assert any(not torch.equal(p, q) for p, q in zip(before, parts["teacher"].parameters(), strict=True))


def test_published_coefficients_and_projector() -> None:
    """Sec. 5.1 and Table 6."""
    alone = t_regs.Config()
    assert alone.weights() == {"ssl": 10.0, "length": 0.2, "sphere": 8e-4}
    assert (alone.label, alone.widths) == ("T-REGS", (2048, 2048, 1024))
    layers = list(projector(build(ALONE)))
    assert [type(layer).__name__ for layer in layers] == ["Linear", "BatchNorm1d", "ReLU"] * 2 + ["Linear"]
    assert layers[-1].bias is None  # App. E.1


@pytest.mark.parametrize(
    ("base", "label"),
    [
        (dino.Config(), "DINO"),
        (untrained.Config(), "Untrained"),
        (t_regs.Config(), "T-REGS"),
        (adassl.Config(base=simclr.Config()), r"AdaSSL-V (SimCLR)"),
    ],
)
def test_a_base_without_projections_is_refused(base: MethodConfig, label: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "t_regs_digits_r10w16_e50"
    recipe = registry.recipe(name)
    monkeypatch.setattr(sweeps.t_regs, name, lambda: replace(recipe, method=t_regs.Config(base=base)))
    with pytest.raises(BadRecipe) as caught:
        registry.recipe(name)
    assert str(caught.value) == (
        f"recipe '{name}': T-REGS goes over a method that gives its projections (simclr, vicreg and others), or "
        f"over none; its base is {label}"
    )


def test_config_of_a_case_takes_settings_of_its_base() -> None:
    recipe = registry.recipe("t_regs_vicreg_digits_r10w16_e50", ("method.base.variance=5", "method.length=0.5"))
    assert recipe.method.weights()["variance"] == 5
    assert recipe.method.weights()["length"] == 0.5
    assert config("t_regs-vicreg").label == "T-REGS (VICReg)"
