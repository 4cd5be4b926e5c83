"""TiCo recipes: digits, and CIFAR-10 as lightly trains it on Imagenette."""

from dataclasses import replace

from harness.recipe import Recipe
from methods import tico
from sweeps import _bases


def tico_digits_r10w16_e50() -> Recipe:
    """lightly's coefficients on digits, projector 256-64, a teacher from 0.9: lightly's 0.99 lags in 450 steps."""
    return _bases.digits(tico.Config(widths=(256, 64), momentum=0.9))


def tico_cifar10_r18_e200() -> Recipe:
    """Ours, as no source trains TiCo on CIFAR-10 and prints a number: lightly@e8d317f's TiCo for Imagenette, there.

    lightly's for Imagenette: head 1024-256, teacher from 0.996, SGD at 0.3 for a batch of 256, weight decay 1e-4, 20
    epochs of warm-up. lightly's for CIFAR-10 of other methods: BYOL's views, the encoder, k-NN. Departs: see
    `_bases.cifar10_lightly`. Nothing is claimed. Not trained yet.
    """
    method = tico.Config(widths=(1024, 256), momentum=0.996)
    recipe = _bases.cifar10_lightly(method, views=_bases.CIFAR_ASYMMETRIC, epochs=200, batch=256)
    optimiser = replace(recipe.optimiser, lr=0.3, lr_batch=256, weight_decay=1e-4)
    return replace(recipe, optimiser=optimiser, budget=replace(recipe.budget, warmup=20))
