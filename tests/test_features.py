"""Feature extraction: in order, once per image, and without a trace on the encoder."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from harness.api import Draws
from harness.data import Images, Splits
from harness.errors import RunFailed, UnknownName
from harness.features import Features, Table, accuracy, extract
from harness.recipe import View
from harness.seeding import generator
from harness.views import make_views, plain

VIEW = View(px=8, scale=(0.3, 1.0), flip=0.5, jitter=(0.4, 0.4, 0.2, 0.1), jitter_p=0.8, grey=0.2)


class Normed(nn.Module):
    """An encoder with everything that evaluation mode matters for, one part of it frozen in that mode."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3)
        self.norm = nn.BatchNorm2d(5)
        self.frozen = nn.BatchNorm1d(5)
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(self.frozen(self.norm(self.conv(x)).mean((2, 3))))


@pytest.fixture
def encoder() -> Normed:
    torch.manual_seed(0)
    encoder = Normed().train()
    encoder.frozen.eval()
    encoder(torch.randn(16, 3, 8, 8))  # running statistics that differ from the initial ones
    return encoder


@pytest.fixture
def splits() -> Splits:
    g = torch.Generator().manual_seed(1)

    def images(n: int) -> Images:
        pixels = torch.randint(0, 256, (n, 3, 8, 8), generator=g, dtype=torch.uint8)
        return Images(pixels, torch.arange(n) % 3, torch.rand(n, 2, generator=g), ("size", "hue"))

    mean, std = torch.tensor([0.4, 0.5, 0.6]), torch.tensor([0.2, 0.25, 0.3])
    return Splits(images(11), images(5), images(7), mean, std, classes=3, name="noise", revision="none")


@pytest.mark.parametrize("batch", [1, 4, 512])
def test_one_row_per_image_in_order(encoder: Normed, splits: Splits, batch: int) -> None:
    features = extract(encoder, splits, device="cpu", batch=batch)
    encoder.eval()
    for name in ("train", "held_out", "test"):
        table, images = getattr(features, name), getattr(splits, name)
        alone = torch.cat([encoder(plain(image[None], splits.mean, splits.std)) for image in images.pixels])
        torch.testing.assert_close(table.x, alone.detach(), atol=1e-5, rtol=1e-5)
        assert table.x.dtype == torch.float32
        assert not table.x.requires_grad
        assert torch.equal(table.labels, images.labels)
        assert torch.equal(table.factors, images.factors)
    assert features.classes == 3
    assert features.factor_names == ("size", "hue")
    assert features.pairs == {}
    assert features.device == "cpu"


class Rowwise:
    """Images that are read a few rows at a time, as of a set too large for one tensor."""

    def __init__(self, images: Images) -> None:
        self.labels, self.factors, self.factor_names = images.labels, images.factors, images.factor_names
        self.rows = images.rows


def test_images_are_read_by_rows(encoder: Normed, splits: Splits) -> None:
    stored: Any = {name: Rowwise(getattr(splits, name)) for name in ("train", "held_out", "test")}
    found, expected = (extract(encoder, each, device="cpu", batch=4) for each in (replace(splits, **stored), splits))
    for name in stored:
        assert torch.equal(getattr(found, name).x, getattr(expected, name).x)


def test_features_of_an_encoder_in_bfloat16_are_float32(splits: Splits) -> None:
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(192, 2), nn.Linear(2, 2).bfloat16())
    encoder[1].register_forward_hook(lambda module, inputs, out: out.bfloat16())
    features = extract(encoder, splits, device="cpu")
    assert features.train.x.dtype == torch.float32


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_features_of_a_gpu_come_to_the_cpu(encoder: Normed, splits: Splits) -> None:
    expected = extract(encoder, splits, views=(VIEW, VIEW), device="cpu", batch=1)
    found = extract(encoder.cuda(), splits, views=(VIEW, VIEW), device="cuda", batch=1)
    assert found.device == "cuda"
    for name in ("train", "held_out", "test"):
        torch.testing.assert_close(getattr(found, name).x, getattr(expected, name).x, atol=1e-4, rtol=1e-3)
    assert {side.device.type for sides in found.pairs.values() for side in sides} == {"cpu"}


