"""DINO against a restatement in plain loops and the numbers of its official code (facebookresearch/dino@7c446df5)."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import timm
import torch
from conftest import TinyBackbone
from contracts import TRAIN
from scipy.special import erf
from torch import Tensor, nn

from harness.api import Backbone, Batch, Clock, Draws
from harness.nn import Teacher, UnitLinear, cosine, multi_crop, warmup_cosine
from harness.optim import Training
from harness.recipe import Optimiser
from methods.dino import DINO, Config, Head

SMALL = Config(out_dim=6, hidden=10, bottleneck=5)


def grid(n: int, d: int, a: float, b: float) -> Tensor:
    i, j = torch.arange(n, dtype=torch.float64)[:, None], torch.arange(d, dtype=torch.float64)
    return torch.sin(a * i + b * j + 0.3 * i * j)


def make(config: Config = SMALL, backbone: Backbone | None = None) -> DINO:
    torch.manual_seed(0)
    return config.build(backbone or TinyBackbone(), TRAIN).double()


def crops(*sizes: int, images: int = 4, seed: int = 1) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(images, 3, px, px, generator=generator, dtype=torch.float64) for px in sizes]


def batch(views: list[Tensor], clock: Clock | None = None) -> Batch:
    return Batch(views, torch.arange(len(views[0])), clock or Clock(0, 100, 10), Draws(torch.Generator()))


# ------------------------------------------------------------------------------------------------ the loss


def test_loss_and_centre_meet_the_official_code() -> None:
    config = Config(
        out_dim=6, warmup_teacher_temperature=0.04, teacher_temperature=0.07, warmup_teacher_epochs=2, hidden=4
    )
    method = make(config)
    student, teacher = grid(12, 6, 0.7, 1.1), grid(6, 6, 0.9, 0.4)
    losses, centres = [], []
    for epoch in (0, 3, 3):
        losses.append(float(method.loss(student, teacher, config.temperature(epoch))[0].detach()))
        method.centre.update(teacher.mean(0, keepdim=True))
        centres.append(method.centre.mean[0].clone())
    assert losses == pytest.approx([11.0955284407669, 11.012606299967857, 11.02769359284674], abs=1e-10)
    first = [0.01274173, 0.00333787, 0.02358702, 0.00905433, 0.00017347, 0.01404129]
    second = [0.02420929, 0.00634195, 0.04481534, 0.01720324, 0.00032959, 0.02667845]
    assert centres[0].tolist() == pytest.approx(first, abs=1e-8)
    assert centres[1].tolist() == pytest.approx(second, abs=1e-8)


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def by_hand(
    student: np.ndarray, teacher: np.ndarray, centre: np.ndarray, sharp_s: float, sharp_t: float
) -> tuple[float, np.ndarray, float]:
    """Loss, its gradient by the student's logits, teacher entropy; logits (V, B, K) and (2, B, K), in loops."""
    V, B, _ = student.shape
    loss, grad, terms = 0.0, np.zeros_like(student), 2 * (V - 1)
    for t in range(2):
        for s in range(V):
            for b in range(B):
                if s == t:
                    continue
                q, p = softmax((teacher[t, b] - centre) / sharp_t), softmax(student[s, b] / sharp_s)
                loss -= (q * np.log(p)).sum() / (B * terms)
                grad[s, b] += (p - q) / (sharp_s * B * terms)
    q = softmax((teacher - centre) / sharp_t)
    return loss, grad, -(q * np.log(q)).sum() / (2 * B)


@pytest.mark.parametrize("num_crops", [2, 3, 7])
def test_loss_and_gradient_are_the_restated_ones(
    num_crops: int, record_property: Callable[[str, object], None]
) -> None:
    method = make()
    method.centre.mean.copy_(grid(1, 6, 0.2, 0.5))
    student = grid(num_crops * 3, 6, 1.3, 0.7).requires_grad_()
    teacher = grid(6, 6, 0.4, 1.9).requires_grad_()
    loss, entropy = method.loss(student, teacher, 0.05)
    loss.backward()
    expected, grad, H = by_hand(
        student.detach().numpy().reshape(num_crops, 3, 6),
        teacher.detach().numpy().reshape(2, 3, 6),
        method.centre.mean[0].numpy(),
        0.1,
        0.05,
    )
    assert float(loss.detach()) == pytest.approx(expected, abs=1e-10)
    assert float(entropy) == pytest.approx(H, abs=1e-10)
    assert student.grad is not None
    np.testing.assert_allclose(student.grad.numpy(), grad.reshape(-1, 6), rtol=0, atol=1e-10)
    assert teacher.grad is None
    found = abs(student.grad.numpy() - grad.reshape(-1, 6)).max() / abs(grad).max()
    record_property("oracle_error", float(max(found, abs(float(loss.detach()) / expected - 1))))


