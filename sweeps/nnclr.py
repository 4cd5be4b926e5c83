"""NNCLR recipes."""

from dataclasses import replace

from harness.recipe import Recipe
from methods import nnclr
from sweeps import _bases

_DIGITS = nnclr.Config(widths=(256, 256, 64), hidden=256, queue=1024)


def nnclr_digits_r10w16_e50() -> Recipe:
    """Projector 256-256-64, predictor 256-64, a queue of 8 batches, about the train split."""
    return _bases.digits(_DIGITS)


def nnclr_digits_r10w16_e50_ntxent() -> Recipe:
    """lightly's loss: neighbours and predictions of all other images are negatives."""
    return _bases.digits(replace(_DIGITS, all_negatives=True))


def nnclr_cifar10_r18_e200() -> Recipe:
    """`nnclr_cifar10_r18_e1000` for 200 epochs. Not trained yet."""
    return _cifar10(epochs=200)


def nnclr_cifar10_r18_e1000() -> Recipe:
    """CIFAR-10 as in solo-learn@9187ea3's CIFAR recipe for NNCLR; its README states 91.88 top-1 (online linear).

    Temperature 0.2. Departs: see `_bases.cifar10`. Not trained yet.
    """
    return _cifar10(epochs=1000)


def nnclr_cifar10_r18_e200_lightly_b128() -> Recipe:
    """CIFAR-10 as in lightly@e8d317f's benchmark, batch 128, 200 epochs: 83.4 by k-NN (k 200, temperature 0.1).

    NT-Xent at lightly's default temperature 0.5, two layers of projector, a queue of 4,096. Departs: the queue holds
    the first view (theirs: the second, made alike); see `_bases.cifar10_lightly`. Not trained yet.
    """
    return _lightly(epochs=200, batch=128, queue=4096)


def nnclr_cifar10_r18_e200_lightly_b512() -> Recipe:
    """`nnclr_cifar10_r18_e200_lightly_b128` with a batch of 512 and a queue of 8,192: 81.5. Not trained yet."""
    return _lightly(epochs=200, batch=512, queue=8192)


def nnclr_cifar10_r18_e800_lightly_b512() -> Recipe:
    """`nnclr_cifar10_r18_e200_lightly_b512` after 800 epochs: 89.2. Not trained yet."""
    return _lightly(epochs=800, batch=512, queue=8192)


def _cifar10(epochs: int) -> Recipe:
    method = nnclr.Config(temperature=0.2)
    return _bases.cifar10(method, views=_bases.CIFAR_ASYMMETRIC, lr=0.4, weight_decay=1e-5, epochs=epochs)


def _lightly(epochs: int, batch: int, queue: int) -> Recipe:
    method = nnclr.Config(widths=(2048, 256), queue=queue, temperature=0.5, all_negatives=True)
    return _bases.cifar10_lightly(method, views=_bases.LIGHTLY_SIMCLR, epochs=epochs, batch=batch)
