"""Views of images, made in batches on the device of the pixels, each image with parameters of its own.

Crop, flip and resize are one step: bilinear resizing with antialias is linear and separable, so each image gets one
small matrix for its rows and one for its columns, and flipping only reverses the second. The operations mean what
torchvision.transforms.v2 means by them on float images (tests/test_views.py holds each one to it), in the order
crop and flip, colour jitter, grey, blur, solarize. Parameters are drawn in `draw` and used in `apply`.

Shapes: B images, 3 channels, H x W source pixels, P = view.px.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.api import Draws
from harness.recipe import View

TRIES = 10  # torchvision's RandomResizedCrop gives up after that many boxes
DRAWN = 2 * TRIES + 16  # uniform numbers per image and view, whatever the view asks for
GREY = (0.2989, 0.587, 0.114)  # torchvision's weights of red, green and blue


@dataclass
class Params:
    """What was drawn for one view of B images.

    box: (B, 4) top, left, height, width in source pixels. flip, jitter, grey, blur, solarize: (B,) whether it is done.
    factors: (B, 4) of brightness, contrast, saturation, and the hue shift in turns. order: (B, 4) a permutation of
    those four. sigma: (B,) of the blur, pixels.
    """

    box: Tensor
    flip: Tensor
    jitter: Tensor
    factors: Tensor
    order: Tensor
    grey: Tensor
    blur: Tensor
    sigma: Tensor
    solarize: Tensor


def make_views(
    elements: tuple[Tensor, Tensor], views: tuple[View, ...], draws: Draws, mean: Tensor, std: Tensor
) -> list[Tensor]:
    """Views of pairs of images, normalised, in the recipe's order, `View.count` times each.

    elements: both images of each pair, uint8 (B, 3, H, W), on the device of `draws`; they may be one tensor. Vectors,
        (B, n), are taken as they are.
    Each view takes one block of numbers from `draws`, so a view added at the end leaves the earlier ones as they were.
    """
    made = []
    for view in views:
        pixels = elements[view.source]
        if pixels.ndim == 2:
            made += [pixels] * view.count
            continue
        B, _, H, W = pixels.shape
        for _ in range(view.count):
            made.append(normalise(apply(draw(view, B, H, W, draws), pixels, view), mean, std))
    return made


def plain(pixels: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Images as they are, uint8 (B, 3, H, W) -> normalised float32; what evaluations see. Vectors (B, n) stay."""
    if pixels.ndim == 2:
        return pixels
    return normalise(pixels.float() / 255, mean, std)


