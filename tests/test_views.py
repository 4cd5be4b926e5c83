"""Every operation of a view against torchvision.transforms.v2 on the same parameters, and how those are drawn."""

import itertools
from dataclasses import replace
from typing import Any

import pytest
import torch
import torchvision.transforms.v2 as v2
import torchvision.transforms.v2.functional as TF
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare, ks_2samp
from torch import Tensor

from harness import colours, views
from harness.api import Draws
from harness.recipe import View

EXACT = 1e-5  # float32 rounding, of pixels in [0, 1]; found: 3e-6 at most

EVERYTHING = View(
    px=24, flip=0.5, jitter=(0.4, 0.4, 0.2, 0.1), jitter_p=0.8, grey=0.2, blur=0.5, solarize=0.3, scale=(0.2, 1)
)
ZERO, ONE = torch.zeros(3), torch.ones(3)


def draws(seed: int = 0, **options: Any) -> Draws:
    return Draws(torch.Generator().manual_seed(seed), **options)


def drawn(view: View, B: int, H: int, W: int, numbers: Draws) -> views.Params:
    return views.draw(view, numbers.uniform(B, views.DRAWN, on_cpu=True), H, W)


def photos(B: int, H: int, W: int, seed: int = 0) -> Tensor:
    """Smooth colours and noise, with black, white and grey areas, where saturation and hue are undefined."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(B, 3, 4, 4, generator=generator)
    x = torch.nn.functional.interpolate(coarse, (H, W), mode="bicubic").clamp(0, 1)
    x[:, :, : H // 2] = (x + 0.2 * torch.rand(B, 3, H, W, generator=generator)).clamp(0, 1)[:, :, : H // 2]
    x[0::4, :, :3, :3], x[1::4, :, :3, :3], x[2::4, :, :3, :3] = 0, 1, 0.4
    return (255 * x).round().to(torch.uint8)


def largest(a: Tensor, b: Tensor) -> float:
    return (a - b).abs().max().item()


def jittered(x: Tensor, factors: Tensor, order: Tensor) -> Tensor:
    """Colour jitter alone of every image of uint8 (B, 3, P, P)."""
    B, px = len(x), x.shape[-1]
    none = torch.zeros(B, dtype=torch.bool)
    box, all_ = torch.tensor([0, 0, px, px]).repeat(B, 1), torch.ones(B, dtype=torch.bool)
    params = views.Params(box, none, all_, factors, order, none, none, torch.ones(B), none)
    return views.apply(params, x, torch.arange(B), px)


# -------------------------------------------------------------------------------- same parameters, same pixels


@pytest.mark.parametrize(("H", "W"), [(32, 32), (40, 28), (9, 64)])
@pytest.mark.parametrize("px", [8, 32, 50])
def test_crop_resize_and_flip_equal_torchvision(H: int, W: int, px: int) -> None:
    B = 24
    x = photos(B, H, W)
    params = drawn(View(px=px, flip=0.5), B, H, W, draws())
    made = views.crop(x, params.box, params.flip.long(), px, *views.by_size(params.box, px))
    for image, (top, left, height, width), flip, got in zip(x, params.box.tolist(), params.flip, made, strict=True):
        want = TF.resized_crop(image.float() / 255, top, left, height, width, [px, px], antialias=True)
        want = TF.horizontal_flip(want) if flip else want
        assert largest(got, want) < EXACT
    assert 0 < params.flip.sum() < B


@pytest.mark.parametrize("box", [(0, 0, 1, 1), (31, 31, 1, 1), (0, 0, 32, 1), (5, 7, 2, 20), (0, 0, 32, 32)])
def test_crop_of_extreme_boxes_equals_torchvision(box: tuple[int, int, int, int]) -> None:
    x = photos(2, 32, 32)
    boxes = torch.tensor([box, box])
    made = views.crop(x, boxes, torch.tensor([0, 0]), 16, *views.by_size(boxes, 16))
    assert largest(made, TF.resized_crop(x.float() / 255, *box, [16, 16], antialias=True)) < EXACT


def test_the_whole_image_at_its_own_size_is_the_image() -> None:
    x = photos(6, 32, 32)
    (made,) = views.make_views((x, x), (View(px=32, scale=(1, 1), ratio=(1, 1)),), draws(), ZERO, ONE)
    assert largest(made, views.plain(x, ZERO, ONE)) < 1e-6
    assert made.dtype == torch.float32


OPERATIONS = (TF.adjust_brightness, TF.adjust_contrast, TF.adjust_saturation, TF.adjust_hue)


@pytest.mark.parametrize("kind", range(4), ids=["brightness", "contrast", "saturation", "hue"])
def test_each_colour_operation_equals_torchvision(kind: int) -> None:
    x = photos(12, 24, 24)
    strengths = torch.linspace(-0.5, 0.5, 12) if kind == 3 else torch.linspace(0, 2, 12)
    factors = torch.tensor([1.0, 1.0, 1.0, 0.0]).repeat(12, 1)
    factors[:, kind] = strengths
    made = jittered(x, factors, torch.tensor([0, 1, 2, 3]).repeat(12, 1))
    want = torch.stack(
        [OPERATIONS[kind](image, s) for image, s in zip(x.float() / 255, strengths.tolist(), strict=True)]
    )
    assert largest(made, want) < EXACT


def test_colour_jitter_equals_torchvision_in_all_24_orders() -> None:
    orders = torch.tensor(list(itertools.permutations(range(4))))
    x = photos(24, 24, 24)
    factors = drawn(View(px=24, jitter=(0.8, 0.8, 0.8, 0.2)), 24, 24, 24, draws()).factors
    made = jittered(x, factors, orders)
    for image, factor, order, got in zip(x.float() / 255, factors.tolist(), orders.tolist(), made, strict=True):
        for kind in order:
            image = OPERATIONS[kind](image, factor[kind])
        assert largest(got, image) < EXACT


@pytest.mark.parametrize("idle", list(itertools.product((False, True), repeat=4)))
def test_jitter_that_leaves_some_kinds_alone_equals_torchvision(idle: tuple[bool, ...]) -> None:
    orders = torch.tensor(list(itertools.permutations(range(4))))
    x = photos(24, 16, 16, 1)
    strength = [0.0 if none else 0.5 for none in idle]
    factors = drawn(View(px=16, jitter=tuple(strength)), 24, 16, 16, draws(1)).factors  # type: ignore[arg-type]
    made = jittered(x, factors, orders)
    for image, factor, order, got in zip(x.float() / 255, factors.tolist(), orders.tolist(), made, strict=True):
        for kind in order:
            image = image if idle[kind] else OPERATIONS[kind](image, factor[kind])
        assert largest(got, image) < EXACT


def test_hue_of_every_corner_and_edge_of_the_colour_cube_equals_torchvision() -> None:
    levels = torch.tensor(list(itertools.product((0, 1, 127, 128, 254, 255), repeat=3)), dtype=torch.uint8)  # ties too
    x = levels.t().reshape(1, 3, 12, 18).expand(9, -1, -1, -1).clone()
    turns = torch.tensor([-0.5, -1 / 3, -1 / 6, -1e-3, 0.0, 1e-3, 1 / 6, 0.25, 0.5])
    made = colours.shift_hue(x.float() / 255, turns)
    want = torch.stack([TF.adjust_hue(image, t) for image, t in zip(x.float() / 255, turns.tolist(), strict=True)])
    assert largest(made, want) < EXACT


@pytest.mark.parametrize(("px", "taps"), [(8, 3), (32, 5), (64, 7), (96, 11), (224, 23)])
def test_blur_equals_torchvision(px: int, taps: int) -> None:
    assert views.blur_taps(px) == taps
    x = photos(4, px, px).float() / 255
    sigma = torch.tensor([0.1, 0.5, 1.3, 2.0])
    made = views.blur(x, sigma, taps)
    want = torch.stack([TF.gaussian_blur(image, [taps, taps], [s]) for image, s in zip(x, sigma.tolist(), strict=True)])
    assert largest(made, want) < EXACT


def test_grey_and_solarize_equal_torchvision() -> None:
    x = photos(8, 24, 24)
    whole = {"px": 24, "scale": (1.0, 1.0), "ratio": (1.0, 1.0)}
    (grey,) = views.make_views((x, x), (View(**whole, grey=1.0),), draws(), ZERO, ONE)
    assert largest(grey, TF.rgb_to_grayscale(x.float() / 255, num_output_channels=3)) < EXACT
    (solar,) = views.make_views((x, x), (View(**whole, solarize=1.0),), draws(), ZERO, ONE)
    assert largest(solar, TF.solarize(x.float() / 255, 0.5)) < EXACT


def test_a_whole_view_equals_torchvision_image_by_image() -> None:
    B = 48
    x = photos(B, 32, 32)
    params = drawn(EVERYTHING, B, 32, 32, draws(3))
    made = views.apply(params, x, torch.arange(B), 24)
    for b in range(B):
        want = TF.resized_crop(x[b].float() / 255, *params.box[b].tolist(), [24, 24], antialias=True)
        want = TF.horizontal_flip(want) if params.flip[b] else want
        if params.jitter[b]:
            for kind in params.order[b].tolist():
                want = OPERATIONS[kind](want, params.factors[b, kind].item())
        want = TF.rgb_to_grayscale(want, num_output_channels=3) if params.grey[b] else want
        taps = views.blur_taps(24)
        want = TF.gaussian_blur(want, [taps, taps], [params.sigma[b].item()]) if params.blur[b] else want
        want = TF.solarize(want, 0.5) if params.solarize[b] else want
        assert largest(made[b], want) < EXACT
    for chosen in (params.flip, params.jitter, params.grey, params.blur, params.solarize):
        assert 0 < chosen.sum() < B


# -------------------------------------------------------------------------------- same distribution


@pytest.mark.parametrize(
    ("H", "W", "scale", "ratio"),
    [
        (32, 32, (0.08, 1.0), (3 / 4, 4 / 3)),
        (32, 32, (0.9, 1.0), (0.3, 3.0)),  # most boxes do not fit: the central ones are frequent
        (20, 60, (0.5, 1.0), (3 / 4, 4 / 3)),
        (60, 20, (0.9, 1.0), (3 / 4, 4 / 3)),  # no box fits
    ],
)
def test_boxes_are_distributed_as_torchvisions(
    H: int, W: int, scale: tuple[float, float], ratio: tuple[float, float]
) -> None:
    n = 3000
    torch.manual_seed(0)
    transform = v2.RandomResizedCrop(8, scale=scale, ratio=ratio)
    theirs = [transform.make_params([torch.empty(3, H, W)]) for _ in range(n)]
    want = torch.tensor([[p["top"], p["left"], p["height"], p["width"]] for p in theirs]).double()
    got = drawn(View(px=8, scale=scale, ratio=ratio), n, H, W, draws()).box.double()
    for measure in (
        lambda box: box[:, 2] * box[:, 3],
        lambda box: box[:, 3] / box[:, 2],
        lambda box: box[:, 0],
        lambda box: box[:, 1],
    ):
        assert ks_2samp(measure(got).numpy(), measure(want).numpy(), method="asymp").pvalue > 0.01
    assert abs((got[:, 2] * got[:, 3]).mean() / (want[:, 2] * want[:, 3]).mean() - 1) < 0.03


def test_choices_strengths_and_orders_are_distributed_as_asked() -> None:
    n = 20_000
    params = drawn(EVERYTHING, n, 32, 32, draws())
    for chosen, p in (
        (params.flip, 0.5),
        (params.jitter, 0.8),
        (params.grey, 0.2),
        (params.blur, 0.5),
        (params.solarize, 0.3),
    ):
        assert chosen.float().mean().item() == pytest.approx(p, abs=0.015)
    low, high = torch.tensor([0.6, 0.6, 0.8, -0.1]), torch.tensor([1.4, 1.4, 1.2, 0.1])
    assert ((params.factors >= low - 1e-6) & (params.factors <= high + 1e-6)).all()
    torch.testing.assert_close(params.factors.mean(0), (low + high) / 2, atol=0.01, rtol=0)
    torch.testing.assert_close(params.factors.std(0), (high - low) / 12**0.5, atol=0.01, rtol=0)
    counts = (params.order * torch.tensor([64, 16, 4, 1])).sum(1).bincount()
    assert chisquare(counts[counts > 0].numpy()).pvalue > 0.01
    assert (counts > 0).sum() == 24
    strong = drawn(View(px=8, jitter=(2.0, 0, 0, 0)), n, 32, 32, draws()).factors[:, 0]
    assert strong.min() >= 0  # torchvision: from max(0, 1 - strength)
    assert strong.mean().item() == pytest.approx(1.5, abs=0.02)


# -------------------------------------------------------------------------------- views of a recipe


def test_views_come_in_the_recipes_order_from_their_element() -> None:
    a, b = photos(4, 32, 32, 1), photos(4, 32, 32, 2)
    whole = {"scale": (1.0, 1.0), "ratio": (1.0, 1.0)}
    recipe = (View(px=32, **whole), View(px=32, source=1, **whole), View(px=16, role="local", count=3, flip=0.5))
    mean, std = torch.tensor([0.5, 0.4, 0.3]), torch.tensor([0.2, 0.3, 0.4])
    made = views.make_views((a, b), recipe, draws(), mean, std)
    assert [tuple(view.shape) for view in made] == [(4, 3, 32, 32)] * 2 + [(4, 3, 16, 16)] * 3
    assert largest(made[0], views.plain(a, mean, std)) < EXACT
    assert largest(made[1], views.plain(b, mean, std)) < EXACT
    assert largest(views.plain(a, mean, std)[:, 2], (a[:, 2] / 255 - 0.3) / 0.4) < EXACT
    assert largest(made[2], made[3]) > 0.1  # repeats draw anew


def test_a_view_added_at_the_end_leaves_the_others_and_the_pixels_alone() -> None:
    x = photos(6, 32, 32)
    before = x.clone()
    short = views.make_views((x, x), (EVERYTHING, View(px=16)), draws(), ZERO, ONE)
    long = views.make_views((x, x), (EVERYTHING, View(px=16), EVERYTHING), draws(), ZERO, ONE)
    assert all(torch.equal(a, b) for a, b in zip(short, long, strict=False))
    assert torch.equal(x, before)


def test_a_view_does_not_depend_on_what_it_is_stacked_with() -> None:
    a, b = photos(6, 32, 32, 1), photos(6, 32, 32, 2)
    weak = View(px=24, source=1, scale=(0.5, 1), jitter=(0.4, 0.0, 0.0, 0.0), jitter_p=0.5)
    together = views.make_views((a, b), (EVERYTHING, weak, replace(EVERYTHING, source=1, count=2)), draws(), ZERO, ONE)
    generator = draws()
    for view, made in zip((EVERYTHING, weak, EVERYTHING, EVERYTHING), together, strict=True):
        pixels = a if made is together[0] else b
        (alone,) = views.make_views((pixels, pixels), (replace(view, source=0),), generator, ZERO, ONE)
        assert largest(made, alone) < 1e-6


def test_a_stack_made_in_pieces_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    x = photos(10, 32, 32)
    recipe = (EVERYTHING, replace(EVERYTHING, source=1))
    whole = views.make_views((x, x), recipe, draws(), ZERO, ONE)
    monkeypatch.setattr(views, "PIECE", 7 * 3 * 24 * 24)
    pieces = views.make_views((x, x), recipe, draws(), ZERO, ONE)
    assert largest(torch.cat(pieces), torch.cat(whole)) < 1e-6


def test_finished_crops_equal_views_of_whole_images() -> None:
    a, b = photos(8, 24, 24, 1), photos(8, 24, 24, 2)
    first = replace(EVERYTHING, scale=(1.0, 1.0), ratio=(1.0, 1.0))
    recipe = (first, replace(first, source=1, count=2))
    mean, std = torch.tensor([0.5, 0.4, 0.3]), torch.tensor([0.2, 0.3, 0.4])
    before = a.clone()
    made = views.make_views((a, b), recipe, draws(), mean, std)
    finished = views.finish_views([a, b, b.clone()], recipe, draws(), mean, std)
    assert len(finished) == 3
    assert largest(torch.cat(finished), torch.cat(made)) < EXACT
    assert torch.equal(a, before)


def test_finished_crops_take_the_numbers_that_views_take() -> None:
    x = photos(4, 24, 24)
    one, other = draws(), draws()
    views.make_views((x, x), (EVERYTHING,), one, ZERO, ONE)
    views.finish_views([x], (EVERYTHING,), other, ZERO, ONE)
    assert torch.equal(one.uniform(3), other.uniform(3))


def test_boxes_of_images_of_several_sizes_are_those_of_each() -> None:
    view = View(px=8, scale=(0.3, 1.0))
    sides = [(32, 32), (375, 500), (20, 60), (60, 20)]
    u = draws().uniform(40, views.DRAWN)
    H, W = (torch.tensor(side).repeat(10) for side in zip(*sides, strict=True))
    together = views.boxes(view, u, H, W)
    assert together.dtype == torch.int64
    for i, (h, w) in enumerate(sides):
        assert torch.equal(together[i::4], views.boxes(view, u[i::4], h, w))


def test_a_box_stays_inside_where_a_number_is_next_to_one() -> None:
    u = torch.full((1, views.DRAWN), 1 - 2.0**-24)
    for side in range(2, 300):
        top, left, height, width = views.boxes(View(px=8, scale=(0.1, 0.2)), u, side, side)[0].tolist()
        assert top + height <= side
        assert left + width <= side


@pytest.mark.parametrize(("size", "px"), [(5, 8), (32, 32), (28, 20)])
def test_the_table_holds_the_weights_of_every_box(size: int, px: int) -> None:
    boxes = [(start, n, flip) for flip in (0, 1) for n in range(1, size + 1) for start in range(size + 1 - n)]
    start, length, flip = torch.tensor(boxes).t()
    shuffled = torch.randperm(len(boxes), generator=torch.Generator().manual_seed(0))
    looked_up = views._resizing(start[shuffled], length[shuffled], flip[shuffled], size, px)
    assert torch.equal(looked_up, views._weights(start, length, flip, size, px)[shuffled])
    upright, mirrored = looked_up[flip[shuffled] == 0], looked_up[flip[shuffled] == 1]
    assert len(upright) == len(mirrored) == size * (size + 1) // 2


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_views_on_a_gpu_equal_those_on_a_cpu_and_nothing_waits() -> None:
    x = photos(16, 32, 32)
    recipe = (EVERYTHING, replace(EVERYTHING, source=1), View(px=100, flip=0.5, solarize=0.5))
    want = views.make_views((x, x), recipe, draws(), ZERO, ONE)
    pixels, mean, std = x.cuda(), ZERO.cuda(), ONE.cuda()
    options = draws(device="cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        made = views.make_views((pixels, pixels), recipe, options, mean, std)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for got, expected in zip(made, want, strict=True):
        assert largest(got.cpu(), expected) < EXACT


def test_two_processes_make_the_views_of_one() -> None:
    x = photos(8, 32, 32)
    (whole,) = views.make_views((x, x), (EVERYTHING,), draws(5), ZERO, ONE)
    parts = []
    for rank in range(2):
        shard = x[4 * rank : 4 * rank + 4]
        parts += views.make_views((shard, shard), (EVERYTHING,), draws(5, rank=rank, world=2), ZERO, ONE)
    assert largest(torch.cat(parts), whole) < 1e-6


def test_vectors_are_taken_as_they_are() -> None:
    first, second = torch.randn(4, 10), torch.randn(4, 10)
    made = views.make_views((first, second), (View(px=10, count=2), View(px=10, source=1)), draws(), ZERO, ONE)
    assert all(torch.equal(a, b) for a, b in zip(made, (first, first, second), strict=True))
    assert torch.equal(views.plain(first, ZERO, ONE), first)


def test_steps_that_choose_no_image_do_nothing() -> None:
    x = photos(3, 24, 24)
    rare = View(px=24, jitter=(0.4, 0.4, 0.2, 0.1), jitter_p=1e-9, grey=1e-9, blur=1e-9, solarize=1e-9)
    (made,), (want,) = (views.make_views((x, x), (view,), draws(), ZERO, ONE) for view in (rare, View(px=24)))
    assert torch.equal(made, want)


def test_each_image_has_parameters_of_its_own() -> None:
    x = photos(1, 32, 32).expand(16, -1, -1, -1)
    (made,) = views.make_views((x, x), (EVERYTHING,), draws(), ZERO, ONE)
    assert len({image.numpy().tobytes() for image in made}) == 16


@settings(max_examples=40, deadline=None)
@given(
    level=st.integers(0, 255), H=st.integers(3, 40), W=st.integers(3, 40), px=st.integers(3, 40), seed=st.integers(0)
)
def test_views_stay_in_range_and_crops_keep_a_constant(level: int, H: int, W: int, px: int, seed: int) -> None:
    flat = torch.full((2, 3, H, W), level, dtype=torch.uint8)
    geometry = View(px=px, flip=0.5, blur=1.0)
    generator = draws(seed % 2**31)
    (made,) = views.make_views((flat, flat), (geometry,), generator, ZERO, ONE)
    assert largest(made, torch.tensor(level / 255)) < EXACT
    noisy = torch.randint(0, 256, (2, 3, H, W), dtype=torch.uint8, generator=generator.generator)
    view = View(px=px, jitter=(1.0, 1.0, 1.0, 0.5), jitter_p=1.0, solarize=0.5)
    (made,) = views.make_views((noisy, noisy), (view,), generator, ZERO, ONE)
    assert made.min() >= -1e-6
    assert made.max() <= 1 + 1e-6
