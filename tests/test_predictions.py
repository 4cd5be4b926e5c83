"""Which images were classified correctly: kept bit by bit, and read back for runs on the same images only."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.predictions import pack, reader, unpack

COLUMN = "test/knn/top1"


@given(st.lists(st.booleans(), min_size=1, max_size=40))
def test_bits_come_back(correct: list[bool]) -> None:
    assert list(unpack(pack(np.array(correct)), len(correct))) == correct


def test_bits_of_another_number_of_images_are_refused() -> None:
    with pytest.raises(ValueError, match="1 bytes for 9 images"):
        unpack(pack(np.array([True] * 8)), 9)


def record(right: list[bool], revision: str = "r1", **changes: Any) -> dict[str, Any]:
    row = {"split": "test", "protocol": "knn", "n": len(right), "correct": {"top1": pack(np.array(right))}}
    return {"data": {"name": "digits", "revision": revision}, "evals": [row | changes]}


def test_runs_are_read_together_from_directories_and_records(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "record.json").write_text(json.dumps(record([True, False, True])))
    promoted = {"a": record([False, False, False]), "b": record([True, True, False])}
    found = reader(tmp_path, promoted)(["a", "b"], COLUMN)
    assert found is not None
    assert found[0] == "digits r1"
    assert found[1].tolist() == [[True, False, True], [True, True, False]]  # the directory goes before the record
    alone = reader(None, promoted)(["a"], COLUMN)
    assert alone is not None
    assert alone[1].tolist() == [[False, False, False]]


@pytest.mark.parametrize(
    "other",
    [
        record([True, True, True], revision="r2"),
        record([True, True]),
        record([True, True, True], correct={}),
        record([True, True, True], n=30),
        {"evals": None},
    ],
)
def test_without_all_of_them_on_the_same_images_there_are_none(tmp_path: Path, other: dict[str, Any]) -> None:
    read = reader(None, {"a": record([True, False, True]), "b": other})
    assert read(["a"], COLUMN) is not None
    assert read(["a", "b"], COLUMN) is None
    assert read(["a", "nowhere"], COLUMN) is None
    assert read([], COLUMN) is None
    assert read(["a"], "test/knn/top5") is None
