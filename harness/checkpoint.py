"""Checkpoints: written whole or not at all, checked when read, the last two kept.

A file holds tensors and plain values only and is loaded with weights_only=True. Its first line is the sha256 of the
rest, so a file cut or changed on the disk is noticed, and the older one is used.
"""

import hashlib
import io
import pickle
from pathlib import Path
from typing import Any

import torch

from harness.errors import BadCheckpoint
from harness.runs import write_atomically

KEEP = 2


def save(folder: Path, step: int, state: dict[str, Any]) -> Path:
    """Write checkpoint-<step>.pt and remove all but the newest two."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    payload = buffer.getvalue()
    path = folder / f"checkpoint-{step:08d}.pt"
    write_atomically(path, hashlib.sha256(payload).hexdigest().encode() + b"\n" + payload)
    for old in _files(folder)[KEEP:]:
        old.unlink()
    return path


def load(path: Path) -> dict[str, Any]:
    """Errors: BadCheckpoint when the content is not what was written."""
    digest, _, payload = path.read_bytes().partition(b"\n")
    if hashlib.sha256(payload).hexdigest().encode() != digest:
        raise BadCheckpoint(f"{path} is damaged (its checksum does not match its content)")
    try:
        state: dict[str, Any] = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise BadCheckpoint(
            f"{path} holds more than tensors and plain values; it was not written by this harness"
        ) from error
    return state


def newest(folder: Path) -> tuple[dict[str, Any] | None, list[str]]:
    """The newest checkpoint that reads back, and a warning for each newer one that does not.

    (None, []) where there is none. Errors: BadCheckpoint where there are some and all are damaged.
    """
    warnings: list[str] = []
    files = _files(folder)
    for path in files:
        try:
            return load(path), warnings
        except BadCheckpoint as error:
            warnings.append(str(error))
    if files:
        raise BadCheckpoint(
            f"no checkpoint in {folder} can be read: {', '.join(p.name for p in files)}; "
            "delete them to start this run again"
        )
    return None, []


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("checkpoint-*.pt"), reverse=True)
