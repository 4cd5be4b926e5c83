"""Encoders by timm name, and their export.

Small images (up to 64 px) want a 3x3 stride-1 stem and no max-pool (solo-learn@9187ea3 and lightly@e8d317f do this for
CIFAR). timm has no such option for ResNets, so `<name>_small_stem` is registered for each of them: after
`import harness.backbones`, `timm.create_model("resnet18_small_stem")` works like any other name. So does `convnet`, a
plain network that is small enough for a laptop: four convolutions, or as many as `widths` has numbers.
`pixels` is the raw image as a vector: the floor under every table. `mlp` is a perceptron on such a vector, with leaky
ReLU (slope 0.01) between its layers; its option `widths` names the layers' outputs.
"""

from itertools import pairwise
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from harness.api import Backbone
from harness.errors import BadRecipe, UnknownName
from harness.nn import in_parts
from harness.recipe import Encoder
from harness.runs import write_atomically

RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101")


def _register_small_stem(name: str) -> None:
    def build(pretrained: bool = False, **options: Any) -> nn.Module:
        model: Any = timm.create_model(name, pretrained=pretrained, **options)
        old = model.conv1
        model.conv1 = nn.Conv2d(old.in_channels, old.out_channels, 3, stride=1, padding=1, bias=False)
        nn.init.kaiming_normal_(
            model.conv1.weight, mode="fan_out", nonlinearity="relu"
        )  # as timm's ResNet.init_weights
        model.maxpool = nn.Identity()
        return model

    build.__name__ = f"{name}_small_stem"
    timm.models.register_model(build)


for _name in RESNETS:
    _register_small_stem(_name)


@timm.models.register_model
def convnet(widths: tuple[int, ...] = (32, 64, 128, 256), num_classes: int = 0, **defaults: Any) -> nn.Module:
    """3x3 convolutions with batch norm and ReLU, all but the first of stride 2, and the mean over the pixels left."""
    if num_classes or not widths or any(defaults.values()):
        given = ", ".join(name for name, value in defaults.items() if value)
        raise ValueError(f"it has no classifier, no trained weights, and one option, widths; given: {given or widths}")
    layers: list[nn.Module] = []
    for i, (before, after) in enumerate(pairwise((3, *widths))):
        layers += [nn.Conv2d(before, after, 3, 2 if i else 1, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


class TimmBackbone(Backbone):
    def __init__(self, encoder: Encoder, px: int, *more_px: int) -> None:
        super().__init__()
        self.model: nn.Module = timm.create_model(encoder.name, num_classes=0, **dict(encoder.options))
        (self.width,) = {_width(self.model, side) for side in (px, *more_px)}

    def forward(self, x: Tensor) -> Tensor:
        return in_parts(self.model, x, self.parts)

    @property
    def patches(self) -> nn.Module:
        found = getattr(self.model, "patch_embed", None)
        return found if isinstance(found, nn.Module) else super().patches


class MLPBackbone(Backbone):
    def __init__(self, inputs: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in pairwise((inputs, *widths)):
            layers += [nn.Linear(before, after), nn.LeakyReLU()]
        self.model = nn.Sequential(*layers[:-1])
        self.width = widths[-1]

    def forward(self, x: Tensor) -> Tensor:
        return in_parts(self.model, x.flatten(1), self.parts)


class PixelBackbone(Backbone):
    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.width = inputs

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)


def build(encoder: Encoder, px: int, *more_px: int, vectors: bool = False) -> Backbone:
    """An initialised backbone for images of side px, and views of the further sides; or for vectors of length px.

    Errors: UnknownName, BadRecipe (options timm does not take, sides the encoder does not take).
    """
    inputs = px if vectors else 3 * px * px
    if encoder.name == "pixels":
        return PixelBackbone(inputs)
    if encoder.name == "mlp":
        match encoder.options:
            case (("widths", (*widths,)),) if widths and min(widths) > 0:
                return MLPBackbone(inputs, tuple(widths))
        raise BadRecipe(
            f"encoder 'mlp' has the options {encoder.options}, expected (('widths', (100, 10)),) or the like"
        )
    if not timm.is_model(encoder.name):
        raise UnknownName(
            "encoder", encoder.name, [*timm.list_models(), "pixels", "mlp"], fix="any timm model name will do"
        )
    try:
        return TimmBackbone(encoder, px, *more_px)
    except (TypeError, ValueError, RuntimeError, AssertionError) as error:
        sides = ", ".join(map(str, sorted({px, *more_px})))
        raise BadRecipe(
            f"encoder {encoder.name!r} with {dict(encoder.options)} cannot take images of {sides} px: {error}; "
            "a ViT takes several sizes with the option dynamic_img_size=True"
        ) from error


def has_patches(encoder: Encoder) -> bool:
    """Whether `Backbone.patches` will be there, without weights or memory; False for what cannot be built."""
    try:
        with torch.device("meta"):
            return hasattr(timm.create_model(encoder.name, num_classes=0, **dict(encoder.options)), "patch_embed")
    except (TypeError, ValueError, RuntimeError, AssertionError):
        return False


def export(backbone: nn.Module, encoder: Encoder, path: Path) -> str:
    """Write the encoder as safetensors; returns the lines of Python that load it as `model`."""
    from safetensors.torch import save

    if not isinstance(backbone, TimmBackbone | MLPBackbone):
        raise BadRecipe(f"encoder {encoder.name!r} has no weights to export")
    state = {name: value.detach().cpu().contiguous().clone() for name, value in backbone.model.state_dict().items()}
    write_atomically(path, save(state))
    if isinstance(backbone, MLPBackbone):
        layers = ", ".join(
            f"Linear({one.in_features}, {one.out_features})" if isinstance(one, nn.Linear) else "LeakyReLU()"
            for one in backbone.model
        )
        return (
            "import safetensors.torch\nfrom torch.nn import LeakyReLU, Linear, Sequential\n"
            f"model = Sequential({layers})\nmodel.load_state_dict(safetensors.torch.load_file({str(path)!r}))"
        )
    options = "".join(f", {key}={value!r}" for key, value in encoder.options)
    small = "import harness.backbones  # registers the small-stem names\n" if "_small_stem" in encoder.name else ""
    made = f"timm.create_model({encoder.name!r}, num_classes=0{options}, checkpoint_path={str(path)!r})"
    return f"{small}import timm\nmodel = {made}"


@torch.no_grad()
def _width(model: nn.Module, px: int) -> int:
    training = model.training
    shape = model.eval()(torch.zeros(1, 3, px, px)).shape
    model.train(training)
    if len(shape) != 2:
        raise ValueError(f"expected a feature vector per image, got shape {tuple(shape)}")
    return int(shape[1])
