"""Parts that several recipes share. A published recipe's parts are never edited."""

from dataclasses import replace

from harness.api import MethodConfig
from harness.evals import collapse, factor_regression, few_label, knn, linear, online_linear
from harness.recipe import Budget, Data, Encoder, Optimiser, ProtocolConfig, Recipe, View

R10W16 = Encoder(
    name="resnet18_small_stem",
    options=(("channels", (16, 32, 64, 128)), ("layers", (1, 1, 1, 1))),
    label="ResNet-10 (16-128)",
)  # 0.3 M parameters: thousands of 8 px images a second on one CPU core
R18 = Encoder(name="resnet18_small_stem", label="ResNet-18")
PIXELS = Encoder(name="pixels", label="pixels")

CLASSIFICATION: tuple[ProtocolConfig, ...] = (
    few_label.Config(n=1),
    few_label.Config(n=5),
    knn.Config(),
    linear.Config(),
    collapse.Config(),
)
FACTORS: tuple[ProtocolConfig, ...] = (factor_regression.Config(), knn.Config(), collapse.Config())


def digits_view(
    source: int, *, px: int = 8, role: str = "global", scale: tuple[float, float] = (0.4, 1.0), jitter: float = 0.8
) -> View:
    """Handwritten digits moved, stretched, unevenly lit, blurred; never mirrored. Ours, chosen on held-out digits."""
    return View(
        px=px, source=source, role=role, scale=scale, ratio=(0.7, 1.4),
        jitter=(0.4, 0.4, 0.0, 0.0), jitter_p=jitter, blur=0.3, blur_sigma=(0.1, 1.0),
    )  # fmt: skip


def digits(method: MethodConfig, *, views: tuple[View, ...] = (), lr: float = 4e-3, epochs: int = 50) -> Recipe:
    """One budget for every method on scikit-learn's digits: 50 epochs of 9 steps, about 20 s on one CPU core."""
    return Recipe(
        method=method,
        data=Data(name="digits"),
        views=views or (digits_view(0), digits_view(1)),
        encoder=R10W16,
        optimiser=Optimiser(name="adamw", lr=lr, lr_batch=None, weight_decay=1e-4),
        budget=Budget(epochs=epochs, batch=128, warmup=epochs // 10),
        evals=CLASSIFICATION,
    )


def factors(method: MethodConfig, *, lr: float = 4e-3, epochs: int = 4) -> Recipe:
    """Rendered shapes in pairs at a known latent change, without further augmentation: AdaSSL's 3DIdent setting.

    Optimiser of SkrighYZ/AdaSSL@8f7148f6: AdamW, constant rate, decay 1e-5, global clip 1; the rate is ours, for a
    short run.
    """
    whole = {"px": 16, "scale": (1.0, 1.0), "ratio": (1.0, 1.0)}
    return Recipe(
        method=method,
        data=Data(name="factors", px=16, pairs="latent_change"),
        views=(View(source=0, **whole), View(source=1, **whole)),  # type: ignore[arg-type]
        encoder=R10W16,
        optimiser=Optimiser(
            name="adamw", lr=lr, lr_batch=None, weight_decay=1e-5, schedule="constant", clip_global=1.0
        ),
        budget=Budget(epochs=epochs, batch=256),
        evals=FACTORS,
    )


# vturrisi/solo-learn@9187ea3, scripts/pretrain/cifar/augmentations
_CIFAR = View(px=32, scale=(0.08, 1.0), flip=0.5, jitter=(0.4, 0.4, 0.2, 0.1), jitter_p=0.8, grey=0.2)
_CIFAR_STRONG = replace(_CIFAR, jitter=(0.8, 0.8, 0.8, 0.2), blur=0.5)
CIFAR_ASYMMETRIC = (_CIFAR, replace(_CIFAR, source=1, solarize=0.2))
CIFAR_SYMMETRIC = (_CIFAR_STRONG, replace(_CIFAR_STRONG, source=1))


def cifar10(method: MethodConfig, *, views: tuple[View, ...], lr: float, weight_decay: float) -> Recipe:
    """What solo-learn@9187ea3's CIFAR recipes share: ResNet-18, batch 256, LARS with trust 0.02, 10 epochs of warm-up.

    Departs: 200 epochs of their 1000, so that a study can be afforded; LARS without their clipping of the trust ratio;
    45,000 images, the other 5,000 of the train split are held out.
    """
    return Recipe(
        method=method,
        data=Data(name="cifar10"),
        views=views,
        encoder=R18,
        optimiser=Optimiser(name="lars", lr=lr, weight_decay=weight_decay, trust=0.02),
        budget=Budget(epochs=200, batch=256, warmup=10),
        evals=(*CLASSIFICATION, online_linear.Config()),
        online_probe=True,
    )
