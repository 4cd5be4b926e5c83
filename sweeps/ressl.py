"""ReSSL recipes. The first view is the student's, strongly augmented; the second, weak one is the teacher's."""

from dataclasses import replace

from harness.evals import linear_sgd
from harness.recipe import Budget, Optimiser, Recipe, View
from methods import ressl
from sweeps import _bases

_DIGITS = ressl.Config(widths=(256, 64), queue=512, momentum=0.95)


def ressl_digits_r10w16_e50() -> Recipe:
    """Head 256-64, a queue of 4 batches, a teacher fast enough for 450 steps, whose view is cropped and no more.

    Milder crops than the other methods', so that a teacher that knows little yet relates images well (measured on
    held-out digits, seed 0: k-NN 61 % with the others' crops, 80 % with these).
    """
    return _digits(_DIGITS)


def ressl_digits_r10w16_e50_rising() -> Recipe:
    """The teacher's momentum rises to 1 (solo-learn)."""
    return _digits(replace(_DIGITS, momentum_rises=True))


def ressl_cifar10_r18_e200() -> Recipe:
    """`ressl_cifar10_r18_e1000` for 200 epochs. Not trained yet."""
    return _cifar10(epochs=200)


def ressl_cifar10_r18_e1000() -> Recipe:
    """CIFAR-10 as in solo-learn@9187ea3's CIFAR recipe for ReSSL; its README states 90.63 top-1 (online linear).

    Head 4096-256, a queue of 65,536, momentum from 0.99 to 1; SGD for the LARS of the others. Departs: no decay of
    biases and norms (theirs decays all); see `_bases.cifar10`. Not trained yet.
    """
    return _cifar10(epochs=1000)


def ressl_imagenet_1k_r50_e200() -> Recipe:
    """The authors' ReSSL with one student view: 69.9 top-1, linear, README of KyleZheng1997/ReSSL@4d67daa.

    ressl.py, data/augmentation.py and linear_eval.py; the probe's batch is 8 processes of 32. Departs: their probe's
    cosine goes by step; see `_bases.imagenet`. Not trained yet.
    """
    weak = View(px=224, source=1, scale=(0.2, 1.0), flip=0.5)
    strong = replace(weak, source=0, jitter=(0.4, 0.4, 0.4, 0.1), jitter_p=0.8, grey=0.2, blur=0.5)
    return _bases.imagenet(
        ressl.Config(),
        views=(strong, weak),
        optimiser=Optimiser(name="sgd", lr=0.05, weight_decay=1e-4),
        budget=Budget(epochs=200, batch=256, warmup=5),
        probe=linear_sgd.Config(lr=0.3, drops=()),
    )


def _digits(method: ressl.Config) -> Recipe:
    strong = _bases.digits_view(0, scale=(0.7, 1.0))
    return _bases.digits(method, views=(strong, replace(strong, source=1, jitter_p=0.0, blur=0.0)))


def _cifar10(epochs: int) -> Recipe:
    method = ressl.Config(widths=(4096, 256), queue=65536, momentum=0.99, momentum_rises=True)
    strong = replace(_bases.CIFAR_ASYMMETRIC[0], blur=0.5)
    weak = View(px=32, source=1, scale=strong.scale, flip=strong.flip)
    recipe = _bases.cifar10(method, views=(strong, weak), lr=0.05, weight_decay=1e-4, epochs=epochs)
    return replace(recipe, optimiser=replace(recipe.optimiser, name="sgd"))
