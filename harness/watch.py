"""Watch runs by their directories: how many are done, which are running, how long it will take."""

import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from harness.runs import RunDirectory

LINE_EVERY_S = 15.0
LIVE_S = 60.0  # a run that has not written for so long is not shown as running


def watch(directories: Sequence[RunDirectory], alive: Callable[[], bool], every_s: float = 0.5) -> None:
    """Show progress until every run has a record or nobody is `alive` any more."""
    terminal = sys.stderr.isatty()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    total = sum(1 + d.recipe.budget.epochs for d in directories)
    last = time.monotonic()
    with Progress(*columns, console=Console(stderr=True), disable=not terminal) as bar:
        task = bar.add_task("runs", total=total)
        while True:
            states = [_state(d) for d in directories]
            done = sum(state["done"] for state in states)
            epochs = sum(
                1 + d.recipe.budget.epochs if s["done"] else s["epoch"]
                for d, s in zip(directories, states, strict=True)
            )
            live = [
                f"{d.recipe.name} {s['epoch']}/{d.recipe.budget.epochs}"
                for d, s in zip(directories, states, strict=True)
                if s["live"]
            ]
            bar.update(task, completed=epochs, description=f"{done}/{len(states)} runs; {', '.join(live[:2])}")
            if not terminal and time.monotonic() - last > LINE_EVERY_S:
                last = time.monotonic()
                print(  # noqa: T201
                    f"{done}/{len(states)} runs done, {epochs}/{total} epochs; {', '.join(live)}",
                    file=sys.stderr,
                    flush=True,
                )
            if done == len(states) or not alive():
                return
            time.sleep(every_s)


def _state(directory: RunDirectory) -> dict[str, Any]:
    if (directory.path / "record.json").exists():
        return {"done": True, "live": False, "epoch": 0}
    line = last_line(directory.metrics)
    live = bool(line) and time.time() - directory.metrics.stat().st_mtime < LIVE_S
    return {"done": False, "live": live, "epoch": int(line.get("epoch", 0))}


def last_line(path: Path) -> dict[str, Any]:
    """The last whole line of a JSONL file, reading only its end."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, path.stat().st_size - 65536))
            lines = file.read().splitlines()
    except FileNotFoundError:
        return {}
    for text in reversed(lines):
        try:
            return dict(json.loads(text))
        except json.JSONDecodeError:
            continue
    return {}
