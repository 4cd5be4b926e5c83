"""Protocols against hand-made cases, direct restatements and numbers recorded from official code."""

import itertools
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from harness.errors import BadRecipe, UnknownName
from harness.evals import (
    check,
    collapse,
    evaluate,
    factor_regression,
    few_label,
    knn,
    linear,
    linear_sgd,
    online_linear,
)
from harness.features import Features, Table
from harness.predictions import unpack
from harness.recipe import ProtocolConfig
from harness.seeding import generator


def grid(n: int, d: int, a: float, b: float) -> Tensor:
    i, j = torch.arange(n, dtype=torch.float64)[:, None], torch.arange(d, dtype=torch.float64)
    return torch.sin(a * i + b * j + 0.3 * i * j)


def table(x: Tensor, labels: Tensor | None = None, factors: Tensor | None = None) -> Table:
    n = len(x)
    return Table(
        x.float(),
        torch.zeros(n, dtype=torch.int64) if labels is None else labels,
        torch.zeros(n, 0) if factors is None else factors.float(),
    )


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def clusters(spread: float, classes: int = 7, each: int = 20, width: int = 12, shuffled: bool = False) -> Features:
    """Gaussian classes around orthogonal means; `shuffled` takes the labels away from the images."""
    g = torch.Generator().manual_seed(5)
    tables = []
    for _ in range(3):
        labels = torch.arange(classes).repeat(each)
        x = 3 * torch.eye(classes, width)[labels] + spread * torch.randn(len(labels), width, generator=g)
        tables.append(table(x, labels[torch.randperm(len(labels), generator=g)] if shuffled else labels))
    return Features(*tables, classes=classes)


def metrics(module: Any, config: ProtocolConfig, features: Features, split: str = "test") -> dict[str, float]:
    check([config], features)
    return dict(module.run(config, features, split))


CLASSIFIERS = [
    (knn, knn.Config(k=5)),
    (linear, linear.Config()),
    (linear_sgd, linear_sgd.Config(lr=0.5, batch=20)),
    (few_label, few_label.Config(n=5, draws=20)),
]


@pytest.mark.parametrize(("module", "config"), CLASSIFIERS, ids=lambda value: getattr(value, "id", ""))
def test_separate_classes_are_told_apart_and_random_labels_are_not(module: Any, config: ProtocolConfig) -> None:
    for split in ("held_out", "test"):
        assert metrics(module, config, clusters(0.05), split)["top1"] == 100
    noise = metrics(module, config, clusters(0.5, each=60, shuffled=True))
    assert abs(noise["top1"] - 100 / 7) < 6  # 420 images: a standard deviation of 1.7
    if "top5" in noise:
        assert abs(noise["top5"] - 500 / 7) < 8


# ---------------------------------------------------------------------------------------------- k-NN


@pytest.mark.parametrize(
    ("queries", "k", "top1", "top5"),
    [(200, 1, 30.0, 30.0), (200, 10, 30.0, 88.5), (200, 20, 30.0, 88.5), (250, 20, 28.0, 88.8)],
)
def test_knn_meets_the_official_numbers(queries: int, k: int, top1: float, top5: float) -> None:
    """Recorded from facebookresearch/dino@7c446df, eval_knn.py, T = .07, labels i mod 6."""
    train = table(nn.functional.normalize(grid(90, 7, 0.37, 1.3)), torch.arange(90) % 6)
    test = table(nn.functional.normalize(grid(queries, 7, 0.21, 1.3)), torch.arange(queries) % 6)
    found = metrics(knn, knn.Config(k=k), Features(train, test, test, classes=6))
    assert found == pytest.approx({"top1": top1, "top5": top5})


def test_knn_votes_by_the_formula(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(knn, "QUERIES", 3)  # the last tile of both is smaller, and that of the bank smaller than k
    monkeypatch.setattr(knn, "BANK", 7)
    bank, queries, labels = normal(40, 5), normal(8, 5, seed=1), torch.arange(40) % 4
    scores = knn.votes(bank, labels, queries, 4, k=6, temperature=0.2)
    for query, row in zip(queries, scores, strict=True):
        similar = [float(x @ query / x.norm() / query.norm()) for x in bank]
        near = sorted(range(40), key=lambda i: -similar[i])[:6]
        expected = torch.zeros(4, dtype=torch.float64)
        for i in near:
            expected[labels[i]] += math.exp(similar[i] / 0.2)
        torch.testing.assert_close(row / row.sum(), expected / expected.sum(), atol=1e-10, rtol=1e-10)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 60), st.integers(1, 70), st.integers(1, 9))
