"""Views a second by this module and by others, of the same views, in turn: a Markdown table.

    python tests/benchmarks/views.py                     # 32 px, two threads
    python tests/benchmarks/views.py --px 32 96 224 --threads 2 --rounds 7

Of SimCLR's views on CIFAR-10 (`_bases.CIFAR_SYMMETRIC`): crop, flip, jitter, grey, blur, normalisation, two views of
each image; 224 px are cropped from 256. kornia and lightly are left out where they are not installed; neither is among
this project's dependencies. *Plain batched* is what one writes in half a page: affine_grid and grid_sample without
antialias, one colour matrix in YIQ for all of the jitter, a blur of the chosen images.
"""

import argparse
import importlib
import importlib.util
import math
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

import harness  # noqa: F401  (first: it makes torchvision importable where its compiled part does not load)

# isort: split
import torchvision.transforms.v2 as v2

from harness import allocator
from harness.api import Draws
from harness.recipe import View
from harness.views import blur_taps, make_views
from sweeps import _bases

MEAN, STD = torch.tensor([0.4914, 0.4822, 0.4465]), torch.tensor([0.2470, 0.2435, 0.2616])
Maker = Callable[[Tensor, View, int], Any]  # uint8 (B, 3, H, W), a view, a seed


def by_torchvision(view: View, mean: Tensor, std: Tensor) -> v2.Compose:
    """The view of one uint8 image (3, H, W) or PIL image."""
    return v2.Compose(
        [
            v2.RandomResizedCrop(view.px, scale=view.scale, ratio=view.ratio, antialias=True),
            v2.RandomHorizontalFlip(view.flip),
            v2.RandomApply([v2.ColorJitter(*view.jitter)], view.jitter_p),
            v2.RandomGrayscale(view.grey),
            v2.RandomApply([v2.GaussianBlur(blur_taps(view.px), view.blur_sigma)], view.blur),
            v2.RandomSolarize(128, view.solarize),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(mean.tolist(), std.tolist()),
        ]
    )


def this_module(pixels: Tensor, view: View, seed: int) -> list[Tensor]:
    draws = Draws(torch.Generator().manual_seed(seed))
    return make_views((pixels, pixels), (view, replace(view, source=1)), draws, MEAN, STD)


def torchvision_tensors(pixels: Tensor, view: View, seed: int) -> list[Tensor]:
    transform = by_torchvision(view, MEAN, STD)
    return [torch.stack([transform(image) for image in pixels]) for _ in range(2)]


def torchvision_pil(pixels: Tensor, view: View, seed: int) -> list[Tensor]:
    transform = by_torchvision(view, MEAN, STD)
    images = [v2.functional.to_pil_image(image) for image in pixels]
    return [torch.stack([transform(image) for image in images]) for _ in range(2)]


def kornia_batched(pixels: Tensor, view: View, seed: int) -> list[Tensor]:
    K: Any = importlib.import_module("kornia.augmentation")
    taps = blur_taps(view.px)
    transform = K.AugmentationSequential(
        K.RandomResizedCrop((view.px, view.px), scale=view.scale, ratio=view.ratio),
        K.RandomHorizontalFlip(view.flip),
        K.ColorJitter(*view.jitter, p=view.jitter_p),
        K.RandomGrayscale(p=view.grey),
        K.RandomGaussianBlur((taps, taps), view.blur_sigma, p=view.blur),
        K.Normalize(MEAN, STD),
    )
    x = pixels.float() / 255
    return [transform(x) for _ in range(2)]


def lightlys_simclr(pixels: Tensor, view: View, seed: int) -> list[list[Tensor]]:
    transform = importlib.import_module("lightly.transforms").SimCLRTransform(
        input_size=view.px, cj_prob=view.jitter_p, cj_strength=1.0, cj_bright=view.jitter[0],
        cj_contrast=view.jitter[1], cj_sat=view.jitter[2], cj_hue=view.jitter[3], min_scale=view.scale[0],
        random_gray_scale=view.grey, gaussian_blur=view.blur, sigmas=view.blur_sigma, hf_prob=view.flip,
        normalize={"mean": MEAN.tolist(), "std": STD.tolist()},
    )  # fmt: skip
    return [transform(v2.functional.to_pil_image(image)) for image in pixels]


YIQ = torch.tensor([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])


def plain_batched(pixels: Tensor, view: View, seed: int) -> list[Tensor]:
    return [one_plain(pixels.float() / 255, view) for _ in range(2)]


