"""MoCo v3 recipes."""

from dataclasses import replace

from harness.recipe import Encoder, Recipe
from methods import moco_v3
from sweeps import _bases


def moco_v3_digits_r10w16_e50() -> Recipe:
    """Heads 256-64, a temperature of 0.2, as for a ViT, and a key encoder fast enough for 450 steps (from 0.9)."""
    return _bases.digits(moco_v3.Config(widths=(256, 64), predictor_hidden=256, temperature=0.2, momentum=0.9))


def moco_v3_digits_vt2_e50_frozen() -> Recipe:
    """A ViT of 2 blocks, 64 wide, with the heads and the random, frozen patch embedding that the paper gives ViTs."""
    method = moco_v3.Config(
        widths=(256, 256, 64),
        predictor_hidden=256,
        predictor_norm=True,
        frozen_patches=True,
        temperature=0.2,
        momentum=0.9,
    )
    options = (("img_size", 8), ("patch_size", 2), ("embed_dim", 64), ("depth", 2), ("num_heads", 4))
    encoder = Encoder(name="vit_tiny_patch16_224", options=options, label="ViT (64, 2 blocks)/2")
    return replace(_bases.digits(method), encoder=encoder)


# vturrisi/solo-learn@9187ea3, scripts/pretrain/cifar/mocov3.yaml
_SOLO = moco_v3.Config(temperature=0.2)


def moco_v3_cifar10_r18_e1000() -> Recipe:
    """CIFAR-10 as in solo-learn@9187ea3's CIFAR recipe for MoCo v3; its README states 93.10 top-1 (online linear).

    Departs: see `_bases.cifar10`. Not trained yet.
    """
    return _bases.cifar10(_SOLO, views=_bases.CIFAR_ASYMMETRIC, lr=0.3, weight_decay=1e-6, epochs=1000)


def moco_v3_cifar10_r18_e200() -> Recipe:
    """`moco_v3_cifar10_r18_e1000` in 200 epochs. Not trained yet."""
    return _bases.cifar10(_SOLO, views=_bases.CIFAR_ASYMMETRIC, lr=0.3, weight_decay=1e-6)
