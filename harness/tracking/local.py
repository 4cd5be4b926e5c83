"""Run directories as MLflow wants them: parameters, tags, curves and final values. Nothing here needs MLflow."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from harness.errors import RunConflict
from harness.runs import read_lines

NOT_CURVES = ("step", "epoch", "time")
NOT_PARAMS = ("name", "label", "digest", "seed", "overrides", "evals")
FILES = ("recipe.json", "attempts.jsonl", "metrics.jsonl", "record.json", "encoder.safetensors")
DAMAGE = (ValueError, KeyError, TypeError, AttributeError, IndexError)  # what reading a damaged file raises


def key_of(path: Path) -> str:
    return f"{path.parent.parent.name}/{path.parent.name}/{path.name}"


def state_of(path: Path) -> str:
    """12 hex digits that change when a file of a run directory does, from sizes and times: nothing is read."""
    seen = []
    for name in FILES:
        try:
            status = (path / name).stat()
        except FileNotFoundError:
            continue
        seen.append(f"{name} {status.st_size} {status.st_mtime_ns}")
    return hashlib.sha256("\n".join(seen).encode()).hexdigest()[:12]


@dataclass
class LocalRun:
    """A run directory, read."""

    path: Path
    key: str
    seed: int
    status: str
    fingerprint: str  # of the record, or "live" and the status
    started: int  # ms, as all times for MLflow
    ended: int
    measured: int  # when the record was written: of two values at one step MLflow shows the younger
    params: dict[str, str]
    tags: dict[str, str]
    curve: list[tuple[int, int, dict[str, float]]]  # step, time and numbers of each logged step, ascending
    final: dict[str, float]
    data: dict[str, str] = field(default_factory=dict)  # name and revision, of a run with a record
    images: dict[str, int] = field(default_factory=dict)  # of each split that was evaluated

    @property
    def last_step(self) -> int:
        return self.curve[-1][0] if self.curve else -1

    @classmethod
    def read(cls, path: Path) -> "LocalRun":
        """Errors: RunConflict, with the file and what is wrong; OSError."""
        recipe = _part(path / "recipe.json", lambda file: json.loads(file.read_text()))
        record_file = path / "record.json"
        text = record_file.read_text() if record_file.exists() else ""
        record = _part(record_file, lambda _: json.loads(text)) if record_file.exists() else None
        curve = _part(
            path / "metrics.jsonl",
            lambda _: [(int(line["step"]), _ms(line["time"]), numbers(line)) for line in read_curve(path)],
        )
        events = _part(
            path / "attempts.jsonl",
            lambda file: [
                (line["event"], line["time"]) for line in read_lines(file) if line["event"] in ("start", "end")
            ],
        )
        live = "running" if events and events[-1][0] == "start" else "interrupted"
        seed = int(path.name.removeprefix("seed-"))
        shaping = _part(
            path / "recipe.json", lambda _: flatten({k: recipe[k] for k in recipe if k not in NOT_PARAMS}, ".")
        )
        tags = _part(path / "recipe.json", lambda _: _of_recipe(path, recipe))
        started = _ms(events[0][1]) if events else 0
        made = cls(
            path=path,
            key=key_of(path),
            seed=seed,
            status=live,
            fingerprint=live,
            started=started,
            ended=started,
            measured=started,
            params={k: v if isinstance(v, str) else json.dumps(v) for k, v in shaping.items()} | {"seed": str(seed)},
            tags=tags | {"status": live, "seed": str(seed)},
            curve=curve,
            final={},
        )
        if record is not None:
            _part(record_file, lambda file: made._finish(record, text, int(file.stat().st_mtime * 1000)))
        return made

    def _finish(self, record: dict[str, Any], text: str, measured: int) -> None:
        """Take over what a record says."""
        self.status, self.measured = record["status"], measured
        self.fingerprint = hashlib.sha256(text.encode()).hexdigest()[:12]
        self.started, self.ended = _ms(record["started"]), _ms(record["ended"])
        self.tags |= _texts(of_record(record)) | {"status": self.status}
        self.final = finals(record)
        self.data = {"name": record["data"]["name"], "revision": record["data"]["revision"]}
        self.images = {one["split"]: int(one["n"]) for one in record["evals"]}


def _part(file: Path, read: Callable[[Path], Any]) -> Any:
    try:
        return read(file)
    except DAMAGE as error:
        fix = "remove it and run the recipe again" if file.name == "record.json" else "move its folder away"
        raise RunConflict(f"{file} is damaged ({error!r}); {fix}") from error


def _of_recipe(path: Path, recipe: Mapping[str, Any]) -> dict[str, str]:
    """What tables filter and group by, as far as it is known before there is a record; what MLflow's pages show."""
    name, overrides = path.parent.parent.name, recipe.get("overrides", ())
    encoder = recipe["encoder"]
    values = {
        "recipe": name,
        "digest": path.parent.name,
        "method": recipe["method"]["name"],
        "label": recipe.get("label", recipe["method"]["name"]),
        "dataset": recipe["data"]["name"],
        "encoder": encoder["label"] or encoder["name"],
        "epochs": recipe["budget"]["epochs"],
        "batch": recipe["budget"]["batch"],
        "reason": "",
        "commit": "",
        "dirty": "",
        "fingerprint": "",
        "overrides": " ".join(overrides),
        "ended": "",
        "mlflow.source.type": "LOCAL",
        "mlflow.source.name": f"harness run {name}" + "".join(f" --set {text}" for text in overrides),
        "mlflow.user": _owner(path / "recipe.json"),
    }
    return _texts(values)


