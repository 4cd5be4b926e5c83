"""DINO recipes."""

from dataclasses import replace
from typing import Any

from harness.evals import linear_sgd
from harness.recipe import Budget, Data, Encoder, Optimiser, Recipe, View
from methods import dino
from sweeps import _bases


def dino_digits_r10w16_e50() -> Recipe:
    """Two global and two local crops, 256 prototypes, batch norm in the head, and a teacher fast enough for 450 steps.

    Milder views than the other methods': with theirs the student's best answer at 8 px is the uniform one (measured
    over 60 epochs, seed 0: loss at log K, k-NN 55 % on held-out digits against 79 % with these).
    """
    views = (
        *(_bases.digits_view(source, scale=(0.6, 1.0), jitter=0.0) for source in (0, 1)),
        replace(_bases.digits_view(0, px=6, role="local", scale=(0.5, 0.9), jitter=0.0), count=2),
    )
    method = dino.Config(out_dim=256, hidden=256, bottleneck=64, use_bn=True, teacher_momentum=0.98)
    recipe = _bases.digits(method, views=views)
    return replace(recipe, optimiser=replace(recipe.optimiser, clip_tensor=3.0))  # clip: the oracle's command line


def dino_digits_r10w16_e50_nobn() -> Recipe:
    """No batch norm in the head, as in the paper; the encoder has it."""
    return _variant(use_bn=False)


def dino_digits_r10w16_e50_nobn_nomomentum() -> Recipe:
    """The teacher is the student at every step (Table 7 row 2, Table 15 row 4, Fig. 6)."""
    return _variant(use_bn=False, teacher_momentum=0.0)


def dino_digits_r10w16_e50_nocentring() -> Recipe:
    """The centre stays at 0, where it starts (Fig. 7)."""
    return _variant(centre_momentum=1.0)


def dino_digits_r10w16_e50_nosharpening() -> Recipe:
    """The teacher is no sharper than the student (Fig. 7)."""
    return _variant(teacher_temperature=0.1)


def dino_digits_r10w16_e50_tau08() -> Recipe:
    """A teacher's temperature of 0.08 from the start (App. D)."""
    return _variant(teacher_temperature=0.08)


def dino_digits_r10w16_e50_slowcentre() -> Recipe:
    """A centre of momentum 0.999 (App. D)."""
    return _variant(centre_momentum=0.999)


def dino_cifar10_vt4_e300() -> Recipe:
    """CIFAR-10 with a ViT-tiny of patch 4, and facebookresearch/dino@7c446df5's schedules, crops and "boost" settings.

    Ours: 4096 prototypes, crops of 32 and 16 px. Not trained yet.
    """
    colours = {"flip": 0.5, "jitter": (0.4, 0.4, 0.2, 0.1), "jitter_p": 0.8, "grey": 0.2}
    first = View(px=32, source=0, scale=(0.4, 1.0), blur=1.0, **colours)  # type: ignore[arg-type]
    options = {"img_size": 32, "patch_size": 4, "dynamic_img_size": True, "drop_path_rate": 0.1}
    return Recipe(
        method=dino.Config(
            out_dim=4096,
            norm_last_layer=False,
            teacher_temperature=0.07,
            warmup_teacher_epochs=30,
            teacher_momentum=0.9995,  # the authors' advice for a batch of 256
        ),
        data=Data(name="cifar10"),
        views=(
            first,
            replace(first, source=1, blur=0.1, solarize=0.2),
            replace(first, role="local", px=16, scale=(0.05, 0.4), blur=0.5, count=8),
        ),
        encoder=Encoder(name="vit_tiny_patch16_224", options=tuple(options.items()), label="ViT-Ti/4"),
        optimiser=Optimiser(
            name="adamw",
            lr=5e-4,
            weight_decay=0.04,
            weight_decay_end=0.4,
            final_lr=1e-6 / 5e-4,
            reach_peak_early=True,
            clip_tensor=3.0,
        ),
        budget=Budget(epochs=300, batch=256, warmup=10),
        evals=_bases.CLASSIFICATION,
    )


