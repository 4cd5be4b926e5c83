"""Colours of images in batches: jitter as torchvision.transforms.v2 means it, each image with parameters of its own.

Planned on the CPU (`plan`) and done in place on the device of the pixels (`jitter`), where nothing waits, as it is
known beforehand which images need a costly step. Shapes: N images, the first J of them jittered; P x P pixels.
"""

from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

GREY = (0.2989, 0.587, 0.114)  # torchvision's weights of red, green and blue
CONTRAST, SATURATION, HUE = 1, 2, 3  # places in (brightness, contrast, saturation, hue)
TINY = 1e-12  # a chroma that nothing is divided by below


@dataclass
class Jitter:
    """The colour jitter of J images, sorted so that those whose hue or saturation changes at one step are neighbours.

    Brightness, contrast and saturation are blends with black, with the mean luminance and with the luminance.
    factor: (steps, J) of each. share: (steps, J) of the mean luminance to add, (0, J) without contrast. turns: (J,) of
    the hue. hues: for 0 ... steps other steps before, the images whose hue is turned then. saturations: for each step,
    the images whose saturation changes.
    """

    factor: Tensor
    share: Tensor
    turns: Tensor
    hues: list[slice]
    saturations: list[list[slice]]


def plan(chosen: Tensor, factors: Tensor, order: Tensor) -> tuple[Tensor, Jitter]:
    """A sequence of the N images, in which the J jittered ones come first, and their jitter.

    chosen: (N,) which. factors: (N, 4) of brightness, contrast, saturation, and the hue shift in turns. order: (N, 4)
    a permutation of those four. All on the CPU. What changes no image, as its strength is 0, is no step.
    """
    factors = factors.float()
    changes = (factors != torch.tensor([1.0, 1.0, 1.0, 0.0])) & chosen[:, None]
    found = [kind for kind in range(HUE) if changes[:, kind].any()]
    kinds, steps = torch.tensor(found, dtype=torch.long), len(found)
    place = order.argsort(dim=1)  # of each kind, its position
    before = (place[:, kinds, None] < place[:, None, [SATURATION, HUE]]).sum(dim=1)  # steps, of the two
    hue = torch.where(changes[:, HUE], before[:, 1], torch.where(chosen, steps + 1, steps + 2))
    saturation = before[:, 0].clamp_max(max(0, steps - 1))
    width = max(1, steps)
    cell = hue * width + torch.where(hue % 2 == 0, saturation, width - 1 - saturation)  # to and fro: more neighbours
    sequence = cell.argsort(stable=True)
    ends = list(accumulate(cell.bincount(minlength=(steps + 3) * width).tolist(), initial=0))
    hues = [slice(ends[n * width], ends[(n + 1) * width]) for n in range(steps + 1)]
    saturations: list[list[slice]] = [[] for _ in range(steps)]
    for step, parts in enumerate(saturations if SATURATION in found else []):
        for n in range(steps + 2):
            at = n * width + (step if n % 2 == 0 else width - 1 - step)
            if parts and parts[-1].stop == ends[at]:
                parts[-1] = slice(parts[-1].start, ends[at + 1])
            else:
                parts.append(slice(ends[at], ends[at + 1]))

    first = sequence[: ends[(steps + 2) * width]]
    kind = kinds[place[first][:, kinds].argsort(dim=1)]
    factor = factors[first].gather(1, kind)
    share = (1 - factor) * (kind == CONTRAST) if CONTRAST in found else factor[:, :0]
    return sequence, Jitter(factor.t(), share.t(), factors[first, HUE], hues, saturations)


def luminance(x: Tensor) -> Tensor:
    """(N, 3, H, W) -> (N, 1, H, W)."""
    red, green, blue = x.split(1, dim=1)
    return (GREY[0] * red).add_(green, alpha=GREY[1]).add_(blue, alpha=GREY[2])


def jitter(x: Tensor, planned: Jitter) -> None:
    """Jitters the first J of (N, 3, P, P) in place, clamping to [0, 1] after each step."""
    x = x[: len(planned.turns)]
    for step, hue in enumerate(planned.hues):
        if hue.start < hue.stop:
            shift_hue(x[hue], planned.turns[hue])
        if step < len(planned.factor):
            factor = planned.factor[step, :, None, None, None]
            greys = [(x[part], luminance(x[part]).mul_(1 - factor[part])) for part in planned.saturations[step]]
            if len(planned.share):
                mean = luminance(x.mean(dim=(2, 3), keepdim=True))
                x.mul_(factor).add_(planned.share[step, :, None, None, None] * mean)
            else:
                x.mul_(factor)
            for part, grey in greys:
                part.add_(grey)
            x.clamp_(0, 1)


def shift_hue(x: Tensor, turns: Tensor) -> Tensor:
    """Hue of (N, 3, H, W) turned by (N,) turns, in place; value and chroma stay.

    One formula of the hue instead of three, the idea of S. Hocevar's branchless conversion (lolengine.net, 2013): with
    the channels ordered by size, the middle one says where between two corners of the hexagon.
    """
    red, green, blue = x.unbind(dim=1)
    value, low = torch.maximum(green, blue), torch.minimum(green, blue)
    beyond = torch.lt(red, value, out=torch.empty_like(value))  # 1 where red is not the largest
    side = green - blue
    middle = torch.minimum(red, value)
    value = torch.maximum(red, value, out=value)
    chroma = torch.minimum(middle, low).neg_().add_(value)
    sixths = middle.sub_(low).div_(chroma.clamp_min(TINY)).sub_(beyond, alpha=2).copysign_(side)
    return from_hue(sixths.add_(turns[:, None, None], alpha=6), value, chroma, out=x)


def from_hue(sixths: Tensor, value: Tensor, chroma: Tensor, out: Tensor | None = None) -> Tensor:
    """Colours of a hue in sixths of a turn, a value and a chroma (= value x saturation): (N, ...) -> (N, 3, ...)."""
    sixths = torch.sub(sixths, (sixths / 6).floor_(), alpha=6)
    made = torch.empty(len(value), 3, *value.shape[1:], device=value.device, dtype=value.dtype) if out is None else out
    above, below = value + chroma, torch.sub(value, chroma, alpha=2)
    # where each channel is lowest (red) or highest
    for channel, corner, base, sign in ((0, 3, below, 1), (1, 2, above, -1), (2, 4, above, -1)):
        far = torch.sub(sixths, corner, out=made[:, channel]).abs_().clamp_(1, 2)
        torch.addcmul(base, chroma, far, value=sign, out=far)
    return made
