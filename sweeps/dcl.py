"""DCL and DCLW recipes: digits and CIFAR-10."""

from harness.recipe import Recipe
from methods import dcl
from sweeps import _bases


def dcl_digits_r10w16_e50() -> Recipe:
    """Head 256-64."""
    return _bases.digits(dcl.Config(widths=(256, 64)))


def dcl_digits_r10w16_e50_weighted() -> Recipe:
    """`dcl_digits_r10w16_e50` with weighted positives, DCLW."""
    return _bases.digits(dcl.Config(widths=(256, 64), weighted=True))


def dcl_cifar10_r18_e200_lightly_b128() -> Recipe:
    """CIFAR-10 as in lightly@e8d317f's benchmark, batch 128, 200 epochs: 84.4 by k-NN (k 200, temperature 0.1).

    Departs: see `_bases.cifar10_lightly`. Not trained yet.
    """
    return _lightly(weighted=False, epochs=200, batch=128)


def dcl_cifar10_r18_e200_lightly_b128_weighted() -> Recipe:
    """`dcl_cifar10_r18_e200_lightly_b128` with weighted positives, DCLW: 83.3. Not trained yet."""
    return _lightly(weighted=True, epochs=200, batch=128)


def dcl_cifar10_r18_e200_lightly_b512() -> Recipe:
    """`dcl_cifar10_r18_e200_lightly_b128` with a batch of 512: 84.0. Not trained yet."""
    return _lightly(weighted=False, epochs=200, batch=512)


def dcl_cifar10_r18_e200_lightly_b512_weighted() -> Recipe:
    """`dcl_cifar10_r18_e200_lightly_b512` with weighted positives, DCLW: 82.4. Not trained yet."""
    return _lightly(weighted=True, epochs=200, batch=512)


def dcl_cifar10_r18_e800_lightly_b512() -> Recipe:
    """`dcl_cifar10_r18_e200_lightly_b512` after 800 epochs: 87.4. Not trained yet."""
    return _lightly(weighted=False, epochs=800, batch=512)


def dcl_cifar10_r18_e800_lightly_b512_weighted() -> Recipe:
    """`dcl_cifar10_r18_e800_lightly_b512` with weighted positives, DCLW: 87.1. Not trained yet."""
    return _lightly(weighted=True, epochs=800, batch=512)


def dcl_cifar10_r18_e100_b32() -> Recipe:
    """CIFAR-10 as in raminnakhli/Decoupled-Contrastive-Learning@0b9b76d, batch 32: 84.6 by a linear probe.

    Departs: see `_bases.cifar10_small_batch`. Not trained yet.
    """
    return _small_batch(weighted=False, batch=32)


def dcl_cifar10_r18_e100_b32_weighted() -> Recipe:
    """`dcl_cifar10_r18_e100_b32` with weighted positives, DCLW: 83.32. Not trained yet."""
    return _small_batch(weighted=True, batch=32)


def dcl_cifar10_r18_e100_b64() -> Recipe:
    """`dcl_cifar10_r18_e100_b32` with a batch of 64: 85.57. Not trained yet."""
    return _small_batch(weighted=False, batch=64)


def dcl_cifar10_r18_e100_b64_weighted() -> Recipe:
    """`dcl_cifar10_r18_e100_b64` with weighted positives, DCLW: 82.68. Not trained yet."""
    return _small_batch(weighted=True, batch=64)


def dcl_cifar10_r18_e100_b128() -> Recipe:
    """`dcl_cifar10_r18_e100_b32` with a batch of 128: 85.63. Not trained yet."""
    return _small_batch(weighted=False, batch=128)


def dcl_cifar10_r18_e100_b128_weighted() -> Recipe:
    """`dcl_cifar10_r18_e100_b128` with weighted positives, DCLW: 83.5. Not trained yet."""
    return _small_batch(weighted=True, batch=128)


def dcl_cifar10_r18_e100_b256() -> Recipe:
    """`dcl_cifar10_r18_e100_b32` with a batch of 256: 85.36. Not trained yet."""
    return _small_batch(weighted=False, batch=256)


def dcl_cifar10_r18_e100_b256_weighted() -> Recipe:
    """`dcl_cifar10_r18_e100_b256` with weighted positives, DCLW: 82.7. Not trained yet."""
    return _small_batch(weighted=True, batch=256)


def _lightly(weighted: bool, epochs: int, batch: int) -> Recipe:
    method = dcl.Config(last_norm=True, weighted=weighted, weight_gradient=False)
    return _bases.cifar10_lightly(method, views=_bases.LIGHTLY_SIMCLR, epochs=epochs, batch=batch)


def _small_batch(weighted: bool, batch: int) -> Recipe:
    # Adam's steps do not grow with the loss: half of their 1e-6 weighs a mean over both directions as 1e-6 their sum
    return _bases.cifar10_small_batch(dcl.Config(weighted=weighted), batch=batch, weight_decay=5e-7)
