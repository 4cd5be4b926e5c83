"""DINO recipes."""

from dataclasses import replace

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
