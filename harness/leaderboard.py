"""The leaderboard: stored runs as one table per data set, in Markdown, CSV and on the terminal.

A row is a method on an encoder for a number of epochs (and a variant, where several recipes would share a row). A
column is a protocol and metric on the test split, last epoch. A cell is the mean over seeds, its standard deviation
and n. What failed is shown as well: collapsed runs count in the mean, diverged ones have no number and are named.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas
    from rich.console import Console
    from rich.table import Table

ROW = ["dataset", "label", "encoder", "epochs", "variant"]
STATISTICS = ["mean", "std", "n", "error"]  # error: binomial standard error of the test set, percent metrics only
COUNTS = ["complete", "collapsed", "diverged", "unfinished"]
COSTS = {"images/s": "cost/images_per_s", "minutes": "cost/minutes"}
SCORES = (
    "top1",
    "top5",
    "r2",
    "dci",
    "mcc",
)  # higher is better; what else a protocol reports describes, and has no best
HEADERS = {"label": "method", "complete": "runs"}


def leaderboard(frame: "pandas.DataFrame", *, overrides: bool = False) -> "pandas.DataFrame":
    """The rows of `tracking.table` summed up per method.

    Returns a frame with index (dataset, label, encoder, epochs, variant), best first within a data set, and two levels
    of columns: ("runs", complete | collapsed | diverged | unfinished) and (`<protocol>/<metric>`, mean | std | n |
    error), likewise for "images/s" and "minutes". `attrs["notes"]` says what is left out; runs with overrides are,
    unless asked for.
    """
    import pandas

    runs = rows_of(frame, overrides=overrides)
    left_out = len(frame) - len(runs)
    notes = [f"{_count(left_out, 'run')} with overrides left out; --overrides shows them"] if left_out else []
    if runs.empty:
        board = pandas.DataFrame(columns=pandas.MultiIndex.from_product([["runs"], COUNTS]))
        board.attrs["notes"] = notes
        return board
    columns = {m.removeprefix("test/"): m for m in sorted(runs) if m.startswith("test/")} | COSTS
    rows = {}
    for key, group in runs.groupby(ROW, sort=False):
        row: dict[tuple[str, str], float] = {("runs", s): int((group["status"] == s).sum()) for s in COUNTS[:3]}
        row["runs", "unfinished"] = len(group) - sum(int(count) for count in row.values())
        for name, column in columns.items():
            values = group[column].dropna() if column in group else pandas.Series(dtype=float)
            mean = float(values.mean())
            row |= {(name, "mean"): mean, (name, "std"): float(values.std()), (name, "n"): len(values)}
            about = details(group, column) if len(values) and name not in COSTS else {}
            percent = about.get("unit") == "percent" and is_score(name)
            row[name, "error"] = sampling_error(mean, about["n"]) if percent else float("nan")
        rows[key] = row
    board = pandas.DataFrame.from_dict(rows, orient="index")
    board.index = pandas.MultiIndex.from_tuples(list(rows), names=ROW)
    board.columns = pandas.MultiIndex.from_tuples(list(board.columns))
    board = _best_first(board)
    if unfinished := int(board["runs", "unfinished"].sum()):
        notes.append(f"{_count(unfinished, 'run')} not finished, without numbers yet")
    board.attrs["notes"] = notes
    return board


def rows_of(frame: "pandas.DataFrame", *, overrides: bool = False) -> "pandas.DataFrame":
    """The runs that a leaderboard counts, each with the label, encoder and variant of its row."""
    runs = frame.copy() if overrides or frame.empty else frame[frame["overrides"] == ""].copy()
    if not runs.empty:
        runs["variant"] = _variants(runs)
    return runs


def details(runs: "pandas.DataFrame", column: str) -> dict[str, object]:
    """n (images) and unit of a `<split>/<protocol>/<metric>` column, from the newest of these runs that has it."""
    split, protocol, metric = column.split("/", 2)
    name = f"eval/{split}/{protocol}"
    texts = list(runs[name].dropna()) if name in runs else []
    if not texts:
        return {}
    about = json.loads(texts[-1])
    return {"n": about["n"], "unit": about["units"].get(metric, "")}


def sampling_error(percent: float, n: object) -> float:
    """Standard error, in points, of an accuracy measured on n images: what another such test set would change."""
    share = min(max(percent / 100, 0.0), 1.0)
    return 100 * sqrt(share * (1 - share) / int(str(n)))


def is_score(measure: str) -> bool:
    """Whether `<protocol>/<metric>` ranks methods (higher is better) and is a headline, not one part of several."""
    return measure.rsplit("/", 1)[-1] in SCORES


def is_baseline(label: str, encoder: str) -> bool:
    """Rows without learning, which a method has to beat."""
    return label == "Untrained" or encoder == "pixels"


def measures(board: "pandas.DataFrame", *, scores: bool) -> list[str]:
    """The columns with a number in them: those that rank, or those that describe. Costs are neither."""
    names = [name for name in dict.fromkeys(board.columns.get_level_values(0)) if name != "runs" and name not in COSTS]
    return [name for name in names if is_score(name) == scores and board[name, "n"].sum() > 0]


def _variants(runs: "pandas.DataFrame") -> "pandas.Series":
    """What tells recipes apart that would share a row: the words their names do not share, digest and overrides."""
    variant = runs["overrides"].copy()
    for _, group in runs.groupby(ROW[:-1]):
        words = {name: name.split("_") for name in group["recipe"].unique()}
        shared = 0
        while all(len(w) > shared for w in words.values()) and len({w[shared] for w in words.values()}) == 1:
            shared += 1
        for name, digests in group[group["overrides"] == ""].groupby("recipe")["digest"]:
            for digest, rows in digests.groupby(digests):
                own = ["_".join(words[str(name)][shared:])] + ([f"@{digest[:6]}"] if digests.nunique() > 1 else [])
                variant[rows.index] = " ".join(filter(None, own))
    return variant


def _best_first(board: "pandas.DataFrame") -> "pandas.DataFrame":
    """Within a data set by the mean rank over the scores."""
    means = board[[(name, "mean") for name in measures(board, scores=True)]]
    rank = means.groupby(level="dataset").rank(ascending=False).mean(axis=1)
    order = rank.to_frame("rank").reset_index().sort_values(["dataset", "rank", "label", "variant"], na_position="last")
    return board.loc[order.set_index(ROW).index]


# ------------------------------------------------------------------------------------------ one data set, as text


@dataclass(frozen=True)
class Line:
    """A row ready to print. cells: (text, whether it is the best of its column)."""

    cells: tuple[tuple[str, bool], ...]
    baseline: bool


@dataclass(frozen=True)
class View:
    """One data set's table: what every form of it prints."""

    dataset: str
    header: tuple[str, ...]
    keys: int  # so many columns name the row
    lines: tuple[Line, ...]
    notes: tuple[str, ...]


