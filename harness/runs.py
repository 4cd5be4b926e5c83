"""Run directories: the truth of a run, in plain files.

runs/<recipe>/<digest>/seed-<n>/
    recipe.json       the resolved recipe
    attempts.jsonl    start and end of every attempt
    metrics.jsonl     one line per logged step; after a resume a step may stand twice, the last line wins
    checkpoint-*.pt   the last two checkpoints
    encoder.safetensors, record.json   written last; a run with a record is finished
    lease-<n>         held by the one process that writes (harness/lease.py)
    cancel            somebody asked that nobody goes on with it, until it is asked for again
"""

import contextlib
import json
import os
import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import NotWritable, RunConflict
from harness.lease import Lease, hold

if TYPE_CHECKING:  # else every job would import torch before it hears signals, and once more at its end
    from harness.recipe import Recipe

Run = tuple[str, int, tuple[str, ...]]  # recipe name, seed, overrides


def default_root() -> Path:
    """HARNESS_RUNS, else ./runs."""
    return Path(os.environ.get("HARNESS_RUNS", "runs"))


@contextlib.contextmanager
def writable(path: Path) -> Iterator[None]:
    """Turn a write that the disk refuses into one line."""
    try:
        yield
    except OSError as error:
        raise NotWritable(f"cannot write {path}: {error.strerror}; free some room, or choose another place") from error


def write_atomically(path: Path, content: bytes) -> None:
    """All of the content or none of it: a temporary file in the same folder, fsync, rename."""
    with writable(path):
        temporary = path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}")
        try:
            with open(temporary, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a JSONL file; a half-written last one is left out, a missing file is empty."""
    lines = []
    for text in path.read_text().splitlines() if path.exists() else []:
        with contextlib.suppress(json.JSONDecodeError):
            lines.append(json.loads(text))
    return lines


def append_line(path: Path, line: dict[str, Any]) -> None:
    """One line at the end of a JSONL file; a half-written line of a killed attempt is closed first."""
    with writable(path), open(path, "a+b") as stream:
        if stream.seek(0, os.SEEK_END):
            stream.seek(-1, os.SEEK_END)
            if stream.read(1) != b"\n":
                stream.write(b"\n")
        stream.write(json.dumps(line).encode() + b"\n")


def cancel_mark(path: Path) -> Path:
    """A file in a run directory that says: nobody starts this again by itself."""
    return path / "cancel"


def cancelled(path: Path) -> str | None:
    """Who asked for that, from the mark in a run directory; None if nobody did."""
    try:
        return cancel_mark(path).read_text().strip() or "by `harness cancel`"
    except FileNotFoundError:
        return None


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


class RunDirectory:
    def __init__(self, root: Path, recipe: "Recipe", seed: int) -> None:
        self.recipe, self.seed = recipe, seed
        self.path = root / recipe.name / recipe.digest / f"seed-{seed}"
        self.lease: Lease | None = None

    @property
    def key(self) -> str:
        return f"{self.recipe.name}/{self.recipe.digest}/seed-{self.seed}"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    def record(self) -> dict[str, Any] | None:
        """The record of a finished run. Errors: RunConflict for one that does not read back."""
        file = self.path / "record.json"
        if not file.exists():
            return None
        try:
            record: dict[str, Any] = json.loads(file.read_text())
            record["status"], record["evals"], record["network"], record["px"], record["code"]
        except (ValueError, KeyError, TypeError) as error:
            raise RunConflict(f"{file} is damaged ({error!r}); remove it and run the recipe again") from error
        return record

    def write_record(self, record: dict[str, Any]) -> None:
        self.check()
        write_atomically(self.path / "record.json", (json.dumps(record, indent=1) + "\n").encode())

    @contextlib.contextmanager
    def leased(self, wait: bool = False, **owner: Any) -> Iterator[None]:
        """Hold the directory for writing. owner: what others are told of this process, e.g. its job.

        Errors: Held if another process has it; RunConflict if it is another recipe's.
        """
        with writable(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        with hold(self.path, owner, wait) as self.lease:
            try:
                self._claim()
                yield
            finally:
                self.lease = None

    def check(self) -> None:
        """Call before each write. Errors: LeaseLost."""
        if self.lease:
            self.lease.check()

    def _claim(self) -> None:
        for left in self.path.glob(".*.[0-9]*"):  # half-written files of attempts that were killed
            left.unlink(missing_ok=True)
        file = self.path / "recipe.json"
        mine = {
            "digest": self.recipe.digest,
            "seed": self.seed,
            "label": self.recipe.method.label,
            **self.recipe.resolved(),
        }
        if not file.exists():
            write_atomically(file, (json.dumps(mine, indent=1) + "\n").encode())
            return
        way_out = "move the directory away, or choose another place with --runs"
        try:
            theirs = json.loads(file.read_text())
        except json.JSONDecodeError as error:
            raise RunConflict(f"{file} is damaged ({error}); {way_out}") from error
        if (theirs.get("digest"), theirs.get("seed")) != (self.recipe.digest, self.seed):
            raise RunConflict(
                f"{self.path} holds a run of digest {theirs.get('digest')} and seed {theirs.get('seed')}, "
                f"this one has {self.recipe.digest} and {self.seed}; {way_out}"
            )

    def forget(self) -> None:
        """Remove the directory of a run that was refused before it began."""
        if not (self.path / "attempts.jsonl").exists():
            for file in (self.path / "recipe.json", *self.path.glob("lease-*")):
                file.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # not empty
                for folder in (self.path, *list(self.path.parents)[:2]):
                    folder.rmdir()

    def append(self, file: str, line: dict[str, Any]) -> None:
        """One line at the end of a JSONL file. Errors: LeaseLost, NotWritable."""
        self.check()
        append_line(self.path / file, line)
