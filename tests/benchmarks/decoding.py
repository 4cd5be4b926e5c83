"""How fast a core decodes and crops JPEGs for training: images/s, as a Markdown table.

    python tests/benchmarks/decoding.py                    # 256 images of 500 x 375, two crops of 224 px
    python tests/benchmarks/decoding.py --side 1000 --px 96 --workers 1 2 4

The images are crops of scikit-learn's two photographs, enlarged where need be: at quality 95 and 500 x 375 a file has
about 90 kB (ImageNet's have 110 kB on average). The ways take turns, one thread each, per second of processor time;
shown are the fastest and the median of the repeats. The feed is what `harness.stream.Streamed` does, to the end of its
crops (flips, colours and the like are `harness bench`'s affair), in so many worker processes, per second of the clock.
"""

import argparse
import io
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import large_set  # noqa: E402
import pytest  # noqa: E402

from harness import data  # noqa: E402
from harness.api import Draws  # noqa: E402
from harness.data import decode  # noqa: E402
from harness.data.ahead import Ahead  # noqa: E402
from harness.data.large import LargeImages  # noqa: E402
from harness.recipe import Data, View  # noqa: E402
from harness.seeding import generator  # noqa: E402
from harness.stream import Crops  # noqa: E402
from harness.views import DRAWN, boxes  # noqa: E402

COUNT, BATCH = 256, 64
USUAL = "torchvision v2 RandomResizedCrop of the decoded"


def photographs(width: int, height: int, quality: int) -> list[bytes]:
    from sklearn.datasets import load_sample_images

    rng = np.random.default_rng(0)
    files = []
    for i in range(COUNT):
        source = Image.fromarray(load_sample_images().images[i % 2])
        scale = max(1.0, 1.1 * width / source.width, 1.1 * height / source.height)
        source = source.resize((round(scale * source.width), round(scale * source.height)), Image.Resampling.BICUBIC)
        left, top = rng.integers(source.width - width + 1), rng.integers(source.height - height + 1)
        file = io.BytesIO()
        source.crop((left, top, left + width, top + height)).save(file, "JPEG", quality=quality)
        files.append(file.getvalue())
    return files


def ways(train: LargeImages, view: View) -> dict[str, Callable[[], Any]]:
    """Each does all images once, in another order than they are stored."""
    from torchvision.transforms import v2

    encoded, size = train.encoded, (view.px, view.px)
    usual = v2.Compose([v2.RandomResizedCrop(view.px, scale=view.scale, antialias=True), v2.PILToTensor()])
    made = Crops(encoded, (view,), COUNT, 0)
    order = made.index(0).tolist()

    def pillow() -> list[Any]:
        images = [encoded.open(position) for position in order]
        u = Draws(generator(0, "views")).uniform(COUNT, DRAWN)
        each = [boxes(view, u, images[0].height, images[0].width).tolist() for _ in range(view.count)]
        found = []
        for image, *cut in zip(images, *each, strict=True):
            whole = image.convert("RGB")
            for top, left, height, width in cut:
                place = (left, top, left + width, top + height)
                found.append(np.asarray(whole.resize(size, Image.Resampling.BILINEAR, box=place)))
        return found

    def whole() -> Any:
        shrinks, decode.SHRINKS = decode.SHRINKS, ()
        try:
            return made(0)
        finally:
            decode.SHRINKS = shrinks

    def torchvision() -> list[Any]:
        decoded = (encoded.open(position).convert("RGB") for position in order)
        return [usual(image) for image in decoded for _ in range(view.count)]

    return {
        "bytes from the mapped file": lambda: [encoded._row(position)["bytes"] for position in order],
        "and its header": lambda: [encoded.open(position) for position in order],
        "and decoded": lambda: [encoded.open(position).convert("RGB") for position in order],
        USUAL: torchvision,
        "our boxes, Pillow's resize": pillow,
        "our boxes and resize, decoded at full size": whole,
        "our boxes and resize, decoded smaller where it fits": lambda: made(0),
        "middle of 224 for evaluation": lambda: [decode.middle(encoded.open(position), 224) for position in order],
    }


def feed(train: LargeImages, view: View, workers: int, steps: int) -> float:
    """Images/s of the feed's crops; the first batches, which wait for the workers to start, are left out."""
    ahead = Ahead(Crops(train.encoded, (view,), BATCH, 0), range(steps), workers)
    for _ in range(3 * workers):
        ahead.next()
    begun = time.perf_counter()
    for _ in range(steps - 3 * workers):
        ahead.next()
    spent = time.perf_counter() - begun
    ahead.close()
    return (steps - 3 * workers) * BATCH / spent


def rows(width: int, height: int, view: View, quality: int, repeats: int, workers: list[int]) -> Iterator[list[str]]:
    with tempfile.TemporaryDirectory() as scratch, pytest.MonkeyPatch.context() as patch:
        patch.setenv("HARNESS_CACHE", f"{scratch}/cache")
        files = photographs(width, height, quality)
        folder = Path(scratch) / large_set.NAME
        large_set.write(folder, "train", files, [0] * COUNT)
        large_set.write(folder, "validation", files[:2], [0] * 2)
        large_set.known(patch, COUNT, 2)
        train = data.load(Data(name=large_set.NAME), Path(scratch)).train
        assert isinstance(train, LargeImages)
        name = f"quality {quality}, {sum(map(len, files)) / COUNT / 1000:.0f} kB"
        rates: dict[str, list[float]] = {}
        for _ in range(repeats):
            for way, work in ways(train, view).items():
                begun = time.process_time()
                work()
                rates.setdefault(way, []).append(COUNT / (time.process_time() - begun))
            for n in workers:
                rates.setdefault(f"feed, {n} workers", []).append(feed(train, view, n, 3 * n + 16))
        base = statistics.median(rates[USUAL])
        for way, found in rates.items():
            middle = statistics.median(found)
            yield [name, way, f"{max(found):,.0f}", f"{middle:,.0f}", f"{middle / base:.2f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=500, help="width; the height is three quarters of it")
    parser.add_argument("--px", type=int, default=224)
    parser.add_argument("--crops", type=int, default=2)
    parser.add_argument("--scale", type=float, nargs=2, default=(0.08, 1.0))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--workers", type=int, nargs="*", default=[1, len(os.sched_getaffinity(0))])
    words = parser.parse_args()
    torch.set_num_threads(1)
    view = View(px=words.px, count=words.crops, scale=tuple(words.scale))
    print(f"{words.side} x {words.side * 3 // 4}, {words.crops} crops of {words.px} px, scale {words.scale}\n")  # noqa: T201
    print("| files | way | images/s | median | to torchvision |\n| --- | --- | --: | --: | --: |")  # noqa: T201
    for quality in (95, 75):
        for row in rows(words.side, words.side * 3 // 4, view, quality, words.repeats, words.workers):
            print(f"| {' | '.join(row)} |", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
