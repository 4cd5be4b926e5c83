"""What a run of MLflow has besides numbers: the data sets it saw, its encoder, and the claims about its recipe."""

import json
import os
import shutil
import socket
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from harness.errors import Unavailable
from harness.tracking.local import LocalRun

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput
    from mlflow.tracking import MlflowClient

CLAIMS_LENGTH = 5000  # characters of a tag; MLflow cuts at 8000


def inputs(local: LocalRun) -> "list[DatasetInput]":
    """The splits that a run was trained and evaluated on, as MLflow's data sets. It tells them apart by their names."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    from harness.data import SETS

    name, revision = local.data["name"], local.data["revision"]
    hub = SETS[name].hub if name in SETS else None
    kind, source = (
        ("hugging_face", {"path": hub[0], "revision": hub[1]})
        if hub
        else ("code", {"tags": {"mlflow.source.name": f"harness/data: {name}"}})
    )
    found = []
    for split, context in (("train", "train"), *((split, "eval") for split in local.images)):
        profile = json.dumps({"num_rows": local.images[split]}) if split in local.images else None
        dataset = Dataset(f"{name}/{split}", revision, kind, json.dumps(source), profile=profile)
        found.append(DatasetInput(dataset, [InputTag("mlflow.data.context", context)]))
    return found


def encoder_state(path: Path) -> str:
    """Size and time of the encoder of a run directory; "" where there is none."""
    file = path / "encoder.safetensors"
    return f"{file.stat().st_size} {file.stat().st_mtime_ns}" if file.exists() else ""


def keep_encoder(client: "MlflowClient", id: str, artifacts: str, file: Path) -> None:
    """A file as an artifact of a run: where artifacts are in a folder a second name of it, which costs no room.

    artifacts: their place, of that run. Errors: Unavailable.
    """
    place = urlsplit(artifacts)
    try:
        if place.scheme in ("", "file"):
            _link(file, Path(unquote(place.path)))
        else:
            client.log_artifact(id, str(file))
    except Exception as error:  # each kind of store has its own
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise Unavailable(
            f"cannot keep encoders as artifacts in {artifacts}: {reason}; the next sync tries again"
        ) from error


def _link(file: Path, folder: Path) -> None:
    """Replaces what is there, whole or not at all."""
    kept, new = folder / file.name, folder / f".{file.name}.{socket.gethostname()}.{os.getpid()}"
    folder.mkdir(parents=True, exist_ok=True)
    if kept.exists() and kept.samefile(file):
        return
    new.unlink(missing_ok=True)
    try:
        os.link(file, new)
    except OSError:  # another file system, or one without links
        shutil.copy2(file, new)
    os.replace(new, kept)


def claims_by_recipe() -> dict[str, str]:
    """Recipe -> the ids of the claims about it, as one text. Errors: BadClaim."""
    from harness import claims

    found: dict[str, list[str]] = {}
    for file in claims.load_all(claims.FOLDER):
        for claim in file.claims:
            for recipe in {*claim.recipes}:
                found.setdefault(recipe, []).append(claim.id)
    return {recipe: _shortened(" ".join(ids)) for recipe, ids in found.items()}


def _shortened(text: str) -> str:
    return text if len(text) <= CLAIMS_LENGTH else text[:CLAIMS_LENGTH].rpartition(" ")[0] + " ..."
