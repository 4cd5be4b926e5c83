"""MoCo v2 recipes."""

from dataclasses import replace

from harness.recipe import Recipe
from methods import moco_v2
from sweeps import _bases

_DIGITS = moco_v2.Config(widths=(256, 64), queue=512, momentum=0.995)


def moco_v2_digits_r10w16_e50() -> Recipe:
    """Head 256-64, a queue of 512 keys, a key encoder fast enough for 450 steps (0.995 for 0.999).

    A faster one collapses (seed 0: 0.9 and 0.95 by step 99): the queue's keys are then of another network.
    """
    return _bases.digits(_DIGITS)


def moco_v2_digits_r10w16_e50_sym() -> Recipe:
    """Each view is query and key in turn; the keys of both are in one queue, as in the authors' notebook."""
    return _bases.digits(replace(_DIGITS, symmetric=True))


def moco_v2_digits_r10w16_e50_sym2q() -> Recipe:
    """Symmetric, a queue of 256 for each view's keys, a momentum from 0.99 to 0.999: solo-learn's MoCo v2+."""
    method = replace(_DIGITS, symmetric=True, queue=256, queue_per_view=True, momentum=0.99, final_momentum=0.999)
    return _bases.digits(method)


# vturrisi/solo-learn@9187ea3, scripts/pretrain/cifar/augmentations/symmetric_weak.yaml
_SOLO_WEAK = tuple(replace(view, jitter=(0.4, 0.4, 0.4, 0.1)) for view in _bases.CIFAR_SYMMETRIC)


def moco_v2_cifar10_r18_e1000() -> Recipe:
    """CIFAR-10 as in solo-learn@9187ea3's recipe for MoCo v2+; its README states 92.94 top-1 (online linear).

    The mean of both directions, a queue of 32,768 keys for each view, momentum 0.99 to 0.999, SGD for the LARS of the
    others. Departs: see `_bases.cifar10`. Not trained yet.
    """
    return _solo(epochs=1000)


def moco_v2_cifar10_r18_e200() -> Recipe:
    """`moco_v2_cifar10_r18_e1000` in 200 epochs. Not trained yet."""
    return _solo(epochs=200)


# RSA's "symmetrized loss" after SimSiam, so the mean of both directions; queue of the authors' CIFAR-10 notebook
_RSA = moco_v2.Config(widths=(512, 128), queue=4096, symmetric=True, momentum=0.99)


def moco_v2_cifar10_r18_e200_rsa() -> Recipe:
    """CIFAR-10 as the MoCo v2 of RSA (Bai et al., NeurIPS 2022), Table 2: 86.9 ± 0.2 after 200 epochs, linear.

    Symmetric, momentum 0.99. Ours, as neither paper nor repository states them: 4,096 keys in one queue, temperature
    0.2, head 512-128. Departs: see `_bases.cifar10_rsa`. Not trained yet.
    """
    return _bases.cifar10_rsa(_RSA, epochs=200)


def moco_v2_cifar10_r18_e800_rsa() -> Recipe:
    """`moco_v2_cifar10_r18_e200_rsa` after 800 epochs: 90.8. Not trained yet."""
    return _bases.cifar10_rsa(_RSA, epochs=800)


# lightly-ai/lightly@e8d317f, cifar10_benchmark.py, MocoModel
_LIGHTLY = moco_v2.Config(widths=(512, 128), queue=4096, symmetric=True, temperature=0.1, momentum=0.99)


def moco_v2_cifar10_r18_e200_lightly_b128() -> Recipe:
    """CIFAR-10 as "Moco" in lightly@e8d317f's benchmark, batch 128, 200 epochs: 83.8 by k-NN (k 200, temperature 0.1).

    Symmetric, one queue of 4,096 keys. Departs: batch norm of the whole batch (theirs: of eight parts of it, which they
    shuffle for the keys); both directions read the queue before either pushes (theirs: the second finds the keys of the
    first, of its own images, among its negatives); for the rest see `_bases.cifar10_lightly`, but the momentum stays
    0.99 as theirs does. Not trained yet.
    """
    return _bases.cifar10_lightly(_LIGHTLY, views=_bases.LIGHTLY_SIMCLR, epochs=200, batch=128)


def moco_v2_cifar10_r18_e200_lightly_b512() -> Recipe:
    """`moco_v2_cifar10_r18_e200_lightly_b128` with a batch of 512: 84.7. Not trained yet."""
    return _bases.cifar10_lightly(_LIGHTLY, views=_bases.LIGHTLY_SIMCLR, epochs=200, batch=512)


def moco_v2_cifar10_r18_e800_lightly_b512() -> Recipe:
    """`moco_v2_cifar10_r18_e200_lightly_b512` after 800 epochs: 89.9. Not trained yet."""
    return _bases.cifar10_lightly(_LIGHTLY, views=_bases.LIGHTLY_SIMCLR, epochs=800, batch=512)


def _solo(epochs: int) -> Recipe:
    method = moco_v2.Config(
        widths=(2048, 256), queue=32768, symmetric=True, queue_per_view=True, momentum=0.99, final_momentum=0.999
    )
    recipe = _bases.cifar10(method, views=_SOLO_WEAK, lr=0.3, weight_decay=1e-4, epochs=epochs)
    return replace(recipe, optimiser=replace(recipe.optimiser, name="sgd"))
