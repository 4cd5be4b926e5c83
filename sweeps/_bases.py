"""Parts that several recipes share. A published recipe's parts are never edited."""

from dataclasses import replace

from harness.api import MethodConfig
from harness.evals import collapse, factor_regression, few_label, knn, linear, linear_sgd, online_linear
from harness.recipe import Budget, Data, Encoder, Optimiser, ProtocolConfig, Recipe, View

R10W16 = Encoder(
    name="resnet18_small_stem",
    options=(("channels", (16, 32, 64, 128)), ("layers", (1, 1, 1, 1))),
    label="ResNet-10 (16-128)",
)  # 0.3 M parameters: thousands of 8 px images a second on one CPU core
R18 = Encoder(name="resnet18_small_stem", label="ResNet-18")
R50 = Encoder(name="resnet50", label="ResNet-50")
PIXELS = Encoder(name="pixels", label="pixels")

CLASSIFICATION: tuple[ProtocolConfig, ...] = (
    few_label.Config(n=1),
    few_label.Config(n=5),
    knn.Config(),
    linear.Config(),
    collapse.Config(),
)
MLP = Encoder(
    name="mlp", options=(("widths", (100, 500, 500, 500, 500, 100, 10)),), label="MLP (100-500)"
)  # brendel-group/AnInfoNCE@c6907e5, main_mlp.py

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


