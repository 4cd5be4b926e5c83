"""Sets whose images do not fit into memory: JPEG or PNG bytes in parquet shards, decoded when they are asked for.

The shards are those of the Hugging Face hub, with columns image (bytes and path) and label, in the data root as
<root>/<name>/{train,validation}-*.parquet, or below it in data/, where the hub has them. `datasets` turns them once
into memory-mapped Arrow files under HARNESS_CACHE, which takes minutes and as much room as the shards do.

Content is checked by the numbers of images and the labels; a sha256 of 150 GB at every start would take longer than an
evaluation.
"""

import io
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from harness import tables
from harness.data import decode
from harness.data.ahead import Ahead, workers
from harness.data.images import Images
from harness.data.sets import LARGE, SIZES
from harness.data.stored import data_root
from harness.errors import DataMismatch, DataMissing
from harness.nn import world_size
from harness.seeding import generator

STORED = ("train", "validation")
HELD_OUT = 100  # every 100th training image is in the held-out split


@dataclass(frozen=True)
class Encoded:
    """Images of a split as bytes. table: of `datasets`. at: (N,) their rows in it. where: for messages."""

    table: Any
    at: Any
    where: str

    def __len__(self) -> int:
        return len(self.at)

    def open(self, position: int) -> Any:
        """An image of PIL whose header is read, but no pixels. Errors: DataMismatch."""
        try:
            return Image.open(io.BytesIO(self._row(position)["bytes"]))
        except Exception as error:
            raise self.broken(position, error) from error

    def broken(self, position: int, error: Exception) -> DataMismatch:
        row = self._row(position)
        reason = (
            "no image that Pillow knows" if isinstance(error, UnidentifiedImageError) else str(error).partition("\n")[0]
        )
        named = f", {row['path']}" if row["path"] else ""
        return DataMismatch(
            f"{self.where}: row {self.at[position]}{named} cannot be decoded ({reason}); get its file again"
        )

    def _row(self, position: int) -> Any:
        return self.table[int(self.at[position])]["image"]


@dataclass
class LargeImages(Images):
    """A split whose pixels are decoded when they are asked for; `pixels` is empty: uint8 (0, 3, px, px)."""

    encoded: Encoded = field(kw_only=True)
    workers: int = field(default_factory=workers, kw_only=True)
    _ahead: "tuple[tuple[int, int], Ahead] | None" = field(default=None, init=False, repr=False, compare=False)

    def rows(self, start: int, stop: int) -> Tensor:
        """The middles of some images, uint8 (b, 3, px, px), on the CPU.

        Blocks of one size, asked for in order, are decoded ahead by worker processes: each block, or on several
        processes every one that is this process's turn.
        """
        stop = min(stop, len(self))
        if self._ahead is None or self._ahead[0] != (start, stop):
            self.close()
            size = stop - start
            work = _Middles(self.encoded, size, self.px)
            self._ahead = (start, stop), Ahead(work, range(start, len(self), size * world_size()), self.workers)
        ahead = self._ahead[1]
        pixels: Tensor = ahead.next()
        after = start + (stop - start) * world_size()
        self._ahead = (after, min(after + stop - start, len(self))), ahead
        if after >= len(self):
            self.close()
        return pixels

    def close(self) -> None:
        """End the workers of `rows`."""
        if self._ahead:
            self._ahead[1].close()
            self._ahead = None

    def first(self, n: int) -> "LargeImages":
        """n images of a fixed shuffle, in the order of the files."""
        chosen = torch.randperm(len(self), generator=generator(0, "first"))[:n].sort().values
        return self.only(chosen)

    def only(self, chosen: Tensor) -> "LargeImages":
        """The images at these positions (n,)."""
        encoded = replace(self.encoded, at=self.encoded.at[chosen.numpy()])
        return replace(self, labels=self.labels[chosen], factors=self.factors[chosen], encoded=encoded)


class _Middles:
    def __init__(self, encoded: Encoded, size: int, px: int) -> None:
        self.encoded, self.size, self.px = encoded, size, px

    def __call__(self, start: int) -> Tensor:
        positions = range(start, min(start + self.size, len(self.encoded)))
        made = torch.empty(len(positions), self.px, self.px, 3, dtype=torch.uint8)
        for place, position in zip(made, positions, strict=True):
            image = self.encoded.open(position)
            try:
                place.copy_(decode.middle(image, self.px))
            except Exception as error:  # however it is damaged
                raise self.encoded.broken(position, error) from error
        return made.permute(0, 3, 1, 2).contiguous()


def read(name: str, root: Path | None) -> tuple[LargeImages, LargeImages, LargeImages]:
    """Train, held-out and test images. Errors: DataMissing, DataMismatch."""
    source, px = LARGE[name], SIZES[name][1]
    folder, files = found(name, root)
    where = f"data set {name!r} from {folder}"
    stored = tables.mapped(name, files)
    sizes = {split: len(stored[split]) for split in STORED}
    expected = dict(zip(STORED, (SIZES[name][0], source.test), strict=True))
    if sizes != expected:
        got, want = (" and ".join(f"{n} {split}" for split, n in some.items()) for some in (sizes, expected))
        raise DataMismatch(f"{where}: expected {want} images, got {got}; get the missing files again ({_get(name)})")
    train, test = (_split(where, split, stored[split], source.classes, px) for split in STORED)
    return train, train.only(torch.arange(0, len(train), HELD_OUT)), test


def _split(where: str, split: str, table: Any, classes: int, px: int) -> LargeImages:
    labels = table.data.column("label").to_numpy().astype(np.int64)
    if labels.min() < 0 or labels.max() >= classes:
        raise DataMismatch(
            f"{where}, {split}: expected labels 0 to {classes - 1}, got {labels.min()} to {labels.max()}; "
            "get the set again"
        )
    return LargeImages(
        pixels=torch.empty(0, 3, px, px, dtype=torch.uint8),
        labels=torch.from_numpy(labels),
        factors=torch.empty(len(labels), 0),
        encoded=Encoded(table, np.arange(len(labels)), f"{where}, {split}"),
    )


def found(name: str, root: Path | None) -> tuple[Path, dict[str, list[str]]]:
    """The folder of a set and its files by split; nothing is read. Errors: DataMissing."""
    root = data_root(root)
    folders = [root / name, root / name / "data"] if root else []
    for folder in folders:
        files = {split: sorted(map(str, folder.glob(f"{split}-*.parquet"))) for split in STORED}
        if all(files.values()):
            return folder, files
    looked = ", ".join(map(str, folders)) or "any folder, since HARNESS_DATA is not set"
    wanted = " and ".join(f"{name}/{split}-*.parquet" for split in STORED)
    raise DataMissing(
        f"data set {name!r} not found in {looked}; set HARNESS_DATA to a folder that holds {wanted} "
        f"with columns image, label ({_get(name)})"
    )


def _get(name: str) -> str:
    repository, commit = LARGE[name].hub
    return (
        f"accept the terms at huggingface.co/datasets/{repository}, then `hf download {repository} --repo-type dataset "
        f"--revision {commit} --include 'data/train-*' 'data/validation-*' --local-dir <folder>/{name}`"
    )
