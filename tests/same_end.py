"""What it means that two runs ended the same: last checkpoint, curves and encoder, bit for bit, but for times."""

from pathlib import Path
from typing import Any

import torch

from harness import checkpoint
from harness.runs import read_lines

TIMES = {"time", "images_per_s", "data_wait"}


def last_state(directory: Path) -> dict[str, Any]:
    """Of the newest checkpoint in a run directory, which must be whole."""
    state, warnings = checkpoint.newest(directory)
    assert state is not None
    assert not warnings
    return state


def assert_same(a: Any, b: Any, path: str = "") -> None:
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), path
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), path
        for key in a:
            if key not in ("seconds", *TIMES):
                assert_same(a[key], b[key], f"{path}/{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), path
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{path}/{i}")
    else:
        assert a == b, path


def curves(directory: Path) -> dict[int, dict[str, Any]]:
    return {
        line["step"]: {k: v for k, v in line.items() if k not in TIMES}
        for line in read_lines(directory / "metrics.jsonl")
    }


def assert_same_end(a: Path, b: Path) -> None:
    """Of two run directories."""
    assert_same(last_state(a), last_state(b))
    assert curves(a) == curves(b)
    assert (a / "encoder.safetensors").read_bytes() == (b / "encoder.safetensors").read_bytes()