def of_record(record: Mapping[str, Any]) -> dict[str, Any]:
    """What a record adds to it, or knows better."""
    code = record.get("code", {})
    values = {name: record[name] for name in ("label", "encoder") if name in record}
    values |= {"reason": record.get("reason", ""), "ended": record.get("ended")}
    values |= {name: code.get(name) for name in ("commit", "dirty", "fingerprint")}
    if code.get("commit"):
        values["mlflow.source.git.commit"] = code["commit"]
    for one in record["evals"]:
        about = {name: one[name] for name in ("n", "network", "layer", "units", "settings")}
        values[f"eval/{one['split']}/{one['protocol']}"] = json.dumps(about)
    return values


def _texts(values: Mapping[str, Any]) -> dict[str, str]:
    return {name: "" if value is None else str(value) for name, value in values.items()}


def _owner(file: Path) -> str:
    """Who made the run: whoever the file belongs to."""
    try:
        return file.owner()
    except KeyError:  # a user that this machine does not know
        return str(file.stat().st_uid)


def finals(record: Mapping[str, Any]) -> dict[str, float]:
    """`<split>/<protocol>/<metric>` of every evaluation, and what the run cost."""
    final = {
        f"{one['split']}/{one['protocol']}/{metric}": float(value)
        for one in record["evals"]
        for metric, value in one["metrics"].items()
    }
    if record["images_per_s"] is not None:
        final["cost/images_per_s"] = float(record["images_per_s"])
    return final | {"cost/minutes": record["train_seconds"] / 60}


def read_curve(path: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl in a run directory, one per step in ascending order: the last line of a step wins."""
    lines = {line["step"]: line for line in read_lines(path / "metrics.jsonl")}
    return [lines[step] for step in sorted(lines)]


def numbers(line: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a line of metrics.jsonl, by their names: `loss`, `terms/variance`, ..."""
    flat = flatten({k: v for k, v in line.items() if k not in NOT_CURVES}, "/")
    return {k: float(v) for k, v in flat.items() if isinstance(v, int | float) and not isinstance(v, bool)}


def flatten(node: Any, separator: str, name: str = "") -> dict[str, Any]:
    """Nested data as one level: names joined by the separator, positions as names; a list of scalars is one value."""
    if isinstance(node, list) and any(isinstance(item, dict) for item in node):
        node = dict(enumerate(node))
    if not isinstance(node, dict):
        return {name: node}
    flat: dict[str, Any] = {}
    for key, value in node.items():
        flat |= flatten(value, separator, f"{name}{separator}{key}" if name else str(key))
    return flat


def _ms(time: str) -> int:
    return int(datetime.fromisoformat(time).timestamp() * 1000)