def test_collapsed_teachers_show_in_entropy_and_kl() -> None:
    method = make()
    uniform = torch.zeros(4, 6, dtype=torch.float64)
    loss, entropy = method.loss(uniform, uniform, 0.04)
    assert float(entropy) == pytest.approx(math.log(6), abs=1e-12)
    assert float(loss) == pytest.approx(math.log(6), abs=1e-12)
    one_wins = uniform.clone()
    one_wins[:, 2] = 10.0
    loss, entropy = method.loss(one_wins, one_wins, 0.04)
    assert float(entropy) == pytest.approx(0, abs=1e-12)
    assert float(loss) == pytest.approx(0, abs=1e-12)


# ------------------------------------------------------------------------------------------------ schedules


@pytest.mark.parametrize(("warmup", "epochs"), [(30, 100), (2, 5), (1, 3), (0, 4)])
def test_teacher_temperature_is_numpys_linspace(warmup: int, epochs: int) -> None:
    config = Config(warmup_teacher_temperature=0.04, teacher_temperature=0.07, warmup_teacher_epochs=warmup)
    expected = np.concatenate([np.linspace(0.04, 0.07, warmup), np.full(epochs - warmup, 0.07)])
    assert [config.temperature(epoch) for epoch in range(epochs)] == pytest.approx(expected.tolist(), abs=1e-15)


def official_cosine(base: float, final: float, steps: int, warmup: int) -> np.ndarray:
    at = np.arange(steps - warmup)
    rest = final + 0.5 * (base - final) * (1 + np.cos(np.pi * at / len(at)))
    return np.concatenate([np.linspace(0, base, warmup), rest])


def test_schedules_meet_the_official_code() -> None:
    lr = [warmup_cosine(k, steps=1000, warmup=100, peak=1e-3, final=1e-6, reach_peak_early=True) for k in range(1000)]
    at = [lr[k] for k in (0, 1, 50, 99, 100, 550, 999)]
    assert at == pytest.approx([0, 1.01010101e-5, 5.05050505e-4, 1e-3, 1e-3, 5.005e-4, 1.00304312e-6], rel=1e-8)
    np.testing.assert_allclose(lr, official_cosine(1e-3, 1e-6, 1000, 100), rtol=0, atol=1e-15)
    decay = [cosine(0.04, 0.4, k / 1000) for k in range(1000)]
    assert [decay[k] for k in (0, 500, 999)] == pytest.approx([0.04, 0.22, 0.399999112], abs=1e-9)
    np.testing.assert_allclose(decay, official_cosine(0.04, 0.4, 1000, 0), rtol=0, atol=1e-12)
    method = make()
    momentum = [method.momentum(Clock(k, 1000, 10)) for k in range(1000)]
    assert [momentum[k] for k in (0, 500, 999)] == pytest.approx([0.996, 0.998, 0.99999999], abs=1e-9)
    np.testing.assert_allclose(momentum, official_cosine(0.996, 1, 1000, 0), rtol=0, atol=1e-12)


def test_without_momentum_the_teacher_is_the_student_at_every_step() -> None:
    method = make(Config(out_dim=6, hidden=10, bottleneck=5, teacher_momentum=0.0))
    for step in (0, 50, 99):
        with torch.no_grad():
            for p in method.parameters():
                p.add_(0.1)
        method.after_step(Clock(step, 100, 10))
        assert method.momentum(Clock(step, 100, 10)) == 0.0
        pairs = ((method.backbone, method.teacher_backbone.network), (method.head, method.teacher_head.network))
        for student, teacher in pairs:
            for one, other in zip(student.parameters(), teacher.parameters(), strict=True):
                assert torch.equal(one, other)


# ------------------------------------------------------------------------------------------------ networks


@pytest.mark.parametrize(
    ("width", "total", "trainable"),
    [
        (192, 21_958_912, 21_893_376),
        (384, 22_352_128, 22_286_592),
        (768, 23_138_560, 23_073_024),
        (2048, 25_760_000, 25_694_464),
    ],
)
def test_head_has_the_official_number_of_parameters(width: int, total: int, trainable: int) -> None:
    with torch.device("meta"):
        head = Head(width, Config())
    assert sum(p.numel() for p in head.parameters()) == total
    assert sum(p.numel() for p in head.parameters() if p.requires_grad) == trainable


class Timm(Backbone):
    def __init__(self, name: str, **options: object) -> None:
        super().__init__()
        self.model = timm.create_model(name, num_classes=0, **options)
        self.width = self.model.num_features

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


