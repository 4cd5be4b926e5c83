"""Views of images, made in batches on the device of the pixels, each image with parameters of its own.

Crop, flip and resize are one step. Boxes that are only enlarged are sampled between four pixels; otherwise bilinear
resizing with antialias, which is linear and separable, gives each image one small matrix for its rows and one for its
columns, the second reversed where it is flipped. The operations mean what torchvision.transforms.v2 means by them on
float images (tests/test_views.py holds each one to it), in the order crop and flip, colour jitter (harness/colours.py),
grey, blur, solarize.

Parameters are drawn and prepared on the CPU and sent in two transfers, so that nothing ever waits for the device.
Neighbouring views of one size are made as one stack, sorted so that images which need the same costly step stand side
by side: the last step puts them back.

Shapes: B images of a batch, N of a stack, 3 channels, H x W source pixels, P = view.px.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from itertools import groupby

import torch
import torch.nn.functional as F
from torch import Tensor

from harness import colours
from harness.api import Draws
from harness.recipe import View

TRIES = 10  # torchvision's RandomResizedCrop gives up after that many boxes
DRAWN = 2 * TRIES + 16  # uniform numbers per image and view, whatever the view asks for
TABLE = 64  # crops between sides of up to that many pixels look their matrices up in a table of all boxes
BAND = 16  # pixels blurred by one product of matrices: a larger image's matrix would be mostly zeros
PIECE = 2**21  # numbers of a stack made at a time on a CPU, so that temporaries stay in its cache


@dataclass
class Params:
    """What was drawn for N images, on the CPU.

    box: (N, 4) top, left, height, width in source pixels. flip, jitter, grey, blur, solarize: (N,) whether it is done.
    factors: (N, 4) of brightness, contrast, saturation, and the hue shift in turns. order: (N, 4) a permutation of
    those four. sigma: (N,) of the blur, pixels.
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

    def __getitem__(self, images: Tensor | slice) -> "Params":
        return Params(*(getattr(self, f.name)[images] for f in fields(self)))


def make_views(
    elements: tuple[Tensor, Tensor], views: tuple[View, ...], draws: Draws, mean: Tensor, std: Tensor
) -> list[Tensor]:
    """Views of pairs of images, normalised, in the recipe's order, `View.count` times each.

    elements: both images of each pair, uint8 (B, 3, H, W), on the device of `draws`; they may be one tensor. Vectors,
        (B, n), are taken as they are.
    Each view takes one block of numbers from `draws`, so a view added at the end leaves the earlier ones as they were.
    """
    each = [view for view in views for _ in range(view.count)]
    return _stacks([elements[view.source] for view in each], each, draws, mean, std, cropped=False)


def finish_views(crops: list[Tensor], views: tuple[View, ...], draws: Draws, mean: Tensor, std: Tensor) -> list[Tensor]:
    """As `make_views`, of images cropped and resized already: uint8 (B, 3, P, P), one batch per view and count.

    Takes the same random numbers; what they say of the box is for whoever makes the crops (`boxes`).
    """
    return _stacks(crops, [view for view in views for _ in range(view.count)], draws, mean, std, cropped=True)


