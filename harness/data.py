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
imagenet_1k    1,331,167            the official train split, whole, as in the papers / part of it / official validation
                                    split. Known by name and size, so that recipes can be written; not loaded yet

Factors: labels are classes; `Images.factors` holds what varies within them, in [-1, 1], circular ones as cosine and
sine. A view of ETH-80 from above (polar angle 0) is stored with azimuth 0.
"""

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from harness import factors, sphere, tables
from harness.api import Draws
from harness.errors import BadRecipe, DataMismatch, DataMissing, UnknownName
from harness.recipe import Data
from harness.tables import Table

SPLITS = "splits1"  # the rules above; a change of them is a new revision of every set
FACTORS_SIZE = {"train": 4096, "held_out": 1024, "test": 2048}
SPHERE_SIZE = {"train": 50_000, "held_out": 4096, "test": 4096}


@dataclass
class Images:
    """One split. pixels: uint8 (N, 3, px, px); labels: int64 (N,); factors: float32 (N, F), F may be 0.

    Of a set of vectors, `pixels` holds those: float32 (N, n).
    identity: (N,) which object is shown, where the set knows it. latents: (N, L) of a rendered set.
    """

    pixels: Tensor
    labels: Tensor
    factors: Tensor
    factor_names: tuple[str, ...] = ()
    pairs: str = "augmentation"
    identity: Tensor | None = None
    latents: Tensor | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def elements(self, index: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        """Both images of B pairs, as `Data.pairs` says: those at `index` (B,) and their partners, or all drawn anew."""
        if self.pairs in sphere.PRECISION:
            first, second = sphere.pair(len(index), sphere.PRECISION[self.pairs], draws)
            return sphere.observe(first).to(self.pixels.device), sphere.observe(second).to(self.pixels.device)
        return self.pixels[index], self.partner(index, draws)

    def partner(self, index: Tensor, draws: Draws) -> Tensor:
        """The second image of the pairs whose first is at `index` (B,): uint8 (B, 3, px, px), as `Data.pairs` says."""
        index = index.to(self.pixels.device)
        if self.pairs == "latent_change":
            assert self.latents is not None
            return factors.render(factors.change(self.latents[index], draws), self.pixels.shape[-1])
        if self.pairs == "same_identity":
            return self.pixels[self._sibling(index, draws.uniform(len(index)))]
        return self.pixels[index]

    def _sibling(self, index: Tensor, u: Tensor) -> Tensor:
        """Another position with the same identity, uniformly; the same where this split has no other."""
        assert self.identity is not None
        order = self.identity.argsort(stable=True)
        count = torch.bincount(self.identity)
        start = count.cumsum(0) - count
        place = torch.empty_like(order)
        place[order] = torch.arange(len(order), device=order.device)  # where a position stands in `order`
        family = self.identity[index]
        step = 1 + (u * (count[family] - 1)).long()
        return order[start[family] + (place[index] - start[family] + step) % count[family]]

    def first(self, n: int) -> "Images":
        return self._each(lambda tensor: tensor[:n])

    def to(self, device: torch.device | str) -> "Images":
        return self._each(lambda tensor: tensor.to(device))

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Images":
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        changed: dict[str, Any] = {name: change(v) for name, v in values.items() if isinstance(v, Tensor)}
        return replace(self, **changed)


@dataclass
class Splits:
    """A data set. mean, std: (3,) of the train split's pixels in [0, 1], whatever `Data.train_images` leaves of it.

    Those of vectors are 0 and 1: they are left as they are.
    """

    train: Images
    held_out: Images
    test: Images
    mean: Tensor
    std: Tensor
    classes: int
    name: str
    revision: str

    def to(self, device: torch.device | str) -> "Splits":
        moved = {name: getattr(self, name).to(device) for name in ("train", "held_out", "test", "mean", "std")}
        return replace(self, **moved)


def load(data: Data, root: Path | None = None) -> Splits:
    """The data set of a recipe. root: folder of local sets, before HARNESS_DATA.

    Errors: UnknownName, BadRecipe (pairs, px or train_images that the set does not have), DataMissing, DataMismatch.
    """
    check_loadable(data)
    check(data)
    name = data.name
    if name == "factors":
        train, held_out, test = _rendered(side(data))
    elif name == "sphere":
        train, held_out, test = _drawn()
    else:
        train, held_out, test = _stored(name, data.px, root)
    if data.train_images is not None and not 0 < data.train_images <= len(train):
        raise BadRecipe(
            f"data set {name!r}: data.train_images is {data.train_images}, the train split has {len(train)}"
        )
    mean, std = _moments(train.pixels)
    for images in (train, held_out, test):
        images.pairs = data.pairs
    classes = {"factors": len(factors.SHAPES), "sphere": 1}.get(name) or SETS[name].classes
    return Splits(
        train.first(data.train_images or len(train)), held_out, test, mean, std, classes, name, revision(name)
    )


def check(data: Data) -> None:
    """What can be refused without loading. Errors: UnknownName, BadRecipe."""
    revision(data.name)
    offered = ["augmentation", *_OWN_PAIRS.get(data.name, ())]
    if data.pairs not in offered:
        offer = " and ".join(map(repr, offered))
        raise BadRecipe(f"data set {data.name!r}: data.pairs is {data.pairs!r}, expected one that it has: {offer}")
    if data.px is not None and data.name in VECTORS:
        raise BadRecipe(f"data set {data.name!r}: data.px is {data.px}, expected None: it holds vectors, not images")
    if data.px is not None and data.px < 1:
        raise BadRecipe(f"data set {data.name!r}: data.px is {data.px}, expected pixels, or None for the set's own")


def check_loadable(data: Data) -> None:
    """Refuse a set that only recipes and their costs know of. Errors: DataMissing."""
    if data.name in LARGE:
        raise DataMissing(
            f"data set {data.name!r} cannot be loaded yet, only sets that fit into memory can; `harness show` and "
            f"`harness cost` know its recipes; sets that load: {', '.join(sorted({*NAMES} - {*LARGE}))}"
        )


def revision(name: str) -> str:
    """What identifies the content and the splits of a set, without loading it. Errors: UnknownName."""
    if name not in NAMES:
        raise UnknownName("data set", name, NAMES)
    if name in LARGE:
        return f"{LARGE[name][1][:12]}-{SPLITS}"
    fingerprint = _GENERATED[name] if name in _GENERATED else SETS[name].fingerprint
    return f"{fingerprint[:12]}-{SPLITS}"


def train_size(data: Data) -> int:
    """Images of the train split, without loading it. Errors: UnknownName."""
    revision(data.name)
    return data.train_images or SIZES[data.name][0]


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
    places: dict[str, list[str]] = {"always here": ["digits", *_GENERATED]}
    for name in sorted(SETS.keys() - {"digits"}):
        found = next((folder for folder, files in _local(name, _root(root)) if all(files.values())), None)
        place = f"in {Path(found).parent}" if found else "on the hub" if SETS[name].hub else "missing"
        places.setdefault(place, []).append(name)
    line = "; ".join(f"{place}: {', '.join(sets)}" for place, sets in places.items())
    return line + ("" if _root(root) else "; HARNESS_DATA is not set")


# ---------------------------------------------------------------------------------------------- the sets


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

# sets whose images do not fit into memory: repository and commit on the hub (294 + 14 parquet files); the archives are
# ILSVRC2012_img_train.tar, MD5 1d675b47d978889d74fa0da5fadfb00e, and _val.tar, 29b22e2961454d5413ddabcf34fc5622
LARGE = {"imagenet_1k": ("ILSVRC/imagenet-1k", "49e2ee26f3810fb5a7536bbf732a7b07389a47b5")}
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
_GENERATED = {  # fingerprints of the random numbers
    "factors": "eec0da4d72aad79c00d51d177b471f52c94b430dcc85e627468ba3c9013457df",
    "sphere": "380b7ebcac3011d6cd86bcbec45e3ff3b93669cf0b5e412e0040ad9837e90f57",
}
_OWN_PAIRS = {
    "coil20": ("same_identity",),
    "eth80": ("same_identity",),
    "factors": ("latent_change",),
    "sphere": tuple(sphere.PRECISION),
}
NAMES = tuple(sorted([*SETS, *LARGE, *_GENERATED]))
VECTORS = ("sphere",)  # sets of vectors


def _checked(name: str, numbers: Any) -> Tensor:
    """Random numbers of a generated set. Errors: DataMismatch."""
    got = hashlib.sha256(numbers.tobytes()).hexdigest()
    if got != _GENERATED[name]:
        raise DataMismatch(tables.differs(name, "numpy's random numbers", _GENERATED[name], got))
    return torch.from_numpy(numbers)


def _rendered(px: int) -> tuple[Images, ...]:
    size = (sum(FACTORS_SIZE.values()), len(factors.LATENTS))
    latents = _checked("factors", np.random.default_rng(0).random(size, dtype=np.float32))
    return tuple(
        Images(
            pixels=factors.render(part, px),
            labels=factors.shape_of(part),
            factors=factors.factors_of(part),
            factor_names=factors.FACTORS,
            latents=part,
        )
        for part in latents.split(list(FACTORS_SIZE.values()))
    )


def _drawn() -> tuple[Images, ...]:
    size = (sum(SPHERE_SIZE.values()), sphere.WIDTH)
    numbers = _checked("sphere", np.random.default_rng(0).standard_normal(size, dtype=np.float32))
    return tuple(
        Images(
            pixels=sphere.observe(part),
            labels=torch.zeros(len(part), dtype=torch.int64),
            factors=part,
            factor_names=sphere.FACTORS,
            latents=part,
        )
        for part in F.normalize(numbers, dim=1).split(list(SPHERE_SIZE.values()))
    )


def _stored(name: str, px: int | None, root: Path | None) -> tuple[Images, ...]:
    source = SETS[name]
    if name == "digits":
        stored = tables.checked(name, source.fingerprint, *_digits())
    else:
        stored = tables.kept(name, source.fingerprint, lambda: _read(name, root))
    rows = stored["train"]
    part = source.part(rows)
    parts = [{column: values[part == split] for column, values in rows.items()} for split in FACTORS_SIZE]
    if "test" in stored:
        parts[2] = stored["test"]
    return tuple(_images(table, source, px) for table in parts)


def _digits() -> tuple[dict[str, Table], str]:
    from sklearn.datasets import load_digits

    found = load_digits()
    pixels = (found.images * (255 / 16)).round().astype(np.uint8)  # grey levels 0 to 16
    return {"train": {"pixels": pixels, "label": found.target.astype(np.int64)}}, "scikit-learn"


def _root(root: Path | None) -> Path | None:
    return root or (Path(os.environ["HARNESS_DATA"]) if os.environ.get("HARNESS_DATA") else None)


def _local(name: str, root: Path | None) -> Iterator[tuple[str, dict[str, list[str]]]]:
    """The folders where a set may be, and the files of each stored split there."""
    for folder in [root / folder for folder in (name, *SETS[name].folders)] if root else []:
        yield str(folder), {s: sorted(map(str, folder.glob(f"{s}-*.parquet"))) for s in SETS[name].files}


def _read(name: str, root: Path | None) -> tuple[dict[str, Table], str]:
    """Every stored split from the data root, else from the hub, and where. Errors: DataMissing, DataMismatch."""
    source = SETS[name]
    columns = ("label", *source.columns)
    looked = []
    for folder, files in _local(name, _root(root)):
        if all(files.values()):
            return tables.from_parquet(name, files, columns), folder
        looked.append(folder)
    if source.hub:
        repository, commit = source.hub
        try:
            return tables.from_hub(name, repository, commit, columns), f"{repository} at {commit[:12]}"
        except ConnectionError as error:
            looked.append(f"the hub ({error})")
    wanted = " and ".join(f"{name}/{split}-*.parquet" for split in source.files)
    raise DataMissing(
        f"data set {name!r} not found in {', '.join(looked) or 'any folder, since HARNESS_DATA is not set'}; "
        f"set HARNESS_DATA to a folder that holds {wanted} "
        f"with columns {', '.join(('image', *columns))} ({source.get})"
    )


def _images(table: Table, source: Source, px: int | None) -> Images:
    pixels = torch.from_numpy(table["pixels"])
    pixels = pixels.permute(0, 3, 1, 2) if pixels.dim() == 4 else pixels[:, None].expand(-1, 3, -1, -1)
    named = [pair for column in source.columns for pair in _factor(column, torch.from_numpy(table[column]).float())]
    N = len(pixels)
    return Images(
        pixels=pixels.contiguous() if px in (None, pixels.shape[-1]) else _resize(pixels, px),
        labels=torch.from_numpy(table["label"]),
        factors=torch.stack([values for _, values in named], dim=1) if named else torch.empty(N, 0),
        factor_names=tuple(name for name, _ in named),
        identity=torch.from_numpy(table[source.identity]) if source.identity else None,
    )


def _factor(column: str, values: Tensor) -> list[tuple[str, Tensor]]:
    if column == "azimuth_deg":
        return [("azimuth_cos", values.deg2rad().cos()), ("azimuth_sin", values.deg2rad().sin())]
    if column == "polar_deg":  # 0 from above, 90 from the side
        return [("polar", values / 45 - 1)]
    return []  # which object is an identity, not a factor


def _resize(pixels: Tensor, px: int) -> Tensor:
    """Bilinear with antialias, rounded; in chunks, since it goes through float."""
    parts = [F.interpolate(p.float(), (px, px), mode="bilinear", antialias=True) for p in pixels.split(1024)]
    return torch.cat([part.round_().clamp_(0, 255).to(torch.uint8) for part in parts])


def _moments(pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation per channel in [0, 1], from exact counts of the 256 values; 0 and 1 of vectors."""
    if pixels.ndim == 2:
        return torch.zeros(pixels.shape[1]), torch.ones(pixels.shape[1])
    values = torch.arange(256, dtype=torch.float64) / 255
    counts = torch.stack([torch.bincount(channel.flatten(), minlength=256) for channel in pixels.unbind(1)])
    share = counts / counts.sum(1, keepdim=True, dtype=torch.float64)
    mean = share @ values
    std = (share * (values - mean[:, None]) ** 2).sum(1).sqrt()
    return mean.float(), std.float()