def test_knn_in_tiles_finds_the_same_neighbours(seed: int, k: int, bank_rows: int, query_rows: int) -> None:
    bank, queries, labels = normal(60, 6, seed=seed), normal(8, 6, seed=seed + 1), torch.arange(60) % 7
    unit, asked = nn.functional.normalize(bank), nn.functional.normalize(queries)
    near, index = (asked @ unit.T).topk(k)
    expected = torch.zeros(8, 7, dtype=torch.float64)
    expected.scatter_add_(1, labels[index], ((near - near[:, :1]) / 0.1).exp())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(knn, "QUERIES", query_rows)
        patch.setattr(knn, "BANK", bank_rows)
        votes = knn.votes(bank, labels, queries, 7, k, 0.1)
    torch.testing.assert_close(votes, expected, atol=1e-10, rtol=1e-10)


class Largest(TorchDispatchMode):
    """Elements of the largest tensor that was made."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for each in tree_leaves(made):
            if isinstance(each, Tensor):
                self.elements = max(self.elements, each.numel())
        return made


def test_knn_holds_one_tile_however_large_the_bank_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(knn, "QUERIES", 16)
    monkeypatch.setattr(knn, "BANK", 64)
    bank, queries, labels = normal(1000, 8), normal(40, 8, seed=1), torch.arange(1000) % 4
    with Largest() as largest:
        knn.votes(bank, labels, queries, 4, k=5, temperature=0.1)
    assert largest.elements == 16 * 64  # not 8 * 1000, the bank, nor 16 * 1000


def test_knn_survives_a_very_small_temperature() -> None:
    bank = normal(30, 4)
    scores = knn.votes(bank.float(), torch.arange(30) % 3, bank.float(), 3, k=5, temperature=1e-4)
    assert torch.equal(scores.argmax(1), torch.arange(30) % 3)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 12))
def test_knn_ignores_the_order_of_train_and_rotations(seed: int, k: int) -> None:
    bank, queries, labels = normal(30, 6, seed=seed), normal(9, 6, seed=seed + 1), torch.arange(30) % 4
    scores = knn.votes(bank, labels, queries, 4, k, 0.07)
    order = torch.randperm(30, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(knn.votes(bank[order], labels[order], queries, 4, k, 0.07), scores, atol=1e-9, rtol=1e-9)
    rotation = torch.linalg.qr(normal(6, 6, seed=seed + 2)).Q
    turned = knn.votes(2.5 * bank @ rotation, labels, queries @ rotation, 4, k, 0.07)
    torch.testing.assert_close(turned, scores, atol=1e-9, rtol=1e-9)


# ---------------------------------------------------------------------------------------------- linear


def test_linear_is_the_minimum_of_its_objective() -> None:
    z, labels = normal(120, 5), torch.arange(120) % 3
    z[:, :3] += torch.eye(3, dtype=torch.float64)[labels]
    for weight_decay, (weight, bias) in linear.path(z, labels, 3, (0.1, 0.01)):
        error = (z @ weight + bias).softmax(1) - nn.functional.one_hot(labels, 3)
        assert (z.T @ error / 120 + weight_decay * weight).abs().max() < 1e-4
        assert error.mean(0).abs().max() < 1e-4


def test_linear_reaches_its_tolerance_in_float32() -> None:
    """Noisy labels and collinear features, where a value in float32 ends the line search at 1e-4."""
    labels = torch.randint(0, 7, (3000,), generator=torch.Generator().manual_seed(3))
    x = (normal(3000, 40) @ normal(40, 40, seed=1)).relu() + 0.1 * nn.functional.one_hot(labels, 40)
    z = ((x - x.mean(0)) / x.std(0, correction=0)).float()
    for weight_decay, (weight, bias) in linear.path(z, labels, 7, (1.0, 0.1, 0.01)):
        error = (z.double() @ weight.double() + bias).softmax(1) - nn.functional.one_hot(labels, 7)
        assert (z.double().T @ error / 3000 + weight_decay * weight).abs().max() < 1.5e-5


def test_linear_agrees_with_scikit_learn() -> None:
    from sklearn.linear_model import LogisticRegression

    features = clusters(1.5)
    weight_decay, weight, bias = linear.select(linear.Config(weight_decays=(0.01,)), features)
    mean, std = features.train.x.mean(0), features.train.x.std(0, correction=0)
    z, labels = ((features.train.x - mean) / std).double(), features.train.labels
    theirs = LogisticRegression(C=1 / (weight_decay * len(z)), tol=1e-8, max_iter=2000).fit(z.numpy(), labels.numpy())
    expected = theirs.predict_proba(((features.test.x - mean) / std).double().numpy())
    ours = (features.test.x @ weight + bias).softmax(1).double()
    torch.testing.assert_close(ours, torch.as_tensor(expected), atol=2e-3, rtol=0)


def test_linear_sgd_takes_the_papers_steps() -> None:
    """Two epochs of two batches, written out: momentum and decay as torch defines them, a tenth from epoch 1 on."""
    config = linear_sgd.Config(lr=0.5, momentum=0.8, weight_decay=0.1, epochs=2, batch=3, drops=(1,))
    train = table(normal(7, 4), torch.tensor([0, 1, 2, 0, 1, 2, 0]))  # the seventh image of an epoch is left over
    weights, biases = linear_sgd.fit(config, (0.5,), train, 3)
    w = 0.01 * torch.randn(3, 4, generator=generator(0, "linear_sgd", "init"))
    b, vw, vb = torch.zeros(3), torch.zeros(3, 4), torch.zeros(3)
    for epoch, lr in enumerate((0.5, 0.05)):
        order = torch.randperm(7, generator=generator(0, "linear_sgd", epoch))
        for index in (order[:3], order[3:6]):
            x, labels = train.x[index], train.labels[index]
            error = ((x @ w.T + b).softmax(1) - nn.functional.one_hot(labels, 3)) / 3
            vw, vb = 0.8 * vw + error.T @ x + 0.1 * w, 0.8 * vb + error.sum(0) + 0.1 * b
            w, b = w - lr * vw, b - lr * vb
    torch.testing.assert_close((weights[0], biases[0]), (w, b))


def test_linear_sgd_has_the_printed_rates() -> None:
    moco = linear_sgd.Config()
    assert moco.lr == 30
    assert [moco.factor_at(epoch) for epoch in (0, 59, 60, 80, 99)] == pytest.approx([1, 1, 0.1, 0.01, 0.01])
    cosine = linear_sgd.Config(drops=())
    assert [cosine.factor_at(epoch) for epoch in (0, 50)] == pytest.approx([1, 0.5])


def torch_sgd(config: linear_sgd.Config, lr: float, train: Table, classes: int) -> tuple[Tensor, Tensor]:
    """The same probe from torch's own parts, in float64."""
    probe = nn.Linear(train.x.shape[1], classes, dtype=torch.float64)
    with torch.no_grad():
        probe.weight.copy_(0.01 * torch.randn(probe.weight.shape, generator=generator(0, "linear_sgd", "init")))
        probe.bias.zero_()
    sgd = torch.optim.SGD(probe.parameters(), lr, config.momentum, 0, config.weight_decay, config.nesterov)
    for epoch in range(config.epochs):
        sgd.param_groups[0]["lr"] = lr * config.factor_at(epoch)
        order = torch.randperm(len(train.labels), generator=generator(0, "linear_sgd", epoch))
        for index in order[: len(order) // config.batch * config.batch].split(config.batch):
            sgd.zero_grad()
            nn.functional.cross_entropy(probe(train.x[index].double()), train.labels[index]).backward()
            sgd.step()
    return probe.weight.detach(), probe.bias.detach()


@pytest.mark.parametrize("nesterov", [False, True])
def test_linear_sgd_trains_several_learning_rates_as_if_each_were_alone(nesterov: bool) -> None:
    config = linear_sgd.Config(nesterov=nesterov, weight_decay=0.01, epochs=5, batch=20, drops=(3,))
    train, lrs = clusters(1.0).train, (0.001, 0.03, 0.3)
    together = linear_sgd.fit(config, lrs, train, 7)
    for lr, weight, bias in zip(lrs, *together, strict=True):
        alone = linear_sgd.fit(config, (lr,), train, 7)
        torch.testing.assert_close((weight, bias), (alone[0][0], alone[1][0]), atol=1e-5, rtol=1e-4)
        theirs = torch_sgd(config, lr, train, 7)
        torch.testing.assert_close((weight.double(), bias.double()), theirs, atol=1e-5, rtol=1e-4)


def test_linear_sgd_chooses_the_learning_rate_on_held_out() -> None:
    lrs = (1e-4, 0.03, 1000.0)  # too small to learn; fine; diverges: 1000 times the weight decay is above 2 (1 + 0.9)
    settings_ = {"batch": 20, "weight_decay": 0.01, "epochs": 40}
    features = clusters(1.0)
    config = linear_sgd.Config(lrs=lrs, **settings_)
    found = metrics(linear_sgd, config, features)
    assert found["lr"] == 0.03
    assert found["top1"] == metrics(linear_sgd, linear_sgd.Config(lr=0.03, **settings_), features)["top1"]
    again = clusters(1.0)
    again.test.labels = again.test.labels.flip(0)  # test labels must not matter
    assert metrics(linear_sgd, config, again)["lr"] == 0.03
    (record,) = evaluate([config], features, ("test",), network="student")
    assert record["units"]["lr"] == "learning rate"
    assert record["settings"]["lrs"] == list(lrs)
    diverged = metrics(linear_sgd, linear_sgd.Config(lr=1000.0, **settings_), features)
    assert diverged["top1"] == 0


def test_linear_selects_on_held_out_and_fits_once(monkeypatch: pytest.MonkeyPatch) -> None:
    features = clusters(2.0)
    fits = []
    path = linear.path
    monkeypatch.setattr(linear, "path", lambda *arguments: fits.append(1) or path(*arguments))
    config = linear.Config()
    held_out, test = (metrics(linear, config, features, split) for split in ("held_out", "test"))
    assert len(fits) == 1
    alone = {
        w: metrics(linear, linear.Config(weight_decays=(w,)), features, "held_out")["top1"]
        for w in config.weight_decays
    }
    assert held_out["top1"] == pytest.approx(max(alone.values()), abs=1)
    assert held_out["weight_decay"] == test["weight_decay"]
    again = clusters(2.0)
    again.test.labels = again.test.labels.flip(0)  # test labels must not matter
    assert metrics(linear, config, again)["weight_decay"] == test["weight_decay"]


def test_linear_does_not_mind_scale_or_dead_units() -> None:
    plain, scaled = clusters(1.0), clusters(1.0)
    for each in (scaled.train, scaled.held_out, scaled.test):
        each.x = torch.cat([each.x * torch.logspace(-3, 3, 12), torch.full((len(each.x), 2), 0.3)], dim=1)
    found, expected = (metrics(linear, linear.Config(), features) for features in (scaled, plain))
    assert found["top1"] == pytest.approx(expected["top1"], abs=1)
    assert found["weight_decay"] == expected["weight_decay"]


# ---------------------------------------------------------------------------------------------- few labels


def test_few_label_is_the_mean_over_its_draws() -> None:
    features = clusters(1.2, classes=4, each=15)
    found = metrics(few_label, few_label.Config(n=2, draws=6), features)
    values = []
    for number in range(6):
        chosen = few_label.draw(features.train.labels, 4, 2, number)
        hits = 0
        for x, label in zip(features.test.x, features.test.labels, strict=True):
            cosines = []
            for own in chosen:
                mean = sum(features.train.x[i] / features.train.x[i].norm() for i in own)
                cosines.append(float(x @ mean / mean.norm()))
            hits += cosines.index(max(cosines)) == int(label)
        values.append(100 * hits / len(features.test.labels))
    mean = sum(values) / 6
    assert found["top1"] == pytest.approx(mean)
    assert found["top1_draw_std"] == pytest.approx(math.sqrt(sum((v - mean) ** 2 for v in values) / 5))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 4))
