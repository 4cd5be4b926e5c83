"""Barlow Twins recipes: digits, and CIFAR-10 after solo-learn and lightly."""

from harness.recipe import Recipe
from methods import barlow_twins
from sweeps import _bases


def barlow_twins_digits_r10w16_e50() -> Recipe:
    """The published coefficients on digits, projector 256-256-256 (the paper's is 8192 wide)."""
    return _bases.digits(barlow_twins.Config(widths=(256, 256, 256)))


def barlow_twins_cifar10_r18_e1000() -> Recipe:
    """CIFAR-10 as in solo-learn@9187ea3's CIFAR recipe for Barlow Twins; README: 92.10 top-1, online linear.

    Projector 2048 wide, the loss times 0.1. Departs: see `_bases.cifar10`. Not trained yet.
    """
    return _solo(epochs=1000)


def barlow_twins_cifar10_r18_e200() -> Recipe:
    """`barlow_twins_cifar10_r18_e1000` at a fifth of its epochs, so that a study can be afforded. Not trained yet."""
    return _solo(epochs=200)


def barlow_twins_cifar10_r18_e200_lightly_b128() -> Recipe:
    """CIFAR-10 as in lightly@e8d317f's benchmark, batch 128, 200 epochs: 84.2 by k-NN (k 200, temperature 0.1).

    Two layers of projector, lambda 0.005. Departs: see `_bases.cifar10_lightly`. Not trained yet.
    """
    return _lightly(epochs=200, batch=128)


def barlow_twins_cifar10_r18_e200_lightly_b512() -> Recipe:
    """`barlow_twins_cifar10_r18_e200_lightly_b128` with a batch of 512: 81.9. Not trained yet."""
    return _lightly(epochs=200, batch=512)


def barlow_twins_cifar10_r18_e800_lightly_b512() -> Recipe:
    """`barlow_twins_cifar10_r18_e200_lightly_b512` after 800 epochs: 85.9. Not trained yet."""
    return _lightly(epochs=800, batch=512)


def _solo(epochs: int) -> Recipe:
    method = barlow_twins.Config(widths=(2048, 2048, 2048), invariance=0.1, redundancy=5.1e-4)
    return _bases.cifar10(method, views=_bases.CIFAR_ASYMMETRIC, lr=0.3, weight_decay=1e-4, epochs=epochs)


def _lightly(epochs: int, batch: int) -> Recipe:
    method = barlow_twins.Config(widths=(2048, 2048), redundancy=5e-3)
    return _bases.cifar10_lightly(method, views=_bases.CIFAR_ASYMMETRIC, epochs=epochs, batch=batch)
