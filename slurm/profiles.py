"""Cluster profiles: what a job asks of a scheduler, as data. `slurm/clusters/<name>.toml` is a profile."""

import fnmatch
import tomllib
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

from typeguard import TypeCheckError, check_type

from harness.errors import BadProfile, UnknownName

FOLDER = Path(__file__).resolve().parent / "clusters"
Stage = Literal["train", "evaluate", "coordinate"]


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Resources of one job; names as sbatch has them, times in the unit of their suffix.

    A job is one run on nodes * tasks_per_node processes, one per GPU where GPUs are asked for (gpus_per_node or gres).
    array_parallelism: jobs of an array that run side by side (on `local`: workers, 0 chooses).
    signal_delay_s: how long before the time limit SLURM asks for a checkpoint.
    extra: further sbatch options by their long name. setup: shell lines before the job.
    """

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    gres: str | None = None
    constraint: str | None = None
    exclude: str | None = None
    nodes: int = 1
    tasks_per_node: int = 1
    gpus_per_node: int = 0
    cpus_per_task: int = 1
    mem_gb: float | None = None
    time_min: int = 60
    array_parallelism: int = 256
    signal_delay_s: int = 120
    extra: dict[str, str | int | bool] = field(default_factory=dict)
    setup: list[str] = field(default_factory=list)

    @property
    def processes(self) -> int:
        return self.nodes * self.tasks_per_node

    @property
    def gpus(self) -> int:
        """Per node, asked for as gpus_per_node or as gres = "gpu:4" or "gpu:a100:4"."""
        kind, *rest = (self.gres or "").split(":")
        by_gres = (int(rest[-1]) if rest and rest[-1].isdigit() else 1) if kind == "gpu" else 0
        return self.gpus_per_node or by_gres


@dataclass(frozen=True, kw_only=True)
class Profile(Shape):
    """A cluster.

    checkpoint_every_s: how often a run writes a checkpoint unasked. join_timeout_s: how long the processes of one run
    wait for each other at its start. one_machine: all nodes are this machine, so any folder is shared.
    shape: for which recipes (a glob) and stages the resources differ.
    """

    launcher: Literal["slurm", "local"]
    name: str = ""
    checkpoint_every_s: float = 60.0
    join_timeout_s: float = 300.0
    one_machine: bool = False
    shape: list[dict[str, Any]] = field(default_factory=list)

    def shape_of(self, recipe: str, stage: Stage = "train") -> Shape:
        """Resources of one run: the first `shape` that fits, over the profile's own.

        Evaluations are one process; the coordinator of a study is one without a GPU.
        """
        found = Shape(**{f.name: getattr(self, f.name) for f in fields(Shape)})
        if stage == "coordinate":
            found = replace(found, gres=None, gpus_per_node=0, cpus_per_task=1)
        for entry in self.shape:
            unnamed = "train" if stage == "coordinate" else stage  # which needs no GPU, whatever its recipe does
            if fnmatch.fnmatch(recipe, entry.get("recipes", "*")) and entry.get("stage", unnamed) == stage:
                found = replace(found, **{key: v for key, v in entry.items() if key not in ("recipes", "stage")})
                break
        return found if stage == "train" else replace(found, nodes=1, tasks_per_node=1)


def names() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def load(name: str) -> Profile:
    """A profile by name. Errors: UnknownName, BadProfile."""
    if name not in names():
        raise UnknownName("cluster", name, names(), fix=f"to add one, copy {FOLDER / 'example.toml'}")
    file = FOLDER / f"{name}.toml"
    try:
        data = tomllib.loads(file.read_text())
    except tomllib.TOMLDecodeError as error:
        raise BadProfile(f"{file} is not TOML: {error}") from error
    _check(file, data, Profile)
    if "launcher" not in data:
        raise BadProfile(f'{file}: launcher is missing; write launcher = "slurm" or launcher = "local"')
    for entry in data.get("shape", []):
        stage = entry.get("stage", "train")
        if stage not in get_args(Stage):
            raise BadProfile(f"{file}: stage is {stage!r}, expected 'train', 'evaluate' or 'coordinate'")
        _check(file, {key: value for key, value in entry.items() if key not in ("recipes", "stage")}, Shape)
    profile = Profile(**(data | {"name": name}))
    for shape in (profile, *(profile.shape_of(e.get("recipes", "*"), e.get("stage", "train")) for e in profile.shape)):
        _check_time(file, shape, profile.checkpoint_every_s)
    return profile


def _check(file: Path, data: dict[str, Any], kind: type[Shape]) -> None:
    hints = get_type_hints(kind)
    for key, value in data.items():
        if key not in hints or key == "name":
            raise UnknownName("setting", key, hints.keys() - {"name"}, fix=f"in {file}")
        try:
            check_type(value, hints[key])
        except TypeCheckError as error:
            wanted = getattr(hints[key], "__name__", str(hints[key])) if hints[key] is not None else "nothing"
            raise BadProfile(f"{file}: {key} is {value!r}, expected {wanted}") from error
        lowest = 0 if key in ("gpus_per_node", "array_parallelism") else 1
        if isinstance(value, int | float) and not isinstance(value, bool) and value < lowest and key != "mem_gb":
            raise BadProfile(f"{file}: {key} is {value}, expected {lowest} or more")


def _check_time(file: Path, shape: Shape, checkpoint_every_s: float) -> None:
    """A job must live long enough to write one checkpoint before SLURM asks for the last one."""
    if 60 * shape.time_min < checkpoint_every_s + shape.signal_delay_s:
        raise BadProfile(
            f"{file}: time_min is {shape.time_min}, shorter than a checkpoint interval ({checkpoint_every_s:.0f} s) "
            f"and signal_delay_s ({shape.signal_delay_s} s) together; a job might end without a checkpoint: raise it"
        )