def test_few_label_draws_are_of_their_class_distinct_and_nested(number: int, n: int) -> None:
    labels = torch.arange(5).repeat(6)
    chosen = few_label.draw(labels, 5, n, number)
    assert torch.equal(labels[chosen], torch.arange(5)[:, None].expand(5, n))
    assert len(chosen.unique()) == 5 * n
    order = torch.randperm(30, generator=generator(0, "few_label", number))
    assert torch.equal(chosen, torch.stack([order[labels[order] == label][:n] for label in range(5)]))
    assert torch.equal(few_label.draw(labels, 5, n + 1, number)[:, :n], chosen)


def test_more_labels_help() -> None:
    features = clusters(1.5)
    top1 = [metrics(few_label, few_label.Config(n=n), features)["top1"] for n in (1, 2, 5, 10)]
    assert top1 == sorted(top1)
    assert top1[-1] > top1[0] + 10


# ---------------------------------------------------------------------------------------------- online linear


def reference_steps(x: Tensor, labels: Tensor, steps: int) -> tuple[nn.Module, list[float]]:
    """The same classifier from torch's own parts."""
    network = nn.Sequential(nn.BatchNorm1d(x.shape[1], affine=False), nn.Linear(x.shape[1], 3)).double()
    nn.init.zeros_(network[1].weight)
    nn.init.zeros_(network[1].bias)
    sgd = torch.optim.SGD(network.parameters(), lr=0.03, momentum=0.9)
    losses = []
    for step in range(steps):
        rows = slice(10 * step, 10 * step + 10)
        loss = nn.functional.cross_entropy(network(x[rows]), labels[rows])
        sgd.zero_grad()
        loss.backward()
        sgd.step()
        losses.append(float(loss.detach()))
    return network.eval(), losses


