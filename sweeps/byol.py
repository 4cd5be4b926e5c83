"""BYOL recipes."""

from harness.recipe import Recipe
from methods import byol
from sweeps import _bases


def byol_digits_r10w16_e50() -> Recipe:
    """Heads 256-64; the target follows faster than the paper's (0.9 for 0.996), for 450 steps."""
    return _bases.digits(byol.Config(widths=(256, 64), momentum=0.9), lr=2e-3)


def byol_factors_r10w16_e4() -> Recipe:
    """BYOL as under AdaSSL (distance 1 - cos), heads 256-64, a target fast enough for 64 steps."""
    return _bases.factors(byol.Config(widths=(256, 64), momentum=0.98, distance=1.0), lr=2e-3)


def byol_cifar10_r18_e1000() -> Recipe:
    """CIFAR-10 as in solo-learn@9187ea3's CIFAR recipe for BYOL; its README states 92.58 top-1 (online linear).

    Departs: see `_bases.cifar10`. Not trained yet.
    """
    method = byol.Config(momentum=0.99)
    return _bases.cifar10(method, views=_bases.CIFAR_ASYMMETRIC, lr=1.0, weight_decay=1e-5, epochs=1000)


def byol_cifar10_r18_e200_rsa() -> Recipe:
    """CIFAR-10 as the BYOL of RSA (Bai et al., NeurIPS 2022), Tables 1 (AA) and 2: 90.3 ± 0.1 after 200 epochs, linear.

    Heads 1024-128, momentum from 0.99. Departs: see `_bases.cifar10_rsa`. Not trained yet.
    """
    return _bases.cifar10_rsa(byol.Config(widths=(1024, 128), momentum=0.99), epochs=200)


def byol_cifar10_r18_e200_rsa_bf16() -> Recipe:
    """`byol_cifar10_r18_e200_rsa` in bfloat16. Not trained yet."""
    return _bases.bf16(byol_cifar10_r18_e200_rsa())


def byol_cifar10_r18_e800_rsa() -> Recipe:
    """`byol_cifar10_r18_e200_rsa` after 800 epochs: 92.5. Not trained yet."""
    return _bases.cifar10_rsa(byol.Config(widths=(1024, 128), momentum=0.99), epochs=800)


_LIGHTLY = byol.Config(widths=(1024, 256), momentum=0.99, distance=0.5)  # half of the summed negative cosines


def byol_cifar10_r18_e200_lightly_b128() -> Recipe:
    """CIFAR-10 as in lightly@e8d317f's benchmark, batch 128, 200 epochs: 86.9 by k-NN (k 200, temperature 0.1).

    Departs: see `_bases.cifar10_lightly`. Not trained yet.
    """
    return _bases.cifar10_lightly(_LIGHTLY, views=_bases.CIFAR_ASYMMETRIC, epochs=200, batch=128)


def byol_cifar10_r18_e200_lightly_b512() -> Recipe:
    """`byol_cifar10_r18_e200_lightly_b128` with a batch of 512: 86.8. Not trained yet."""
    return _bases.cifar10_lightly(_LIGHTLY, views=_bases.CIFAR_ASYMMETRIC, epochs=200, batch=512)


def byol_cifar10_r18_e800_lightly_b512() -> Recipe:
    """`byol_cifar10_r18_e200_lightly_b512` after 800 epochs: 91.0. Not trained yet."""
    return _bases.cifar10_lightly(_LIGHTLY, views=_bases.CIFAR_ASYMMETRIC, epochs=800, batch=512)