def test_vit_small_has_the_official_decayed_and_undecayed_parameters() -> None:
    with torch.device("meta"):
        method = Config(out_dim=1024).build(Timm("vit_small_patch16_224"), TRAIN)
    params = [p for group in method.param_groups() for p in group.params]
    assert len(params) == len({id(p) for p in params}) == sum(p.requires_grad for p in method.parameters())
    assert (sum(p.ndim != 1 for p in params), sum(p.ndim == 1 for p in params)) == (55, 102)
    assert [group.frozen_epochs for group in method.param_groups()] == [0, 1]


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_head_is_the_restated_one(layers: int) -> None:
    torch.manual_seed(0)
    head = Head(7, Config(out_dim=9, hidden=8, bottleneck=5, layers=layers, norm_last_layer=False)).double()
    nn.init.uniform_(head.last.norm, 0.5, 2.0)
    x = grid(4, 7, 0.3, 0.8)
    y, linears = x.numpy(), [m for m in head.mlp if isinstance(m, nn.Linear)]
    assert len(linears) == layers
    for k, linear in enumerate(linears):
        y = y @ linear.weight.detach().numpy().T + linear.bias.detach().numpy()
        if k < layers - 1:
            y = y * 0.5 * (1 + erf(y / np.sqrt(2)))
    y = y / np.linalg.norm(y, axis=1, keepdims=True)
    v, g = head.last.direction.detach().numpy(), head.last.norm.detach().numpy()
    np.testing.assert_allclose(
        head(x).detach().numpy(), y @ (g * v / np.linalg.norm(v, axis=1, keepdims=True)).T, rtol=0, atol=1e-10
    )


def test_unit_linear_is_torchs_weight_norm() -> None:
    torch.manual_seed(0)
    ours = UnitLinear(5, 7, train_norm=True).double()
    theirs = nn.utils.parametrizations.weight_norm(nn.Linear(5, 7, bias=False).double(), dim=0)
    with torch.no_grad():
        theirs.parametrizations.weight.original0.copy_(ours.norm)
        theirs.parametrizations.weight.original1.copy_(ours.direction)
    x, weight = grid(3, 5, 0.3, 0.8), grid(3, 7, 1.0, 0.2)
    (ours(x) * weight).sum().backward()
    (theirs(x) * weight).sum().backward()
    torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=1e-12)
    torch.testing.assert_close(ours.norm.grad, theirs.parametrizations.weight.original0.grad, rtol=0, atol=1e-12)
    torch.testing.assert_close(ours.direction.grad, theirs.parametrizations.weight.original1.grad, rtol=0, atol=1e-12)


def test_teacher_drops_nothing_and_the_student_does() -> None:
    torch.manual_seed(0)
    small = {"img_size": 16, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2}
    backbone = Timm("vit_tiny_patch16_224", drop_path_rate=0.5, proj_drop_rate=0.3, **small)
    teacher, x = Teacher(backbone).train(), crops(16, images=8)[0].float()
    assert not torch.equal(backbone(x), backbone(x))
    assert torch.equal(teacher(x), teacher(x))
    torch.testing.assert_close(teacher(x), backbone.eval()(x))


# ------------------------------------------------------------------------------------------------ the step