def test_online_probe_is_sgd_on_normalised_features() -> None:
    x, labels = normal(60, 4) * 3 + 1, torch.arange(60) % 3
    network, losses = reference_steps(x, labels, 6)
    probe = online_linear.OnlineProbe(4, 3).double()
    ours = [float(probe.update(x[10 * s : 10 * s + 10], labels[10 * s : 10 * s + 10])) for s in range(6)]
    assert ours == pytest.approx(losses, abs=1e-10)
    torch.testing.assert_close(probe.eval()(x), network(x).detach(), atol=1e-10, rtol=0)


def test_online_probe_resumes_exactly_from_tensors() -> None:
    x, labels = normal(60, 4).float(), torch.arange(60) % 3
    whole, first, second = (online_linear.OnlineProbe(4, 3) for _ in range(3))
    for start in (0, 20, 40):
        whole.update(x[start : start + 20], labels[start : start + 20])
    first.update(x[:20], labels[:20])
    state = first.state_dict()
    assert all(isinstance(value, Tensor) for value in state.values())
    second.load_state_dict(state)
    for start in (20, 40):
        second.update(x[start : start + 20], labels[start : start + 20])
    assert all(torch.equal(a, b) for a, b in zip(whole.buffers(), second.buffers(), strict=True))
    assert not list(whole.parameters())  # no optimiser of a method can take it


