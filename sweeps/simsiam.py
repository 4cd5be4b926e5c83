"""SimSiam recipes: digits, what its paper and the VICReg paper's Table 4 take away, on digits, and CIFAR-10."""

from dataclasses import replace
from typing import Any

from harness.recipe import Recipe
from methods import simsiam
from sweeps import _bases


def simsiam_digits_r10w16_e50() -> Recipe:
    """Projector 256-256-64, predictor with a bottleneck of 32. VICReg's Table 4: SG, PR, BN, no regularisation."""
    return _variant()


def simsiam_digits_r10w16_e50_nosg() -> Recipe:
    """Without stop-gradient (SimSiam's Fig. 2)."""
    return _variant(stop_gradient=False)


def simsiam_digits_r10w16_e50_nopr() -> Recipe:
    """Without predictor (SimSiam's Table 1 a)."""
    return _variant(predictor=False)


def simsiam_digits_r10w16_e50_var() -> Recipe:
    """VICReg's Table 4: SG, PR, BN, variance."""
    return _variant(variance=1.0)


def simsiam_digits_r10w16_e50_varcov() -> Recipe:
    """VICReg's Table 4: SG, PR, BN, variance and covariance."""
    return _variant(variance=1.0, covariance=0.01)


def simsiam_digits_r10w16_e50_nobn() -> Recipe:
    """Without batch norm in the heads (SimSiam's Table 3 a). VICReg's Table 4: SG, PR, no regularisation."""
    return _variant(norm=False)


def simsiam_digits_r10w16_e50_nobn_var() -> Recipe:
    """VICReg's Table 4: SG, PR, variance."""
    return _variant(norm=False, variance=1.0)


def simsiam_digits_r10w16_e50_nobn_varcov() -> Recipe:
    """VICReg's Table 4: SG, PR, variance and covariance."""
    return _variant(norm=False, variance=1.0, covariance=0.01)


def simsiam_digits_r10w16_e50_nobn_nopr() -> Recipe:
    """VICReg's Table 4: SG alone, no regularisation."""
    return _variant(norm=False, predictor=False)


def simsiam_digits_r10w16_e50_nobn_nopr_var() -> Recipe:
    """VICReg's Table 4: SG alone, variance."""
    return _variant(norm=False, predictor=False, variance=1.0)


def simsiam_digits_r10w16_e50_nobn_nopr_varcov() -> Recipe:
    """VICReg's Table 4: SG alone, variance and covariance."""
    return _variant(norm=False, predictor=False, variance=1.0, covariance=0.01)


def simsiam_cifar10_r18_e1000() -> Recipe:
    """CIFAR-10 as in solo-learn@9187ea3's CIFAR recipe for SimSiam; its README states 90.51 top-1 (online linear).

    SGD for the LARS of the others. Departs: see `_bases.cifar10`. Not trained yet.
    """
    views = tuple(replace(view, jitter=(0.4, 0.4, 0.4, 0.1)) for view in _bases.CIFAR_SYMMETRIC)
    recipe = _bases.cifar10(simsiam.Config(), views=views, lr=0.5, weight_decay=1e-5, epochs=1000)
    return replace(recipe, optimiser=replace(recipe.optimiser, name="sgd"))


def simsiam_cifar10_r18_e200_rsa() -> Recipe:
    """CIFAR-10 as the SimSiam of RSA (Bai et al., NeurIPS 2022), Table 2: 87.6 ± 0.2 after 200 epochs, linear.

    Ours: the heads of SimSiam's own code, as neither paper nor repository states theirs. Departs: see
    `_bases.cifar10_rsa`. Not trained yet.
    """
    return _bases.cifar10_rsa(simsiam.Config(), epochs=200)


def simsiam_cifar10_r18_e200_rsa_bf16() -> Recipe:
    """`simsiam_cifar10_r18_e200_rsa` in bfloat16. Not trained yet."""
    return _bases.bf16(simsiam_cifar10_r18_e200_rsa())


def simsiam_cifar10_r18_e800_rsa() -> Recipe:
    """`simsiam_cifar10_r18_e200_rsa` after 800 epochs: 91.6. Not trained yet."""
    return _bases.cifar10_rsa(simsiam.Config(), epochs=800)


def simsiam_cifar10_r18_e200_lightly_b128() -> Recipe:
    """CIFAR-10 as in lightly@e8d317f's benchmark, batch 128, 200 epochs: 81.9 by k-NN (k 200, temperature 0.1).

    Two layers of projector, a predictor whose rate falls like the others', a rate that does not grow with the batch.
    Departs: see `_bases.cifar10_lightly`. Not trained yet.
    """
    return _lightly(epochs=200, batch=128)


def simsiam_cifar10_r18_e200_lightly_b512() -> Recipe:
    """`simsiam_cifar10_r18_e200_lightly_b128` with a batch of 512: 76.4. Not trained yet."""
    return _lightly(epochs=200, batch=512)


def simsiam_cifar10_r18_e800_lightly_b512() -> Recipe:
    """`simsiam_cifar10_r18_e200_lightly_b512` after 800 epochs: 90.4. Not trained yet."""
    return _lightly(epochs=800, batch=512)


def _lightly(epochs: int, batch: int) -> Recipe:
    method = simsiam.Config(widths=(2048, 2048), fixed_predictor_lr=False)
    views = tuple(replace(view, scale=(0.2, 1.0)) for view in _bases.LIGHTLY_SIMCLR)
    recipe = _bases.cifar10_lightly(method, views=views, epochs=epochs, batch=batch)
    return replace(recipe, optimiser=replace(recipe.optimiser, lr_batch=None))


def _variant(**changes: Any) -> Recipe:
    return _bases.digits(replace(simsiam.Config(widths=(256, 256, 64), bottleneck=32), **changes), lr=2e-3)