def test_the_encoder_is_left_as_found(encoder: Normed, splits: Splits) -> None:
    state = {name: value.clone() for name, value in encoder.state_dict().items()}
    extract(encoder, splits, views=(VIEW, VIEW), device="cpu")
    assert encoder.training
    assert encoder.norm.training
    assert not encoder.frozen.training
    assert all(torch.equal(value, state[name]) for name, value in encoder.state_dict().items())


def test_the_mode_is_restored_after_an_error(splits: Splits) -> None:
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(3, 2)).train()
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        extract(encoder, splits, device="cpu")
    assert encoder.training
    assert encoder[1].training


def test_pairs_are_two_augmented_views_of_each_image(encoder: Normed, splits: Splits) -> None:
    weak = replace(VIEW, source=1, jitter_p=0.0)
    local = replace(VIEW, role="local", px=4)
    features = extract(encoder, splits, views=(local, VIEW, weak, VIEW), seed=3, device="cpu")
    assert sorted(features.pairs) == ["held_out", "test"]
    draws = Draws(generator(3, "pairs", "test", 0))
    pixels = splits.test.pixels
    encoder.eval()
    made = make_views((pixels, pixels), (VIEW, weak), draws, splits.mean, splits.std)
    for side, view in zip(features.pairs["test"], made, strict=True):
        torch.testing.assert_close(side, encoder(view).detach())
    assert not torch.equal(*features.pairs["test"])


def test_pairs_follow_the_seed(encoder: Normed, splits: Splits) -> None:
    twice = replace(VIEW, count=2)
    runs = [extract(encoder, splits, views=(twice,), seed=seed, device="cpu").pairs["test"][0] for seed in (0, 0, 1)]
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


def test_one_view_makes_no_pairs(encoder: Normed, splits: Splits) -> None:
    assert extract(encoder, splits, views=(VIEW,), device="cpu").pairs == {}


def test_features_that_are_not_finite_are_refused(encoder: Normed, splits: Splits) -> None:
    with torch.no_grad():
        encoder.conv.bias.fill_(float("nan"))
    message = "features of 11 of the 11 train images are not finite; the run has diverged, lower its learning rate"
    with pytest.raises(RunFailed, match=message):
        extract(encoder, splits, device="cpu")


def test_train_is_not_a_split_to_evaluate_on() -> None:
    table = Table(torch.zeros(1, 1), torch.zeros(1, dtype=torch.int64), torch.zeros(1, 0))
    features = Features(table, table, table, classes=1)
    with pytest.raises(UnknownName, match="no split to evaluate on 'tets'; did you mean 'test'"):
        features.table("tets")
    with pytest.raises(UnknownName, match="'train'; known: held_out, test"):
        features.table("train")


def test_accuracy_counts_ties_by_class_number() -> None:
    scores = torch.tensor([[0.5, 0.5, 0.1], [0.5, 0.5, 0.1], [0.0, 0.0, 0.0]])
    assert accuracy(scores, torch.tensor([0, 1, 2])) == pytest.approx(100 / 3)
    assert accuracy(scores, torch.tensor([0, 1, 2]), top=2) == pytest.approx(200 / 3)
    assert accuracy(scores, torch.tensor([0, 1, 2]), top=3) == 100


def test_a_score_that_is_not_a_number_is_never_right() -> None:
    scores = torch.tensor([[float("nan")] * 3, [float("nan"), 1.0, 0.0], [0.0, 1.0, 0.0]])
    assert accuracy(scores, torch.tensor([0, 1, 1])).correct.tolist() == [False, False, True]
    assert accuracy(scores, torch.tensor([0, 1, 1]), top=2).correct.tolist() == [False, True, True]


@given(st.integers(0, 2**31), st.integers(1, 6))
def test_accuracy_is_the_share_of_labels_among_the_first(seed: int, top: int) -> None:
    g = torch.Generator().manual_seed(seed)
    scores = torch.randint(0, 4, (20, 6), generator=g).float()  # many ties
    labels = torch.randint(0, 6, (20,), generator=g)
    hits = 0
    for row, label in zip(scores.tolist(), labels.tolist(), strict=True):
        hits += label in sorted(range(6), key=lambda c: (-row[c], c))[:top]
    assert accuracy(scores, labels, top) == pytest.approx(100 * hits / 20)