def one_of_two(rank: int, store: str, x: Tensor, labels: Tensor) -> None:
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    probe = online_linear.OnlineProbe(4, 3).double()
    for start in (0, 20, 40):
        mine = slice(start + 10 * rank, start + 10 * rank + 10)
        probe.update(x[mine], labels[mine])
    torch.save(probe.state_dict(), f"{store}.{rank}")
    dist.destroy_process_group()


def test_online_probe_on_two_processes_is_that_of_one(tmp_path: Path) -> None:
    x, labels = normal(60, 4), torch.arange(60) % 3
    store = str(tmp_path / "store")
    torch.multiprocessing.start_processes(one_of_two, (store, x, labels), nprocs=2, start_method="fork")
    alone = online_linear.OnlineProbe(4, 3).double()
    for start in (0, 20, 40):
        alone.update(x[start : start + 20], labels[start : start + 20])
    for rank in (0, 1):
        for name, value in torch.load(f"{store}.{rank}").items():
            torch.testing.assert_close(value, alone.state_dict()[name], atol=1e-12, rtol=0)


def test_online_probe_learns_and_leaves_the_encoder_alone() -> None:
    features = clusters(0.5)
    x = features.train.x.clone().requires_grad_()
    probe = online_linear.OnlineProbe(12, 7)
    for step in range(60):
        rows = torch.randperm(140, generator=torch.Generator().manual_seed(step))[:70]
        probe.update(x[rows], features.train.labels[rows])
    assert x.grad is None
    features.online_probe = probe
    assert metrics(online_linear, online_linear.Config(), features)["top1"] > 95


# ---------------------------------------------------------------------------------------------- factors


def test_r2_is_one_for_linear_factors_and_zero_for_the_mean() -> None:
    x, mix = normal(200, 8), normal(8, 3, seed=1)
    y = x @ mix + 2
    assert factor_regression.r2(x[:100], y[:100], x[100:], y[100:]).tolist() == pytest.approx([1, 1, 1])
    unrelated = normal(4000, 3, seed=2)
    x = normal(4000, 8)
    none = factor_regression.r2(x[:2000], unrelated[:2000], x[2000:], unrelated[2000:])
    assert none.abs().max() < 0.02


def test_r2_by_the_formula() -> None:
    x = normal(90, 4)
    y = torch.stack([x[:, 0] + 0.5 * normal(90, seed=3), x[:, 1] * x[:, 2]], dim=1)
    ones = torch.ones(60, 1, dtype=torch.float64)
    solution = torch.linalg.lstsq(torch.cat([x[:60], ones], 1), y[:60]).solution
    residual = y[60:] - torch.cat([x[60:], ones[:30]], 1) @ solution
    expected = 1 - residual.square().sum(0) / (y[60:] - y[60:].mean(0)).square().sum(0)
    torch.testing.assert_close(factor_regression.r2(x[:60], y[:60], x[60:], y[60:]), expected, atol=1e-10, rtol=0)


def test_dci_by_the_formula() -> None:
    importance = normal(6, 4).abs()
    importance[2] = 0
    importance[3, :3] = 0
    total, expected = float(importance.sum()), 0.0
    for row in importance.tolist():
        if sum(row) > 0:
            p = [value / sum(row) + 1e-12 for value in row]
            entropy = -sum(q * math.log(q / sum(p), 4) for q in p) / sum(p)
            expected += sum(row) / total * (1 - entropy)
    assert factor_regression.dci(importance) == pytest.approx(expected, abs=1e-10)
    assert factor_regression.dci(torch.eye(4)) == pytest.approx(1, abs=1e-9)
    assert factor_regression.dci(torch.ones(5, 4)) == pytest.approx(0, abs=1e-9)
    assert factor_regression.dci(torch.zeros(5, 4)) == 0


def test_dci_of_an_identity_and_of_a_mixed_code() -> None:
    y = normal(400, 4)
    assert factor_regression.dci(factor_regression.lasso_importance(-3 * y[:, [2, 0, 1, 3]], y)) > 0.98
    hadamard = torch.tensor([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]], dtype=torch.float64)
    assert factor_regression.dci(factor_regression.lasso_importance(y @ hadamard, y)) < 0.02