def _stacks(
    images: Sequence[Tensor], views: Sequence[View], draws: Draws, mean: Tensor, std: Tensor, cropped: bool
) -> list[Tensor]:
    """One view of each batch of images; neighbours of one size are made together."""
    made: list[Tensor] = []
    for (shape, px), group in groupby(zip(images, views, strict=True), lambda pair: (pair[0].shape, pair[1].px)):
        batches, looks = zip(*group, strict=True)
        if len(shape) == 2:
            made += batches
            continue
        B, _, H, W = shape
        numbers = [draws.uniform(B, DRAWN, on_cpu=True) for _ in looks]
        alike = groupby(zip(looks, numbers, strict=True), _settings)
        drawn = [draw(view, torch.cat([u for _, u in same]), H, W) for view, same in alike]
        params = Params(*(torch.cat([getattr(one, f.name) for one in drawn]) for f in fields(Params)))
        distinct = list({id(batch): batch for batch in batches}.values())  # two views of one batch share its pixels
        starts = {id(batch): B * i for i, batch in enumerate(distinct)}
        source = torch.cat([torch.arange(starts[id(batch)], starts[id(batch)] + B) for batch in batches])
        pixels = torch.cat(distinct) if len(distinct) > 1 else distinct[0]
        out = torch.empty(len(source), 3, px, px, device=pixels.device)
        piece = max(1, PIECE // (3 * px * px)) if pixels.device.type == "cpu" else len(source)
        for start in range(0, len(source), piece):
            part = slice(start, start + piece)
            normalise(apply(params[part], pixels, source[part], px, cropped, out=out[part]), mean, std)
        made += [out[start : start + B] for start in range(0, len(source), B)]
    return made


def _settings(drawn: tuple[View, Tensor]) -> View:
    """What views must share for their parameters to be made at once."""
    return replace(drawn[0], source=0, count=1, role="")


def plain(pixels: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Images as they are, uint8 (B, 3, H, W) -> normalised float32; what evaluations see. Vectors (B, n) stay."""
    if pixels.ndim == 2:
        return pixels
    return normalise(pixels.float().div_(255), mean, std)


def normalise(x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """x: (B, 3, H, W), changed in place; mean and std of each channel (3,) in the same units."""
    return x.sub_(mean[:, None, None]).div_(std[:, None, None])


def blur_taps(px: int) -> int:
    """Odd width of the blur kernel: about a tenth of the image, 23 at 224 px and 5 at 32 px, but never under 3."""
    return max(3, 2 * round(px / 20) + 1)


# ---------------------------------------------------------------------------------------------- parameters


def draw(view: View, u: Tensor, H: int, W: int) -> Params:
    """Parameters of one view for B images of H x W pixels, from numbers u (B, DRAWN), on the CPU."""
    rest = u[:, 2 * TRIES :]
    strength = torch.tensor(view.jitter, dtype=u.dtype)
    factors = torch.empty_like(rest[:, 4:8])
    low = (1 - strength[:3]).clamp_min(0)
    factors[:, :3] = low + (1 + strength[:3] - low) * rest[:, 4:7]
    factors[:, 3] = strength[3] * (2 * rest[:, 7] - 1)
    return Params(
        box=boxes(view, u, H, W),
        flip=rest[:, 2] < view.flip,
        jitter=rest[:, 3] < view.jitter_p,
        factors=factors,
        order=rest[:, 8:12].argsort(dim=1),
        grey=rest[:, 12] < view.grey,
        blur=rest[:, 13] < view.blur,
        sigma=view.blur_sigma[0] + (view.blur_sigma[1] - view.blur_sigma[0]) * rest[:, 14],
        solarize=rest[:, 15] < view.solarize,
    )


def boxes(view: View, u: Tensor, H: int | Tensor, W: int | Tensor) -> Tensor:
    """Where a view crops B images, whose sides are H and W or (B,) each its own: (B, 4) top, left, height, width.

    u: (B, DRAWN) numbers of the view. The first of `TRIES` boxes that fits, else the largest central one within the
    ratio.
    """
    H, W = (torch.as_tensor(side, dtype=u.dtype).expand(len(u)) for side in (H, W))
    areas, ratios, place = u[:, :TRIES], u[:, TRIES : 2 * TRIES], u[:, 2 * TRIES : 2 * TRIES + 2]
    area = (H * W)[:, None] * (view.scale[0] + (view.scale[1] - view.scale[0]) * areas)
    low, high = math.log(view.ratio[0]), math.log(view.ratio[1])
    ratio = torch.exp(low + (high - low) * ratios)
    w, h = (area * ratio).sqrt().round(), (area / ratio).sqrt().round()
    fits = (w > 0) & (w <= W[:, None]) & (h > 0) & (h <= H[:, None])
    first = fits.int().argmax(dim=1, keepdim=True)
    found = fits.any(dim=1)
    w = torch.where(found, w.gather(1, first)[:, 0], torch.minimum(W, (H.double() * view.ratio[1]).round().to(H)))
    h = torch.where(found, h.gather(1, first)[:, 0], torch.minimum(H, (W.double() / view.ratio[0]).round().to(W)))
    down, right = H - h, W - w  # the last places; a number next to 1 could be rounded beyond them
    top = torch.where(found, torch.minimum(place[:, 0] * (down + 1), down), down / 2)
    left = torch.where(found, torch.minimum(place[:, 1] * (right + 1), right), right / 2)
    return torch.stack([top, left, h, w], dim=1).long()


def _send(device: torch.device, *tensors: Tensor) -> Sequence[Tensor]:
    """Tensors of one type to the device, in one transfer that nothing waits for."""
    if device.type == "cpu":
        return tensors
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    flat = (flat.pin_memory() if device.type == "cuda" else flat).to(device, non_blocking=True)
    parts = flat.split([tensor.numel() for tensor in tensors])
    return [part.view(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]


# ---------------------------------------------------------------------------------------------- application


def apply(
    params: Params, pixels: Tensor, source: Tensor, px: int, cropped: bool = False, out: Tensor | None = None
) -> Tensor:
    """Views of N images, those at `source` (N,) of uint8 (M, 3, H, W): float32 (N, 3, P, P) in [0, 1].

    cropped: the images are P x P already. Costly steps touch the chosen images only.
    """
    order, jitter = colours.plan(params.jitter, params.factors, params.order)
    params = params[order]
    chosen = [getattr(params, step).nonzero()[:, 0] for step in ("flip", "grey", "blur", "solarize")]
    chosen += by_size(params.box, px)
    device = pixels.device
    source, back, box, mirrored, flip, grey, blurred, solar, *sizes = _send(
        device, source[order], order.argsort(), params.box, params.flip.long(), *chosen
    )
    factor, share, turns, sigma = _send(device, jitter.factor, jitter.share, jitter.turns, params.sigma[chosen[2]])

    x = pixels.index_select(0, source)
    if cropped:
        x.index_copy_(0, flip, x.index_select(0, flip).flip(3))
        x = x.float().div_(255)
    else:
        x = crop(x, box, mirrored, px, *sizes)
    colours.jitter(x, replace(jitter, factor=factor, share=share, turns=turns))
    if len(grey):
        x.index_copy_(0, grey, colours.luminance(x.index_select(0, grey)).expand(-1, 3, -1, -1))
    if len(blurred):
        x.index_copy_(0, blurred, blur(x.index_select(0, blurred), sigma, blur_taps(px)))
    if len(solar):
        bright = x.index_select(0, solar)
        x.index_copy_(0, solar, torch.minimum(bright, 1 - bright))  # what is below one half is the smaller already
    return torch.index_select(x, 0, back, out=out)


def by_size(box: Tensor, px: int) -> tuple[Tensor, Tensor]:
    """Which of the boxes (N, 4), on the CPU, have a side longer than px and so are shrunk, and which have none."""
    shrunk = (box[:, 2:] > px).any(dim=1)
    return shrunk.nonzero()[:, 0], (~shrunk).nonzero()[:, 0]


def crop(pixels: Tensor, box: Tensor, flip: Tensor, px: int, shrunk: Tensor, others: Tensor) -> Tensor:
    """The boxes of uint8 (N, 3, H, W), resized with antialias, mirrored where flip (N,) is 1: float32 of [0, 1].

    shrunk, others: see `by_size`.
    """
    parts = [(at, resized) for at, resized in ((shrunk, _shrunk), (others, _magnified)) if len(at)]
    if len(parts) == 1:
        return parts[0][1](pixels, box, flip, px)
    made = torch.empty(len(pixels), 3, px, px, device=pixels.device)
    for at, resized in parts:
        made.index_copy_(0, at, resized(pixels.index_select(0, at), box[at], flip[at], px))
    return made


def _magnified(pixels: Tensor, box: Tensor, flip: Tensor, px: int) -> Tensor:
    """Each pixel of the result lies between two by two of the source; those of the edge are repeated."""
    (top, left, height, width), (H, W) = box.unbind(dim=1), pixels.shape[2:]
    y = _centres(top, height, torch.zeros_like(flip), px)
    x = _centres(left, width, flip, px)
    y = y.clamp(top[:, None] + 0.5, (top + height)[:, None] - 0.5).mul_(2 / H).sub_(1)
    x = x.clamp(left[:, None] + 0.5, (left + width)[:, None] - 0.5).mul_(2 / W).sub_(1)
    grid = torch.stack([x[:, None].expand(-1, px, -1), y[:, :, None].expand(-1, -1, px)], dim=3)
    return F.grid_sample(pixels.float().div_(255), grid, padding_mode="border", align_corners=False)


def _shrunk(pixels: Tensor, box: Tensor, flip: Tensor, px: int) -> Tensor:
    """Each pixel of the result is a weighted mean of as many of the source as it covers."""
    top, left, height, width = box.unbind(dim=1)
    rows = _resizing(top, height, torch.zeros_like(flip), pixels.shape[2], px)
    columns = _resizing(left, width, flip, pixels.shape[3], px)
    return _two_sided(rows, columns.div_(255), pixels.float())


def _resizing(start: Tensor, length: Tensor, flip: Tensor, size: int, px: int) -> Tensor:
    """(N, px, size): weights of source pixels in each result pixel, these in reverse where `flip`."""
    if max(size, px) > TABLE:
        return _weights(start, length, flip, size, px)
    table = _table(size, px, start.device)
    at = (length - 1) * (size + 1) - length * (length - 1) // 2 + start  # boxes of one length stand together
    return table.index_select(0, flip * (len(table) // 2) + at)


@lru_cache(maxsize=16)
def _table(size: int, px: int, device: torch.device) -> Tensor:
    """`_weights` of each length and start within `size`, not mirrored, then mirrored: (size * (size + 1), px, size)."""
    length = torch.cat([torch.full((size + 1 - n,), n, device=device) for n in range(1, size + 1)])
    start = torch.cat([torch.arange(size + 1 - n, device=device) for n in range(1, size + 1)])
    return torch.cat([_weights(start, length, torch.full_like(start, flip), size, px) for flip in (0, 1)])


def _weights(start: Tensor, length: Tensor, flip: Tensor, size: int, px: int) -> Tensor:
    """As `_resizing`, computed: a triangle as wide as the scale, at least 1."""
    scale = (length / px)[:, None, None]
    centre = _centres(start, length, flip, px)[..., None]
    source = torch.arange(size, device=start.device)
    weights = (1 - ((source + 0.5 - centre) / scale.clamp_min(1)).abs_()).clamp_min_(0)
    inside = (source >= start[:, None]) & (source < (start + length)[:, None])
    weights.mul_(inside[:, None])
    return weights.div_(weights.sum(dim=2, keepdim=True))


def _centres(start: Tensor, length: Tensor, flip: Tensor, px: int) -> Tensor:
    """(N, px): where in the source the middle of each result pixel lies."""
    result = flip[:, None] * (px - 1) + (1 - 2 * flip[:, None]) * torch.arange(px, device=start.device)
    return start[:, None] + (length / px)[:, None] * (result + 0.5)


def _two_sided(rows: Tensor, columns: Tensor, x: Tensor) -> Tensor:
    """rows @ x @ columns^T for each image and channel: (N, P, H), (N, P, W), (N, 3, H, W) -> (N, 3, P, P)."""
    N, C, H, W = x.shape
    x = torch.bmm(x.reshape(N, C * H, W), columns.transpose(1, 2))
    return torch.matmul(rows[:, None], x.view(N, C, H, columns.shape[1]))


def blur(x: Tensor, sigma: Tensor, taps: int) -> Tensor:
    """Gaussian blur of (N, 3, P, P) with (N,) standard deviations in pixels, `taps` wide, reflected at the border."""
    reach, px = taps // 2, x.shape[-1]
    distance = torch.arange(-reach, reach + 1, device=x.device, dtype=x.dtype)
    kernel = torch.softmax(-0.5 * (distance / sigma[:, None].to(x.dtype)) ** 2, dim=1)
    width = min(px, BAND)
    padded = F.pad(kernel, (0, width)).repeat(1, width)  # each row of the band is the one above, moved by one
    band = padded[:, : width * (width + taps - 1)].view(-1, width, width + taps - 1)
    x = F.pad(x, (reach, reach, reach, reach), mode="reflect")
    x = torch.cat([torch.bmm(part.flatten(1, 2), some.transpose(1, 2)) for part, some in _strips(x, band, 3)], dim=2)
    x = x.view(-1, 3, px + 2 * reach, px)
    return torch.cat([torch.matmul(some[:, None], part) for part, some in _strips(x, band, 2)], dim=2)


def _strips(x: Tensor, band: Tensor, dim: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Parts of x along `dim`, each as long as the band reads, one after the other, and the band itself.

    band: (N, width, width + taps - 1), of which a last part that is shorter takes the first rows and columns.
    """
    margin = band.shape[2] - band.shape[1]
    for start in range(0, x.shape[dim] - margin, band.shape[1]):
        length = min(band.shape[1], x.shape[dim] - margin - start)
        yield x.narrow(dim, start, length + margin), band[:, :length, : length + margin]
