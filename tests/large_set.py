"""A large set for tests: shards of generated JPEGs (and a few other files) of many sizes, known as `tiny_large`."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from harness import data
from harness.data.sets import Large

NAME = "tiny_large"
CLASSES, TRAIN, TEST, PX = 3, 150, 21, 14


def picture(seed: int, width: int, height: int) -> Any:
    """Smooth colours, which survive JPEG: uint8 (height, width, 3)."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return np.array(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def encoded(seed: int) -> bytes:
    """Most are JPEGs of their own size; every seventh is grey, CMYK, or a PNG with alpha or a palette."""
    image = Image.fromarray(picture(seed, 20 + 13 * (seed % 9), 24 + 17 * (seed % 7)))
    kind = {0: "L", 7: "CMYK", 14: "RGBA", 21: "P"}.get(seed % 28, "RGB")
    file = io.BytesIO()
    if kind == "P":
        image.quantize(16).save(file, "PNG", transparency=bytes(range(16)))
    else:
        image.convert(kind).save(
            file, "PNG" if kind == "RGBA" else "JPEG", **({} if kind == "RGBA" else {"quality": 95})
        )
    return file.getvalue()


def write(folder: Path, split: str, files: Sequence[bytes], labels: Sequence[int], shards: int = 2) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    images = [{"bytes": file, "path": f"{split}_{i}.jpg"} for i, file in enumerate(files)]
    table = pa.table({"image": images, "label": pa.array(labels, pa.int64())})
    size = -(-len(files) // shards)
    for shard in range(shards):
        name = f"{split}-{shard:05}-of-{shards:05}.parquet"
        pq.write_table(table.slice(shard * size, size), folder / name)


def make(root: Path, patch: pytest.MonkeyPatch, train: int = TRAIN, test: int = TEST) -> Path:
    """Write the set below `root` and make it known while `patch` lasts. Returns its folder."""
    folder = root / NAME
    for split, count, start in (("train", train, 0), ("validation", test, 1000)):
        write(folder, split, [encoded(start + i) for i in range(count)], [i % CLASSES for i in range(count)])
    known(patch, train, test)
    return folder


def known(patch: pytest.MonkeyPatch, train: int = TRAIN, test: int = TEST) -> None:
    source = Large(CLASSES, test, ("some/where", "0" * 40), mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.25))
    patch.setitem(data.LARGE, NAME, source)
    patch.setitem(data.SIZES, NAME, (train, PX))