def normalise(x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """x: (B, 3, H, W); mean and std of each channel (3,) in the same units."""
    return (x - mean[:, None, None]) / std[:, None, None]


def blur_taps(px: int) -> int:
    """Odd width of the blur kernel: about a tenth of the image, 23 at 224 px and 5 at 32 px, but never under 3."""
    return max(3, 2 * round(px / 20) + 1)


# ---------------------------------------------------------------------------------------------- parameters


def draw(view: View, B: int, H: int, W: int, draws: Draws) -> Params:
    """Parameters of one view for B images of H x W pixels."""
    u = draws.uniform(B, DRAWN)
    areas, ratios, rest = u[:, :TRIES], u[:, TRIES : 2 * TRIES], u[:, 2 * TRIES :]
    strength = torch.tensor(view.jitter, device=u.device, dtype=u.dtype)
    factors = torch.empty_like(rest[:, 4:8])
    low = (1 - strength[:3]).clamp_min(0)
    factors[:, :3] = low + (1 + strength[:3] - low) * rest[:, 4:7]
    factors[:, 3] = strength[3] * (2 * rest[:, 7] - 1)
    return Params(
        box=_boxes(view, H, W, areas, ratios, rest[:, 0:2]),
        flip=rest[:, 2] < view.flip,
        jitter=rest[:, 3] < view.jitter_p,
        factors=factors,
        order=rest[:, 8:12].argsort(dim=1),
        grey=rest[:, 12] < view.grey,
        blur=rest[:, 13] < view.blur,
        sigma=view.blur_sigma[0] + (view.blur_sigma[1] - view.blur_sigma[0]) * rest[:, 14],
        solarize=rest[:, 15] < view.solarize,
    )


def _boxes(view: View, H: int, W: int, areas: Tensor, ratios: Tensor, place: Tensor) -> Tensor:
    """The first box of each row that fits, else the largest central one within the ratio: (B, 4) integers."""
    area = H * W * (view.scale[0] + (view.scale[1] - view.scale[0]) * areas)
    low, high = math.log(view.ratio[0]), math.log(view.ratio[1])
    ratio = torch.exp(low + (high - low) * ratios)
    w, h = (area * ratio).sqrt().round(), (area / ratio).sqrt().round()
    fits = (w > 0) & (w <= W) & (h > 0) & (h <= H)
    first = fits.int().argmax(dim=1, keepdim=True)
    found = fits.any(dim=1)
    central_w, central_h = min(W, round(H * view.ratio[1])), min(H, round(W / view.ratio[0]))
    w = torch.where(found, w.gather(1, first)[:, 0], central_w).long()
    h = torch.where(found, h.gather(1, first)[:, 0], central_h).long()
    top = torch.where(found, (place[:, 0] * (H - h + 1)).long(), (H - h) // 2)
    left = torch.where(found, (place[:, 1] * (W - w + 1)).long(), (W - w) // 2)
    return torch.stack([top, left, h, w], dim=1)


# ---------------------------------------------------------------------------------------------- application


def apply(params: Params, pixels: Tensor, view: View) -> Tensor:
    """One view of uint8 (B, 3, H, W) as float32 (B, 3, P, P) in [0, 1]. Costly steps touch the chosen images only."""
    x = crop(pixels, params.box, params.flip, view.px)
    if view.jitter_p:
        chosen = params.jitter.nonzero()[:, 0]
        x[chosen] = jitter(x[chosen], params.factors[chosen], params.order[chosen], hue=view.jitter[3] > 0)
    if view.grey:
        chosen = params.grey.nonzero()[:, 0]
        x[chosen] = luminance(x[chosen]).expand(-1, 3, -1, -1)
    if view.blur:
        chosen = params.blur.nonzero()[:, 0]
        x[chosen] = blur(x[chosen], params.sigma[chosen], blur_taps(view.px))
    if view.solarize:
        x = torch.where(params.solarize[:, None, None, None] & (x >= 0.5), 1 - x, x)
    return x


def crop(pixels: Tensor, box: Tensor, flip: Tensor, px: int) -> Tensor:
    """The boxes of uint8 (B, 3, H, W), resized with antialias to px, mirrored where `flip`: float32 in [0, 1]."""
    top, left, height, width = box.unbind(dim=1)
    rows = _resizing(top, height, pixels.shape[2], px)
    columns = _resizing(left, width, pixels.shape[3], px)
    columns = torch.where(flip[:, None, None], columns.flip(1), columns)
    return _two_sided(rows, columns / 255, pixels.float())


def _resizing(start: Tensor, length: Tensor, size: int, px: int) -> Tensor:
    """(B, px, size): weights of source pixels in each result pixel: a triangle as wide as the scale, at least 1."""
    scale = (length / px)[:, None, None]
    centre = start[:, None, None] + scale * (torch.arange(px, device=start.device) + 0.5)[:, None]
    source = torch.arange(size, device=start.device)
    weights = (1 - ((source + 0.5 - centre) / scale.clamp_min(1)).abs()).clamp_min(0)
    inside = (source >= start[:, None]) & (source < (start + length)[:, None])
    weights = weights * inside[:, None]
    return weights / weights.sum(dim=2, keepdim=True)


def _two_sided(rows: Tensor, columns: Tensor, x: Tensor) -> Tensor:
    """rows @ x @ columns^T for each image and channel: (B, P, H), (B, P, W), (B, 3, H, W) -> (B, 3, P, P)."""
    B, C, H, W = x.shape
    x = torch.bmm(x.reshape(B, C * H, W), columns.transpose(1, 2))
    return torch.matmul(rows[:, None], x.view(B, C, H, columns.shape[1]))


def luminance(x: Tensor) -> Tensor:
    """(B, 3, H, W) -> (B, 1, H, W)."""
    red, green, blue = x.split(1, dim=1)
    return GREY[0] * red + GREY[1] * green + GREY[2] * blue


def jitter(x: Tensor, factors: Tensor, order: Tensor, hue: bool = True) -> Tensor:
    """Brightness, contrast, saturation and hue, in each image's own order, clamped to [0, 1] after each.

    The first three are blends with black, with the mean luminance and with the luminance, so one formula does them.
    """
    for position in range(4):
        kind = order[:, position]
        factor = torch.where(kind == 3, 1.0, factors.gather(1, kind[:, None])[:, 0])[:, None, None, None]
        grey = luminance(x)
        mean = grey.mean(dim=(2, 3), keepdim=True)
        contrast, saturation = ((kind == k)[:, None, None, None] for k in (1, 2))
        other = torch.where(saturation, grey, mean * contrast)
        x = torch.lerp(other.expand_as(x), x, factor.to(x.dtype).expand_as(x)).clamp_(0, 1)
        if hue:
            chosen = (kind == 3).nonzero()[:, 0]
            x[chosen] = shift_hue(x[chosen], factors[chosen, 3])
    return x


def shift_hue(x: Tensor, turns: Tensor) -> Tensor:
    """Hue of (B, 3, H, W) turned by (B,) turns; value and chroma stay."""
    red, green, blue = x.unbind(dim=1)
    value = torch.maximum(torch.maximum(red, green), blue)  # faster than a reduction over three
    chroma = value - torch.minimum(torch.minimum(red, green), blue)
    safe = torch.where(chroma == 0, 1.0, chroma)
    sixths = torch.where(
        value == red,
        (green - blue) / safe,
        torch.where(value == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    return from_hue(sixths + 6 * turns[:, None, None].to(x.dtype), value, chroma)


def from_hue(sixths: Tensor, value: Tensor, chroma: Tensor) -> Tensor:
    """Colours of a hue in sixths of a turn, a value and a chroma (= value x saturation): (B, ...) -> (B, 3, ...)."""
    channel = torch.tensor([5.0, 3.0, 1.0], device=sixths.device, dtype=sixths.dtype)
    channel = channel.view(3, *[1] * (sixths.dim() - 1))
    k = (sixths.unsqueeze(1) + channel).remainder_(6)
    return value.unsqueeze(1) - chroma.unsqueeze(1) * torch.minimum(k, 4 - k).clamp_(0, 1)


def blur(x: Tensor, sigma: Tensor, taps: int) -> Tensor:
    """Gaussian blur of (B, 3, P, P) with (B,) standard deviations in pixels, `taps` wide, reflected at the border."""
    reach, px = taps // 2, x.shape[-1]
    distance = torch.arange(-reach, reach + 1, device=x.device, dtype=x.dtype)
    kernel = torch.softmax(-0.5 * (distance / sigma[:, None].to(x.dtype)) ** 2, dim=1)
    border = F.pad(torch.eye(px, device=x.device, dtype=x.dtype)[None], (0, 0, reach, reach), mode="reflect")[0]
    spread = border.unfold(0, px, 1).permute(0, 2, 1)  # (taps, P, P): tap t of result pixel o reads source pixel s
    smooth = (kernel @ spread.reshape(taps, -1)).view(-1, px, px)
    return _two_sided(smooth, smooth, x)
