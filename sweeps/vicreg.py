"""VICReg recipes: digits, its paper's Table 7 on digits, and CIFAR-10 after solo-learn."""

from dataclasses import replace

from harness.evals import collapse, few_label, knn, online_linear
from harness.recipe import Budget, Data, Optimiser, Recipe, View
from methods import vicreg
from sweeps import _bases


def vicreg_digits_r10w16_e50() -> Recipe:
    """The published coefficients 25, 25, 1 on digits, expander 256-256-256 (the paper's is 8192 wide)."""
    return _bases.digits(vicreg.Config(widths=(256, 256, 256)))


def vicreg_digits_r10w16_e20_l1_m0_n0() -> Recipe:
    """Table 7: invariance alone."""
    return _table7(1.0, 0.0, 0.0)


def vicreg_digits_r10w16_e20_l25_m0_n1() -> Recipe:
    """Table 7: no variance term."""
    return _table7(25.0, 0.0, 1.0)


def vicreg_digits_r10w16_e20_l0_m25_n1() -> Recipe:
    """Table 7: no invariance term."""
    return _table7(0.0, 25.0, 1.0)


def vicreg_digits_r10w16_e20_l1_m1_n0() -> Recipe:
    """Table 7: no covariance term."""
    return _table7(1.0, 1.0, 0.0)


def vicreg_digits_r10w16_e20_l1_m1_n1() -> Recipe:
    """Table 7: covariance as heavy as the others."""
    return _table7(1.0, 1.0, 1.0)


def vicreg_digits_r10w16_e20_l1_m10_n1() -> Recipe:
    """Table 7: more variance than invariance."""
    return _table7(1.0, 10.0, 1.0)


def vicreg_digits_r10w16_e20_l10_m1_n1() -> Recipe:
    """Table 7: more invariance than variance."""
    return _table7(10.0, 1.0, 1.0)


def vicreg_digits_r10w16_e20_l5_m5_n1() -> Recipe:
    """Table 7: 5, 5, 1."""
    return _table7(5.0, 5.0, 1.0)


def vicreg_digits_r10w16_e20_l10_m10_n1() -> Recipe:
    """Table 7: 10, 10, 1."""
    return _table7(10.0, 10.0, 1.0)


def vicreg_digits_r10w16_e20_l25_m25_n1() -> Recipe:
    """Table 7: the published default."""
    return _table7(25.0, 25.0, 1.0)


def vicreg_digits_r10w16_e20_l50_m50_n1() -> Recipe:
    """Table 7: 50, 50, 1."""
    return _table7(50.0, 50.0, 1.0)


def vicreg_cifar10_r18_e1000() -> Recipe:
    """CIFAR-10 as in solo-learn@9187ea3's CIFAR recipe for VICReg; its README states 92.07 top-1 (online linear).

    Departs: our variance term is halved, theirs is not; LARS without their clipping of the trust ratio.
    """
    view = {
        "px": 32,
        "scale": (0.2, 1.0),
        "flip": 0.5,
        "jitter": (0.4, 0.4, 0.2, 0.1),
        "jitter_p": 0.8,
        "grey": 0.2,
        "solarize": 0.1,
    }
    return Recipe(
        method=vicreg.Config(widths=(2048, 2048, 2048)),
        data=Data(name="cifar10"),
        views=(View(source=0, **view), View(source=1, **view)),  # type: ignore[arg-type]
        encoder=_bases.R18,
        optimiser=Optimiser(name="lars", lr=0.3, weight_decay=1e-4, trust=0.02),
        budget=Budget(epochs=1000, batch=256, warmup=10),
        evals=(*_bases.CLASSIFICATION, online_linear.Config()),
        online_probe=True,
    )


def vicreg_cifar10_r18_e200() -> Recipe:
    """`vicreg_cifar10_r18_e1000` at a fifth of its epochs, so that a study can be afforded. Not trained yet."""
    recipe = vicreg_cifar10_r18_e1000()
    return replace(recipe, budget=replace(recipe.budget, epochs=200))


def _table7(invariance: float, variance: float, covariance: float) -> Recipe:
    """One row of the paper's Table 7 (100 epochs of ImageNet, expander 8192 wide) at a scale of seconds."""
    method = vicreg.Config(widths=(256, 256, 256), invariance=invariance, variance=variance, covariance=covariance)
    return replace(_bases.digits(method, epochs=20), evals=(few_label.Config(n=5), knn.Config(), collapse.Config()))
