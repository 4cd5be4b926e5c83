"""Rows of images with their numbers: read through Hugging Face `datasets`, put in order, checked, kept.

Rows are sorted by the sha256 of their content, and the sha256 over those hashes is a set's fingerprint. So a set is the
same wherever it was read from, in whatever order, and anything that differs is noticed. Decoding PNG takes seconds, so
the decoded rows are kept under HARNESS_CACHE (default ~/.cache/ssl-harness) and checked by the same fingerprint.
"""

import hashlib
import os
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from harness.errors import DataMismatch

# arrays of N rows: "pixels" uint8 (N, H, W) or (N, H, W, 3), and integers (N,): "label" and further columns
Table: TypeAlias = dict[str, Any]


def kept(name: str, fingerprint: str, read: Callable[[], tuple[dict[str, Table], str]]) -> dict[str, Table]:
    """The splits of a set in order, from the cache, or from `read` where that is missing or damaged.

    read: gives the splits and where they were found. Errors: DataMismatch.
    """
    cached = cache() / f"{name}-{fingerprint[:12]}.npz"
    splits = _load(cached) if cached.exists() else {}
    if _fingerprint(splits) == fingerprint:
        return splits
    splits = checked(name, fingerprint, *read())
    _save(cached, splits)
    return splits


def cache() -> Path:
    return Path(os.environ.get("HARNESS_CACHE") or Path.home() / ".cache" / "ssl-harness")


def checked(name: str, fingerprint: str, splits: dict[str, Table], where: str) -> dict[str, Table]:
    """The splits in order. Errors: DataMismatch where the content is not the pinned one."""
    splits = {split: _in_order(table) for split, table in splits.items()}
    got = _fingerprint(splits)
    if got != fingerprint:
        raise DataMismatch(differs(name, where, fingerprint, got))
    return splits


def differs(name: str, where: str, expected: str, got: str) -> str:
    return (
        f"data set {name!r} from {where}: expected content {expected[:12]}, got {got[:12]}; "
        "images, labels or columns are not those that results are stated for; get the set again"
    )


def _row_hashes(table: Table) -> list[bytes]:
    numbers = np.stack([table[column] for column in sorted(table) if column != "pixels"], axis=1).astype("<i8")
    return [hashlib.sha256(p.tobytes() + n.tobytes()).digest() for p, n in zip(table["pixels"], numbers, strict=True)]


def _in_order(table: Table) -> Table:
    hashes = _row_hashes(table)
    order = np.array(sorted(range(len(hashes)), key=hashes.__getitem__), dtype=np.int64)
    return {column: values[order] for column, values in table.items()}


def _fingerprint(splits: dict[str, Table]) -> str:
    whole = hashlib.sha256()
    for split in sorted(splits):
        whole.update(f"{split} {splits[split]['pixels'].shape}".encode())
        for row in _row_hashes(splits[split]):
            whole.update(row)
    return whole.hexdigest()


# ---------------------------------------------------------------------------------------------- the cache


def _load(path: Path) -> dict[str, Table]:
    splits: dict[str, Table] = {}
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as stored:
            for key in stored.files:
                split, column = key.split("/")
                splits.setdefault(split, {})[column] = stored[key]
    except Exception:  # however the file is damaged, it is made again
        return {}
    return splits


def _save(path: Path, splits: dict[str, Table]) -> None:
    """Atomically: another process sees the whole file or none."""
    arrays = {f"{split}/{column}": values for split, table in splits.items() for column, values in table.items()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
            np.savez(Path(scratch) / "rows.npz", **arrays)
            os.replace(Path(scratch) / "rows.npz", path)
    except OSError as error:
        warnings.warn(
            f"cannot keep decoded images in {path.parent} ({error.strerror}): they are decoded again at every start; "
            "set HARNESS_CACHE to a folder that can be written",
            stacklevel=2,
        )


# ---------------------------------------------------------------------------------------------- the sources


def from_parquet(name: str, files: dict[str, list[str]], columns: tuple[str, ...]) -> dict[str, Table]:
    """Decoded rows of local parquet files by split. Errors: DataMismatch."""
    from datasets import disable_progress_bars, enable_progress_bars, load_dataset

    where = str(Path(next(iter(files.values()))[0]).parent)
    disable_progress_bars()
    try:
        with tempfile.TemporaryDirectory() as scratch:  # `datasets` need not keep a copy too
            found = _reading(name, where, lambda: load_dataset("parquet", data_files=files, cache_dir=scratch))
            return _reading(name, where, lambda: _decoded(name, where, found, columns))
    finally:
        enable_progress_bars()


def mapped(name: str, files: dict[str, list[str]]) -> Any:
    """Encoded rows of local parquet files by split: tables of `datasets`, mapped from files in the cache.

    Those are made once, as large as the parquet files; the progress of it is shown. Errors: DataMismatch.
    """
    from datasets import Image, load_dataset
    from datasets.exceptions import DatasetGenerationError

    where = f"data set {name!r} from {Path(next(iter(files.values()))[0]).parent}"
    try:
        found = load_dataset("parquet", data_files=files, cache_dir=str(cache() / "arrow"))
    except (OSError, ValueError, DatasetGenerationError) as error:
        reason = str(error.__cause__ or error).splitlines()[0]
        raise DataMismatch(
            f"{where}: cannot be read ({reason}); get the set again, and HARNESS_CACHE needs as much room as it has"
        ) from error
    for split, rows in found.items():
        if not {"image", "label"} <= set(rows.features):
            raise DataMismatch(f"{where}, {split}: expected columns image, label; got {', '.join(rows.features)}")
    return {split: rows.cast_column("image", Image(decode=False)) for split, rows in found.items()}


def from_hub(name: str, repository: str, commit: str, columns: tuple[str, ...]) -> dict[str, Table]:
    """Decoded rows of a repository at a commit. Errors: DataMismatch; ConnectionError where the hub is out of reach."""
    from datasets import load_dataset

    where = f"{repository} at {commit[:12]}"
    try:
        found = load_dataset(repository, revision=commit)
    except (OSError, ValueError) as error:  # ValueError: offline, with another revision in the hub's own cache
        raise ConnectionError(f"{where}: {type(error).__name__}") from error
    return _reading(name, where, lambda: _decoded(name, where, found, columns))


def _reading(name: str, where: str, read: Callable[[], Any]) -> Any:
    from datasets.exceptions import DatasetGenerationError

    try:
        return read()
    except (OSError, ValueError, DatasetGenerationError) as error:
        reason = str(error.__cause__ or error).splitlines()[0]
        raise DataMismatch(f"data set {name!r} from {where}: cannot be read ({reason}); get the set again") from error


def _decoded(name: str, where: str, found: Any, columns: tuple[str, ...]) -> dict[str, Table]:
    """All splits as arrays. The image column is told by its type, since sources call it img or image."""
    from datasets import Image

    splits = {}
    for split, rows in found.items():
        image = next((column for column, kind in rows.features.items() if isinstance(kind, Image)), None)
        if image is None or not set(columns) <= set(rows.features):
            raise DataMismatch(
                f"data set {name!r} from {where}, {split}: expected columns image, {', '.join(columns)}; "
                f"got {', '.join(rows.features)}"
            )
        chunks = list(rows.with_format("numpy").iter(1000))
        splits[split] = {
            "pixels": np.concatenate([np.stack(list(chunk[image])) for chunk in chunks]),
            **{column: np.concatenate([chunk[column] for chunk in chunks]) for column in columns},
        }
    return splits
