"""Recipes of alignment and uniformity."""

from dataclasses import replace

from harness.recipe import Budget, Data, Optimiser, Recipe, View
from methods import align_uniform
from sweeps import _bases


def align_uniform_digits_r10w16_e50() -> Recipe:
    """alpha 2, t 2, weights 1 and 1 as published; head 256-64."""
    return _bases.digits(align_uniform.Config(widths=(256, 64)))


def align_uniform_cifar10_r18_e200() -> Recipe:
    """Ours: CIFAR-10 with what SsnL/align_uniform@e256d47 has for STL-10, which is not held here.

    Theirs: loss, views (at 64 px), SGD with 0.12 for a batch of 256, weight decay 1e-4, 200 epochs. Ours: ResNet-18 and
    a head 2048-128 for their small AlexNet, whose layer before last is its representation; a batch of 256 for 768; a
    cosine for steps at epochs 155, 170 and 185; no decay of biases and norms. Not trained yet.
    """
    view = View(px=32, scale=(0.08, 1.0), flip=0.5, jitter=(0.4, 0.4, 0.4, 0.4), jitter_p=1.0, grey=0.2)
    return Recipe(
        method=align_uniform.Config(widths=(2048, 128)),
        data=Data(name="cifar10"),
        views=(view, replace(view, source=1)),
        encoder=_bases.R18,
        optimiser=Optimiser(name="sgd", lr=0.12, weight_decay=1e-4),
        budget=Budget(epochs=200, batch=256),
        evals=_bases.CLASSIFICATION,
    )
