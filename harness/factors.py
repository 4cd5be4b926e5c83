"""Coloured shapes whose factors are known exactly: rendered, not read.

An image is a point of the unit cube, one coordinate per latent of `LATENTS`, uniform and independent. No shape has a
rotational symmetry, so every image tells its angle over the whole circle, and every latent can be read off the pixels.
Pairs by `change` follow 3DIdent's rule in AdaSSL's code: each latent is drawn anew with probability 0.2, but the
second image is rendered at exactly the changed latents instead of looked up among stored ones.

Shapes: B images, L latents, F factors.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from harness.api import Draws
from harness.colours import from_hue

LATENTS = ("x", "y", "size", "angle", "hue", "background", "shape")
FACTORS = ("x", "y", "size", "angle_cos", "angle_sin", "hue_cos", "hue_sin", "background")
CHANGE = 0.2  # probability that a latent is drawn anew, 3DIdent in AdaSSL's code
REACH = 0.4  # largest offset of the centre; with the largest size the shape just stays inside [-1, 1]
SIZES = (0.3, 0.6)  # radius of the circle around the shape; the image is 2 wide
BACKGROUNDS = (0.0, 0.6)  # grey level
SATURATION = 0.9
CHUNK = 512  # images rendered at a time, so that temporaries stay in cache


def _disc(x: Tensor, y: Tensor, cx: float, cy: float, radius: float) -> Tensor:
    return torch.hypot(x - cx, y - cy) - radius


def _box(x: Tensor, y: Tensor, left: float, right: float, bottom: float, top: float) -> Tensor:
    across = (x - (left + right) / 2).abs_() - (right - left) / 2
    return torch.maximum(across, (y - (bottom + top) / 2).abs_() - (top - bottom) / 2)


def _half_disc(x: Tensor, y: Tensor) -> Tensor:
    return torch.maximum(_disc(x, y, 0, -0.39, 0.92), -0.39 - y)


def _triangle(x: Tensor, y: Tensor) -> Tensor:
    """Tip at (0, 1), base from (-0.6, -0.5) to (0.6, -0.5)."""
    norm = math.hypot(1.5, 0.6)
    return torch.maximum((1.5 / norm) * x.abs() + (0.6 / norm) * (y - 1), -0.5 - y)


def _corner(x: Tensor, y: Tensor) -> Tensor:
    return torch.minimum(_box(x, y, -0.6, -0.15, -0.8, 0.8), _box(x, y, -0.6, 0.6, -0.8, -0.35))


def _tee(x: Tensor, y: Tensor) -> Tensor:
    return torch.minimum(_box(x, y, -0.65, 0.65, 0.35, 0.75), _box(x, y, -0.2, 0.2, -0.85, 0.75))


def _crescent(x: Tensor, y: Tensor) -> Tensor:
    return torch.maximum(_disc(x, y, 0, 0, 0.9), -_disc(x, y, 0.45, 0, 0.75))


def _pin(x: Tensor, y: Tensor) -> Tensor:
    return torch.minimum(_disc(x, y, 0, 0.5, 0.45), _box(x, y, -0.15, 0.15, -0.95, 0.5))


# signed distances to shapes inside the unit disc, exact enough beside the edge, where antialiasing looks
SHAPES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "half_disc": _half_disc,
    "triangle": _triangle,
    "corner": _corner,
    "tee": _tee,
    "crescent": _crescent,
    "pin": _pin,
}


def shape_of(latents: Tensor) -> Tensor:
    """(B, L) -> (B,) position in `SHAPES`."""
    return (latents[:, 6] * len(SHAPES)).long()


def factors_of(latents: Tensor) -> Tensor:
    """(B, L) -> (B, F) in [-1, 1], named by `FACTORS`; angle and hue as cosine and sine, since they are circular."""
    linear = 2 * latents - 1
    turns = 2 * math.pi * latents[:, 3:5]
    circular = torch.stack([turns.cos(), turns.sin()], dim=2).flatten(1)
    return torch.cat([linear[:, :3], circular, linear[:, 5:6]], dim=1)


def change(latents: Tensor, draws: Draws) -> Tensor:
    """The latents of the second images: each of (B, L) drawn anew with probability `CHANGE`, the others kept."""
    B, L = latents.shape
    u = draws.uniform(B, 2 * L).to(latents.dtype)
    return torch.where(u[:, :L] < CHANGE, u[:, L:], latents)


def render(latents: Tensor, px: int) -> Tensor:
    """(B, L) in [0, 1) -> uint8 (B, 3, px, px), edges antialiased, on the device of the latents."""
    images = torch.empty(len(latents), 3, px, px, dtype=torch.uint8, device=latents.device)
    for start in range(0, len(latents), CHUNK):
        part = latents[start : start + CHUNK]
        shapes = shape_of(part)
        for number, distance in enumerate(SHAPES.values()):
            chosen = (shapes == number).nonzero()[:, 0]
            images[start + chosen] = _render(part[chosen], distance, px)
    return images


def _render(latents: Tensor, distance: Callable[[Tensor, Tensor], Tensor], px: int) -> Tensor:
    x, y, size, angle, hue, background = (latents[:, i, None, None] for i in range(6))
    size = SIZES[0] + (SIZES[1] - SIZES[0]) * size
    turn = 2 * math.pi * angle
    grid = (torch.arange(px, device=latents.device, dtype=latents.dtype) + 0.5) * (2 / px) - 1
    across, down = (grid - REACH * (2 * x - 1)) / size, (grid[:, None] - REACH * (2 * y - 1)) / size
    cos, sin = turn.cos(), turn.sin()
    edge = distance(cos * across + sin * down, cos * down - sin * across)
    cover = (0.5 - edge * (size * px / 2)).clamp_(0, 1)  # share of the pixel inside, from the distance in pixels
    value = torch.ones_like(hue[:, 0, 0])
    ink = from_hue(6 * hue[:, 0, 0], value, SATURATION * value)[:, :, None, None]
    paper = (BACKGROUNDS[0] + (BACKGROUNDS[1] - BACKGROUNDS[0]) * background)[:, None]
    return (255 * (paper + cover[:, None] * (ink - paper)) + 0.5).to(torch.uint8)
