"""The supervised ceiling against the cross-entropy of a classifier, one logit at a time."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from contracts import SmallBackbone, build, config, make_batch
from torch import Tensor

from harness import registry
from harness.api import TrainSet
from harness.errors import BadRecipe
from harness.recipe import check
from methods.supervised import Config, Supervised, cross_entropy

LABELS = torch.tensor([2, 0, 1, 1, 0])


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def restated(logits: Tensor, labels: Tensor) -> Tensor:
    shares = [torch.exp(row[label]) / sum(torch.exp(x) for x in row) for row, label in zip(logits, labels, strict=True)]
    return -sum(torch.log(share) for share in shares) / len(shares)


def test_loss_and_gradients(held: Callable[..., None]) -> None:
    held(lambda x: cross_entropy(x, LABELS), lambda x: restated(x, LABELS), 3 * normal(5, 4))


def test_closed_forms() -> None:
    """Undecided; sure and right; sure and wrong; and a shift of all logits of an image changes nothing."""
    C, sure = 3, 9 * torch.eye(3, dtype=torch.float64)
    assert cross_entropy(torch.ones(5, C).double(), LABELS).item() == pytest.approx(math.log(C), rel=1e-12)
    right = math.log(1 + (C - 1) * math.exp(-9))
    assert cross_entropy(sure[LABELS], LABELS).item() == pytest.approx(right, rel=1e-12)
    assert cross_entropy(sure[(LABELS + 1) % C], LABELS).item() == pytest.approx(right + 9, rel=1e-12)
    logits = normal(5, C)
    shifted = cross_entropy(logits + normal(5, 1, seed=1), LABELS)
    torch.testing.assert_close(shifted, cross_entropy(logits, LABELS), rtol=1e-12, atol=0)


def test_step_classifies_the_features_by_their_labels() -> None:
    method = build(config("supervised"))
    assert isinstance(method, Supervised)
    batch = make_batch(method.config)
    assert batch.labels is not None
    features = method.backbone(batch.views[0])
    out = method.step(batch)
    logits = features @ method.classifier.weight.T + method.classifier.bias
    torch.testing.assert_close(out.loss, restated(logits, batch.labels), rtol=1e-10, atol=0)
    assert torch.equal(out.embedding, features)
    batch.labels = batch.labels.roll(1)
    assert (method.step(batch).loss - out.loss).abs() > 1e-4


def test_the_classifier_has_an_output_for_every_class() -> None:
    method = Config().build(SmallBackbone(), TrainSet(images=40, classes=7))
    assert method.classifier.weight.shape == (7, SmallBackbone.width)


def test_a_set_without_labels_is_refused() -> None:
    name = "aninfonce_sphere_mlp_s1001_bimodal"
    with pytest.raises(BadRecipe) as caught:
        check(replace(registry.recipe(name), method=Config()))
    assert str(caught.value) == (
        f"recipe {name!r}: Supervised (labels) learns from labels, and data set 'sphere' has none"
    )
