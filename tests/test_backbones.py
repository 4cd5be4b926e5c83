"""Encoders by timm name: small stems, small ViTs, widths read from the model, and files that timm loads."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch

from harness import backbones
from harness.errors import BadRecipe, UnknownName
from harness.recipe import Encoder

TINY = (("channels", (8, 16, 16, 24)), ("layers", (1, 1, 1, 1)))
VIT = (
    ("img_size", 16),
    ("patch_size", 4),
    ("embed_dim", 24),
    ("depth", 2),
    ("num_heads", 2),
    ("dynamic_img_size", True),
)
ENCODERS = {
    "small stem": (Encoder(name="resnet18_small_stem", options=TINY), 16, 24),
    "stock stem": (Encoder(name="resnet18", options=TINY), 32, 24),
    "small ViT": (Encoder(name="vit_tiny_patch16_224", options=VIT), 16, 24),
    "bottleneck": (Encoder(name="resnet50_small_stem", options=TINY), 16, 96),
    "pixels": (Encoder(name="pixels"), 8, 192),
}


@pytest.mark.parametrize("kind", ENCODERS)
def test_the_width_is_the_models_own(kind: str) -> None:
    encoder, px, width = ENCODERS[kind]
    backbone = backbones.build(encoder, px)
    assert backbone.width == width
    assert backbone(torch.rand(2, 3, px, px)).shape == (2, width)


def test_the_small_stem_keeps_the_resolution() -> None:
    model = timm.create_model("resnet18_small_stem", num_classes=0)
    assert model.conv1.kernel_size == (3, 3)
    assert model.conv1.stride == (1, 1)
    assert isinstance(model.maxpool, torch.nn.Identity)
    assert model.forward_features(torch.rand(1, 3, 32, 32)).shape == (1, 512, 4, 4)  # the stock stem leaves 1 x 1
    assert sum(p.numel() for p in model.parameters()) == 11_168_832  # AdaSSL's at 64 px, its authors' code


def test_a_vit_takes_local_crops_of_another_size() -> None:
    backbone = backbones.build(*ENCODERS["small ViT"][:2])
    assert backbone(torch.rand(2, 3, 8, 8)).shape == (2, 24)


@pytest.mark.parametrize("kind", [kind for kind in ENCODERS if kind != "pixels"])
def test_an_exported_file_loads_in_timm_and_gives_the_same_features(kind: str, tmp_path: Path) -> None:
    encoder, px, _ = ENCODERS[kind]
    backbone = backbones.build(encoder, px)
    backbone(torch.rand(4, 3, px, px))  # batch statistics that differ from a new model's
    path = tmp_path / "encoder.safetensors"
    names: dict[str, Any] = {}
    exec(backbones.export(backbone, encoder, path), names)
    loaded = names["model"]
    x = torch.rand(3, 3, px, px)
    assert torch.equal(loaded.eval()(x), backbone.eval()(x))


MLP = Encoder(name="mlp", options=(("widths", (6, 7, 5)),))


def test_a_perceptron_has_the_widths_it_is_given_and_leaky_relus_between_them() -> None:
    backbone = backbones.build(MLP, 4, vectors=True)
    assert backbone.width == 5
    x = torch.randn(3, 4)
    want = x
    weights = list(backbone.parameters())
    for i in range(0, 6, 2):
        want = want @ weights[i].T + weights[i + 1]
        want = torch.where(want < 0, 0.01 * want, want) if i < 4 else want
    torch.testing.assert_close(backbone(x), want)
    assert backbones.build(MLP, 2)(torch.rand(3, 3, 2, 2)).shape == (3, 5)  # of images it takes the pixels


def test_pixels_of_vectors_are_the_vectors() -> None:
    backbone = backbones.build(Encoder(name="pixels"), 4, vectors=True)
    x = torch.randn(3, 4)
    assert backbone.width == 4
    assert torch.equal(backbone(x), x)


def test_the_exported_file_of_a_perceptron_loads_and_gives_the_same_features(tmp_path: Path) -> None:
    backbone = backbones.build(MLP, 4, vectors=True)
    names: dict[str, Any] = {}
    exec(backbones.export(backbone, MLP, tmp_path / "mlp.safetensors"), names)
    x = torch.randn(3, 4)
    assert torch.equal(names["model"](x), backbone(x))


def test_pixels_have_nothing_to_export(tmp_path: Path) -> None:
    with pytest.raises(BadRecipe, match="encoder 'pixels' has no weights to export"):
        backbones.export(backbones.build(Encoder(name="pixels"), 8), Encoder(name="pixels"), tmp_path / "x")


def test_bad_encoders_are_one_line() -> None:
    with pytest.raises(UnknownName, match=r"no encoder 'resnet18_smal_stem'; did you mean 'resnet18_small_stem'\?"):
        backbones.build(Encoder(name="resnet18_smal_stem"), 32)
    with pytest.raises(BadRecipe, match=r"encoder 'resnet18' with {'widht': 3} cannot take images of 32 px"):
        backbones.build(Encoder(name="resnet18", options=(("widht", 3),)), 32)
    with pytest.raises(BadRecipe, match=r"encoder 'mlp' has the options \(\), expected \(\('widths', \(100, 10\)\),\)"):
        backbones.build(Encoder(name="mlp"), 4, vectors=True)
    rigid = Encoder(name="vit_tiny_patch16_224", options=(("img_size", 16), ("patch_size", 4)))
    with pytest.raises(BadRecipe, match=r"cannot take images of 8, 16 px: .*; a ViT takes several sizes"):
        backbones.build(rigid, 16, 8)


def test_patches_are_there_where_an_encoder_has_them() -> None:
    vit = Encoder(name="vit_tiny_patch16_224", options=(("img_size", 16), ("patch_size", 4)))
    for encoder in (vit, Encoder(name="resnet18_small_stem"), Encoder(name="pixels")):
        backbone = backbones.build(encoder, 16)
        if backbones.has_patches(encoder):
            assert backbone.patches.proj.weight.shape == (192, 3, 4, 4)
        else:
            with pytest.raises(ValueError, match=r"^the encoder has no patch embedding; use a ViT$"):
                _ = backbone.patches
    assert not backbones.has_patches(Encoder(name="mlp"))
    assert not backbones.has_patches(Encoder(name="no_such"))