@pytest.mark.parametrize("seed", range(3))
def test_lasso_importance_is_that_of_lasso_cv(seed: int) -> None:
    """The same estimator as AdaSSL's LassoCV, here with a tolerance at which the two can be told apart."""
    from sklearn.linear_model import LassoCV

    x = normal(203, 9, seed=seed) @ normal(9, 9, seed=seed + 10)
    y = torch.stack([x[:, 0] - x[:, 3], x[:, 1] * x[:, 2], x[:, 4]], dim=1) + normal(203, 3, seed=seed + 20)
    z, w = ((t - t.mean(0)) / t.std(0, correction=0) for t in (x, y))
    found = factor_regression.lasso_importance(x, y)
    for factor in range(3):
        theirs = LassoCV(cv=5, max_iter=50_000, random_state=0, tol=1e-12).fit(z.numpy(), w[:, factor].numpy())
        torch.testing.assert_close(found[:, factor], torch.as_tensor(theirs.coef_).abs(), atol=1e-8, rtol=0)


def test_lasso_importance_goes_to_the_first_of_copies() -> None:
    y = normal(300, 2)
    code = torch.cat([y, -2 * y + 1, y.float().double(), torch.ones(300, 1, dtype=torch.float64)], dim=1)
    importance = factor_regression.lasso_importance(code, y)
    assert importance[2:].abs().max() == 0
    torch.testing.assert_close(importance[:2], torch.eye(2, dtype=torch.float64), atol=0.02, rtol=0)


def test_mcc_of_a_permuted_signed_code_is_one() -> None:
    y = normal(100, 3)
    code = torch.cat([normal(100, 2, seed=4), -2 * y[:, [1]] + 1, 5 * y[:, [0]], -y[:, [2]]], dim=1)
    assert factor_regression.mcc(code, y) == pytest.approx(1, abs=1e-10)
    assert factor_regression.mcc(y[:, :1], y) == pytest.approx(1 / 3, abs=1e-10)  # two factors are left over
    assert factor_regression.mcc(torch.ones(100, 4), y) == 0


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31))
def test_mcc_is_the_best_assignment(seed: int) -> None:
    x, y = normal(20, 4, seed=seed), normal(20, 3, seed=seed + 1)
    correlation = torch.corrcoef(torch.cat([y, x], dim=1).T)[:3, 3:].abs()
    best = max(sum(float(correlation[f, d]) for f, d in enumerate(p)) for p in itertools.permutations(range(4), 3))
    assert factor_regression.mcc(x, y) == pytest.approx(best / 3, abs=1e-10)


def factor_features(width: int = 5) -> Features:
    g = torch.Generator().manual_seed(2)
    tables = []
    for n in (120, 60, 60):
        y = torch.rand(n, 2, generator=g)
        x = torch.cat([y, torch.randn(n, width - 2, generator=g)], dim=1)
        tables.append(table(x, (y[:, 0] > 0.5).long(), y))
    return Features(*tables, classes=2, factor_names=("size", "hue"))


def test_factor_regression_names_each_factor() -> None:
    found = metrics(factor_regression, factor_regression.Config(), factor_features())
    assert list(found) == ["r2", "r2/size", "r2/hue", "dci", "mcc"]
    assert found["r2"] == pytest.approx(1, abs=1e-6)
    assert found["mcc"] == pytest.approx(1, abs=1e-6)
    assert found["dci"] > 0.9
    normalised = metrics(factor_regression, factor_regression.Config(normalise=True), factor_features())
    assert normalised["r2"] < found["r2"]


# ---------------------------------------------------------------------------------------------- collapse


def test_effective_rank_by_the_formula() -> None:
    for shape in ((30, 8), (8, 30)):
        z = normal(*shape) + 1
        s = torch.linalg.svdvals(z)
        p = s / s.sum() + 1e-7
        assert collapse.effective_rank(z) == pytest.approx(float(torch.exp(-(p * p.log()).sum())), abs=1e-10)


def test_effective_rank_from_one_to_the_width() -> None:
    assert collapse.effective_rank(normal(20_000, 16)) == pytest.approx(16, abs=0.01)
    assert collapse.effective_rank(torch.eye(8)) == pytest.approx(8, abs=1e-4)
    for shape in ((256, 128), (64, 512)):
        constant = normal(shape[1]).float().expand(shape)
        assert collapse.effective_rank(constant) == pytest.approx(1, abs=0.01)
        rank_one = (normal(shape[0], 1) @ normal(1, shape[1], seed=1)).float()
        assert collapse.effective_rank(rank_one) == pytest.approx(1, abs=0.01)
    assert collapse.effective_rank(torch.zeros(4, 4)) == 0
    assert math.isnan(collapse.effective_rank(torch.full((4, 4), float("inf"))))


def test_embedding_std_from_zero_to_one() -> None:
    assert collapse.embedding_std(normal(4000, 64)) == pytest.approx(1, abs=0.01)
    assert collapse.embedding_std(normal(4000, 64) * 7) == pytest.approx(1, abs=0.01)
    assert collapse.embedding_std(normal(64).expand(100, 64)) < 1e-6
    assert collapse.embedding_std(torch.zeros(10, 4)) == 0
    signs = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    assert collapse.embedding_std(signs) == pytest.approx(1)
    assert collapse.embedding_std(signs.to(torch.bfloat16).requires_grad_()) == pytest.approx(1)