class Counting(TinyBackbone):
    """Notes the shape of each input."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, ...]] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(tuple(x.shape))
        return super().forward(x)


def test_multi_crop_passes_once_per_resolution() -> None:
    backbone = Counting().double()
    views = crops(16, 16, 8, 8, 8)
    features, out = multi_crop(backbone, nn.Identity(), views)
    assert backbone.seen == [(8, 3, 16, 16), (12, 3, 8, 8)]
    torch.testing.assert_close(features, torch.cat([backbone(view) for view in views]), rtol=0, atol=1e-12)
    assert out is features


def test_step_is_the_restated_one() -> None:
    method = make()
    method.centre.mean.copy_(grid(1, 6, 0.2, 0.5) / 10)
    nn.init.normal_(method.teacher_backbone.network.linear.bias)  # a teacher unlike the student
    views, before = crops(16, 16, 8, 8, 8), method.centre.mean.clone()
    out = method.step(batch(views, Clock(0, 100, 10)))
    student = np.stack([method.head(method.backbone(v)).detach().numpy() for v in views])
    teacher = np.stack([method.teacher_head(method.teacher_backbone(v)).numpy() for v in views[:2]])
    loss, _, H = by_hand(student, teacher, before[0].numpy(), 0.1, 0.04)
    assert float(out.loss.detach()) == pytest.approx(loss, abs=1e-10)
    assert float(out.diagnostics["teacher_entropy"]) == pytest.approx(H, abs=1e-10)
    assert float(out.diagnostics["kl"]) == pytest.approx(loss - H, abs=1e-10)
    centre = 0.9 * before[0].numpy() + 0.1 * teacher.mean((0, 1))
    np.testing.assert_allclose(method.centre.mean[0].numpy(), centre, rtol=0, atol=1e-12)
    torch.testing.assert_close(out.features, method.teacher_backbone(views[0]), rtol=0, atol=1e-12)
    np.testing.assert_allclose(out.embedding.detach().numpy(), student[0], rtol=0, atol=1e-12)
    out.loss.backward()
    assert all(p.grad is not None for p in method.parameters() if p.requires_grad)
    assert all(p.grad is None for p in method.teacher_backbone.parameters())
    assert all(p.grad is None for p in method.teacher_head.parameters())


def test_after_step_moves_the_teacher() -> None:
    method = make()
    method.requires_grad_(False)
    for p in (*method.backbone.parameters(), *method.head.parameters()):
        p.add_(1.0)
    pairs = [
        *zip(method.teacher_backbone.parameters(), method.backbone.parameters(), strict=True),
        *zip(method.teacher_head.parameters(), method.head.parameters(), strict=True),
    ]
    expected = [0.998 * slow + 0.002 * fast for slow, fast in pairs]
    method.after_step(Clock(50, 100, 10))
    for (slow, _), value in zip(pairs, expected, strict=True):
        torch.testing.assert_close(slow, value, rtol=0, atol=1e-12)
    name, network = method.encoder()
    assert (name, network) == ("teacher", method.teacher_backbone.network)


def train(method: DINO, training: Training, steps: range) -> list[float]:
    losses = []
    for step in steps:
        clock = Clock(step, 60, 10)
        out = method.step(batch(crops(16, 16, 8, seed=step), clock))
        training.step(out.loss, clock)
        method.after_step(clock)
        losses.append(float(out.loss.detach()))
    return losses


def test_state_dict_holds_all_that_goes_on() -> None:
    adam = Optimiser(name="adamw", lr=1e-2, lr_batch=None)
    whole, first, second = make(), make(), make(SMALL, TinyBackbone())
    uninterrupted = train(whole, Training(whole, adam, 4, 0), range(12))
    before = Training(first, adam, 4, 0)
    train(first, before, range(6))
    assert float(first.centre.mean.abs().max()) > 0
    second.load_state_dict(first.state_dict())
    after = Training(second, adam, 4, 0)
    after.load_state_dict(before.state_dict())
    assert train(second, after, range(6, 12)) == uninterrupted[6:]


def test_last_layer_is_frozen_for_one_epoch() -> None:
    method = make()
    training = Training(method, Optimiser(name="adamw", lr=1e-2, lr_batch=None, weight_decay=0.1), 4, 0)
    start, body = method.head.last.direction.clone(), method.head.mlp[0].weight.clone()
    train(method, training, range(10))
    assert torch.equal(method.head.last.direction, start)
    assert not torch.equal(method.head.mlp[0].weight, body)
    train(method, training, range(10, 12))
    assert not torch.equal(method.head.last.direction, start)
    assert torch.equal(method.head.last.norm, torch.ones_like(method.head.last.norm))


def test_norms_of_the_last_layer_train_on_request() -> None:
    method = make(Config(out_dim=6, hidden=10, bottleneck=5, norm_last_layer=False))
    assert method.param_groups()[1].params == [method.head.last.direction, method.head.last.norm]
    method.step(batch(crops(16, 16))).loss.backward()
    assert float(method.head.last.norm.grad.abs().max()) > 0
    assert not any(p.requires_grad for p in method.teacher_head.parameters())


def test_student_learns_a_fixed_teacher() -> None:
    """The teacher of the start, its centre settled: cross-entropy falls towards the teacher's entropy."""
    method = make(Config(out_dim=32, hidden=32, bottleneck=16, teacher_momentum=1.0))
    adam = torch.optim.Adam([p for group in method.param_groups() for p in group.params], lr=3e-3)
    views, kl = crops(16, 16, 8, 8, images=8), []
    for step in range(100):
        clock = Clock(step, 100, 10)
        out = method.step(batch(views, clock))
        if step >= 70:
            adam.zero_grad()
            out.loss.backward()
            adam.step()
            method.after_step(clock)
            kl.append(float(out.diagnostics["kl"]))
    assert kl == sorted(kl, reverse=True)
    assert kl[-1] < kl[0] / 2


# ------------------------------------------------------------------------------------------------ settings


def test_requirements() -> None:
    needs = Config().requirements()
    assert (needs.views, needs.sources, needs.local_views) == (("global", "global"), (0, 1), True)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"teacher_temperature": 0.0},
            r"temperatures \(student, teacher, teacher's warm-up\) are \(0.1, 0.0, 0.04\), expected above 0",
        ),
        ({"centre_momentum": 1.5}, r"momenta \(centre, teacher\) are \(1.5, 0.996\), expected 0 to 1"),
        ({"layers": 0}, "layers=0, expected at least 1"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Config(**settings)  # type: ignore[arg-type]
