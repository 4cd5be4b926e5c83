"""Where a number comes from: commit, packages, device, and a fingerprint of the code on its path."""

import hashlib
import importlib.metadata
import json
import platform
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
CODE = ("harness", "methods", "sweeps", "slurm")
ON_THE_PATH = (  # what can change a number; the rest of harness/ only moves or shows numbers
    "api.py", "backbones.py", "colours.py", "data/*.py", "factors.py", "features.py", "feed.py", "interval.py",
    "optim.py", "processes.py", "recipe.py", "seeding.py", "sphere.py", "stream.py", "tables.py", "train.py",
    "views.py", "nn/*.py", "evals/*.py",
)  # fmt: skip


@cache
def git() -> dict[str, Any]:
    """Commit of the checkout and whether its code differs from it, new files included; both None outside git.

    A snapshot of a submission (slurm/snapshot.py) says what was true when it was taken.
    """
    if (snapshot := ROOT / "snapshot.json").exists():
        return dict(json.loads(snapshot.read_text()))
    try:
        commit = _git("rev-parse", "HEAD")
        return {"commit": commit, "dirty": bool(_git("status", "--porcelain", "--", *CODE))}
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "dirty": None}


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


@cache
def fingerprint(methods: tuple[str, ...]) -> str:
    """12 hex digits over the files that a run of these methods depends on; a change makes older records stale."""
    files = sorted(path for pattern in ON_THE_PATH for path in (ROOT / "harness").glob(pattern))
    files += [ROOT / "methods" / f"{name}.py" for name in sorted(methods)]
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.relative_to(ROOT).as_posix().encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def code(methods: tuple[str, ...], earlier: dict[str, Any] | None = None) -> dict[str, Any]:
    """What a record says of the code that made it: commit, dirty, fingerprint.

    earlier: the same of the attempts before this one. If the code has changed since, the fingerprint names both, so
    it equals no checkout's and verdicts bar the record.
    """
    now = git() | {"fingerprint": fingerprint(methods)}
    if earlier and earlier["fingerprint"] != now["fingerprint"]:
        now["fingerprint"] = f"{earlier['fingerprint']}+{now['fingerprint']}"
    if earlier and earlier["dirty"]:
        now["dirty"] = True
    return now


def packages() -> dict[str, str]:
    names = ("torch", "torchvision", "timm", "datasets", "numpy", "scikit-learn")
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in names}


def device_name(device: str) -> str:
    if device.startswith("cuda"):
        import torch

        return torch.cuda.get_device_name()
    return platform.processor() or platform.machine()
