"""What a person sees of submitted runs: a table of where they stand, and their logs.

Run directories say what runs do; the scheduler is asked once per refresh, however many jobs there are.
"""

import fnmatch
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from harness import attempts
from harness.errors import Unavailable, UnknownName
from harness.watch import last_line
from slurm import states, submission
from slurm.states import State
from slurm.submission import Item, Submission

ROWS = 40
EVERY_S = 5.0  # between two looks
ORDER = (
    "running", "starting", "ending", "held", "stuck", "refused", "stopped", "missing", "cancelled", "pending",
    "diverged", "collapsed", "complete",
)  # fmt: skip
COLOURS = {"running": "green", "held": "red", "stuck": "red", "refused": "red", "diverged": "red", "collapsed": "red"}


def chosen(runs: Path, names: Sequence[str]) -> list[Submission]:
    """Submissions, or their items, that are named: by id (or how it begins), or by recipe (or a glob of it).

    Without names all. Errors: UnknownName; Unavailable where nothing was submitted.
    """
    everything = submission.read_all(runs)
    if not everything:
        raise Unavailable(f"nothing was submitted from {runs}; `harness submit RECIPE --cluster NAME` does")
    if not names:
        return everything
    for name in names:
        known = {one.id for one in everything} | {item.recipe for one in everything for _, _, item in one.items()}
        if not any(known_name.startswith(name) or fnmatch.fnmatch(known_name, name) for known_name in known):
            raise UnknownName("submission or submitted recipe", name, known)
    return [one for one in everything if any(picks(one, item, names) for _, _, item in one.items())]


def picks(one: Submission, item: Item, names: Sequence[str]) -> bool:
    return not names or any(one.id.startswith(name) or fnmatch.fnmatch(item.recipe, name) for name in names)


def look(runs: Path, names: Sequence[str]) -> dict[Item, State]:
    """The newest state of each named item."""
    some = chosen(runs, names)
    picked = {item for one in some for _, _, item in one.items() if picks(one, item, names)}
    return {item: state for item, state in states.survey(some).items() if item in picked}


def summary(found: dict[Item, State]) -> str:
    counts = Counter(state.word for state in found.values())
    return f"{len(found)} runs: " + ", ".join(f"{counts[word]} {word}" for word in ORDER if counts[word])


def table(runs: Path, found: dict[Item, State], rows: int) -> Table:
    """One row for each run, the ones that need attention first; rows: how many, 0 for all."""
    made = Table(box=box.SIMPLE_HEAD)
    for name in ("run", "state", "job", "attempt", "epoch", "images/s", "loss", "left"):
        right = name in ("attempt", "epoch", "images/s", "loss", "left")
        made.add_column(name, justify="right" if right else "left", no_wrap=name != "run", overflow="fold")
    made.add_column("why", min_width=16 if any(state.why for state in found.values()) else None)
    items = sorted(found, key=lambda item: ORDER.index(found[item].word))
    for item in items[: rows or None]:
        state, seen = found[item], progress(item.path(runs))
        made.add_row(
            str(item),
            Text(state.word, COLOURS.get(state.word, "")),
            state.job,
            *(seen if seen else [""] * 5),
            state.why,
        )
    return made


def progress(path: Path) -> list[str] | None:
    """Attempt, epoch, images/s, last loss and time left of a run, as far as they are known."""
    starts = [line for line in attempts.read(path) if line["event"] == "start"]
    if not starts:
        return None
    line, steps = last_line(path / "metrics.jsonl"), starts[-1].get("steps", 0)
    if not line:
        return [str(starts[-1]["attempt"]), "", "", "", ""]
    speed, left = line["images_per_s"], ""
    budget = _budget(path)
    if speed and budget and line["step"] < steps:
        left = str(timedelta(seconds=round((steps - line["step"]) * budget["batch"] / speed)))
    epochs = f"{line['epoch']}/{budget.get('epochs', '?')}"
    return [str(starts[-1]["attempt"]), epochs, f"{speed:.0f}", f"{line['loss']:.4g}", left]


def _budget(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((path / "recipe.json").read_text())["budget"])
    except (OSError, ValueError, KeyError):
        return {}


# ---------------------------------------------------------------------------------------------- logs


def log_file(runs: Path, recipe: str, seed: int) -> Path:
    """The log of the newest attempt at a run. Errors: Unavailable where there is none yet."""
    some = chosen(runs, [recipe])
    places = [
        (one, task, len(one.arrays[int(name.rpartition(".")[2])].items), item)
        for one in some
        for name, task, item in one.items()
        if item.recipe == recipe and item.seed == seed
    ]
    if not places:
        seeds = sorted({item.seed for one in some for _, _, item in one.items()})
        raise UnknownName("submitted seed of this recipe", str(seed), map(str, seeds))
    one, task, size, item = places[-1]
    starts = [line for line in attempts.read(item.path(runs)) if line["event"] == "start" and line.get("log")]
    if starts and (named := Path(starts[-1]["log"])).exists():
        return named
    pattern = f"*_{task}_0_log.out" if size > 1 else "*_0_log.out"
    found = sorted(one.jobs.glob(pattern), key=lambda path: path.stat().st_mtime)
    if not found:
        raise Unavailable(f"{item} has no log yet; `harness status {recipe}` says where it stands")
    return found[-1]


def follow(path: Path, under_way: Callable[[], bool]) -> Iterator[str]:
    """The text of a log as it grows, until the run is not under way and nothing more comes."""
    asked, busy = time.monotonic(), True
    with open(path, errors="replace") as file:
        while True:
            if text := file.read():
                yield text
            elif not busy:
                return
            if time.monotonic() - asked > EVERY_S:
                asked, busy = time.monotonic(), under_way()
            time.sleep(0.5)
