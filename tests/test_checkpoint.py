"""Checkpoints survive a cut, a flip and a full disk; only whole ones are used."""

import errno
from pathlib import Path
from typing import Any

import pytest
import torch

from harness import checkpoint, runs
from harness.errors import BadCheckpoint, NotWritable


def state(step: int) -> dict[str, Any]:
    return {"step": step, "weights": {"w": torch.arange(1000.0) + step}, "note": "x", "none": None}


def test_the_newest_two_are_kept_and_read_back(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        checkpoint.save(tmp_path, step, state(step))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint-00000002.pt", "checkpoint-00000003.pt"]
    found, warnings = checkpoint.newest(tmp_path)
    assert found is not None
    assert found["step"] == 3
    assert torch.equal(found["weights"]["w"], torch.arange(1000.0) + 3)
    assert warnings == []


@pytest.mark.parametrize("damage", ["cut", "flip", "empty"])
def test_a_damaged_one_is_passed_over_with_a_warning(tmp_path: Path, damage: str) -> None:
    checkpoint.save(tmp_path, 1, state(1))
    path = checkpoint.save(tmp_path, 2, state(2))
    content = bytearray(path.read_bytes())
    if damage == "cut":
        content = content[: len(content) // 2]
    elif damage == "flip":
        content[len(content) // 2] ^= 1
    else:
        content = bytearray()
    path.write_bytes(content)
    found, warnings = checkpoint.newest(tmp_path)
    assert found is not None
    assert found["step"] == 1
    assert len(warnings) == 1
    assert "checkpoint-00000002.pt is damaged" in warnings[0]


def test_all_damaged_is_one_line(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, 1, state(1)).write_bytes(b"nonsense")
    with pytest.raises(BadCheckpoint, match=r"no checkpoint in .* can be read: checkpoint-00000001.pt; delete them"):
        checkpoint.newest(tmp_path)


def test_none_is_no_error(tmp_path: Path) -> None:
    assert checkpoint.newest(tmp_path) == (None, [])


def test_code_in_a_checkpoint_is_refused(tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path, 1, {"step": 1, "evil": print})
    with pytest.raises(BadCheckpoint, match="holds more than tensors and plain values"):
        checkpoint.load(path)


def test_a_full_disk_leaves_the_older_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint.save(tmp_path, 1, state(1))

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(runs.os, "fsync", full)
    with pytest.raises(NotWritable, match="No space left on device; free some room, or choose another place"):
        checkpoint.save(tmp_path, 2, state(2))
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint-00000001.pt"]