def dino_cifar10_r18_e200() -> Recipe:
    """CIFAR-10 as in solo-learn@9187ea3's CIFAR recipe for DINO.

    Their README states 89.52 top-1 after 1000 epochs (online linear). Two crops, no local ones; 4096 prototypes; the
    teacher's temperature is 0.07 from the start. Departs: see `_bases.cifar10`. Not trained yet.
    """
    method = dino.Config(out_dim=4096, teacher_temperature=0.07, teacher_momentum=0.9995)
    return _bases.cifar10(method, views=_bases.CIFAR_ASYMMETRIC, lr=0.3, weight_decay=1e-6)


def dino_cifar10_r18_e200_bf16() -> Recipe:
    """`dino_cifar10_r18_e200` in bfloat16. Not trained yet."""
    return _bases.bf16(dino_cifar10_r18_e200())


def dino_cifar10_r18_e1000() -> Recipe:
    """`dino_cifar10_r18_e200` at its source's 1000 epochs: README of solo-learn@9187ea3, 89.52 top-1, online linear.

    Departs: see `_bases.cifar10`. Not trained yet.
    """
    method = dino.Config(out_dim=4096, teacher_temperature=0.07, teacher_momentum=0.9995)
    return _bases.cifar10(method, views=_bases.CIFAR_ASYMMETRIC, lr=0.3, weight_decay=1e-6, epochs=1000)


_LIGHTLY = dino.Config(out_dim=2048, layers=2, use_bn=True, freeze_last_layer=0, teacher_momentum=0.99)


def dino_cifar10_r18_e200_lightly_b128() -> Recipe:
    """CIFAR-10 as in lightly@e8d317f's benchmark, batch 128, 200 epochs: 84.0 by k-NN (k 200, temperature 0.1).

    Departs: see `_bases.cifar10_lightly`. Not trained yet.
    """
    return _bases.cifar10_lightly(_LIGHTLY, views=_bases.LIGHTLY_DINO, epochs=200, batch=128)


def dino_cifar10_r18_e200_lightly_b512() -> Recipe:
    """`dino_cifar10_r18_e200_lightly_b128` with a batch of 512: 81.3. Not trained yet."""
    return _bases.cifar10_lightly(_LIGHTLY, views=_bases.LIGHTLY_DINO, epochs=200, batch=512)


def dino_cifar10_r18_e800_lightly_b512() -> Recipe:
    """`dino_cifar10_r18_e200_lightly_b512` after 800 epochs: 84.8. Not trained yet."""
    return _bases.cifar10_lightly(_LIGHTLY, views=_bases.LIGHTLY_DINO, epochs=800, batch=512)


# ---------------------------------------------------------------------------------------------- ImageNet
#
# "args.txt" is the file that facebookresearch/dino releases with each checkpoint, read in copies of it in other
# repositories, which agree.

_VIT = (("dynamic_img_size", True), ("drop_path_rate", 0.1))
VITS16 = Encoder(name="vit_small_patch16_224", options=_VIT, label="ViT-S/16")
VITB16 = Encoder(name="vit_base_patch16_224", options=_VIT, label="ViT-B/16")
_BOOST = dino.Config(norm_last_layer=False, teacher_temperature=0.07, warmup_teacher_epochs=30)


def dino_imagenet_1k_vits16_e100() -> Recipe:
    """The "vanilla" command of facebookresearch/dino@7c446df, README: 69.3 k-NN, 74.0 linear, 1.75 days on 8 GPUs.

    Departs: see `_imagenet`. Not trained yet.
    """
    return _imagenet(VITS16, dino.Config(), _crops(), _adamw(5e-4, 512, min_lr=1e-6), epochs=100, batch=512)


def dino_imagenet_1k_vits16_e300() -> Recipe:
    """The "boost" command of the README: 73.3 k-NN, 76.0 linear, 2.6 days on 16 GPUs.

    Departs: see `_imagenet`. Not trained yet.
    """
    return _imagenet(VITS16, _BOOST, _crops(), _adamw(5e-4, 1024, min_lr=1e-6), epochs=300)


def dino_imagenet_1k_vits16_e800() -> Recipe:
    """The paper's main run, from its args.txt: 74.5 k-NN and 77.0 linear in Table 2 (76.1 on the last CLS token alone).

    Ten local crops, no clipping. Departs: see `_imagenet`. Not trained yet.
    """
    return _main_run(epochs=800)


