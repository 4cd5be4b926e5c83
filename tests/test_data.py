"""Data sets: fixed splits, pinned content, pairs, the renderer against geometry, one clear line for bad input."""

import io
import math
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from harness import data, factors, tables
from harness.api import Draws
from harness.errors import BadRecipe, DataMismatch, DataMissing, HarnessError, UnknownName
from harness.recipe import Data

LOCAL = os.environ.get("HARNESS_DATA")
local_sets = pytest.mark.skipif(not LOCAL, reason="HARNESS_DATA is not set: no local folder of parquet files")


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data root without sets, a cache of its own, no hub."""
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HARNESS_DATA", str(tmp_path / "root"))
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    return tmp_path / "root"


def draws(seed: int = 0) -> Draws:
    return Draws(torch.Generator().manual_seed(seed))


def one_line(error: pytest.ExceptionInfo[HarnessError]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


# -------------------------------------------------------------------------------- sets that are always there


@pytest.mark.parametrize(
    ("name", "sizes", "px", "classes"), [("digits", (1257, 180, 360), 8, 10), ("factors", (4096, 1024, 2048), 32, 6)]
)
def test_splits_are_whole_apart_and_the_same_every_time(
    name: str, sizes: tuple[int, ...], px: int, classes: int
) -> None:
    splits, again = data.load(Data(name=name)), data.load(Data(name=name))
    seen: set[bytes] = set()
    for part, other, size in zip(
        (splits.train, splits.held_out, splits.test), (again.train, again.held_out, again.test), sizes, strict=True
    ):
        assert part.pixels.shape == (size, 3, px, px)
        assert (part.pixels.dtype, part.labels.dtype, part.factors.dtype) == (torch.uint8, torch.int64, torch.float32)
        assert part.factors.shape == (size, len(part.factor_names))
        assert torch.equal(part.pixels, other.pixels)
        assert torch.equal(part.labels, other.labels)
        assert part.labels.unique().tolist() == list(range(classes))
        rows = {row.numpy().tobytes() for row in part.pixels}
        assert not rows & seen
        seen |= rows
    assert splits.classes == classes
    assert (sizes[0], px) == (data.train_size(Data(name=name)), data.side(Data(name=name)))
    assert splits.revision == data.revision(name)
    x = splits.train.pixels.double() / 255
    torch.testing.assert_close(splits.mean, x.mean((0, 2, 3)).float())
    torch.testing.assert_close(splits.std, x.std((0, 2, 3), correction=0).float())


def test_digits_are_scikit_learns() -> None:
    from sklearn.datasets import load_digits

    splits = data.load(Data(name="digits"))
    mine = torch.cat([splits.train.pixels, splits.held_out.pixels, splits.test.pixels])
    labels = torch.cat([splits.train.labels, splits.held_out.labels, splits.test.labels])
    theirs = load_digits()
    levels = (mine.double() * 16 / 255).round().long()
    assert torch.equal(levels[:, 0], levels[:, 2])

    def rows(images: Any, classes: Any) -> list[tuple[int, ...]]:
        return sorted((int(label), *map(int, image.ravel())) for image, label in zip(images, classes, strict=True))

    assert rows(levels[:, 0].numpy(), labels) == rows(theirs.images, theirs.target)


def test_a_smaller_train_split_is_the_start_of_a_larger_one() -> None:
    whole, part = data.load(Data(name="digits")), data.load(Data(name="digits", train_images=200))
    assert torch.equal(part.train.pixels, whole.train.pixels[:200])
    assert torch.equal(part.test.labels, whole.test.labels)
    assert torch.equal(part.mean, whole.mean)
    assert len(part.train.labels.unique()) == 10  # a shuffle, not the first classes


@pytest.mark.parametrize("px", [5, 16])
def test_resizing_is_bilinear_with_antialias_rounded(px: int) -> None:
    own, resized = data.load(Data(name="digits")).test.pixels, data.load(Data(name="digits", px=px)).test.pixels
    want = F.interpolate(own.double(), (px, px), mode="bilinear", antialias=True)
    assert resized.dtype == torch.uint8
    assert (resized - want).abs().max() <= 0.5 + 1e-4


def test_object_sets_are_split_by_angle_and_by_object() -> None:
    angles = data.SETS["coil20"].part({"azimuth_deg": np.arange(0, 360, 5)})
    held_out, test = np.flatnonzero(angles == "held_out") * 5, np.flatnonzero(angles == "test") * 5
    assert held_out.tolist() == list(range(0, 360, 40))
    assert test.tolist() == list(range(10, 360, 20))
    objects = data.SETS["eth80"].part({"instance": np.arange(80)})
    assert objects.tolist() == (["train"] * 7 + ["held_out"] + ["test"] * 2) * 8


def test_revisions_tell_sets_apart_and_are_pinned() -> None:
    revisions = {name: data.revision(name) for name in data.NAMES}
    assert len(set(revisions.values())) == len(data.NAMES) == 8
    assert revisions["digits"] == "33c5e492a25a-splits1"
    assert revisions["factors"] == "eec0da4d72aa-splits1"
    assert revisions["sphere"] == "380b7ebcac30-splits1"
    assert all(len(source.fingerprint) == 64 for source in data.SETS.values())
    assert revisions["imagenet_1k"] == "49e2ee26f381-splits1"
    hubs = [
        *(source.hub for source in data.SETS.values() if source.hub),
        *(source.hub for source in data.LARGE.values()),
    ]
    assert all(re.fullmatch("[0-9a-f]{40}", commit) for _, commit in hubs)


def test_sizes_are_known_without_loading() -> None:
    assert set(data.SIZES) == set(data.NAMES)
    assert data.train_size(Data(name="imagenet_1k")) == 1_281_167
    assert (data.train_size(Data(name="cifar10", train_images=100)), data.side(Data(name="cifar10", px=16))) == (
        100,
        16,
    )
    with pytest.raises(UnknownName, match="no data set 'imagenet'; did you mean 'imagenet_1k'"):
        data.side(Data(name="imagenet"))


def test_a_revision_needs_no_heavy_import() -> None:
    program = (
        "import sys, harness.data; harness.data.revision('cifar10'); "
        "sys.exit(sum(m in sys.modules for m in ('datasets', 'sklearn', 'pandas', 'timm')))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=60).returncode == 0


def test_moving_to_a_device_moves_all_and_keeps_the_rest() -> None:
    splits = data.load(Data(name="factors", pairs="latent_change", train_images=8))
    moved = splits.to("meta")
    for part in (moved.train, moved.held_out, moved.test):
        tensors = (part.pixels, part.labels, part.factors, part.latents)
        assert {str(tensor.device) for tensor in tensors if tensor is not None} == {"meta"}
        assert part.pairs == "latent_change"
    assert (moved.mean.device.type, moved.std.device.type, moved.name) == ("meta", "meta", "factors")
    assert moved.train.factor_names == factors.FACTORS


# -------------------------------------------------------------------------------- rendered factors


def latents(**values: float) -> Tensor:
    """One image in the middle of every latent, but for those named."""
    middle = dict.fromkeys(factors.LATENTS, 0.5) | {"angle": 0.0} | values
    return torch.tensor([[middle[name] for name in factors.LATENTS]])


def shape(number: int) -> float:
    return (number + 0.5) / len(factors.SHAPES)


@pytest.mark.parametrize("number", range(len(factors.SHAPES)), ids=list(factors.SHAPES))
def test_a_quarter_turn_is_rot90_and_no_turn_is_the_same(number: int) -> None:
    images = [factors.render(latents(angle=k / 4, shape=shape(number)), 48).int() for k in range(4)]
    for k in range(1, 4):
        assert (images[k] - images[0].rot90(-k, (2, 3))).abs().max() <= 1
        assert (images[k] - images[0]).abs().max() > 100  # no symmetry: the image tells the angle


def test_position_moves_the_shape_and_size_scales_it() -> None:
    px = 64
    shift = 8 / (px / 2) / (2 * factors.REACH)  # latents that move the centre by 8 pixels
    still = factors.render(latents(size=0.0), px).int()
    moved = factors.render(latents(size=0.0, x=0.5 + shift, y=0.5 - shift), px).int()
    assert (moved - still.roll((8, -8), (3, 2))).abs().max() <= 1
    paper = still[0, :, 0, 0]

    def area(image: Tensor) -> float:
        return (image[0] != paper[:, None, None]).any(0).sum().item()

    big = factors.render(latents(size=1.0), px).int()
    assert area(big) / area(still) == pytest.approx((factors.SIZES[1] / factors.SIZES[0]) ** 2, rel=0.15)


def test_hue_and_background_are_the_colours_asked_for() -> None:
    for hue, want in ((0.0, (255, 25.5, 25.5)), (1 / 3, (25.5, 255, 25.5)), (1 / 2, (25.5, 255, 255))):
        image = factors.render(latents(hue=hue, shape=shape(1), background=0.5), 32)[0]
        assert image[:, 16, 16].tolist() == pytest.approx(want, abs=1)
        assert image[:, 0, 0].tolist() == pytest.approx([0.3 * 255] * 3, abs=1)


def test_edges_are_antialiased_as_area_averages() -> None:
    cube = torch.rand(64, len(factors.LATENTS), generator=torch.Generator().manual_seed(0))
    fine, coarse = factors.render(cube, 256).float(), factors.render(cube, 32).float()
    area = F.avg_pool2d(fine, 8)
    error, without = (coarse - area).abs().mean(), (fine[:, :, 4::8, 4::8] - area).abs().mean()
    assert error < without / 4  # a straight edge is not exact, since its slope is not known


def test_shapes_stay_inside_the_image() -> None:
    turn = 2 * math.pi * torch.arange(720) / 720
    for distance in factors.SHAPES.values():
        assert (distance(turn.cos(), turn.sin()) > 0).all()  # within the circle of radius 1
        assert distance(0.8 * turn.cos(), 0.8 * turn.sin()).min() < 0.1  # and not much smaller
    assert factors.REACH + factors.SIZES[1] <= 1


def test_rendering_does_not_depend_on_the_batch() -> None:
    cube = torch.rand(factors.CHUNK + 9, len(factors.LATENTS), generator=torch.Generator().manual_seed(1))
    whole = factors.render(cube, 16)
    singles = torch.cat([factors.render(cube[i : i + 1], 16) for i in (0, 5, factors.CHUNK, factors.CHUNK + 8)])
    assert torch.equal(whole[[0, 5, factors.CHUNK, factors.CHUNK + 8]], singles)


def test_factors_are_the_latents_in_known_units() -> None:
    (got,) = factors.factors_of(latents(x=0.0, y=1.0, size=0.75, angle=0.25, hue=0.5, background=0.0)).tolist()
    assert dict(zip(factors.FACTORS, got, strict=True)) == pytest.approx(
        {"x": -1, "y": 1, "size": 0.5, "angle_cos": 0, "angle_sin": 1, "hue_cos": -1, "hue_sin": 0, "background": -1},
        abs=1e-6,
    )
    assert factors.shape_of(latents(shape=0.999)).item() == len(factors.SHAPES) - 1
    train = data.load(Data(name="factors")).train
    assert train.latents is not None
    assert torch.equal(train.factors, factors.factors_of(train.latents))
    assert train.factors.abs().max() <= 1


def test_factors_can_be_read_from_the_pixels() -> None:
    """A ridge regression from pixels to position and background: labels belong to their images."""
    splits = data.load(Data(name="factors", px=16))
    design = [torch.cat([s.pixels.flatten(1) / 255, torch.ones(len(s), 1)], 1) for s in (splits.train, splits.test)]
    gram = design[0].T @ design[0] + 10 * torch.eye(design[0].shape[1])
    weights = torch.linalg.solve(gram, design[0].T @ splits.train.factors)
    error = ((design[1] @ weights - splits.test.factors) ** 2).mean(0) / splits.test.factors.var(0)
    r2 = dict(zip(factors.FACTORS, (1 - error).tolist(), strict=True))
    assert r2["background"] > 0.9
    assert min(r2["x"], r2["y"]) > 0.4


# -------------------------------------------------------------------------------- pairs


def test_pairs_by_augmentation_are_the_image_itself() -> None:
    train = data.load(Data(name="digits")).train
    index = torch.tensor([5, 0, 5])
    first, second = train.elements(index, draws())
    assert torch.equal(first, train.pixels[index])
    assert second is first


def test_a_latent_change_keeps_four_fifths_of_the_latents_and_draws_the_rest_anew() -> None:
    before = torch.rand(20_000, len(factors.LATENTS), generator=torch.Generator().manual_seed(7))
    after = factors.change(before, draws())
    changed = before != after
    assert changed.float().mean(0).tolist() == pytest.approx([0.2] * 7, abs=0.01)
    fresh = after[changed]
    assert (fresh.mean().item(), fresh.var().item()) == pytest.approx((1 / 2, 1 / 12), abs=0.01)
    assert torch.corrcoef(torch.stack([fresh, before[changed]]))[0, 1].abs() < 0.02
    both = (changed[:, 0] & changed[:, 1]).float().mean().item()
    assert both == pytest.approx(0.2**2, abs=0.01)  # each on its own


def test_the_partner_of_a_latent_change_is_rendered_at_the_changed_latents() -> None:
    train = data.load(Data(name="factors", px=24, pairs="latent_change")).train
    index = torch.arange(100, 140)
    partner = train.partner(index, draws(3))
    assert train.latents is not None
    changed = factors.change(train.latents[index], draws(3))
    assert torch.equal(partner, factors.render(changed, 24))
    same = (changed == train.latents[index]).all(1)
    assert 0 < same.sum() < 40
    assert torch.equal(partner[same], train.pixels[index][same])
    assert not torch.equal(train.partner(index, draws(4)), partner)


def test_a_partner_of_the_same_identity_is_another_image_of_it_each_as_often() -> None:
    identity = torch.tensor([3, 0, 3, 7, 0, 3, 3])
    pixels = torch.arange(7, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 2, 2)
    images = data.Images(
        pixels=pixels, labels=identity, factors=torch.empty(7, 0), pairs="same_identity", identity=identity
    )
    index = torch.arange(7).repeat(3000)
    partner = images.partner(index, draws())[:, 0, 0, 0].long()
    assert torch.equal(identity[partner], identity[index])
    assert (partner != index)[identity[index] != 7].all()
    assert (partner == 3)[index == 3].all()  # alone of its kind
    counts = torch.bincount(partner[index == 2], minlength=7)
    assert counts[[0, 5, 6]].tolist() == pytest.approx([1000] * 3, rel=0.1)


# -------------------------------------------------------------------------------- reading, checking, keeping


def write(folder: Path, split: str, rows: list[dict[str, Any]], mode: str = "RGB", cut: int | None = None) -> None:
    from datasets import Dataset, Features, Value
    from datasets import Image as ImageColumn

    encoded = []
    for row in rows:
        file = io.BytesIO()
        Image.fromarray(row["image"]).convert(mode).save(file, format="PNG")
        encoded.append({**row, "image": {"bytes": file.getvalue()[:cut], "path": None}})
    columns = {column: ImageColumn() if column == "image" else Value("int64") for column in rows[0]}
    folder.mkdir(parents=True, exist_ok=True)
    Dataset.from_list(encoded, features=Features(columns)).to_parquet(folder / f"{split}-0.parquet")


def made_up(n: int, channels: int = 3, seed: int = 0, **columns: int) -> list[dict[str, Any]]:
    generator = np.random.default_rng(seed)
    size = (6, 6, 3) if channels == 3 else (6, 6)
    return [
        {
            "image": generator.integers(0, 256, size, dtype=np.uint8),
            "label": i % 3,
            **{column: i * step for column, step in columns.items()},
        }
        for i in range(n)
    ]


def pin(monkeypatch: pytest.MonkeyPatch, name: str, fingerprint: str) -> None:
    monkeypatch.setitem(data.SETS, name, replace(data.SETS[name], fingerprint=fingerprint))


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_parquet_rows_arrive_unharmed_in_an_order_of_their_own(
    empty: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    channels = 3 if mode == "RGB" else 1
    train, test = made_up(60, channels), made_up(20, channels, seed=1)
    write(empty / "fashion_mnist", "train", train, mode)
    write(empty / "fashion_mnist", "test", test, mode)
    write(empty.parent / "shuffled" / "fashion_mnist", "train", train[::-1], mode)
    write(empty.parent / "shuffled" / "fashion_mnist", "test", test[7:] + test[:7], mode)
    monkeypatch.setattr(tables, "_fingerprint", lambda splits: f"{len(splits)}" * 64)
    pin(monkeypatch, "fashion_mnist", "2" * 64)
    splits = data.load(Data(name="fashion_mnist"))
    assert [len(part) for part in (splits.train, splits.held_out, splits.test)] == [54, 6, 20]

    def rows(images: data.Images) -> set[tuple[int, bytes]]:
        return {(int(y), x.numpy().tobytes()) for x, y in zip(images.pixels, images.labels, strict=True)}

    def originals(listed: list[dict[str, Any]]) -> set[tuple[int, bytes]]:
        as_rgb = [np.broadcast_to(row["image"].reshape(6, 6, -1), (6, 6, 3)) for row in listed]
        return {
            (row["label"], np.ascontiguousarray(x.transpose(2, 0, 1)).tobytes())
            for row, x in zip(listed, as_rgb, strict=True)
        }

    assert rows(splits.train) | rows(splits.held_out) == originals(train)
    assert rows(splits.test) == originals(test)
    monkeypatch.setenv("HARNESS_CACHE", str(empty.parent / "another"))
    shuffled = data.load(Data(name="fashion_mnist"), root=empty.parent / "shuffled")
    assert torch.equal(shuffled.train.pixels, splits.train.pixels)
    assert torch.equal(shuffled.test.labels, splits.test.labels)


def splits_of(n: int) -> dict[str, tables.Table]:
    generator = np.random.default_rng(n)
    return {"train": {"pixels": generator.integers(0, 256, (n, 4, 4), dtype=np.uint8), "label": np.arange(n)}}


def fingerprint_of(splits: dict[str, tables.Table]) -> str:
    return tables._fingerprint({split: tables._in_order(table) for split, table in splits.items()})


def test_a_fingerprint_sees_every_change_but_the_order_of_rows() -> None:
    base = splits_of(9)
    whole = fingerprint_of(base)
    turned = {"train": {column: values[::-1] for column, values in base["train"].items()}}
    assert fingerprint_of(turned) == whole
    pixel, label, moved = splits_of(9), splits_of(9), splits_of(9)
    pixel["train"]["pixels"][3, 2, 1] ^= 1
    label["train"]["label"][[0, 1]] = label["train"]["label"][[1, 0]]
    moved["test"] = moved.pop("train")
    fewer = {"train": {column: values[1:] for column, values in base["train"].items()}}
    assert len({whole, *map(fingerprint_of, (pixel, label, moved, fewer))}) == 5


@pytest.mark.parametrize("damage", ["truncated", "one byte", "empty", "other content"])
def test_decoded_rows_are_kept_and_a_damaged_copy_is_made_again(empty: Path, damage: str) -> None:
    base = splits_of(40)
    whole = fingerprint_of(base)
    reads = []

    def read() -> tuple[dict[str, tables.Table], str]:
        reads.append(1)
        return splits_of(40), "here"

    first = tables.kept("made_up", whole, read)
    assert np.array_equal(tables.kept("made_up", whole, read)["train"]["pixels"], first["train"]["pixels"])
    assert len(reads) == 1
    (copy,) = (empty.parent / "cache").iterdir()
    stored = bytearray(copy.read_bytes())
    if damage == "truncated":
        copy.write_bytes(stored[: len(stored) // 2])
    elif damage == "one byte":
        stored[300] ^= 255
        copy.write_bytes(stored)
    elif damage == "empty":
        copy.write_bytes(b"")
    else:
        tables._save(copy, splits_of(41))
    again = tables.kept("made_up", whole, read)
    assert len(reads) == 2
    assert np.array_equal(again["train"]["label"], first["train"]["label"])
    tables.kept("made_up", whole, read)
    assert len(reads) == 2
    assert [path.name for path in (empty.parent / "cache").iterdir()] == [copy.name]


def test_a_cache_that_cannot_be_written_warns_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "file" / "cache"))
    base = splits_of(5)
    with pytest.warns(UserWarning, match="decoded again at every start; set HARNESS_CACHE to a folder"):
        found = tables.kept("made_up", fingerprint_of(base), lambda: (base, "here"))
    assert len(found["train"]["label"]) == 5


# -------------------------------------------------------------------------------- bad input


def test_an_unknown_set_offers_the_nearest() -> None:
    for call in (lambda: data.revision("cifra10"), lambda: data.load(Data(name="cifra10"))):
        with pytest.raises(UnknownName) as error:
            call()
        assert one_line(error) == "no data set 'cifra10'; did you mean 'cifar10'?"


def test_a_missing_set_says_where_it_looked_and_how_to_get_it(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataMissing) as error:
        data.load(Data(name="coil20"))
    assert f"data set 'coil20' not found in {empty}/coil20; set HARNESS_DATA to a folder that holds" in one_line(error)
    assert "coil20/train-*.parquet with columns image, label, azimuth_deg (the processed set" in one_line(error)
    with pytest.raises(DataMissing) as error:
        data.load(Data(name="eth80"), root=Path("elsewhere"))
    assert "not found in elsewhere/eth80, elsewhere/eth80_64; set HARNESS_DATA" in one_line(error)
    with pytest.raises(DataMissing) as error:
        data.load(Data(name="cifar10"))
    assert f"not found in {empty}/cifar10, the hub (uoft-cs/cifar10 at 0b2714987fa4: " in one_line(error)
    assert "or allow access to huggingface.co/datasets/uoft-cs/cifar10" in one_line(error)
    monkeypatch.delenv("HARNESS_DATA")
    with pytest.raises(DataMissing, match="not found in any folder, since HARNESS_DATA is not set; set HARNESS_DATA"):
        data.load(Data(name="coil20"))


def test_whereabouts_say_where_each_set_would_come_from(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (empty / "eth80_64").mkdir(parents=True)
    (empty / "eth80_64" / "train-0.parquet").touch()
    (empty / "cifar10").mkdir()
    (empty / "cifar10" / "train-0.parquet").touch()  # without test
    assert data.whereabouts() == (
        f"always here: digits, factors, sphere; on the hub: cifar10, fashion_mnist; missing: coil20, "
        f"imagenet_1k; in {empty}: eth80"
    )
    monkeypatch.delenv("HARNESS_DATA")
    assert data.whereabouts().endswith("missing: coil20, eth80, imagenet_1k; HARNESS_DATA is not set")


def test_other_content_is_refused_and_not_kept(empty: Path) -> None:
    write(empty / "coil20", "train", made_up(12, 1, azimuth_deg=5), "L")
    with pytest.raises(DataMismatch) as error:
        data.load(Data(name="coil20"))
    pinned = data.SETS["coil20"].fingerprint[:12]
    assert re.match(
        rf"data set 'coil20' from {empty}/coil20: expected content {pinned}, got [0-9a-f]{{12}}; images, labels",
        one_line(error),
    )
    assert not (empty.parent / "cache").exists()


def test_missing_columns_are_named(empty: Path) -> None:
    write(empty / "eth80_64", "train", made_up(12, instance=1))
    with pytest.raises(DataMismatch) as error:
        data.load(Data(name="eth80"))
    assert one_line(error) == (
        f"data set 'eth80' from {empty}/eth80_64, train: expected columns image, label, instance, polar_deg, "
        "azimuth_deg; got image, label, instance"
    )


@pytest.mark.parametrize("damage", ["parquet", "image"])
def test_files_that_cannot_be_read_are_named(empty: Path, damage: str) -> None:
    rows = made_up(12, 1, azimuth_deg=5)
    write(empty / "coil20", "train", rows, "L")
    file = empty / "coil20" / "train-0.parquet"
    if damage == "parquet":
        file.write_bytes(file.read_bytes()[:200])
    else:
        write(file.parent, "train", rows, "L", cut=30)
    with pytest.raises(DataMismatch) as error:
        data.load(Data(name="coil20"))
    assert re.match(
        rf"data set 'coil20' from {empty}/coil20: cannot be read \(.+\); get the set again$", one_line(error)
    )


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (Data(name="digits", pairs="same_identity"), "expected one that it has: 'augmentation'"),
        (Data(name="coil20", pairs="latent_change"), "expected one that it has: 'augmentation' and 'same_identity'"),
        (Data(name="factors", pairs="same_identity"), "expected one that it has: 'augmentation' and 'latent_change'"),
        (Data(name="digits", px=0), "data.px is 0, expected pixels"),
        (Data(name="sphere", px=8), "data.px is 8, expected None: it holds vectors, not images"),
        (Data(name="digits", train_images=1258), "data.train_images is 1258, the train split has 1257"),
        (Data(name="digits", train_images=0), "data.train_images is 0, the train split has 1257"),
    ],
)
def test_what_a_set_does_not_have_is_refused(bad: Data, message: str) -> None:
    with pytest.raises(BadRecipe) as error:
        data.load(bad)
    assert message in one_line(error)
    assert one_line(error).startswith(f"data set {bad.name!r}: data.")


# -------------------------------------------------------------------------------- sets of a local folder


@pytest.fixture(scope="module")
def cached(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def local(name: str, cache: Path, **options: Any) -> data.Splits:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HARNESS_CACHE", str(cache))
        return data.load(Data(name=name, **options), root=Path(LOCAL or ""))


@local_sets
@pytest.mark.parametrize(
    ("name", "px", "sizes", "classes"),
    [
        ("cifar10", 32, (45_000, 5_000, 10_000), 10),
        ("fashion_mnist", 28, (54_000, 6_000, 10_000), 10),
        ("coil20", 128, (900, 180, 360), 20),
        ("eth80", 64, (2296, 328, 656), 8),
    ],
)
def test_local_sets_are_the_pinned_ones(cached: Path, name: str, px: int, sizes: tuple[int, ...], classes: int) -> None:
    for _ in range(2):  # from parquet, then from the cache
        splits = local(name, cached)
        parts = (splits.train, splits.held_out, splits.test)
        assert tuple(map(len, parts)) == sizes
        assert (sizes[0], px) == (data.train_size(Data(name=name)), data.side(Data(name=name)))
        for part in parts:
            assert part.pixels.shape[1:] == (3, px, px)
            assert len(part.labels.unique()) == splits.classes == classes
            if part.factor_names:
                assert part.factors.abs().max() <= 1
    if name == "cifar10":  # of the 50,000, as printed everywhere; here 45,000 of them
        assert splits.mean.tolist() == pytest.approx([0.4914, 0.4822, 0.4465], abs=1e-3)
        assert splits.std.tolist() == pytest.approx([0.2470, 0.2435, 0.2616], abs=1e-3)


@local_sets
def test_local_object_sets_are_split_by_angle_and_by_object(cached: Path) -> None:
    coil = local("coil20", cached, px=32)

    def angles(part: data.Images) -> set[int]:
        return {round(math.degrees(math.atan2(s, c))) % 360 for c, s in part.factors.tolist()}

    assert angles(coil.test) == {5 * k for k in range(72) if k % 4 == 2}
    assert angles(coil.held_out) == {5 * k for k in range(72) if k % 8 == 0}
    assert len(angles(coil.train) & (angles(coil.test) | angles(coil.held_out))) == 0
    eth = local("eth80", cached, px=32, pairs="same_identity")
    objects = [set(part.identity.tolist()) for part in (eth.train, eth.held_out, eth.test) if part.identity is not None]
    assert [len(found) for found in objects] == [56, 8, 16]
    assert len(set.union(*objects)) == 80
    assert all(identity // 10 == label for identity, label in zip(eth.test.identity, eth.test.labels, strict=True))
    index = torch.arange(len(eth.train))
    partner = eth.train.partner(index, draws())
    assert (partner != eth.train.pixels).flatten(1).any(1).float().mean() > 0.99
