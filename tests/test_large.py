"""Sets decoded while they are used: the same batches however they are made, true pixels, one line for damage."""

import io
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import large_set
import numpy as np
import pytest
import torch
from PIL import Image
from same_end import assert_same_end
from torch import Tensor
from torchvision.transforms import v2

from harness import data, registry, train
from harness.api import Clock, Draws
from harness.data import decode, large
from harness.data.ahead import Ahead
from harness.data.large import LargeImages
from harness.errors import BadRecipe, DataMismatch, DataMissing, HarnessError, Interrupted, RunFailed
from harness.recipe import Budget, Data, Recipe, View
from harness.runs import RunDirectory, read_lines
from harness.seeding import generator
from harness.signals import Stop
from harness.stream import Crops, Streamed
from harness.views import DRAWN, boxes, make_views

VIEWS = (
    View(px=16, count=2, flip=0.5, jitter=(0.4, 0.4, 0.2, 0.1), jitter_p=0.8, grey=0.2),
    View(px=8, role="local", count=2, scale=(0.05, 0.25)),
)
BATCH = 32


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A data root with the set, and a cache of its own."""
    root = tmp_path_factory.mktemp("large")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HARNESS_CACHE", str(root / "cache"))
        large_set.make(root / "data", patch)
        yield root / "data"


@pytest.fixture(scope="module")
def splits(folder: Path) -> data.Splits:
    return data.load(Data(name=large_set.NAME), folder)


def recipe(**changes: object) -> Recipe:
    base = registry.recipe("vicreg_digits_r10w16_e50")
    chosen = replace(base, data=Data(name=large_set.NAME), views=VIEWS, budget=Budget(epochs=3, batch=BATCH))
    return replace(chosen, **changes)  # type: ignore[arg-type]


def streamed(splits: data.Splits, workers: int) -> Streamed:
    return Streamed(splits, recipe(), 5, "cpu", workers)


def clock(step: int) -> Clock:
    per_epoch = large_set.TRAIN // BATCH
    return Clock(step, 3 * per_epoch, per_epoch)


def batches(feed: Streamed, steps: range) -> list[tuple[Tensor, ...]]:
    found = []
    for step in steps:
        batch, labels = feed.batch(clock(step))
        found.append((batch.index, labels, batch.draws.uniform(4), *batch.views))
    feed.close()
    return found


def same(some: list[tuple[Tensor, ...]], others: list[tuple[Tensor, ...]]) -> bool:
    return all(
        torch.equal(a, b) for one, other in zip(some, others, strict=True) for a, b in zip(one, other, strict=True)
    )


def one_line(error: pytest.ExceptionInfo[HarnessError]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


# -------------------------------------------------------------------------------- the set


def test_splits_are_the_stored_ones_and_held_out_is_part_of_train(splits: data.Splits) -> None:
    assert [len(part) for part in (splits.train, splits.held_out, splits.test)] == [150, 2, 21]
    assert splits.held_out.labels.tolist() == splits.train.labels[::100].tolist()
    assert isinstance(splits.train, LargeImages)
    train = replace(splits.train, workers=0)
    assert torch.equal(splits.held_out.rows(0, 2)[1], train.rows(100, 101)[0])
    assert (splits.classes, splits.name, splits.revision) == (3, "tiny_large", "000000000000-splits1")
    assert (splits.mean.tolist(), splits.std.tolist()) == (
        pytest.approx([0.5, 0.4, 0.3]),
        pytest.approx([0.2, 0.2, 0.25]),
    )
    assert (splits.train.px, data.train_size(Data(name="tiny_large"))) == (14, 150)


def test_a_smaller_train_split_is_part_of_a_larger_one_and_keeps_its_order(folder: Path) -> None:
    few, more = (data.load(Data(name="tiny_large", train_images=n), folder).train for n in (20, 60))
    assert isinstance(few, LargeImages)
    assert isinstance(more, LargeImages)
    rows, other = few.encoded.at.tolist(), more.encoded.at.tolist()
    assert len(few) == len(rows) == 20
    assert rows == sorted(rows)
    assert set(rows) < set(other)
    assert rows != list(range(20))


def test_moving_to_a_device_leaves_the_images_where_they_are(splits: data.Splits) -> None:
    moved = splits.to("meta")
    assert isinstance(moved.train, LargeImages)
    assert moved.train.labels.device.type == moved.mean.device.type == "meta"
    assert moved.train.encoded is splits.train.encoded  # type: ignore[attr-defined]


# -------------------------------------------------------------------------------- batches


@pytest.fixture(scope="module")
def straight(splits: data.Splits) -> list[tuple[Tensor, ...]]:
    """Two epochs and a step of the third, made in this process."""
    return batches(streamed(splits, 0), range(9))


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_no_batch(splits: data.Splits, straight: list[tuple[Tensor, ...]], workers: int) -> None:
    assert same(batches(streamed(splits, workers), range(9)), straight)


@pytest.mark.parametrize("start", [2, 4, 7])
def test_a_resumed_run_sees_what_an_uninterrupted_one_does(
    splits: data.Splits, straight: list[tuple[Tensor, ...]], start: int
) -> None:
    assert same(batches(streamed(splits, 0), range(start, 9)), straight[start:])


def test_a_resumed_run_with_workers_goes_on_in_the_midst_of_an_epoch(
    splits: data.Splits, straight: list[tuple[Tensor, ...]]
) -> None:
    feed = streamed(splits, 2)
    feed.batch(clock(0))  # those made ahead of time are thrown away
    assert same(batches(feed, range(6, 9)), straight[6:])


def test_epochs_are_permutations_and_labels_belong_to_their_images(
    splits: data.Splits, straight: list[tuple[Tensor, ...]]
) -> None:
    for epoch in range(2):
        seen = torch.cat([index for index, *_ in straight[4 * epoch : 4 * epoch + 4]])
        want = torch.randperm(150, generator=generator(5, "order", epoch))[:128]
        assert torch.equal(seen, want)
    for index, labels, _, *views in straight:
        assert torch.equal(labels, splits.train.labels[index])
        assert [tuple(view.shape) for view in views] == [(32, 3, 16, 16)] * 2 + [(32, 3, 8, 8)] * 2
    assert not torch.equal(straight[0][3], straight[0][4])


def test_slices_of_two_processes_join_to_the_batch_of_one(splits: data.Splits) -> None:
    assert isinstance(splits.train, LargeImages)
    whole, first, second = (
        Crops(splits.train.encoded, VIEWS, BATCH, 5, rank, world)(6) for rank, world in ((0, 1), (0, 2), (1, 2))
    )
    assert torch.equal(torch.cat([first[0], second[0]]), whole[0])
    for a, b, joined in zip(first[1], second[1], whole[1], strict=True):
        assert torch.equal(torch.cat([a, b]), joined)


def test_views_are_those_of_the_same_images_in_memory(splits: data.Splits) -> None:
    """Up to the rounding of crops to 256 levels; small sources, so that nothing is decoded smaller."""
    assert isinstance(splits.train, LargeImages)
    index = [i for i in range(150) if i % 63 == 2]  # of one size
    some = splits.train.only(torch.tensor(index))
    pixels = torch.stack([torch.from_numpy(np.array(some.encoded.open(i).convert("RGB"))) for i in range(len(index))])
    assert pixels.shape[1:3] == (58, 46)
    view = View(px=24, count=2, scale=(0.3, 1.0), flip=0.5, grey=0.3)
    plan = recipe(views=(view,), budget=Budget(epochs=1, batch=len(index)))
    batch, _ = Streamed(replace(splits, train=some), plan, 3, "cpu", 0).batch(Clock(0, 1, 1))
    chosen = pixels.permute(0, 3, 1, 2)[batch.index]
    want = make_views((chosen, chosen), (view,), Draws(generator(3, "views", 0)), splits.mean, splits.std)
    for got, other in zip(batch.views, want, strict=True):
        assert ((got - other) * splits.std[:, None, None] * 255).abs().max() <= 1.01


# -------------------------------------------------------------------------------- pixels


def jpeg(width: int, height: int, seed: int = 0) -> Image.Image:
    file = io.BytesIO()
    Image.fromarray(large_set.picture(seed, width, height)).save(file, "JPEG", quality=95)
    return Image.open(file)


def full(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def test_a_crop_is_torchvisions_of_the_decoded_image() -> None:
    cut = [(3, 5, 90, 41), (0, 0, 120, 160), (50, 60, 20, 31)]
    made = decode.crops(jpeg(160, 120), cut, [64, 64, 32])
    for (top, left, height, width), px, got in zip(cut, [64, 64, 32], made, strict=True):
        want = v2.functional.resized_crop(full(jpeg(160, 120)), top, left, height, width, [px, px], antialias=True)
        assert (got.permute(2, 0, 1).int() - want.int()).abs().max() <= 1


def test_a_jpeg_is_decoded_smaller_where_every_box_has_room() -> None:
    for cut, size in (((0, 0, 300, 400), (50, 38)), ((0, 0, 130, 160), (100, 75)), ((9, 9, 63, 64), (400, 300))):
        image = jpeg(400, 300)
        (made,) = decode.crops(image, [cut], [32])
        assert image.size == size
        top, left, height, width = cut
        want = v2.functional.resized_crop(full(jpeg(400, 300)), top, left, height, width, [32, 32], antialias=True)
        assert (made.permute(2, 0, 1).int() - want.int()).abs().float().mean() < 4
    image = jpeg(400, 300)
    decode.crops(image, [(0, 0, 300, 400), (0, 0, 40, 40)], [32, 32])
    assert image.size == (400, 300)  # the second box has none


def test_no_box_is_enlarged_by_decoding_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    resized = decode._resized

    def watched(pixels: Tensor, h: int, w: int) -> Tensor:
        seen.append((pixels.shape[0], pixels.shape[1], h))
        return resized(pixels, h, w)

    monkeypatch.setattr(decode, "_resized", watched)
    smaller = 0
    for seed in range(60):
        W, H, px = 100 + 37 * (seed % 11), 90 + 29 * (seed % 13), 16 + 5 * (seed % 7)
        view = View(px=px, scale=(0.2, 1.0))
        cut = boxes(view, Draws(generator(seed, "boxes")).uniform(2, DRAWN), H, W).tolist()
        image = jpeg(W, H, seed)
        seen.clear()
        decode.crops(image, cut, [px, px])
        smaller += image.size != (W, H)
        for (_, _, height, width), (rows, columns, _) in zip(cut, seen, strict=True):
            assert rows >= min(height, px)
            assert columns >= min(width, px)
    assert 20 < smaller < 60


def test_evaluations_see_the_middle_as_torchvision_cuts_it() -> None:
    for (width, height), most in (((120, 90), 1), ((90, 61), 1), ((64, 64), 1), ((40, 57), 1), ((200, 130), 4)):
        got = decode.middle(jpeg(width, height), 56)
        want = v2.functional.center_crop(v2.functional.resize(full(jpeg(width, height)), [64], antialias=True), [56])
        assert (got.permute(2, 0, 1).int() - want.int()).abs().max() <= most  # the last is decoded smaller


@pytest.mark.parametrize("mode", ["L", "CMYK", "RGBA", "P", "LA", "I;16"])
def test_other_kinds_of_images_become_rgb(mode: str) -> None:
    grey = Image.fromarray(np.full((40, 50), 200, np.uint8))
    file = io.BytesIO()
    if mode == "P":
        grey.convert("RGB").quantize(4).save(file, "PNG", transparency=bytes([0, 255, 255, 255]))
    elif mode == "I;16":
        Image.fromarray(np.full((40, 50), 200, np.uint16)).save(file, "PNG")
    else:
        grey.convert("RGB").convert(mode).save(file, "JPEG" if mode in ("L", "CMYK") else "PNG")
    (made,) = decode.crops(Image.open(file), [(0, 0, 40, 50)], [16])
    assert made.shape == (16, 16, 3)
    assert (made.int() - 200).abs().max() <= 3


# -------------------------------------------------------------------------------- evaluation


@pytest.mark.parametrize("workers", [0, 2])
def test_rows_come_in_order_by_blocks(splits: data.Splits, workers: int) -> None:
    assert isinstance(splits.train, LargeImages)
    train = replace(splits.train, workers=workers)
    each = [decode.middle(train.encoded.open(i), 14).permute(2, 0, 1) for i in range(150)]
    for _ in range(2):
        blocks = [train.rows(start, start + 64) for start in (0, 64, 128)]
        assert [len(block) for block in blocks] == [64, 64, 22]
        assert torch.equal(torch.cat(blocks), torch.stack(each))
    assert torch.equal(train.rows(40, 45), torch.stack(each[40:45]))  # out of order
    train.close()
    assert not multiprocessing.active_children()


def test_the_blocks_of_one_of_two_processes_are_decoded_ahead(
    splits: data.Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    monkeypatch.setattr(large, "world_size", lambda: 2)
    monkeypatch.setattr(large, "Ahead", lambda work, places, workers: made.append(places) or Ahead(work, places, 0))
    assert isinstance(splits.train, LargeImages)
    train = replace(splits.train)
    blocks = [train.rows(start, start + 32) for start in (32, 96)]
    assert [list(places) for places in made] == [[32, 96]]
    monkeypatch.undo()
    assert torch.equal(
        torch.cat(blocks), torch.cat([replace(splits.train, workers=0).rows(s, s + 32) for s in (32, 96)])
    )


# -------------------------------------------------------------------------------- workers


class Work:
    def __call__(self, n: int) -> list[Tensor]:
        if n == 3:
            raise DataMismatch("image 3 is damaged")
        return [torch.tensor(n), torch.tensor(torch.get_num_threads())]


def test_signals_that_end_a_run_do_not_end_its_workers() -> None:
    ahead = Ahead(Work(), range(3), 1)
    (child,) = multiprocessing.active_children()
    assert child.pid is not None
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2):
        os.kill(child.pid, number)
    assert [[int(x) for x in ahead.next()] for _ in range(3)] == [[0, 1], [1, 1], [2, 1]]
    ahead.close()
    assert not child.is_alive()


def test_workers_end_with_a_main_process_that_is_killed() -> None:
    code = (
        "import multiprocessing, time, torch; from harness.data.ahead import Ahead\n"
        "if __name__ == '__main__':\n"
        "    ahead = Ahead(torch.tensor, range(99), 1); ahead.next()\n"
        "    print(multiprocessing.active_children()[0].pid, flush=True); time.sleep(60)\n"
    )
    path = str(Path(__file__).parent.parent)
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": path}
    )
    assert process.stdout is not None
    child = int(process.stdout.readline())
    os.kill(child, 0)  # it lives
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 30
    while _lives(child) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not _lives(child)


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_killed_worker_is_one_line() -> None:
    ahead = Ahead(Work(), range(100, 200), 1)
    (child,) = multiprocessing.active_children()
    os.kill(child.pid or 0, signal.SIGKILL)
    with pytest.raises(RunFailed) as error:
        list(iter(ahead.next, None))  # the first may be there already
    assert one_line(error).startswith("a process that decodes images was killed, most often for want of memory, or ")
    ahead.close()


def test_making_workers_leaves_the_global_random_numbers_alone(splits: data.Splits) -> None:
    torch.manual_seed(1)
    want = torch.rand(1)
    torch.manual_seed(1)
    batches(streamed(splits, 1), range(1))
    assert torch.equal(torch.rand(1), want)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_in_a_worker_is_one_line(workers: int) -> None:
    ahead = Ahead(Work(), range(5), workers)
    for _ in range(3):
        ahead.next()
    with pytest.raises(DataMismatch) as error:
        ahead.next()
    assert one_line(error) == "image 3 is damaged"
    ahead.close()


# -------------------------------------------------------------------------------- a whole run


class StopAfter(Stop):
    """Asks to stop when it has been looked at so many times."""

    def __init__(self, looks: int) -> None:
        self.looks = looks

    @property
    def signal(self) -> str:  # type: ignore[override]
        self.looks -= 1
        return "SIGTERM" if self.looks < 0 else ""


def test_a_run_that_was_interrupted_ends_as_one_that_was_not(folder: Path, tmp_path: Path) -> None:
    plan = recipe(views=VIEWS[:1])
    whole = train.run(plan, 0, tmp_path / "whole", data_root=folder, device="cpu", show=False)
    assert whole["status"] == "complete"
    assert whole["px"] == 14
    assert whole["data"] == {"name": "tiny_large", "revision": "000000000000-splits1"}
    with pytest.raises(Interrupted):
        train.run(plan, 0, tmp_path / "parts", data_root=folder, device="cpu", show=False, stop=StopAfter(5))
    parts = train.run(plan, 0, tmp_path / "parts", data_root=folder, device="cpu", show=False)
    directories = [RunDirectory(tmp_path / place, plan, 0).path for place in ("whole", "parts")]
    assert_same_end(*directories)
    starts = [line["step"] for line in read_lines(directories[1] / "attempts.jsonl") if line["event"] == "start"]
    assert (len(starts), 0 < starts[1] < parts["steps"] == 12) == (2, True)
    assert not multiprocessing.active_children()


# -------------------------------------------------------------------------------- bad input


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data root and a cache of one test; the set is known, not there."""
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HARNESS_DATA", str(tmp_path / "root"))
    large_set.known(monkeypatch, train=8, test=4)
    return tmp_path / "root"


