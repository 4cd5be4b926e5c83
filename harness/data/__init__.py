"""Data sets by name, as tensors with fixed splits: images in uint8, or vectors in float32.

A set is read through Hugging Face `datasets`, from a local folder of parquet files (<root>/<name>/train-*.parquet and
test-*.parquet; root is the argument, else HARNESS_DATA) or else from the hub at a pinned revision, and only once
(harness/tables.py). Its rows come in the order of the sha256 of their content, wherever they came from: a fixed
shuffle, and "the first n" below means in that order.

set            images               train / held-out / test
digits         1,797 of 8 px        the rest / next 10 % / first 20 % (scikit-learn's, embedded)
factors        7,168 of 32 px       4,096 / 1,024 / 2,048, rendered (harness/factors.py)
sphere         58,192 vectors       50,000 / 4,096 / 4,096, drawn (harness/sphere.py); training draws pairs anew
cifar10        60,000 of 32 px      the rest / first 10 % of the official train split / official test split
fashion_mnist  70,000 of 28 px      the same
coil20         1,440 of 128 px      by turntable angle, in steps k of 5 degrees: test k % 4 = 2, held-out k % 8 = 0
eth80          3,280 of 64 px       by object, of the ten in each category: test 8 and 9, held-out 7
imagenet_1k    1,331,167            the official train split, whole, as in the papers / every 100th of it / official
                                    validation split; decoded while it is used (harness/data/large.py), from a folder

Factors: labels are classes; `Images.factors` holds what varies within them, in [-1, 1], circular ones as cosine and
sine. A view of ETH-80 from above (polar angle 0) is stored with azimuth 0.
"""

from pathlib import Path

import torch

from harness import factors
from harness.data import generated, large, stored
from harness.data.images import Images, Splits, moments
from harness.data.sets import GENERATED, LARGE, NAMES, OWN_PAIRS, SETS, SIZES, SPLITS, VECTORS
from harness.errors import BadRecipe, DataMissing, UnknownName
from harness.recipe import Data

__all__ = [
    "LARGE",
    "NAMES",
    "SETS",
    "SIZES",
    "VECTORS",
    "Images",
    "Splits",
    "check",
    "check_there",
    "classes",
    "load",
    "revision",
    "shape",
    "side",
    "train_size",
    "whereabouts",
]


def load(data: Data, root: Path | None = None) -> Splits:
    """The data set of a recipe. root: folder of local sets, before HARNESS_DATA.

    Errors: UnknownName, BadRecipe (pairs, px or train_images that the set does not have), DataMissing, DataMismatch.
    """
    check(data)
    name = data.name
    if name == "factors":
        train, held_out, test = generated.rendered(side(data))
    elif name == "sphere":
        train, held_out, test = generated.drawn()
    elif name in LARGE:
        train, held_out, test = large.read(name, root)
    else:
        train, held_out, test = stored.read(name, data.px, root)
    if data.train_images is not None and not 0 < data.train_images <= len(train):
        raise BadRecipe(
            f"data set {name!r}: data.train_images is {data.train_images}, the train split has {len(train)}"
        )
    mean, std = map(torch.tensor, (LARGE[name].mean, LARGE[name].std)) if name in LARGE else moments(train.pixels)
    for images in (train, held_out, test):
        images.pairs = data.pairs
    first = train.first(data.train_images or len(train))
    return Splits(first, held_out, test, mean, std, classes(data), name, revision(name))


def check(data: Data) -> None:
    """What can be refused without loading. Errors: UnknownName, BadRecipe."""
    revision(data.name)
    offered = ["augmentation", *OWN_PAIRS.get(data.name, ())]
    if data.pairs not in offered:
        offer = " and ".join(map(repr, offered))
        raise BadRecipe(f"data set {data.name!r}: data.pairs is {data.pairs!r}, expected one that it has: {offer}")
    if data.px is not None and data.name in VECTORS:
        raise BadRecipe(f"data set {data.name!r}: data.px is {data.px}, expected None: it holds vectors, not images")
    if data.px is not None and data.name in LARGE:
        raise BadRecipe(
            f"data set {data.name!r}: data.px is {data.px}, expected None: its images are decoded while they are used, "
            "each to the px of its view"
        )
    if data.px is not None and data.px < 1:
        raise BadRecipe(f"data set {data.name!r}: data.px is {data.px}, expected pixels, or None for the set's own")


def check_there(data: Data, root: Path | None = None) -> None:
    """Refuse a large set that is not in a folder here, before anything is launched; nothing is read.

    Errors: DataMissing.
    """
    if data.name in LARGE:
        large.found(data.name, root)


def revision(name: str) -> str:
    """What identifies the content and the splits of a set, without loading it. Errors: UnknownName."""
    if name not in SIZES:
        raise UnknownName("data set", name, SIZES)
    if name in LARGE:
        return f"{LARGE[name].hub[1][:12]}-{SPLITS}"
    fingerprint = GENERATED[name] if name in GENERATED else SETS[name].fingerprint
    return f"{fingerprint[:12]}-{SPLITS}"


def train_size(data: Data) -> int:
    """Images of the train split, without loading it. Errors: UnknownName."""
    revision(data.name)
    return data.train_images or SIZES[data.name][0]


def classes(data: Data) -> int:
    """Classes of the labels, without loading them; 1 where there are none. Errors: UnknownName."""
    revision(data.name)
    source = SETS.get(data.name) or LARGE.get(data.name)
    return source.classes if source else {"factors": len(factors.SHAPES), "sphere": 1}[data.name]


def side(data: Data) -> int:
    """Side of the images in pixels, or length of the vectors, without loading them. Errors: UnknownName."""
    revision(data.name)
    return data.px or SIZES[data.name][1]


def shape(data: Data, px: int | None = None) -> tuple[int, ...]:
    """Of one image, of this side or its own, or of one vector, without loading it. Errors: UnknownName."""
    px = px or side(data)
    return (px,) if data.name in VECTORS else (3, px, px)


def whereabouts(root: Path | None = None) -> str:
    """One line about where each set would come from; nothing is read."""
    places: dict[str, list[str]] = {"always here": ["digits", *GENERATED]}
    for name in sorted(SETS.keys() - {"digits"}):
        found = next(
            (folder for folder, files in stored.local(name, stored.data_root(root)) if all(files.values())), None
        )
        place = f"in {Path(found).parent}" if found else "on the hub" if SETS[name].hub else "missing"
        places.setdefault(place, []).append(name)
    for name in LARGE:
        try:
            large.found(name, root)
            place = f"in {stored.data_root(root)}"
        except DataMissing:
            place = "missing"
        places.setdefault(place, []).append(name)
    line = "; ".join(f"{place}: {', '.join(sets)}" for place, sets in places.items())
    return line + ("" if stored.data_root(root) else "; HARNESS_DATA is not set")
