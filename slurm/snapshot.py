"""The code of a submission: a copy of the working tree, so that later edits do not change what is queued.

<runs>/snapshots/<12 hex digits of content and commit>/ holds the packages, `snapshot.json` (commit, dirty) and, where
the tree differs from its commit, `diff.patch`. The same code is stored once.
"""

import hashlib
import json
import os
import shutil
import subprocess
import uuid
from pathlib import Path
from typing import Any

from harness import provenance
from harness.errors import RunConflict
from harness.runs import writable


def take(runs: Path) -> Path:
    """Copy the code that runs need beside them; returns the folder, absolute. Errors: NotWritable."""
    state = provenance.git()
    files = _files()
    digest = hashlib.sha256(json.dumps(state).encode())
    for file in files:
        digest.update(file.encode() + b"\0" + (provenance.ROOT / file).read_bytes() + b"\0")
    folder = runs.resolve() / "snapshots" / digest.hexdigest()[:12]
    if folder.exists():
        return folder
    temporary = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
    with writable(folder):
        for file in files:
            (temporary / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(provenance.ROOT / file, temporary / file)
        (temporary / "snapshot.json").write_text(json.dumps(state) + "\n")
        if state["dirty"]:
            (temporary / "diff.patch").write_text(_diff())
        try:
            os.rename(temporary, folder)
        except OSError:  # somebody else has just made the same one
            shutil.rmtree(temporary)
            if not folder.exists():
                raise
    return folder


def git(folder: Path) -> dict[str, Any]:
    """Commit of a snapshot, and whether it differed from it. Errors: RunConflict for one that is not whole."""
    try:
        return dict(json.loads((folder / "snapshot.json").read_text()))
    except (OSError, ValueError) as error:
        raise RunConflict(
            f"the code of a submission is gone or damaged ({error}); `harness submit` goes on with today's code"
        ) from error


def _files() -> list[str]:
    """Files of the packages relative to the checkout: those git knows or would; without git all but caches."""
    try:
        listed = _git("ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *provenance.CODE).split(
            "\0"
        )
    except (OSError, subprocess.CalledProcessError):
        paths = [path for package in provenance.CODE for path in (provenance.ROOT / package).rglob("*")]
        listed = [str(p.relative_to(provenance.ROOT)) for p in paths if "__pycache__" not in p.parts]
    return sorted(file for file in listed if file and (provenance.ROOT / file).is_file())


def _diff() -> str:
    try:
        return _git("diff", "HEAD", "--", *provenance.CODE)
    except (OSError, subprocess.CalledProcessError):
        return ""


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=provenance.ROOT, capture_output=True, text=True, check=True).stdout
