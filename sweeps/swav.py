"""SwAV recipes: digits, CIFAR-10 and ImageNet."""

from dataclasses import replace
from typing import Any

from harness.evals import linear_sgd
from harness.recipe import Budget, Optimiser, Recipe, View
from methods import swav
from sweeps import _bases


def swav_digits_r10w16_e50() -> Recipe:
    """Two crops, head 256-64, 256 prototypes, epsilon 0.03 and milder views than most methods', those of DINO.

    The oracle's README advises both where the loss stays at log K, as it did here with `_bases.digits`'s views (seed 0,
    held-out k-NN: 59 % after that, 80 % with these views and epsilon 0.05, 94 % with these and 0.03).
    """
    return _digits()


def swav_digits_r10w16_e50_multicrop() -> Recipe:
    """Two global and four local crops."""
    recipe = _digits()
    local = replace(_bases.digits_view(0, px=6, role="local", scale=(0.3, 0.6), jitter=0.0), count=4)
    return replace(recipe, views=(*recipe.views, local))


def swav_digits_r10w16_e50_queue() -> Recipe:
    """A queue of two batches from the start, as the oracle's script for RN50w4 has one of one batch."""
    return _digits(queue=256, queue_from=0)


def swav_cifar10_r18_e1000() -> Recipe:
    """CIFAR-10 as in solo-learn@9187ea3's CIFAR recipe for SwAV; its README states 89.17 top-1 (online linear).

    Two crops; a queue from epoch 50 on, prototypes frozen for two. Departs: batch norms see both crops at once (theirs:
    one after the other); the queue fills from epoch 50 on, in 15 steps (theirs: before); prototypes are normalised
    after each step (theirs: by weight norm); see `_bases.cifar10`. Not trained yet.
    """
    return _solo(epochs=1000)


def swav_cifar10_r18_e200() -> Recipe:
    """`swav_cifar10_r18_e1000` after 200 epochs, otherwise the same. Not trained yet."""
    return _solo(epochs=200)


def swav_cifar10_r18_e200_lightly_b128() -> Recipe:
    """CIFAR-10 as in lightly@e8d317f's benchmark, batch 128, 200 epochs: 81.2 by k-NN (k 200, temperature 0.1).

    Two crops, 512 prototypes that are never frozen, no queue; Adam for the SGD of the others. Departs: no bias beside
    the prototypes (theirs: one each); batch norms see both crops at once (theirs: one after the other); see
    `_bases.cifar10_lightly`. Not trained yet.
    """
    return _lightly(epochs=200, batch=128)


def swav_cifar10_r18_e200_lightly_b512() -> Recipe:
    """`swav_cifar10_r18_e200_lightly_b128` with a batch of 512: 84.2. Not trained yet."""
    return _lightly(epochs=200, batch=512)


def swav_cifar10_r18_e800_lightly_b512() -> Recipe:
    """`swav_cifar10_r18_e200_lightly_b512` after 800 epochs: 88.4. Not trained yet."""
    return _lightly(epochs=800, batch=512)


def swav_imagenet_1k_r50_e100() -> Recipe:
    """scripts/swav_100ep_pretrain.sh of the oracle: 72.1 top-1, linear, in its README. Not trained yet.

    Departs: see `_imagenet`.
    """
    return _imagenet(epochs=100)


def swav_imagenet_1k_r50_e200() -> Recipe:
    """`swav_imagenet_1k_r50_e100` after 200 epochs: 73.9. Not trained yet."""
    return _imagenet(epochs=200)


def swav_imagenet_1k_r50_e400() -> Recipe:
    """`swav_imagenet_1k_r50_e100` after 400 epochs: 74.6. Not trained yet."""
    return _imagenet(epochs=400)


def swav_imagenet_1k_r50_e800() -> Recipe:
    """`swav_imagenet_1k_r50_e100` after 800 epochs: 75.3. Not trained yet."""
    return _imagenet(epochs=800)


def swav_imagenet_1k_r50_e400_2x224() -> Recipe:
    """scripts/swav_400ep_2x224_pretrain.sh, two crops of 0.08 to 1 of the image, no local ones: 70.1. Not trained yet.

    Departs: see `_imagenet`.
    """
    recipe = _imagenet(epochs=400)
    return replace(recipe, views=tuple(replace(view, scale=(0.08, 1.0)) for view in recipe.views[:2]))


def swav_imagenet_1k_r50_e200_b256() -> Recipe:
    """scripts/swav_200ep_bs256_pretrain.sh, with a queue and without warm-up: 72.7. Not trained yet.

    Departs: see `_imagenet`.
    """
    return _imagenet_b256(epochs=200)


def swav_imagenet_1k_r50_e400_b256() -> Recipe:
    """`swav_imagenet_1k_r50_e200_b256` after 400 epochs: 74.3. Not trained yet."""
    return _imagenet_b256(epochs=400)


def _digits(**changes: Any) -> Recipe:
    views = tuple(_bases.digits_view(source, scale=(0.6, 1.0), jitter=0.0) for source in (0, 1))
    return _bases.digits(replace(swav.Config(widths=(256, 64), prototypes=256, epsilon=0.03), **changes), views=views)


def _solo(epochs: int) -> Recipe:
    method = swav.Config(queue=3840, queue_from=50, frozen_epochs=2)
    return _bases.cifar10(method, views=_bases.CIFAR_SYMMETRIC, lr=0.6, weight_decay=1e-6, epochs=epochs)


def _lightly(epochs: int, batch: int) -> Recipe:
    method = swav.Config(widths=(512, 128), prototypes=512, frozen_epochs=0)
    views = tuple(replace(view, scale=(0.14, 1.0)) for view in _bases.LIGHTLY_SIMCLR)
    recipe = _bases.cifar10_lightly(method, views=views, epochs=epochs, batch=batch)
    return replace(recipe, optimiser=Optimiser(name="adam", lr=1e-3, lr_batch=128, weight_decay=1e-6))


def _imagenet(epochs: int) -> Recipe:
    """facebookresearch/swav@06b1b7c, scripts/ and src/multicropdataset.py, 2x224 + 6x96; the probe is eval_linear.py's.

    Departs: the rate warms up from 0 (theirs: from 0.3); LARS leaves biases and norms alone (theirs adapts and decays
    them, too); see `_bases.imagenet`.
    """
    first = View(px=224, scale=(0.14, 1.0), flip=0.5, jitter=(0.8, 0.8, 0.8, 0.2), jitter_p=0.8, grey=0.2, blur=0.5)
    local = replace(first, role="local", px=96, scale=(0.05, 0.14), count=6)
    return _bases.imagenet(
        swav.Config(),
        views=(first, replace(first, source=1), local),
        optimiser=Optimiser(
            name="lars", lr=4.8, lr_batch=4096, weight_decay=1e-6, final_lr=1e-3, reach_peak_early=True
        ),
        budget=Budget(epochs=epochs, batch=4096, warmup=10),
        probe=linear_sgd.Config(lr=0.3, weight_decay=1e-6, drops=()),
    )


def _imagenet_b256(epochs: int) -> Recipe:
    recipe = _imagenet(epochs)
    return replace(
        recipe,
        method=swav.Config(queue=3840),
        optimiser=replace(recipe.optimiser, lr=0.6, lr_batch=256),
        budget=Budget(epochs=epochs, batch=256),
    )