def one_plain(x: Tensor, view: View) -> Tensor:
    B, px = len(x), view.px
    area = torch.empty(B).uniform_(*view.scale)
    ratio = torch.exp(torch.empty(B).uniform_(math.log(view.ratio[0]), math.log(view.ratio[1])))
    w, h = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
    theta = torch.zeros(B, 2, 3)
    theta[:, 0, 0] = torch.where(torch.rand(B) < view.flip, -w, w)
    theta[:, 1, 1] = h
    theta[:, 0, 2], theta[:, 1, 2] = (2 * torch.rand(B) - 1) * (1 - w), (2 * torch.rand(B) - 1) * (1 - h)
    x = F.grid_sample(x, F.affine_grid(theta, [B, 3, px, px], align_corners=False), align_corners=False)

    jitter = (torch.rand(B) < view.jitter_p).float()
    brightness, contrast, saturation = (1 + jitter * s * (2 * torch.rand(B) - 1) for s in view.jitter[:3])
    angle = 2 * math.pi * view.jitter[3] * jitter * (2 * torch.rand(B) - 1)
    saturation = torch.where(torch.rand(B) < view.grey, 0.0, saturation)
    turn = torch.zeros(B, 3, 3)
    turn[:, 0, 0] = 1
    turn[:, 1, 1] = turn[:, 2, 2] = saturation * angle.cos()
    turn[:, 2, 1] = saturation * angle.sin()
    turn[:, 1, 2] = -turn[:, 2, 1]
    colours = (brightness * contrast)[:, None, None] * (torch.linalg.inv(YIQ) @ turn @ YIQ)
    mean = (x.mean(dim=(2, 3)) @ YIQ[0])[:, None, None]
    x = torch.baddbmm((1 - contrast)[:, None, None] * mean, colours, x.flatten(2)).clamp_(0, 1).view(B, 3, px, px)

    chosen = (torch.rand(B) < view.blur).nonzero()[:, 0]
    taps, n = blur_taps(px), len(chosen)
    sigma = torch.empty(n, 1).uniform_(*view.blur_sigma)
    kernel = torch.softmax(-0.5 * (torch.arange(-(taps // 2), taps // 2 + 1) / sigma) ** 2, dim=1)
    kernel = kernel.repeat_interleave(3, dim=0)
    some = F.pad(x[chosen], [taps // 2] * 4, mode="reflect").view(1, 3 * n, px + taps - 1, -1)
    some = F.conv2d(some, kernel.view(3 * n, 1, 1, taps), groups=3 * n)
    x[chosen] = F.conv2d(some, kernel.view(3 * n, 1, taps, 1), groups=3 * n).view(n, 3, px, px)
    return (x - MEAN[:, None, None]) / STD[:, None, None]


MAKERS: dict[str, tuple[Maker, str, int]] = {  # the maker, the library that it needs, images it gets for each of ours
    "this module": (this_module, "torch", 1),
    "plain batched": (plain_batched, "torch", 1),
    "kornia, batched": (kornia_batched, "kornia", 1),
    "torchvision v2, tensors one by one": (torchvision_tensors, "torchvision", 8),
    "torchvision v2, PIL images one by one": (torchvision_pil, "PIL", 8),
    "lightly, SimCLRTransform": (lightlys_simclr, "lightly", 8),
}


def table(px: int, rounds: int, batch: int) -> str:
    size = 256 if px == 224 else px
    view = replace(_bases.CIFAR_SYMMETRIC[0], px=px)
    pixels = torch.randint(0, 256, (batch, 3, size, size), dtype=torch.uint8)
    rates: dict[str, list[float]] = {
        name: [] for name, (_, needs, _) in MAKERS.items() if importlib.util.find_spec(needs)
    }
    for number in range(rounds + 1):  # the first round warms up
        for name, found in rates.items():
            make, _, fewer = MAKERS[name]
            some = pixels[: max(1, batch // fewer)]
            repeats = 8 if fewer == 1 and px <= 64 else 1
            start = time.perf_counter()
            for repeat in range(repeats):
                make(some, view, number * repeats + repeat)
            if number:
                found.append(2 * repeats * len(some) / (time.perf_counter() - start))
    lines = [f"| {px} px of {size}, batches of {batch} | views/s, median | range | this module is times as fast |"]
    lines.append("| --- | --: | --: | --: |")
    for name, found in rates.items():
        ratio = statistics.median(a / b for a, b in zip(rates["this module"], found, strict=True))
        lines.append(
            f"| {name} | {statistics.median(found):,.0f} | {min(found):,.0f} to {max(found):,.0f} | {ratio:.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--px", type=int, nargs="+", default=[32])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    allocator.keep()
    for px in options.px:
        print(table(px, options.rounds, batch=max(16, 256 * 32**2 // px**2)), "\n", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