def views(board: "pandas.DataFrame", *, scores: bool = True) -> Iterator[View]:
    """One table per data set, with the scores and the cost, or with what else the protocols say (scores=False)."""
    if board.empty:
        return
    for dataset, rows in board.groupby(level="dataset", sort=False):
        columns = measures(rows, scores=scores)
        keys = [k for k in ROW[1:] if k != "variant" or any(rows.index.get_level_values("variant"))]
        header = [HEADERS.get(k, k) for k in [*keys, "complete"]] + columns + (list(COSTS) if scores else [])
        if not columns and not scores:
            continue
        best = {name: round(rows[name, "mean"].max(), _digits(rows, name)) for name in columns}
        lines = []
        for key, row in rows.iterrows():
            named = dict(zip(ROW, key, strict=True))
            cells = [(str(named[k]), False) for k in keys] + [(_runs(row), False)]
            for name in columns:
                digits = _digits(rows, name)
                top = scores and round(row[name, "mean"], digits) == best[name]
                cells.append((_cell(row, name, digits), bool(top)))
            cells += [(_cost(row, name), False) for name in COSTS if scores]
            lines.append(Line(tuple(cells), is_baseline(named["label"], named["encoder"])))
        yield View(str(dataset), tuple(header), len(keys) + 1, tuple(lines), tuple(_footnotes(rows, columns)))


def _runs(row: "pandas.Series") -> str:
    """ "2", or "2 +1 diverged": how many runs are complete, and what became of the others."""
    rest = [f"{int(row['runs', s])} {s}" for s in COUNTS[1:] if row["runs", s]]
    done = int(row["runs", "complete"])
    return " + ".join(([str(done)] if done or not rest else []) + rest)


def _cell(row: "pandas.Series", name: str, digits: int) -> str:
    n, finished = int(row[name, "n"]), int(row["runs", "complete"] + row["runs", "collapsed"])
    if not n:
        return "–"
    text = f"{row[name, 'mean']:.{digits}f}"
    if n > 1:
        text += f" ± {row[name, 'std']:.{digits}f}"
    return text + (f" ({n})" if n != finished else "")


