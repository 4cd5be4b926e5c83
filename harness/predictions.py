"""Which images were classified correctly, as records keep it: one bit per image, in the order of the split.

A row of a record's `evals` has `correct`, per accuracy that is of one classifier: the bits in base64. Two runs on the
same images are compared image by image with it (`statistics.paired_error`). MLflow does not get the bits.
"""

import base64
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Bits = npt.NDArray[np.bool_]
Found = tuple[str, Bits]  # data set and revision; bits (images,) of a run or (runs, images) of several
Reader = Callable[[Iterable[str], str], Found | None]  # of the runs with these keys, for a column of `tracking.table`


def pack(correct: Bits) -> str:
    return base64.b64encode(np.packbits(correct).tobytes()).decode()


def unpack(text: str, images: int) -> Bits:
    """Errors: ValueError for bits of another number of images."""
    packed = np.frombuffer(base64.b64decode(text, validate=True), dtype=np.uint8)
    if len(packed) != -(-images // 8):
        raise ValueError(f"{len(packed)} bytes for {images} images")
    return np.unpackbits(packed, count=images).astype(bool)


def of_record(record: dict[str, Any], column: str) -> Found | None:
    """The bits (images,) of a `<split>/<protocol>/<metric>`; None where they were not kept."""
    split, protocol, metric = column.split("/", 2)
    for row in record["evals"]:
        if (row["split"], row["protocol"]) == (split, protocol) and metric in row.get("correct", {}):
            return f"{record['data']['name']} {record['data']['revision']}", unpack(row["correct"][metric], row["n"])
    return None


def together(found: Iterable[Found | None]) -> Found | None:
    """The bits (runs, images) of several runs; None unless all have them, on the same images."""
    rows = list(found)
    kept = [row for row in rows if row is not None]
    if not kept or len(kept) < len(rows) or len({(revision, len(bits)) for revision, bits in kept}) > 1:
        return None
    return kept[0][0], np.stack([bits for _, bits in kept])


def reader(root: Path | None, promoted: Mapping[str, dict[str, Any]]) -> Reader:
    """`together` of runs by their keys in `tracking.table`: from the run directory, else from a promoted record.

    The reader returns None, too, where neither is there or one is damaged.
    """

    def read(keys: Iterable[str], column: str) -> Found | None:
        found = []
        for key in keys:
            file = root / key / "record.json" if root else None
            try:
                run = json.loads(file.read_text()) if file and file.exists() else promoted[key]
                found.append(of_record(run, column))
            except (OSError, ValueError, KeyError, TypeError):
                return None
        return together(found)

    return read