def sphere(method: MethodConfig, *, pairs: str, steps: int) -> Recipe:
    """Pairs of points on a sphere behind a mixing network, as in brendel-group/AnInfoNCE@c6907e5, main_mlp.py.

    Fresh pairs in batches of 1,000, Adam at a constant 1e-4, an MLP, whose normalised outputs are evaluated. A run of
    fewer steps is the start of a longer one. Departs: see harness/sphere.py; the linear regression is fitted on 50,000
    train latents, theirs on the 4,096 that it is evaluated on.
    """
    return Recipe(
        method=method,
        data=Data(name="sphere", pairs=pairs),
        views=tuple(View(px=10, source=source, scale=(1.0, 1.0), ratio=(1.0, 1.0)) for source in (0, 1)),
        encoder=MLP,
        optimiser=Optimiser(name="adam", lr=1e-4, lr_batch=None, schedule="constant"),
        budget=Budget(epochs=-(-steps // 50), batch=1000, steps=steps),
        evals=(factor_regression.Config(normalise=True, disentanglement=False),),
    )


def bf16(recipe: Recipe) -> Recipe:
    """The same in bfloat16, for GPUs."""
    return replace(recipe, precision="bfloat16")


# vturrisi/solo-learn@9187ea3, scripts/pretrain/cifar/augmentations
_CIFAR = View(px=32, scale=(0.08, 1.0), flip=0.5, jitter=(0.4, 0.4, 0.2, 0.1), jitter_p=0.8, grey=0.2)
_CIFAR_STRONG = replace(_CIFAR, jitter=(0.8, 0.8, 0.8, 0.2), blur=0.5)
CIFAR_ASYMMETRIC = (_CIFAR, replace(_CIFAR, source=1, solarize=0.2))
CIFAR_SYMMETRIC = (_CIFAR_STRONG, replace(_CIFAR_STRONG, source=1))


def cifar10(
    method: MethodConfig, *, views: tuple[View, ...], lr: float, weight_decay: float, epochs: int = 200
) -> Recipe:
    """What solo-learn@9187ea3's CIFAR recipes share: ResNet-18, batch 256, LARS with trust 0.02, 10 epochs of warm-up.

    Departs: 200 epochs, unless they are their 1000, so that a study can be afforded; LARS without their clipping of the
    trust ratio; 45,000 images, the other 5,000 of the train split are held out.
    """
    return Recipe(
        method=method,
        data=Data(name="cifar10"),
        views=views,
        encoder=R18,
        optimiser=Optimiser(name="lars", lr=lr, weight_decay=weight_decay, trust=0.02),
        budget=Budget(epochs=epochs, batch=256, warmup=10),
        evals=(*CLASSIFICATION, online_linear.Config()),
        online_probe=True,
    )


# tmllab/2022_NeurIPS_RSA@f4fa807, train_single.py: "aggressive" views, MoCo v2's at 32 px
_RSA = View(px=32, scale=(0.2, 1.0), flip=0.5, jitter=(0.4, 0.4, 0.4, 0.1), jitter_p=0.8, grey=0.2, blur=0.5)


def cifar10_rsa(method: MethodConfig, *, epochs: int) -> Recipe:
    """The baselines of RSA (Bai et al., NeurIPS 2022), sec. 4.1: SGD, a cosine from 0.1 without warm-up, batch 256.

    Departs: 45,000 of their 50,000 images; no decay of biases and norms (theirs decays all); the cosine goes by step
    (theirs by epoch); a blur of 5 pixels' width. The linear probe has no crops and its last epoch counts (theirs: crops
    and flips, the best epoch on the test images).
    """
    return Recipe(
        method=method,
        data=Data(name="cifar10"),
        views=(_RSA, replace(_RSA, source=1)),
        encoder=R18,
        optimiser=Optimiser(name="sgd", lr=0.1, weight_decay=5e-4),
        budget=Budget(epochs=epochs, batch=256),
        evals=(linear_sgd.Config(nesterov=True), *CLASSIFICATION),
    )


# lightly-ai/lightly@e8d317f, cifar10_benchmark.py and lightly/transforms; BYOL's views are CIFAR_ASYMMETRIC
_LIGHTLY = replace(_CIFAR, jitter=(0.4, 0.4, 0.4, 0.1))
LIGHTLY_SIMCLR = (_LIGHTLY, replace(_LIGHTLY, source=1))
LIGHTLY_DINO = tuple(replace(view, scale=(0.4, 1.0)) for view in CIFAR_ASYMMETRIC)


def cifar10_lightly(method: MethodConfig, *, views: tuple[View, ...], epochs: int, batch: int) -> Recipe:
    """What lightly@e8d317f's CIFAR-10 benchmark has its methods share: SGD, 0.06 for a batch of 128, a cosine to 0.

    Departs: 45,000 of their 50,000 images; no decay of biases and norms (theirs decays all); the cosine goes by step
    (theirs by epoch); a teacher's momentum goes to 1 (theirs stays 0.99); the last epoch counts (theirs: the best one
    on the test images).
    """
    return Recipe(
        method=method,
        data=Data(name="cifar10"),
        views=views,
        encoder=R18,
        optimiser=Optimiser(name="sgd", lr=0.06, lr_batch=128, weight_decay=5e-4),
        budget=Budget(epochs=epochs, batch=batch),
        evals=(knn.Config(k=200, temperature=0.1), *CLASSIFICATION),
    )


def cifar10_small_batch(method: MethodConfig, *, batch: int, weight_decay: float) -> Recipe:
    """CIFAR-10 as in raminnakhli/Decoupled-Contrastive-Learning@0b9b76d: Adam at a constant 1e-3 for every batch size.

    A re-implementation of DCL by others than the authors. ResNet-18 as its README says; its code builds a ResNet-50.
    Departs: 45,000 of 50,000 images; no decay of biases and norms (theirs decays all); the last epoch counts (theirs:
    the best one on the test images, by k-NN); a probe without crops and flips, see harness/evals/linear.py (theirs:
    Adam with them, the best epoch on the test images).
    """
    return Recipe(
        method=method,
        data=Data(name="cifar10"),
        views=LIGHTLY_SIMCLR,  # its crops, flips, jitter and grey are lightly's
        encoder=R18,
        optimiser=Optimiser(name="adam", lr=1e-3, lr_batch=None, weight_decay=weight_decay, schedule="constant"),
        budget=Budget(epochs=100, batch=batch),
        evals=CLASSIFICATION,
    )


# BYOL's: facebookresearch/vicreg@4e12602, augmentations.py; google-deepmind/ssl_hsic@d7ea38d, config.py
_IMAGENET = View(px=224, scale=(0.08, 1.0), flip=0.5, jitter=(0.4, 0.4, 0.2, 0.1), jitter_p=0.8, grey=0.2, blur=1.0)
IMAGENET_ASYMMETRIC = (_IMAGENET, replace(_IMAGENET, source=1, blur=0.1, solarize=0.2))


def imagenet(
    method: MethodConfig,
    *,
    views: tuple[View, ...],
    optimiser: Optimiser,
    budget: Budget,
    probe: linear_sgd.Config,
    encoder: Encoder = R50,
) -> Recipe:
    """ImageNet-1k at 224 px. probe: the paper's linear probe, as far as features without crops allow it.

    Departs: crops are resized bilinearly with antialias (the papers: bicubic); the last, smaller batch of an epoch is
    dropped; single precision (the papers: mixed).
    """
    return Recipe(
        method=method,
        data=Data(name="imagenet_1k"),
        views=views,
        encoder=encoder,
        optimiser=optimiser,
        budget=budget,
        evals=(knn.Config(), knn.Config(k=200), probe, collapse.Config()),
    )