def _cost(row: "pandas.Series", name: str) -> str:
    if not row[name, "n"] or not row[name, "mean"]:
        return "–"
    return f"{row[name, 'mean']:,.0f}" if name == "images/s" else f"{row[name, 'mean']:.1f}"


def _digits(rows: "pandas.DataFrame", name: str) -> int:
    return 1 if rows[name, "error"].notna().any() else 3  # percent, or a number of order one


def _footnotes(rows: "pandas.DataFrame", columns: list[str]) -> Iterator[str]:
    errors = {name: rows[name, "error"].max() for name in columns if rows[name, "error"].notna().any()}
    if errors:
        low, high = min(errors.values()), max(errors.values())
        span = f"{low:.1f}" if round(low, 1) == round(high, 1) else f"{low:.1f}-{high:.1f}"
        yield f"± is the spread over seeds; the test set's own sampling error is {span} points at its largest"
    if any(is_baseline(key[1], key[2]) for key in rows.index):
        yield "rows in italics learn nothing; a method has to beat them"
    if rows["runs", "collapsed"].sum():
        yield "collapsed runs count in the means"


def to_markdown(board: "pandas.DataFrame") -> str:
    """All tables with all scores; the best value of a column in bold, baselines in italics."""
    parts = []
    for view in views(board):
        parts += [f"### {view.dataset}", ""]
        parts += ["| " + " | ".join(view.header) + " |"]
        parts += ["| " + " | ".join("---" if i < view.keys - 1 else "--:" for i in range(len(view.header))) + " |"]
        for line in view.lines:
            mark = "*" if line.baseline else ""
            cells = [
                f"**{t}**" if best else f"{mark}{t}{mark}" if i == 0 else t for i, (t, best) in enumerate(line.cells)
            ]
            parts.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        parts += [""] + [f"{note[0].upper()}{note[1:]}." for note in view.notes] + [""]
    parts += [f"{note[0].upper()}{note[1:]}." for note in board.attrs.get("notes", ())]
    return "\n".join(parts).strip() + "\n" if parts else "No runs yet.\n"


def write_csv(board: "pandas.DataFrame", path: Path) -> None:
    """Everything, unrounded: one line per row, columns named `<protocol>/<metric> mean` and so on."""
    from harness.runs import write_atomically

    flat = board.copy()
    flat.columns = [" ".join(name) for name in board.columns]
    write_atomically(path, flat.to_csv().encode())


def show(board: "pandas.DataFrame", console: "Console") -> None:
    """The scores on a terminal, as many columns at a time as fit its width; top5 only in the files."""
    fifths = [name for name in dict.fromkeys(board.columns.get_level_values(0)) if name.endswith("/top5")]
    for view in views(board.drop(columns=fifths, level=0)):
        for table in _tables(view, console.width):
            console.print(table)
        for note in view.notes:
            console.print(f"  {note}", style="dim")
        console.print()
    for note in board.attrs.get("notes", ()):
        console.print(f"  {note}", style="dim")
    if board.empty:
        console.print("No runs yet; `harness run <recipe>` makes one.")


def _tables(view: View, width: int) -> "Iterator[Table]":
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    heads = [head if head in COSTS else head.replace("/", "\n") for head in view.header]
    sizes = [
        3 + max(max(map(len, head.split("\n"))), *(len(line.cells[i][0]) for line in view.lines))
        for i, head in enumerate(heads)
    ]
    at, first = view.keys, True
    while at < len(heads) or first:
        end, used = at, sum(sizes[: view.keys]) + 1
        while end < len(heads) and (end == at or used + sizes[end] <= width):
            used, end = used + sizes[end], end + 1
        table = Table(
            box=SIMPLE_HEAD,
            title=view.dataset + ("" if first else " (continued)"),
            title_justify="left",
            title_style="bold",
        )
        chosen = [*range(view.keys), *range(at, end)]
        for i in chosen:
            table.add_column(heads[i], justify="left" if i < view.keys else "right", no_wrap=i >= view.keys)
        for line in view.lines:
            style = "dim italic" if line.baseline else ""
            cells = [Text(text, "bold" if best else "") for text, best in (line.cells[i] for i in chosen)]
            table.add_row(*cells, style=style)
        yield table
        at, first = end, False


def _count(number: int, word: str) -> str:
    return f"{number} {word}" + ("s" if number != 1 else "")