def dino_imagenet_1k_vits16_e300_10x96() -> Recipe:
    """The paper's setting for ablations: 72.8 k-NN and 76.1 linear, the first rows of Tables 7, 14 and 15.

    Ours: that the args.txt of 800 epochs holds for 300. Departs: see `_imagenet`. Not trained yet.
    """
    return _main_run(epochs=300)


def dino_imagenet_1k_vits16_e100_10x96() -> Recipe:
    """Table 8, 2x224+10x96, 100 epochs: 74.6 linear, 24.2 h on 16 V100; App. D, longer training: 70.9 k-NN.

    Ours: that the args.txt of 800 epochs holds for 100. Departs: see `_imagenet`. Not trained yet.
    """
    return _main_run(epochs=100)


def dino_imagenet_1k_vits16_e100_6x96() -> Recipe:
    """Table 8, 2x224+6x96, 100 epochs: 73.8 linear, 20.3 h on 16 V100. Ours: as for 10x96. Not trained yet."""
    return _main_run(epochs=100, local=6)


def dino_imagenet_1k_vits16_e300_6x96() -> Recipe:
    """Table 8, 2x224+6x96, 300 epochs: 75.9 linear; App. E: 72.7 k-NN. Ours: as for 10x96. Not trained yet."""
    return _main_run(epochs=300, local=6)


def dino_imagenet_1k_vits16_e100_2x96() -> Recipe:
    """Table 8, 2x224+2x96, 100 epochs: 71.5 linear, 17.0 h on 16 V100. Ours: as for 10x96. Not trained yet."""
    return _main_run(epochs=100, local=2)


def dino_imagenet_1k_vits16_e300_2x96() -> Recipe:
    """Table 8, 2x224+2x96, 300 epochs: 74.5 linear, 51.0 h on 16 V100. Ours: as for 10x96. Not trained yet."""
    return _main_run(epochs=300, local=2)


def dino_imagenet_1k_vits16_e100_2x224() -> Recipe:
    """Without multi-crop: Table 8, 67.8 linear, 15.3 h on 16 V100; Table 9 at a batch of 1024, 59.9 k-NN.

    The author's settings for 300 epochs (facebookresearch/dino, issue 122: scale 0.14, no clipping, floor 1e-5). Ours:
    what that comment does not say (temperatures, norms of the last layer) is the main run's. Departs: see `_imagenet`.
    Not trained yet.
    """
    return _two_crops(epochs=100)


def dino_imagenet_1k_vits16_e300_2x224() -> Recipe:
    """`dino_imagenet_1k_vits16_e100_2x224` after 300 epochs: 72.5 linear, 45.9 h on 16 V100; App. E, 67.9 k-NN.

    Not trained yet.
    """
    return _two_crops(epochs=300)


def dino_imagenet_1k_vitb16_e400() -> Recipe:
    """The paper's ViT-B/16, from its args.txt: 76.1 k-NN and 78.2 linear in Table 2 (78.0 on the CLS token alone).

    Departs: see `_imagenet`. Not trained yet.
    """
    return _base(epochs=400)


def dino_imagenet_1k_vitb16_e300() -> Recipe:
    """ViT-B/16 after 300 epochs: 75.1 k-NN (an author, facebookresearch/dino, issue 130).

    Ours: that the args.txt of 400 epochs holds for 300. Departs: see `_imagenet`. Not trained yet.
    """
    return _base(epochs=300)


def dino_imagenet_1k_r50_e100() -> Recipe:
    """The README's command for ResNet-50, which states no accuracy after it. Not trained yet."""
    return _imagenet(
        _bases.R50,
        dino.Config(),
        _crops((0.14, 1.0), (0.05, 0.14)),
        Optimiser(name="sgd", lr=0.03, weight_decay=1e-4, final_lr=1e-6 / 0.06, reach_peak_early=True, clip_tensor=3.0),
        epochs=100,
        batch=512,
    )


def dino_imagenet_1k_r50_e800() -> Recipe:
    """The paper's ResNet-50, from its args.txt: 67.5 k-NN and 75.3 linear in Table 2.

    60,000 prototypes, batch norm in the head, LARS, batch 4080 on 80 GPUs. Departs: see `_imagenet`. Not trained yet.
    """
    return _r50(epochs=800)