def test_alignment_and_uniformity_by_double_loops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collapse, "CHUNK", 4 * 11)  # rows in chunks of 4, the last one smaller
    a, b = normal(11, 3), normal(11, 3, seed=1)
    unit_a, unit_b = ([row / row.norm() for row in side] for side in (a, b))
    for power in (1.0, 2.0):
        expected = sum(float((x - y).norm()) ** power for x, y in zip(unit_a, unit_b, strict=True)) / 11
        assert collapse.alignment(a, b, power) == pytest.approx(expected, abs=1e-10)
    for t in (1.0, 2.0):
        kernels = [math.exp(-t * float((x - y).norm()) ** 2) for x, y in itertools.combinations(unit_a, 2)]
        assert collapse.uniformity(a, t) == pytest.approx(math.log(sum(kernels) / len(kernels)), abs=1e-10)
    assert collapse.alignment(a, 3 * a) == pytest.approx(0, abs=1e-20)
    assert collapse.uniformity(a[:1].expand(9, 3)) == pytest.approx(0, abs=1e-12)


def test_collapse_reports_pairs_where_there_are_some() -> None:
    features = clusters(0.5)
    a, b = normal(140, 12).float(), normal(140, 12, seed=1).float()
    features.pairs["test"] = a, b
    found = metrics(collapse, collapse.Config(), features)
    assert found["uniformity"] == pytest.approx((collapse.uniformity(a) + collapse.uniformity(b)) / 2)
    assert list(metrics(collapse, collapse.Config(), features, "held_out")) == ["embedding_std", "rankme"]


# ---------------------------------------------------------------------------------------------- together


def everything() -> tuple[Features, list[ProtocolConfig]]:
    features = factor_features()
    features.online_probe = online_linear.OnlineProbe(5, 2)
    return features, [
        knn.Config(),
        linear.Config(),
        few_label.Config(),
        online_linear.Config(),
        factor_regression.Config(),
        collapse.Config(),
    ]


def test_records_say_what_was_measured_and_how() -> None:
    features, protocols = everything()
    records = evaluate(protocols, features, network="teacher", layer="block 3")
    assert [(r["protocol"], r["split"]) for r in records] == [
        (config.id, split) for config in protocols for split in ("held_out", "test")
    ]
    first = records[0]
    assert (first["protocol"], first["network"], first["layer"]) == ("knn_k20_t0.07", "teacher", "block 3")
    assert first["n"] == 60
    assert first["settings"] == {"k": 20, "temperature": 0.07}
    assert first["units"] == {"top1": "percent"}
    for record in records:
        assert record["metrics"]
        assert all(isinstance(value, float) for value in record["metrics"].values())
        assert record["units"].keys() == record["metrics"].keys()
    assert json.loads(json.dumps(records)) == records
    assert evaluate(protocols, everything()[0], network="teacher", layer="block 3") == records


def test_records_keep_which_images_an_accuracy_got_right() -> None:
    features, protocols = everything()
    records = evaluate(protocols, features, network="student")
    kept = {record["protocol"] for record in records if "correct" in record}
    assert kept == {"knn_k20_t0.07", "linear", "online_linear"}  # few_label is a mean over many classifiers
    for record in records:
        for metric, text in record.get("correct", {}).items():
            assert 100 * unpack(text, record["n"]).mean() == pytest.approx(record["metrics"][metric])
    scores = knn.votes(features.train.x, features.train.labels, features.test.x, features.classes, 20, 0.07)
    right = scores.argmax(1) == features.test.labels
    assert unpack(records[1]["correct"]["top1"], records[1]["n"]).tolist() == right.tolist()


def test_a_collapsed_encoder_can_be_evaluated() -> None:
    features, protocols = everything()
    for each in (features.train, features.held_out, features.test):
        each.x = torch.full_like(each.x, 0.1234567)
    found = {r["protocol"]: r["metrics"] for r in evaluate(protocols, features, ("test",), network="student")}
    assert found["factor_regression"]["r2"] == pytest.approx(0, abs=0.1)
    assert found["factor_regression"]["dci"] == found["factor_regression"]["mcc"] == 0
    assert found["collapse"]["rankme"] == pytest.approx(1, abs=0.01)
    assert found["linear"]["top1"] < 70


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize(("module", "config"), CLASSIFIERS[:3], ids=lambda value: getattr(value, "id", ""))
def test_protocols_on_a_gpu_find_what_they_find_on_the_cpu(module: Any, config: ProtocolConfig) -> None:
    features, on_gpu = clusters(1.2), clusters(1.2)
    on_gpu.device = "cuda"
    found, expected = (dict(module.run(config, each, "test")) for each in (on_gpu, features))
    assert found["top1"].correct.device.type == "cpu"
    assert found == pytest.approx(expected, abs=1.5)  # two of 140 images may fall the other way by rounding


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_votes_and_probes_of_a_gpu_are_those_of_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(knn, "BANK", 50)
    train, test = clusters(1.2).train, clusters(1.2).test
    votes = [knn.votes(train.x, train.labels, test.x, 7, 20, 0.07, device) for device in ("cpu", "cuda")]
    torch.testing.assert_close(votes[1], votes[0], atol=1e-3, rtol=1e-3)
    config = linear_sgd.Config(batch=20, epochs=3, drops=())
    probes = [linear_sgd.fit(config, (0.01, 0.1), train, 7, device) for device in ("cpu", "cuda")]
    torch.testing.assert_close(probes[1][0].cpu(), probes[0][0], atol=1e-4, rtol=1e-3)


