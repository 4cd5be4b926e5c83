"""VICReg recipes: digits, its paper's Tables 7 and 12 on digits, and CIFAR-10 after solo-learn."""

from dataclasses import replace

from harness.evals import collapse, few_label, knn, linear_sgd, online_linear
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


def vicreg_digits_r10w16_e20_d16() -> Recipe:
    """Table 12: expander 256 wide in the paper."""
    return _table12(16)


def vicreg_digits_r10w16_e20_d32() -> Recipe:
    """Table 12: expander 512 wide in the paper."""
    return _table12(32)


def vicreg_digits_r10w16_e20_d64() -> Recipe:
    """Table 12: expander 1024 wide in the paper. 4096 there is `vicreg_digits_r10w16_e20_l25_m25_n1` here."""
    return _table12(64)


def vicreg_digits_r10w16_e20_d1024() -> Recipe:
    """Table 12: expander 16384 wide in the paper."""
    return _table12(1024)


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


def vicreg_cifar10_r18_e200_bf16() -> Recipe:
    """`vicreg_cifar10_r18_e200` in bfloat16. Not trained yet."""
    return _bases.bf16(vicreg_cifar10_r18_e200())


def vicreg_cifar10_r18_e1000_solo() -> Recipe:
    """`vicreg_cifar10_r18_e1000` with solo-learn's own loss: a variance term that is not halved is one of weight 50.

    README of solo-learn@9187ea3: 92.07 top-1, online linear. Departs: see `_bases.cifar10`. Not trained yet.
    """
    recipe = vicreg_cifar10_r18_e1000()
    return replace(recipe, method=vicreg.Config(widths=(2048, 2048, 2048), variance=50.0))


def vicreg_imagenet_1k_r50_e1000() -> Recipe:
    """The paper's main run (sec. 4.2): 73.2 top-1, 91.1 top-5, linear, Table 1. Command: vicreg@4e12602, README.

    Views as in the code, which are not the paper's symmetric ones. Departs: see `_bases.imagenet`. Not trained yet.
    """
    return _imagenet(epochs=1000, lr=0.2)


def vicreg_imagenet_1k_r50_e100() -> Recipe:
    """The paper's setting for ablations: 68.6 top-1, linear, in Tables 4, 5, 7, 12 and 13.

    Base rate 0.3 (sec. 4.2). Departs: see `_bases.imagenet`. Not trained yet.
    """
    return _imagenet()


def vicreg_imagenet_1k_r50_e100_b128() -> Recipe:
    """Table 13 at a batch of 128, base rate 0.8: 67.3 top-1, linear. Not trained yet."""
    return _imagenet(lr=0.8, batch=128)


def vicreg_imagenet_1k_r50_e100_b256() -> Recipe:
    """Table 13 at a batch of 256, base rate 0.5: 67.9 top-1, linear. Not trained yet."""
    return _imagenet(lr=0.5, batch=256)


def vicreg_imagenet_1k_r50_e100_b512() -> Recipe:
    """Table 13 at a batch of 512, base rate 0.4: 68.2 top-1, linear. Not trained yet."""
    return _imagenet(lr=0.4, batch=512)


def vicreg_imagenet_1k_r50_e100_b1024() -> Recipe:
    """Table 13 at a batch of 1024, base rate 0.3: 68.3 top-1, linear. Not trained yet."""
    return _imagenet(lr=0.3, batch=1024)


def vicreg_imagenet_1k_r50_e100_b4096() -> Recipe:
    """Table 13 at a batch of 4096, base rate 0.3: 67.8 top-1, linear. Not trained yet."""
    return _imagenet(lr=0.3, batch=4096)


def vicreg_imagenet_1k_r50_e100_d256() -> Recipe:
    """Table 12: an expander 256 wide, 55.9 top-1, linear. Not trained yet."""
    return _imagenet(vicreg.Config(widths=(256, 256, 256)))


def vicreg_imagenet_1k_r50_e100_d512() -> Recipe:
    """Table 12: an expander 512 wide, 59.2 top-1, linear. Not trained yet."""
    return _imagenet(vicreg.Config(widths=(512, 512, 512)))


def vicreg_imagenet_1k_r50_e100_d1024() -> Recipe:
    """Table 12: an expander 1024 wide, 62.4 top-1, linear. Not trained yet."""
    return _imagenet(vicreg.Config(widths=(1024, 1024, 1024)))


def vicreg_imagenet_1k_r50_e100_d2048() -> Recipe:
    """Table 12: an expander 2048 wide, 65.1 top-1, linear. Not trained yet."""
    return _imagenet(vicreg.Config(widths=(2048, 2048, 2048)))


