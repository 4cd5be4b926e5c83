"""The contract of DESIGN 4, over every file in methods/."""

import ast
import copy
from dataclasses import FrozenInstanceError, fields, replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from contracts import SmallBackbone, build, cases, config, make_batch, train, trained_cases
from torch import nn

from harness.api import MethodConfig, Step
from harness.recipe import to_data
from harness.registry import load, names

ROOT = Path(__file__).resolve().parent.parent
HEADER = ("Paper", "Loss", "Oracle", "Departs", "Shapes")


@pytest.mark.parametrize("name", names("methods"))
def test_header_has_the_five_lines(name: str) -> None:
    text = ast.get_docstring(ast.parse((ROOT / "methods" / f"{name}.py").read_text())) or ""
    first, blank, *rest = text.splitlines()
    assert first.endswith(".")
    assert blank == ""
    starts = [line.split(maxsplit=1) for line in rest if line and not line[0].isspace()]
    assert tuple(words[0] for words in starts) == HEADER
    assert all(len(words) == 2 for words in starts)


@pytest.mark.parametrize("name", names("methods"))
def test_config_is_frozen_and_its_coefficients_are_fields(name: str) -> None:
    kind = load("methods", name).Config
    assert issubclass(kind, MethodConfig)
    assert kind.__dataclass_params__.frozen
    assert kind.title
    declared = {f.name: f.default for f in fields(kind)}
    for coefficient, about in kind.coefficients().items():
        assert about.low <= declared[coefficient] <= about.high
        assert about.source


@pytest.mark.parametrize("name", names("methods"))
def test_tunables_are_fields_and_their_ranges_hold_the_default(name: str) -> None:
    kind = load("methods", name).Config
    declared = {f.name: f.default for f in fields(kind)}
    assert not kind.tunables().keys() & kind.coefficients().keys()
    for tunable, about in kind.tunables().items():
        assert about.low <= declared[tunable] <= about.high
        assert about.low > 0 or not about.log
        assert not isinstance(declared[tunable], int) or (isinstance(about.low, int) and isinstance(about.high, int))
        assert about.source


@pytest.mark.parametrize("case", cases())
def test_config_is_plain_data(case: str) -> None:
    settings = config(case)
    assert to_data(settings)["name"] == case.partition("-")[0]
    field = fields(settings)[0].name if fields(settings) else "title"
    with pytest.raises(FrozenInstanceError):
        setattr(settings, field, None)


@pytest.mark.parametrize("case", cases())
def test_groups_hold_every_trainable_parameter_once(case: str) -> None:
    method = build(config(case))
    grouped = [id(p) for group in method.param_groups() for p in group.params]
    assert sorted(grouped) == sorted(id(p) for p in method.parameters() if p.requires_grad)


@pytest.mark.parametrize("case", cases())
def test_encoder_is_a_backbone_of_the_method(case: str) -> None:
    method = build(config(case))
    network, encoder = method.encoder()
    assert network in ("student", "teacher", "ema")
    assert any(encoder is module for module in method.modules())
    assert type(encoder) is SmallBackbone


@pytest.mark.parametrize("case", trained_cases())
def test_step_returns_what_the_loop_needs(case: str) -> None:
    method = build(config(case))
    batch = make_batch(method.config)
    out = method.step(batch)
    assert out.loss.shape == ()
    assert out.loss.isfinite()
    B = len(batch.index)
    assert out.features.shape == (B, method.backbone.width)
    assert out.embedding.ndim == 2
    assert len(out.embedding) == B
    assert len(out.projections) == (method.config.requirements().views.count("global") if method.config.projects else 0)
    assert all(z.requires_grad and z.ndim == 2 and len(z) == B for z in out.projections)
    assert set(method.config.coefficients()) <= set(out.terms)
    for value in [*out.terms.values(), *out.diagnostics.values()]:
        assert value.shape == ()
        assert value.isfinite()


@pytest.mark.parametrize("case", trained_cases())
def test_every_trainable_parameter_gets_a_gradient_and_teachers_none(case: str) -> None:
    method = build(config(case))
    method.step(make_batch(method.config)).loss.backward()
    for name, p in method.named_parameters():
        assert (p.grad is not None) == p.requires_grad, name
        assert p.grad is None or p.grad.isfinite().all(), name
    assert all(p.grad.abs().max() > 0 for p in method.backbone.parameters() if p.requires_grad)


@pytest.mark.parametrize("case", trained_cases())
def test_a_coefficient_weighs_the_term_of_its_name(case: str) -> None:
    settings = config(case)
    for name in settings.coefficients():
        weight = getattr(settings, name)
        once = build(settings).step(make_batch(settings))
        twice = build(replace(settings, **{name: 2 * weight})).step(make_batch(settings))
        torch.testing.assert_close(twice.loss - once.loss, weight * once.terms[name], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("case", trained_cases())
def test_loss_falls_on_a_fixed_batch(case: str) -> None:
    """With teacher, queue and running moments held where they are: what moves with them may raise a loss."""
    method = build(config(case), dtype=torch.float32)
    train(method, 3, lr=0.0)
    optimiser = torch.optim.Adam([p for group in method.param_groups() for p in group.params], lr=3e-3)
    buffers = {name: buffer.clone() for name, buffer in method.named_buffers()}
    losses = []
    for _ in range(25):
        out = method.step(make_batch(method.config, step=3, dtype=torch.float32))
        optimiser.zero_grad()
        out.loss.backward()
        optimiser.step()
        method.load_state_dict(buffers, strict=False)
        losses.append(out.loss.item())
    assert sum(losses[-3:]) / 3 < losses[0] - 0.05 * abs(losses[0])


@pytest.mark.parametrize("case", trained_cases())
def test_same_seed_same_numbers(case: str) -> None:
    first, second = ([out.loss.item() for out in train(build(config(case)), 3)] for _ in range(2))
    assert first == second
    assert len(set(first)) == 3


@pytest.mark.parametrize("case", trained_cases())
def test_state_dict_holds_everything(case: str) -> None:
    method = build(config(case))
    train(method, 3)
    again = build(config(case), seed=1)
    again.load_state_dict(copy.deepcopy(method.state_dict()))
    results = [_next_step(m) for m in (method, again)]
    assert torch.equal(results[0].loss, results[1].loss)
    for (name, one), other in zip(method.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(one, other), name


def _next_step(method: nn.Module) -> Step:
    batch = make_batch(method.config, step=3)
    out = method.step(batch)
    method.after_step(batch.clock)
    return out


@pytest.mark.parametrize("case", trained_cases())
def test_views_are_used_as_required(case: str) -> None:
    """A loss that did not change with a view would not need it."""
    settings = config(case)
    count = len(make_batch(settings).views)
    losses = []
    for changed in range(-1, count):
        batch = make_batch(settings)
        if changed >= 0:
            batch.views[changed] = batch.views[changed].flip(0)
        losses.append(build(settings).step(batch).loss.item())
    assert losses[0] not in losses[1:]


def test_untrained_refuses_to_train() -> None:
    method = build(config("untrained"))
    with pytest.raises(
        RuntimeError, match=r"Untrained is a control without a loss; give its recipe budget\.epochs = 0"
    ):
        method.step(make_batch(method.config))


def test_cases_cover_the_folder() -> None:
    assert {case.partition("-")[0] for case in cases()} == set(names("methods"))
    assert set(cases()) - set(trained_cases()) == {"untrained"}
    assert all(a < b for a, b in pairwise(names("methods")))
