"""Data sets that are read: from local parquet files, from the hub, or from scikit-learn."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from harness import tables
from harness.data.images import Images
from harness.data.sets import FACTORS_SIZE, SETS, Source
from harness.errors import DataMissing
from harness.tables import Table


def read(name: str, px: int | None, root: Path | None) -> tuple[Images, ...]:
    """Train, held-out and test images; px: the side they are resized to. Errors: DataMissing, DataMismatch."""
    source = SETS[name]
    if name == "digits":
        found = tables.checked(name, source.fingerprint, *_digits())
    else:
        found = tables.kept(name, source.fingerprint, lambda: _found(name, root))
    rows = found["train"]
    part = source.part(rows)
    parts = [{column: values[part == split] for column, values in rows.items()} for split in FACTORS_SIZE]
    if "test" in found:
        parts[2] = found["test"]
    return tuple(_images(table, source, px) for table in parts)


def _digits() -> tuple[dict[str, Table], str]:
    from sklearn.datasets import load_digits

    found = load_digits()
    pixels = (found.images * (255 / 16)).round().astype(np.uint8)  # grey levels 0 to 16
    return {"train": {"pixels": pixels, "label": found.target.astype(np.int64)}}, "scikit-learn"


def data_root(root: Path | None) -> Path | None:
    """The folder of local sets: the one given, else that of HARNESS_DATA."""
    return root or (Path(os.environ["HARNESS_DATA"]) if os.environ.get("HARNESS_DATA") else None)


def local(name: str, root: Path | None) -> Iterator[tuple[str, dict[str, list[str]]]]:
    """The folders where a set may be, and the files of each stored split there."""
    for folder in [root / folder for folder in (name, *SETS[name].folders)] if root else []:
        yield str(folder), {s: sorted(map(str, folder.glob(f"{s}-*.parquet"))) for s in SETS[name].files}


def _found(name: str, root: Path | None) -> tuple[dict[str, Table], str]:
    """Every stored split from the data root, else from the hub, and where. Errors: DataMissing, DataMismatch."""
    source = SETS[name]
    columns = ("label", *source.columns)
    looked = []
    for folder, files in local(name, data_root(root)):
        if all(files.values()):
            return tables.from_parquet(name, files, columns), folder
        looked.append(folder)
    if source.hub:
        repository, commit = source.hub
        try:
            return tables.from_hub(name, repository, commit, columns), f"{repository} at {commit[:12]}"
        except ConnectionError as error:
            looked.append(f"the hub ({error})")
    wanted = " and ".join(f"{name}/{split}-*.parquet" for split in source.files)
    raise DataMissing(
        f"data set {name!r} not found in {', '.join(looked) or 'any folder, since HARNESS_DATA is not set'}; "
        f"set HARNESS_DATA to a folder that holds {wanted} "
        f"with columns {', '.join(('image', *columns))} ({source.get})"
    )


def _images(table: Table, source: Source, px: int | None) -> Images:
    pixels = torch.from_numpy(table["pixels"])
    pixels = pixels.permute(0, 3, 1, 2) if pixels.dim() == 4 else pixels[:, None].expand(-1, 3, -1, -1)
    named = [pair for column in source.columns for pair in _factor(column, torch.from_numpy(table[column]).float())]
    N = len(pixels)
    return Images(
        pixels=pixels.contiguous() if px in (None, pixels.shape[-1]) else _resize(pixels, px),
        labels=torch.from_numpy(table["label"]),
        factors=torch.stack([values for _, values in named], dim=1) if named else torch.empty(N, 0),
        factor_names=tuple(name for name, _ in named),
        identity=torch.from_numpy(table[source.identity]) if source.identity else None,
    )


def _factor(column: str, values: Tensor) -> list[tuple[str, Tensor]]:
    if column == "azimuth_deg":
        return [("azimuth_cos", values.deg2rad().cos()), ("azimuth_sin", values.deg2rad().sin())]
    if column == "polar_deg":  # 0 from above, 90 from the side
        return [("polar", values / 45 - 1)]
    return []  # which object is an identity, not a factor


def _resize(pixels: Tensor, px: int) -> Tensor:
    """Bilinear with antialias, rounded; in chunks, since it goes through float."""
    parts = [F.interpolate(p.float(), (px, px), mode="bilinear", antialias=True) for p in pixels.split(1024)]
    return torch.cat([part.round_().clamp_(0, 255).to(torch.uint8) for part in parts])
