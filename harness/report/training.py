"""Costs and training curves of a choice of rows: every method's best one first, then the next best."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from html import escape
from math import ceil, isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import leaderboard as boards
from harness.report.document import notes, wide
from harness.report.plots import Series, legend, plot
from harness.report.ranking import Key

if TYPE_CHECKING:
    import pandas

SHOWN_ROWS = 16  # of a data set: there are eight colours, each as a whole and as a dashed line
SHOWN_SEEDS = 3
SHOWN_POINTS = 50  # of one curve; more do not show in 230 pixels
UNKNOWN = ("", 1)  # device and number of a run whose record is elsewhere
LOSS = Series("loss", 7)  # grey: terms have the other colours
TOGETHER = {"embedding_std": "embedding std", "effective_rank": "effective rank"}  # curves that share a scale

Runs = Mapping[Key, Sequence[Mapping[str, Any]]]
Line = dict[str, Any]


def chosen(rows: "pandas.DataFrame", usable: Callable[[Key], bool]) -> list[Key]:
    """At most SHOWN_ROWS of a data set's rows, in their order."""
    keys = [key for key in rows.index if usable(key)]
    first = list({key[1]: key for key in reversed(keys)}.values())[::-1]  # of each method
    some = {*first[:SHOWN_ROWS], *[key for key in keys if key not in first][: max(0, SHOWN_ROWS - len(first))]}
    return [key for key in keys if key in some]


def looks(keys: Sequence[Key]) -> dict[Key, Series]:
    """Name and look of each row: its label, and of its other keys those that differ."""
    differ = [place for place in range(2, len(boards.ROW)) if len({key[place] for key in keys}) > 1]
    found = {}
    for number, key in enumerate(keys):
        words = [f"{key[i]} epochs" if boards.ROW[i] == "epochs" else str(key[i]) for i in differ]
        found[key] = Series(" ".join(filter(None, [str(key[1]), *words])), number)
    return found


def _left_out(shown: int, of: int) -> str:
    return notes([f"The best row of each method and the next best, {shown} of {of} rows."] if shown < of else [])


# ------------------------------------------------------------------------------------------ costs


def costs(board: "pandas.DataFrame", runs: Runs, devices: Mapping[str, tuple[str, int]]) -> Iterator[str]:
    """Every score against the minutes it took, and what a row took altogether."""
    parts = []
    for dataset, rows in board.groupby(level="dataset", sort=False) if len(board) else ():
        keys = chosen(rows, lambda key: True)
        drawn, figures = looks(keys), []
        numbers = dict(zip(rows.index, rows.to_dict("records"), strict=True))
        for measure in boards.measures(rows, scores=True):
            points: list[Series] = []
            lines: list[Series] = []
            for key in keys:
                row = numbers[key]
                minutes, mean, std = row["minutes", "mean"], row[measure, "mean"], row[measure, "std"]
                if isfinite(mean):
                    one = drawn[key].at([(minutes, mean, std if isfinite(std) else 0.0)])
                    (points if minutes > 0 else lines).append(one)
            if points:
                figures.append(plot(measure, "minutes of training", points, lines=lines, draw="marks"))
        if figures:
            parts.append(f"<section data-dataset='{escape(str(dataset))}'><h3>{escape(str(dataset))}</h3>")
            parts.append(legend(drawn.values()) + f"<div class=plots>{''.join(figures)}</div>")
            parts.append(_left_out(len(keys), len(rows)))
            parts.append(_spent(str(dataset), numbers, runs, devices) + "</section>")
    if parts:
        yield "<h2 id=cost>Cost</h2>"
        yield notes(["Accuracy against training time; bars are standard deviations, dashed lines need no training."])
        yield from parts


def _spent(
    dataset: str, rows: Mapping[Key, Mapping[Any, Any]], runs: Runs, devices: Mapping[str, tuple[str, int]]
) -> str:
    header = [*boards.ROW[1:], "device", "images/s", "minutes per run", "device-hours", "data wait"]
    keys = len(boards.ROW)
    head = "".join(
        f"<th scope=col data-key='{name}'{' class=number' if i >= keys else ''}>{boards.HEADERS.get(name, name)}</th>"
        for i, name in enumerate(header)
    )
    body = []
    for key, row in rows.items():
        if not row["minutes", "mean"] > 0:
            continue
        used = [devices.get(run["run"], UNKNOWN) for run in runs[key]]
        hours = sum(
            run.get("cost/minutes", 0.0) / 60 * count
            for run, (_, count) in zip(runs[key], used, strict=True)
            if run.get("cost/minutes", 0.0) > 0
        )
        waits = [run["data_wait"] for run in runs[key] if isfinite(run.get("data_wait", float("nan")))]
        kinds = sorted({f"{count} x {name}" if count > 1 else name for name, count in used if name})
        words = [*map(str, key[1:]), ", ".join(kinds)]
        wait = f"{sum(waits) / len(waits):.0%}" if waits else "–"
        speed = f"{row['images/s', 'mean']:,.0f}" if row["images/s", "n"] else "–"
        numbers = [speed, f"{row['minutes', 'mean']:.1f}", f"{hours:.2f}" if hours < 10 else f"{hours:,.0f}", wait]
        body.append(
            "<tr>" + "".join(f"<td>{escape(x)}</td>" for x in words)
            + "".join(f"<td class=number>{x}</td>" for x in numbers) + "</tr>"
        )  # fmt: skip
    if not body:
        return ""
    why = (
        "device-hours are those of all runs of a row, training only; data wait is the share of the last logged "
        "interval that went into loading and augmenting"
    )
    if any(run["run"] not in devices and run.get("cost/minutes", 0.0) > 0 for key in rows for run in runs[key]):
        why += "; a run whose record is not here counts as one device"
    table = wide(head, body, caption=f"{dataset}: {why}", kind="board")
    return f"<details><summary class=note>What each row took</summary>{table}</details>"