def test_a_missing_set_says_where_it_looked_and_how_to_get_it(own: Path) -> None:
    with pytest.raises(DataMissing) as error:
        data.load(Data(name="imagenet_1k"))
    assert one_line(error) == (
        f"data set 'imagenet_1k' not found in {own}/imagenet_1k, {own}/imagenet_1k/data; set HARNESS_DATA to a folder "
        "that holds imagenet_1k/train-*.parquet and imagenet_1k/validation-*.parquet with columns image, label (accept "
        "the terms at huggingface.co/datasets/ILSVRC/imagenet-1k, then `hf download ILSVRC/imagenet-1k --repo-type "
        "dataset --revision 49e2ee26f3810fb5a7536bbf732a7b07389a47b5 --include 'data/train-*' 'data/validation-*' "
        "--local-dir <folder>/imagenet_1k`)"
    )
    with pytest.raises(DataMissing, match="data set 'imagenet_1k' not found in"):
        data.check_there(Data(name="imagenet_1k"))
    data.check_there(Data(name="cifar10"))  # the hub has it


def files(count: int) -> list[bytes]:
    return [large_set.encoded(i) for i in range(1, count + 1)]


def test_missing_shards_are_noticed(own: Path) -> None:
    large_set.write(own / "tiny_large" / "data", "train", files(6), [0] * 6)
    large_set.write(own / "tiny_large" / "data", "validation", files(4), [0] * 4)
    with pytest.raises(DataMismatch) as error:
        data.load(Data(name="tiny_large"))
    assert one_line(error).startswith(
        f"data set 'tiny_large' from {own}/tiny_large/data: expected 8 train and 4 validation images, "
        "got 6 train and 4 validation; get the missing files again (accept the terms at "
    )