def dino_imagenet_1k_r50_e300() -> Recipe:
    """ResNet-50 after 300 epochs: 65.6 k-NN and 74.5 linear in Table 13.

    Ours: that the args.txt of 800 epochs holds for 300. Departs: see `_imagenet`. Not trained yet.
    """
    return _r50(epochs=300)


def _r50(epochs: int) -> Recipe:
    return _imagenet(
        _bases.R50,
        dino.Config(out_dim=60000, use_bn=True, teacher_temperature=0.07, warmup_teacher_epochs=50),
        _crops((0.14, 1.0), (0.05, 0.14), local=6),
        Optimiser(name="lars", lr=0.3, weight_decay=1e-6, final_lr=0.0048 / (0.3 * 4080 / 256), reach_peak_early=True),
        epochs=epochs,
        batch=4080,
    )


def _main_run(epochs: int, local: int = 10) -> Recipe:
    optimiser = _adamw(5e-4, 1024, min_lr=1e-5, clip=None)
    return _imagenet(VITS16, _BOOST, _crops((0.25, 1.0), (0.05, 0.25), local=local), optimiser, epochs=epochs)


def _two_crops(epochs: int) -> Recipe:
    optimiser = _adamw(5e-4, 1024, min_lr=1e-5, clip=None)
    return _imagenet(VITS16, _BOOST, _crops((0.14, 1.0), local=0), optimiser, epochs=epochs)


def _base(epochs: int) -> Recipe:
    method = dino.Config(teacher_temperature=0.07, warmup_teacher_epochs=50, freeze_last_layer=3)
    views = _crops((0.25, 1.0), (0.05, 0.25), local=10)
    return _imagenet(VITB16, method, views, _adamw(7.5e-4, 1024, min_lr=2e-6, clip=0.3), epochs=epochs)


def _crops(
    scale: tuple[float, float] = (0.4, 1.0), local_scale: tuple[float, float] = (0.05, 0.4), local: int = 8
) -> tuple[View, ...]:
    """Two crops of 224 px and `local` ones of 96 px (main_dino.py, DataAugmentationDINO)."""
    colours = {"flip": 0.5, "jitter": (0.4, 0.4, 0.2, 0.1), "jitter_p": 0.8, "grey": 0.2}
    first = View(px=224, source=0, scale=scale, blur=1.0, **colours)  # type: ignore[arg-type]
    small = replace(first, role="local", px=96, scale=local_scale, blur=0.5, count=local) if local else None
    return (first, replace(first, source=1, blur=0.1, solarize=0.2), *filter(None, [small]))


def _adamw(lr: float, batch: int, *, min_lr: float, clip: float | None = 3.0) -> Optimiser:
    """lr: for a batch of 256; min_lr: as it is. Weight decay goes from 0.04 to 0.4."""
    return Optimiser(
        name="adamw", lr=lr, weight_decay=0.04, weight_decay_end=0.4, final_lr=min_lr / (lr * batch / 256),
        reach_peak_early=True, clip_tensor=clip,
    )  # fmt: skip


def _imagenet(
    encoder: Encoder,
    method: dino.Config,
    views: tuple[View, ...],
    optimiser: Optimiser,
    *,
    epochs: int,
    batch: int = 1024,
) -> Recipe:
    """facebookresearch/dino@7c446df, main_dino.py; the probe is eval_linear.py's rate, on the last CLS token alone.

    Departs: positions of the small crops are interpolated as timm does; see `_bases.imagenet`.
    """
    return _bases.imagenet(
        method,
        views=views,
        optimiser=optimiser,
        budget=Budget(epochs=epochs, batch=batch, warmup=10),
        probe=linear_sgd.Config(lr=0.004, batch=1024, drops=()),  # 0.001 for a batch of 256
        encoder=encoder,
    )


def _variant(**changes: Any) -> Recipe:
    """`dino_digits_r10w16_e50` with what the paper takes away."""
    recipe = dino_digits_r10w16_e50()
    return replace(recipe, method=replace(recipe.method, **changes))