def vicreg_imagenet_1k_r50_e100_d4096() -> Recipe:
    """Table 12: an expander 4096 wide, 67.3 top-1, linear. Not trained yet."""
    return _imagenet(vicreg.Config(widths=(4096, 4096, 4096)))


def vicreg_imagenet_1k_r50_e100_d16384() -> Recipe:
    """Table 12: an expander 16384 wide, 68.8 top-1, linear. Not trained yet."""
    return _imagenet(vicreg.Config(widths=(16384, 16384, 16384)))


def vicreg_imagenet_1k_r50_e100_l1_m0_n0() -> Recipe:
    """Table 7 at its own scale: collapse. Not trained yet."""
    return _imagenet(vicreg.Config(invariance=1.0, variance=0.0, covariance=0.0))


def vicreg_imagenet_1k_r50_e100_l25_m0_n1() -> Recipe:
    """Table 7 at its own scale: collapse. Not trained yet."""
    return _imagenet(vicreg.Config(invariance=25.0, variance=0.0, covariance=1.0))


def vicreg_imagenet_1k_r50_e100_l0_m25_n1() -> Recipe:
    """Table 7 at its own scale: collapse. Not trained yet."""
    return _imagenet(vicreg.Config(invariance=0.0, variance=25.0, covariance=1.0))


def vicreg_imagenet_1k_r50_e100_l1_m1_n0() -> Recipe:
    """Table 7 at its own scale: 57.5 top-1, linear. Not trained yet."""
    return _imagenet(vicreg.Config(invariance=1.0, variance=1.0, covariance=0.0))


def vicreg_imagenet_1k_r50_e100_l1_m1_n1() -> Recipe:
    """Table 7 at its own scale: collapse. Not trained yet."""
    return _imagenet(vicreg.Config(invariance=1.0, variance=1.0, covariance=1.0))


def vicreg_imagenet_1k_r50_e100_l1_m10_n1() -> Recipe:
    """Table 7 at its own scale: collapse. Not trained yet."""
    return _imagenet(vicreg.Config(invariance=1.0, variance=10.0, covariance=1.0))


def vicreg_imagenet_1k_r50_e100_l10_m1_n1() -> Recipe:
    """Table 7 at its own scale: collapse. Not trained yet."""
    return _imagenet(vicreg.Config(invariance=10.0, variance=1.0, covariance=1.0))


def vicreg_imagenet_1k_r50_e100_l5_m5_n1() -> Recipe:
    """Table 7 at its own scale: 68.1 top-1, linear. Not trained yet."""
    return _imagenet(vicreg.Config(invariance=5.0, variance=5.0, covariance=1.0))


def vicreg_imagenet_1k_r50_e100_l10_m10_n1() -> Recipe:
    """Table 7 at its own scale: 68.2 top-1, linear. Not trained yet."""
    return _imagenet(vicreg.Config(invariance=10.0, variance=10.0, covariance=1.0))


def vicreg_imagenet_1k_r50_e100_l50_m50_n1() -> Recipe:
    """Table 7 at its own scale: 68.3 top-1, linear. Not trained yet."""
    return _imagenet(vicreg.Config(invariance=50.0, variance=50.0, covariance=1.0))


def _imagenet(method: vicreg.Config | None = None, *, epochs: int = 100, lr: float = 0.3, batch: int = 2048) -> Recipe:
    """Expander 8192 wide, LARS, 10 epochs of warm-up; the cosine ends at 0.001 of the peak, as the code's does."""
    return _bases.imagenet(
        method or vicreg.Config(),
        views=_bases.IMAGENET_ASYMMETRIC,
        optimiser=Optimiser(name="lars", lr=lr, weight_decay=1e-6, final_lr=1e-3),
        budget=Budget(epochs=epochs, batch=batch, warmup=10),
        probe=linear_sgd.Config(lr=0.02, weight_decay=1e-6, drops=()),
    )


def _table7(invariance: float, variance: float, covariance: float, width: int = 256) -> Recipe:
    """One row of the paper's Table 7 (100 epochs of ImageNet, expander 8192 wide) at a scale of seconds."""
    widths = (width, width, width)
    method = vicreg.Config(widths=widths, invariance=invariance, variance=variance, covariance=covariance)
    return replace(_bases.digits(method, epochs=20), evals=(few_label.Config(n=5), knn.Config(), collapse.Config()))


def _table12(width: int) -> Recipe:
    """Table 12, all widths over 16: the network's output is 128 wide here and 2048 there."""
    return _table7(25.0, 25.0, 1.0, width)
