"""What was submitted: <runs>/submissions/<id>/submission.json, written once, before the scheduler is asked.

<runs>/submissions/<id>/
    submission.json   which runs, in which arrays, with which code and resources
    jobs/             submitit's folder: sbatch files and logs, <job>_<task>_<rank>_log.out
    meetings/         where processes of one attempt find each other (slurm/processes.py)
    finished          runs that need not be looked at again, by a reader that found them so

A job is found by its name, PREFIX<id>.<array>, and its array task, so a launcher that dies between asking the scheduler
and writing down its answer loses nothing.
"""

import contextlib
import json
import secrets
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from harness.errors import NotWritable, RunConflict, UnknownName
from harness.runs import now, write_atomically
from slurm.profiles import Shape, Stage
from slurm.scheduler import PREFIX


@dataclass(frozen=True)
class Item:
    """One thing to do: train a run, or evaluate a finished one by further protocols."""

    recipe: str
    seed: int
    overrides: tuple[str, ...]
    digest: str
    stage: Stage = "train"
    protocols: tuple[str, ...] = field(default=(), compare=False)  # one evaluation of a run at a time

    def path(self, runs: Path) -> Path:
        return runs / self.recipe / self.digest / f"seed-{self.seed}"

    def __str__(self) -> str:
        few = "+".join(self.protocols) if len(self.protocols) <= 2 else f"{len(self.protocols)} protocols"
        return f"{self.recipe} seed {self.seed}" + (f" {few}" if few else "")


@dataclass(frozen=True)
class Array:
    """Items of one shape that are one job array; a single one is a job of its own."""

    shape: Shape
    items: tuple[Item, ...]


@dataclass(frozen=True)
class Submission:
    runs: Path  # absolute
    id: str
    cluster: str
    launcher: str
    snapshot: Path
    commit: str | None
    dirty: bool | None
    data_root: str | None
    time: str
    arrays: tuple[Array, ...] = field(repr=False)

    @property
    def folder(self) -> Path:
        return self.runs / "submissions" / self.id

    @property
    def jobs(self) -> Path:
        return self.folder / "jobs"

    def name(self, array: int) -> str:
        """The job name of an array."""
        return f"{PREFIX}{self.id}.{array}"

    def items(self) -> Iterator[tuple[str, int, Item]]:
        """Job name, array task, item."""
        for number, array in enumerate(self.arrays):
            for task, item in enumerate(array.items):
                yield self.name(number), task, item

    def write(self) -> None:
        """Errors: NotWritable."""
        for folder in (self.jobs, self.folder / "meetings"):
            folder.mkdir(parents=True, exist_ok=True)
        data = asdict(self) | {"schema": 1, "runs": str(self.runs), "snapshot": str(self.snapshot)}
        write_atomically(self.folder / "submission.json", json.dumps(data).encode() + b"\n")

    @cached_property
    def finished(self) -> "Finished":
        return Finished(self.folder / "finished")


class Finished:
    """Items a reader has seen finished, so that the next one looks at the others only. Losing it costs time alone."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.words: dict[str, str] = {}
        for line in file.read_text().splitlines() if file.exists() else ():
            index, _, word = line.partition(" ")
            self.words[index] = word

    def add(self, found: dict[str, str]) -> None:
        if found:
            self.words |= found
            text = "".join(f"{index} {word}\n" for index, word in self.words.items())
            with contextlib.suppress(NotWritable):  # somebody else's runs, or a full disk
                write_atomically(self.file, text.encode())


def new_id() -> str:
    return f"{datetime.now():%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def make(runs: Path, arrays: tuple[Array, ...], **fields: Any) -> Submission:
    return Submission(runs=runs.resolve(), id=new_id(), time=now(), arrays=arrays, **fields)


def read(runs: Path, id: str) -> Submission:
    """Errors: UnknownName, RunConflict for a file that does not read back."""
    file = runs.resolve() / "submissions" / id / "submission.json"
    try:
        data = json.loads(file.read_text())
        data.pop("schema")
        arrays = tuple(
            Array(
                Shape(**array["shape"]),
                tuple(
                    Item(**(item | {"overrides": tuple(item["overrides"]), "protocols": tuple(item["protocols"])}))
                    for item in array["items"]
                ),
            )
            for array in data.pop("arrays")
        )
        found = Submission(
            **(data | {"arrays": arrays, "runs": Path(data["runs"]), "snapshot": Path(data["snapshot"])})
        )
    except FileNotFoundError:
        raise UnknownName("submission", id, ids(runs), fix="`harness status` shows them") from None
    except (ValueError, KeyError, TypeError) as error:
        raise RunConflict(f"{file} is damaged ({error!r}); move its folder away and submit again") from error
    return replace(found, runs=runs.resolve())  # the runs may have been moved


def ids(runs: Path) -> list[str]:
    """Oldest first."""
    return sorted(path.parent.name for path in (runs / "submissions").glob("*/submission.json"))


def read_all(runs: Path) -> list[Submission]:
    return [read(runs, id) for id in ids(runs)]
