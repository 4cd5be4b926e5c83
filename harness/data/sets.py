"""Which data sets there are: names, sizes, where they come from, and what belongs to which split."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness import sphere
from harness.tables import Table

SPLITS = "splits1"  # the rules that harness/data/__init__.py states; a change of them is a new revision of every set
FACTORS_SIZE = {"train": 4096, "held_out": 1024, "test": 2048}
SPHERE_SIZE = {"train": 50_000, "held_out": 4096, "test": 4096}


def _by_position(test: float, held_out: float) -> Callable[[Table], Any]:
    def part(rows: Table) -> Any:
        share = np.arange(len(rows["label"])) / len(rows["label"])
        return np.where(share < test, "test", np.where(share < test + held_out, "held_out", "train"))

    return part


def _by_angle(rows: Table) -> Any:
    k = rows["azimuth_deg"] // 5
    return np.where(k % 4 == 2, "test", np.where(k % 8 == 0, "held_out", "train"))


def _by_object(rows: Table) -> Any:
    k = rows["instance"] % 10
    return np.where(k >= 8, "test", np.where(k == 7, "held_out", "train"))


@dataclass(frozen=True)
class Source:
    """A stored set. part: the split of each row of the stored train split. get: how to come by it.

    columns: besides image and label. identity: the column that says which object is shown.
    folders: further names of its local folder. hub: repository and commit.
    """

    classes: int
    fingerprint: str
    part: Callable[[Table], Any]
    files: tuple[str, ...] = ("train",)
    columns: tuple[str, ...] = ()
    identity: str = ""
    folders: tuple[str, ...] = ()
    hub: tuple[str, str] | None = None
    get: str = ""


SETS = {
    "digits": Source(10, "33c5e492a25ad51782344d4b1e19c2df4e9991b2863f4679bf3f9c626a892d39", _by_position(0.2, 0.1)),
    "cifar10": Source(
        10,
        "1269a08b8e4cde455065d8041de8b8b607e4cb276683d09d7ba4732b8fa64ec7",
        _by_position(0, 0.1),
        files=("train", "test"),
        hub=("uoft-cs/cifar10", "0b2714987fa478483af9968de7c934580d0bb9a2"),
        get="or allow access to huggingface.co/datasets/uoft-cs/cifar10",
    ),
    "fashion_mnist": Source(
        10,
        "369f1907c18abb322d7c594f7b258531bfe4bb4cc9c9db0600b05037238d3963",
        _by_position(0, 0.1),
        files=("train", "test"),
        hub=("zalando-datasets/fashion_mnist", "531be5e2ccc9dba0c201ad3ae567a4f3d16ecdd2"),
        get="or allow access to huggingface.co/datasets/zalando-datasets/fashion_mnist",
    ),
    "coil20": Source(
        20,
        "5de76dd41f6af5f2f023f353061e8f1b48de883b5c110cf21eb25621e880e776",
        _by_angle,
        columns=("azimuth_deg",),
        identity="label",
        get="the processed set, 128 px grey, for example from github.com/BeiCunNan/Image_Classfiation_Coil20",
    ),
    "eth80": Source(
        8,
        "3c17def9c96f941f034d1da3148dab84bf307160d50de27ca9318fbc2cdb29ef",
        _by_object,
        columns=("instance", "polar_deg", "azimuth_deg"),
        identity="instance",
        folders=("eth80_64",),
        get="from github.com/chenchkx/ETH-80, reduced to 64 px by the mean of 4x4 pixels",
    ),
}


@dataclass(frozen=True)
class Large:
    """A set whose images do not fit into memory (harness/data/large.py); `SIZES` has its train split.

    test: images of its validation split, which tests. hub: repository and commit. mean, std: of its pixels in [0, 1].
    """

    classes: int
    test: int
    hub: tuple[str, str]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


# the archives are ILSVRC2012_img_train.tar, MD5 1d675b47d978889d74fa0da5fadfb00e, and _val.tar,
# 29b22e2961454d5413ddabcf34fc5622; on the hub they are 294 + 14 parquet files. mean and std are torchvision's, which
# facebookresearch/vicreg and dino use, too
LARGE = {
    "imagenet_1k": Large(
        1000,
        50_000,
        ("ILSVRC/imagenet-1k", "49e2ee26f3810fb5a7536bbf732a7b07389a47b5"),
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
    )
}
# images of the train split, and their side in pixels (of images of many sizes the side that evaluations see), or the
# length of its vectors
SIZES = {
    "digits": (1257, 8),
    "factors": (FACTORS_SIZE["train"], 32),
    "sphere": (SPHERE_SIZE["train"], sphere.WIDTH),
    "cifar10": (45_000, 32),
    "fashion_mnist": (54_000, 28),
    "coil20": (900, 128),
    "eth80": (2_296, 64),
    "imagenet_1k": (1_281_167, 224),
}
GENERATED = {  # fingerprints of the random numbers
    "factors": "eec0da4d72aad79c00d51d177b471f52c94b430dcc85e627468ba3c9013457df",
    "sphere": "380b7ebcac3011d6cd86bcbec45e3ff3b93669cf0b5e412e0040ad9837e90f57",
}
OWN_PAIRS = {
    "coil20": ("same_identity",),
    "eth80": ("same_identity",),
    "factors": ("latent_change",),
    "sphere": tuple(sphere.PRECISION),
}
NAMES = tuple(sorted([*SETS, *LARGE, *GENERATED]))
VECTORS = ("sphere",)  # sets of vectors