def test_labels_out_of_range_are_noticed(own: Path) -> None:
    large_set.write(own / "tiny_large", "train", files(8), [0] * 8)
    large_set.write(own / "tiny_large", "validation", files(4), [0, -1, 2, 1])
    with pytest.raises(DataMismatch) as error:
        data.load(Data(name="tiny_large"))
    assert one_line(error) == (
        f"data set 'tiny_large' from {own}/tiny_large, validation: expected labels 0 to 2, got -1 to 2; "
        "get the set again"
    )


def test_shards_that_cannot_be_read_are_noticed(own: Path) -> None:
    large_set.write(own / "tiny_large", "train", files(8), [0] * 8)
    large_set.write(own / "tiny_large", "validation", files(4), [0] * 4)
    (own / "tiny_large" / "train-00001-of-00002.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataMismatch) as error:
        data.load(Data(name="tiny_large"))
    assert re.match(
        rf"data set 'tiny_large' from {own}/tiny_large: cannot be read \(.+\); get the set again, and HARNESS_CACHE ",
        one_line(error),
    )


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("damage", ["cut", "text"])
def test_a_damaged_image_is_named(own: Path, damage: str, workers: int) -> None:
    stored = files(8)
    stored[3] = stored[3][: len(stored[3]) // 2] if damage == "cut" else b"no image"
    large_set.write(own / "tiny_large", "train", stored, [0] * 8, shards=1)
    large_set.write(own / "tiny_large", "validation", files(4), [0] * 4)
    found = data.load(Data(name="tiny_large"))
    assert isinstance(found.train, LargeImages)
    reason = r"image file is truncated \(.+\)" if damage == "cut" else "no image that Pillow knows"
    want = rf"data set 'tiny_large' from {own}/tiny_large, train: row 3, train_3.jpg cannot be decoded \({reason}\); "
    feed = Streamed(found, recipe(budget=Budget(epochs=1, batch=8)), 0, "cpu", workers)
    with pytest.raises(DataMismatch) as error:
        feed.batch(Clock(0, 1, 1))
    feed.close()
    assert re.fullmatch(want + "get its file again", one_line(error))
    with pytest.raises(DataMismatch, match=want):
        replace(found.train, workers=workers).rows(0, 8)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (Data(name="tiny_large", px=32), "data.px is 32, expected None: its images are decoded while they are used, "),
        (Data(name="tiny_large", pairs="same_identity"), "data.pairs is 'same_identity', expected one that it has: "),
        (Data(name="tiny_large", train_images=9), "data.train_images is 9, the train split has 8"),
    ],
)
def test_what_a_large_set_does_not_have_is_refused(own: Path, bad: Data, message: str) -> None:
    large_set.write(own / "tiny_large", "train", files(8), [0] * 8)
    large_set.write(own / "tiny_large", "validation", files(4), [0] * 4)
    with pytest.raises(BadRecipe) as error:
        data.load(bad)
    assert one_line(error).startswith(f"data set 'tiny_large': {message}")
