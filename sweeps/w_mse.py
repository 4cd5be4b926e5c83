"""W-MSE recipes: digits and CIFAR-10."""

from dataclasses import replace

from harness.recipe import Budget, Optimiser, Recipe, View
from methods import w_mse
from sweeps import _bases


def w_mse_digits_r10w16_e50() -> Recipe:
    """Two views; head 256-32, whitened 64 images at a time: twice the width, as in the paper's settings."""
    return _bases.digits(w_mse.Config(widths=(256, 32), sub_batch=64), lr=8e-3)


def w_mse_digits_r10w16_e50_v4() -> Recipe:
    """`w_mse_digits_r10w16_e50` with four views of each image."""
    views = tuple(_bases.digits_view(source) for source in (0, 1, 0, 1))
    return _bases.digits(w_mse.Config(views=4, widths=(256, 32), sub_batch=64), views=views, lr=8e-3)


def w_mse_cifar10_r18_e200() -> Recipe:
    """`w_mse_cifar10_r18_e1000` at a fifth of its epochs. Not trained yet."""
    return _solo(epochs=200)


def w_mse_cifar10_r18_e1000() -> Recipe:
    """CIFAR-10 as in solo-learn@9187ea3's CIFAR recipe for W-MSE; its README states 88.67 top-1 (online linear).

    Adam for the LARS of the others. Departs: gradient through both views (theirs: through the first alone, which is
    half of it on average, as the views are alike); the head's batch norm sees both views at once; see
    `_bases.cifar10`. Not trained yet.
    """
    return _solo(epochs=1000)


def w_mse_cifar10_r18_e1000_b512() -> Recipe:
    """CIFAR-10 as the paper's W-MSE 2: htdt/self-supervised@d9662c8, README.md and cfg.py; batch 512.

    No number is claimed: departs by a cosine to 0 (theirs: constant, times 0.2 from 50 and again from 25 epochs before
    the end); 45,000 of 50,000 images, so 6 epochs of warm-up for their 500 steps; no decay of biases and norms (theirs
    decays all); colours change after the crop, which is bilinear (theirs: before it, bicubic). Not trained yet.
    """
    return _paper(w_mse.Config(), batch=512, warmup=6)


def w_mse_cifar10_r18_e1000_v4() -> Recipe:
    """CIFAR-10 as the paper's W-MSE 4: four views of 256 images; else `w_mse_cifar10_r18_e1000_b512`."""
    return _paper(w_mse.Config(views=4), batch=256, warmup=3)


def _solo(epochs: int) -> Recipe:
    views = tuple(replace(view, scale=(0.2, 1.0), blur=0.0) for view in _bases.CIFAR_SYMMETRIC)
    recipe = _bases.cifar10(w_mse.Config(), views=views, lr=2e-3, weight_decay=1e-6, epochs=epochs)
    return replace(recipe, optimiser=replace(recipe.optimiser, name="adam"))


def _paper(method: w_mse.Config, batch: int, warmup: int) -> Recipe:
    view = View(px=32, scale=(0.2, 1.0), flip=0.5, jitter=(0.4, 0.4, 0.4, 0.1), jitter_p=0.8, grey=0.1)
    recipe = _bases.cifar10(
        method,
        views=tuple(replace(view, source=source) for source in method.requirements().sources),
        lr=3e-3,
        weight_decay=1e-6,
        epochs=1000,
    )
    return replace(
        recipe,
        optimiser=Optimiser(name="adam", lr=3e-3, lr_batch=None, weight_decay=1e-6),
        budget=Budget(epochs=1000, batch=batch, warmup=warmup),
        evals=_bases.CLASSIFICATION,
        online_probe=False,
    )