def devices(root: Path, runs: Iterable[str]) -> dict[str, tuple[str, int]]:
    """Name and number of the devices of each run with a record here."""
    found = {}
    for run in runs:
        try:
            device = json.loads((root / run / "record.json").read_bytes())["device"]
            found[run] = (str(device["name"]), int(device["count"]))
        except (OSError, ValueError, KeyError, TypeError):  # elsewhere, unfinished or damaged: the tables say so
            continue
    return found


# ------------------------------------------------------------------------------------------ curves


def curves(board: "pandas.DataFrame", runs: Runs, root: Path) -> Iterator[str]:
    """What runs logged: collapse at a glance for all rows together, then loss and terms of each row."""
    parts = []
    for dataset, rows in board.groupby(level="dataset", sort=False) if len(board) else ():
        lines = {
            key: [line for run in some[:SHOWN_SEEDS] if (line := sampled(root / run["run"] / "metrics.jsonl"))]
            for key in chosen(rows, lambda key: bool(key[3]))
            if (some := runs[key])
        }
        lines = {key: some for key, some in lines.items() if some}
        if not lines:
            continue
        drawn = looks(list(lines))
        figures = [
            plot(title, "step", [one for key in lines for one in _series(drawn[key], lines[key], name)])
            for name, title in TOGETHER.items()
        ]
        parts.append(f"<section data-dataset='{escape(str(dataset))}'><h3>{escape(str(dataset))}</h3>")
        parts.append(legend(drawn.values()) + f"<div class=plots>{''.join(figures)}</div>")
        parts += [_terms(drawn[key].name, some) for key, some in lines.items()]
        parts.append(_left_out(len(lines), sum(bool(key[3]) for key in rows.index)) + "</section>")
    if parts:
        yield "<h2 id=curves>Training curves</h2>"
        yield notes(
            [
                f"One line per run, up to {SHOWN_SEEDS} seeds of a row and {SHOWN_POINTS} points of a run; MLflow has "
                "all. Losses of different methods share no scale. Left: the loss. Middle: the terms times their "
                "coefficients. Right: the terms as they are; one without a coefficient of its own stands only there.",
            ]
        )
        yield from parts


def _terms(name: str, lines: Sequence[Sequence[Line]]) -> str:
    """A row's figures: the loss, its weighted terms and the terms as they are."""
    terms, weights = list(lines[0][-1].get("terms", {})), lines[0][-1].get("coefficients", {})
    each = [Series(term, number) for number, term in enumerate(terms)]
    raw = [one for term in each for one in _series(term, lines, "terms", term.name)]
    weighted = [one.at((x, weights[one.name] * y, 0.0) for x, y, _ in one.points) for one in raw if one.name in weights]
    small = partial(plot, x_label="step", width=300, height=180)
    figures = [
        small("loss", series=_series(LOSS, lines, "loss")),
        small("terms times coefficients", series=weighted),
        small("terms", series=raw),
    ]
    said = ", ".join(f"{term} = {weights[term]:g}" for term in terms if term in weights)
    about = f" <span class=note>{escape(said)}</span>" if said else ""
    return f"<h4>{escape(name)}{about}</h4>{legend(each)}<div class=plots>{''.join(figures)}</div>"


def _series(look: Series, lines: Iterable[Sequence[Line]], *path: str) -> list[Series]:
    """One series per run of the number at `path` of its lines; what is not finite is left out."""
    found = []
    for line in lines:
        points = []
        for one in line:
            value: Any = one
            for name in path:
                value = value.get(name) if isinstance(value, dict) else None
            if isinstance(value, int | float) and isfinite(value):
                points.append((float(one["step"]), float(value), 0.0))
        found.append(look.at(points))
    return found


def sampled(path: Path) -> list[Line]:
    """At most SHOWN_POINTS lines of a metrics.jsonl, evenly and with the last one, by step.

    Only these are parsed: a long run logs ten thousand. Missing file: empty.
    """
    try:
        whole = path.read_bytes().split(b"\n")[:-1]  # a line that is half written has no end yet
    except OSError:
        return []
    some = whole[:: -max(1, ceil(len(whole) / SHOWN_POINTS))]
    steps = {}
    for text in reversed(some):
        try:
            line = json.loads(text)
            steps[int(line["step"])] = line  # a resumed run writes a step again
        except (ValueError, KeyError, TypeError):
            continue
    return [steps[step] for step in sorted(steps)]