def test_labels_of_two_uses_of_one_protocol_differ() -> None:
    uses = [
        knn.Config(k=1),
        knn.Config(k=200, temperature=0.1),
        few_label.Config(n=1),
        few_label.Config(n=10),
        linear_sgd.Config(lr=0.02, weight_decay=1e-6),
        linear_sgd.Config(lrs=(0.1, 1.0, 100.0)),
        factor_regression.Config(),
        factor_regression.Config(normalise=True),
    ]
    assert [use.id for use in uses] == [
        "knn_k1_t0.07",
        "knn_k200_t0.1",
        "few_label_n1",
        "few_label_n10",
        "linear_sgd_lr0.02_wd1e-06_e100",
        "linear_sgd_lr0.1-100x3_wd0_e100",
        "factor_regression",
        "factor_regression_l2",
    ]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (knn.Config(k=141), r"knn_k141_t0.07: k = 141 is more than the 140 train images; lower k"),
        (few_label.Config(n=21), r"few_label_n21: class 0 has 20 train images, 21 are needed; lower n"),
        (linear_sgd.Config(), r"linear_sgd_lr30_wd0_e100: a batch of 256 is more than the 140 train images; lower"),
        (factor_regression.Config(), r"factor_regression: the data set has no factors; drop this protocol"),
    ],
)
def test_protocols_that_do_not_fit_the_data_are_refused(config: ProtocolConfig, message: str) -> None:
    with pytest.raises(BadRecipe, match=message):
        check([collapse.Config(), config], clusters(1.0))


def test_other_mistakes_are_named() -> None:
    features = clusters(1.0)
    with pytest.raises(
        BadRecipe, match=r"no probe was trained beside this encoder; set online_probe=True in the recipe"
    ):
        evaluate([online_linear.Config()], features, network="student")
    with pytest.raises(UnknownName, match="no split to evaluate on 'train'"):
        evaluate([knn.Config()], features, ("train",), network="student")
    features.train.factors = torch.ones(140, 2)
    with pytest.raises(BadRecipe, match="a factor has one value in the whole train split"):
        check([factor_regression.Config()], features)
    features.classes = 1
    none = (linear.Config(), linear_sgd.Config(), online_linear.Config(), knn.Config(k=1), few_label.Config(n=1))
    for config in none:
        with pytest.raises(BadRecipe, match=f"{config.id}: the data set has 1 class, at least 2 are needed"):
            check([config], features)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: knn.Config(k=0), "k is 0 and temperature 0.07; expected k >= 1, temperature > 0"),
        (lambda: knn.Config(temperature=0.0), "temperature 0.0"),
        (lambda: linear.Config(weight_decays=(1e-3, 1.0)), "from the largest to the smallest"),
        (lambda: linear_sgd.Config(lr=0.0), "linear_sgd: lr 0.0, momentum 0.9, .*; expected lr > 0"),
        (
            lambda: linear_sgd.Config(lrs=(0.1, 0.0)),
            r"linear_sgd: lrs is \(0.1, 0.0\); expected two or more positive numbers, from the smallest up",
        ),
        (lambda: linear_sgd.Config(lrs=(-1.0, 1.0)), r"lrs is \(-1.0, 1.0\); expected two or more positive numbers"),
        (lambda: linear_sgd.Config(lrs=(0.1,)), r"lrs is \(0.1,\); expected two or more positive numbers"),
        (lambda: linear_sgd.Config(lrs=(0.1, 0.1)), r"lrs is \(0.1, 0.1\); expected two or more positive numbers"),
        (
            lambda: linear_sgd.Config(lr=0.5, lrs=(0.1, 1.0)),
            r"linear_sgd: lr is 0.5 and lrs \(0.1, 1.0\); give one of them",
        ),
        (lambda: few_label.Config(draws=1), "n is 1 and draws 1; expected n >= 1, draws >= 2"),
    ],
)
def test_settings_that_make_no_sense_are_refused(make: Any, message: str) -> None:
    with pytest.raises(BadRecipe, match=message):
        make()
