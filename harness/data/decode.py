"""Single images from JPEG or PNG bytes: boxes of them resized to views, or their middle as evaluations see it.

Boxes are resized as torchvision.transforms.v2 resizes uint8 tensors (bilinear with antialias), which is faster than
Pillow's own resizing (tests/benchmarks/decoding.py). Where every box is at least twice as large as its view, a JPEG is
decoded at 1/2, 1/4 or 1/8 of its size (libjpeg's scaled DCT, Pillow's `draft`), never so small that a box would have to
be enlarged.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

SHRINKS = (8, 4, 2)  # what `draft` can divide both sides by
MARGIN = 8 / 7  # the short side is 256 for a middle of 224: the usual evaluation since AlexNet's successors


def crops(image: Any, boxes: Sequence[Sequence[int]], sides: Sequence[int]) -> list[Tensor]:
    """Each box resized to a square of its side: uint8 (px, px, 3). The image is decoded once.

    image: of PIL, opened, not decoded. boxes: top, left, height, width in its pixels.
    """
    shrink = _shrink(image, min(min(box[2:]) // px for box, px in zip(boxes, sides, strict=True)))
    pixels = _pixels(image)
    made = []
    for (top, left, height, width), px in zip(boxes, sides, strict=True):
        rows, columns = _part(top, height, shrink), _part(left, width, shrink)
        made.append(_resized(pixels[rows, columns], px, px))
    return made


def middle(image: Any, px: int) -> Tensor:
    """The image with a short side of 8/7 px, of which the middle square: uint8 (px, px, 3)."""
    (W, H), short = image.size, round(MARGIN * px)
    small = min(W, H)
    _shrink(image, small // short)
    h, w = int(short * H / small), int(short * W / small)  # as torchvision's Resize rounds
    top, left = round((h - px) / 2), round((w - px) / 2)  # and its CenterCrop
    return _resized(_pixels(image), h, w)[top : top + px, left : left + px]


def _shrink(image: Any, room: int) -> int:
    """Decode the image smaller, by no more than `room`. Returns what its sides were divided by."""
    shrink = next((by for by in SHRINKS if by <= room), 1)
    if shrink == 1 or image.draft(None, (image.width // shrink, image.height // shrink)) is None:  # not a JPEG
        return 1
    return shrink


def _part(start: int, length: int, shrink: int) -> slice:
    """Where a side of a box lies in the smaller image. Half-integers go up, so that no length shrinks further."""
    return slice((2 * start + shrink) // (2 * shrink), (2 * (start + length) + shrink) // (2 * shrink))


def _pixels(image: Any) -> Tensor:
    """Decoded, as RGB: uint8 (H, W, 3)."""
    if image.mode == "P":  # a palette with transparency; Pillow warns of the direct way
        image = image.convert("RGBA")
    return torch.from_numpy(np.array(image if image.mode == "RGB" else image.convert("RGB")))


def _resized(pixels: Tensor, h: int, w: int) -> Tensor:
    """uint8 (H, W, 3) -> (h, w, 3). In this order of memory torch has a vectorised kernel."""
    x = F.interpolate(pixels.permute(2, 0, 1)[None], (h, w), mode="bilinear", antialias=True)
    return x[0].permute(1, 2, 0)
