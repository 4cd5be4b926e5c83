"""SimCLR recipes."""

from harness.recipe import Recipe
from methods import simclr
from sweeps import _bases


def simclr_digits_r10w16_e50() -> Recipe:
    """Temperature 0.2 (solo-learn), head 256-64 with batch norm."""
    return _bases.digits(simclr.Config(widths=(256, 64), norm=True))


def simclr_factors_r10w16_e4() -> Recipe:
    """The SimCLR under AdaSSL's 3DIdent runs (temperature 0.05, clamp 20, head 128-16) without the latent."""
    return _bases.factors(simclr.Config(widths=(128, 16), last_bias=False, temperature=0.05, clamp=20.0))


def simclr_cifar10_r18_e200() -> Recipe:
    """CIFAR-10 as in solo-learn@9187ea3's CIFAR recipe for SimCLR.

    Their README states 90.74 top-1 after 1000 epochs (online linear). Departs: see `_bases.cifar10`. Not trained yet.
    """
    return _bases.cifar10(simclr.Config(), views=_bases.CIFAR_SYMMETRIC, lr=0.4, weight_decay=1e-4)
