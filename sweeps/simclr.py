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


def simclr_cifar10_r18_e1000() -> Recipe:
    """`simclr_cifar10_r18_e200` at its source's 1000 epochs: README of solo-learn@9187ea3, 90.74 top-1, online linear.

    Departs: see `_bases.cifar10`. Not trained yet.
    """
    return _bases.cifar10(simclr.Config(), views=_bases.CIFAR_SYMMETRIC, lr=0.4, weight_decay=1e-4, epochs=1000)


# lightly-ai/lightly@e8d317f, SimCLRProjectionHead and NTXentLoss; it also has a batch norm at the end of the head
_LIGHTLY = simclr.Config(widths=(512, 128), norm=True, last_bias=False, temperature=0.5)


def simclr_cifar10_r18_e200_rsa() -> Recipe:
    """CIFAR-10 as the SimCLR of RSA (Bai et al., NeurIPS 2022), Table 2: 88.5 ± 0.1 after 200 epochs, linear.

    Ours: temperature and head, which the paper does not state (lightly's). Departs: see `_bases.cifar10_rsa`. Not
    trained yet.
    """
    return _bases.cifar10_rsa(_LIGHTLY, epochs=200)


def simclr_cifar10_r18_e200_rsa_bf16() -> Recipe:
    """`simclr_cifar10_r18_e200_rsa` in bfloat16. Not trained yet."""
    return _bases.bf16(simclr_cifar10_r18_e200_rsa())


def simclr_cifar10_r18_e800_rsa() -> Recipe:
    """`simclr_cifar10_r18_e200_rsa` after 800 epochs: 91.3. Not trained yet."""
    return _bases.cifar10_rsa(_LIGHTLY, epochs=800)


def simclr_cifar10_r18_e200_lightly_b128() -> Recipe:
    """CIFAR-10 as in lightly@e8d317f's benchmark, batch 128, 200 epochs: 84.7 by k-NN (k 200, temperature 0.1).

    Departs: no batch norm at the end of the head; see `_bases.cifar10_lightly`. Not trained yet.
    """
    return _bases.cifar10_lightly(_LIGHTLY, views=_bases.LIGHTLY_SIMCLR, epochs=200, batch=128)


def simclr_cifar10_r18_e200_lightly_b512() -> Recipe:
    """`simclr_cifar10_r18_e200_lightly_b128` with a batch of 512: 84.8. Not trained yet."""
    return _bases.cifar10_lightly(_LIGHTLY, views=_bases.LIGHTLY_SIMCLR, epochs=200, batch=512)


def simclr_cifar10_r18_e800_lightly_b512() -> Recipe:
    """`simclr_cifar10_r18_e200_lightly_b512` after 800 epochs: 87.9. Not trained yet."""
    return _bases.cifar10_lightly(_LIGHTLY, views=_bases.LIGHTLY_SIMCLR, epochs=800, batch=512)


def simclr_cifar10_r18_e100_b32() -> Recipe:
    """The cross-entropy beside `dcl_cifar10_r18_e100_b32`: 78.3 by a linear probe.

    Departs: see `_bases.cifar10_small_batch`. Not trained yet.
    """
    return _small_batch(32)


def simclr_cifar10_r18_e100_b64() -> Recipe:
    """`simclr_cifar10_r18_e100_b32` with a batch of 64: 81.47. Not trained yet."""
    return _small_batch(64)


def simclr_cifar10_r18_e100_b128() -> Recipe:
    """`simclr_cifar10_r18_e100_b32` with a batch of 128: 83.09. Not trained yet."""
    return _small_batch(128)


def simclr_cifar10_r18_e100_b256() -> Recipe:
    """`simclr_cifar10_r18_e100_b32` with a batch of 256: 83.26. Not trained yet."""
    return _small_batch(256)


def _small_batch(batch: int) -> Recipe:
    method = simclr.Config(widths=(512, 128), norm=True, temperature=0.1)
    return _bases.cifar10_small_batch(method, batch=batch, weight_decay=1e-6)
