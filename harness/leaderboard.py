"""The leaderboard: stored runs as one table per data set, in Markdown, CSV and on the terminal.

A row is a method on an encoder for a number of epochs (and a variant, where several recipes would share a row). A
column is a protocol and metric on the test split, last epoch. A cell is the mean over seeds, its standard deviation
and n. What failed is shown as well: collapsed runs count in the mean, diverged ones have no number and are named.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import takewhile
from math import isfinite, sqrt
from typing import TYPE_CHECKING, Any, TypeAlias

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
Row: TypeAlias = Mapping[tuple[str, str], Any]  # of a leaderboard, by (column, statistic)
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
    groups = runs.groupby(ROW)
    counts = groups["status"].value_counts().unstack(fill_value=0).reindex(columns=COUNTS[:3], fill_value=0)
    parts = {("runs", s): counts[s] for s in counts}
    parts["runs", "unfinished"] = groups.size() - counts.sum(axis=1)
    numbers = runs.reindex(columns=list(columns.values())).astype(float).groupby([runs[name] for name in ROW])
    mean, std, n = numbers.mean(), numbers.std(), numbers.count()
    for name, column in columns.items():
        error = _errors(groups, column, mean[column]) if name not in COSTS else float("nan")
        parts |= {
            (name, "mean"): mean[column],
            (name, "std"): std[column],
            (name, "n"): n[column],
            (name, "error"): error,
        }
    board = _best_first(pandas.DataFrame(parts, index=mean.index))
    if unfinished := int(board["runs", "unfinished"].sum()):
        notes.append(f"{_count(unfinished, 'run')} not finished, without numbers yet")
    board.attrs["notes"] = notes
    return board


def rows_of(frame: "pandas.DataFrame", *, overrides: bool = False) -> "pandas.DataFrame":
    """The runs that a leaderboard counts, each with the label, encoder and variant of its row."""
    runs = frame.copy() if overrides or frame.empty else frame[frame["overrides"] == ""].copy()
    if not runs.empty:
        runs = runs.sort_values("run", ignore_index=True)  # so that no sum depends on the order of the frame
        runs["variant"] = _variants(runs)
    return runs


def details(runs: "pandas.DataFrame", column: str) -> dict[str, object]:
    """n (images) and unit of a `<split>/<protocol>/<metric>` column, from the newest of these runs that has it."""
    name, metric = _about(column)
    texts = list(runs[name].dropna()) if name in runs else []
    if not texts:
        return {}
    about = json.loads(texts[-1])
    return {"n": about["n"], "unit": about["units"].get(metric, "")}


def _about(column: str) -> tuple[str, str]:
    """The column that says how `<split>/<protocol>/<metric>` was measured, and the metric."""
    split, protocol, metric = column.split("/", 2)
    return f"eval/{split}/{protocol}", metric


def _errors(groups: Any, column: str, means: "pandas.Series") -> "pandas.Series":
    """The sampling error of each row's mean; NaN for what is no score in percent."""
    import pandas

    name, metric = _about(column)
    if name not in groups.obj or not is_score(column):
        return pandas.Series(float("nan"), means.index)
    texts = groups[name].last()  # of the newest run that has one
    known = {text: json.loads(text) for text in texts.dropna().unique()}
    return pandas.Series(
        [
            sampling_error(value, known[text]["n"])
            if isfinite(value) and text in known and known[text]["units"].get(metric) == "percent"
            else float("nan")
            for text, value in zip(texts, means, strict=True)
        ],
        means.index,
    )


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


def is_labelled(label: str) -> bool:
    """Rows of methods that read labels, also inside a wrapper: what the others are held against, not among.

    `MethodConfig.label` writes it.
    """
    return "(labels)" in label


def measures(board: "pandas.DataFrame", *, scores: bool) -> list[str]:
    """The columns with a number in them: those that rank, or those that describe. Costs are neither."""
    names = [name for name in dict.fromkeys(board.columns.get_level_values(0)) if name != "runs" and name not in COSTS]
    return [name for name in names if is_score(name) == scores and board[name, "n"].sum() > 0]


def _variants(runs: "pandas.DataFrame") -> list[str]:
    """What tells recipes apart that would share a row: the words their names do not share, digest and overrides."""
    rows = list(zip(*(runs[name] for name in ROW[:-1]), strict=True))
    recipes: dict[tuple[str, ...], dict[str, set[str]]] = {}
    for row, recipe, digest, overrides in zip(rows, runs["recipe"], runs["digest"], runs["overrides"], strict=True):
        digests = recipes.setdefault(row, {}).setdefault(recipe, set())
        if not overrides:
            digests.add(digest)
    shared = {row: len(_common([name.split("_") for name in names])) for row, names in recipes.items()}
    variants = []
    for row, recipe, digest, overrides in zip(rows, runs["recipe"], runs["digest"], runs["overrides"], strict=True):
        words = ["_".join(recipe.split("_")[shared[row] :])]
        words += [f"@{digest[:6]}"] if len(recipes[row][recipe]) > 1 else []
        variants.append(overrides or " ".join(filter(None, words)))
    return variants


def _common(names: list[list[str]]) -> list[str]:
    """The words that all begin with."""
    return [words[0] for words in takewhile(lambda words: len(set(words)) == 1, zip(*names, strict=False))]


def _best_first(board: "pandas.DataFrame") -> "pandas.DataFrame":
    """Within a data set by the mean rank over the scores."""
    means = board[[(name, "mean") for name in measures(board, scores=True)]]
    rank = means.groupby(level="dataset").rank(ascending=False).mean(axis=1)
    order = rank.to_frame("rank").reset_index().sort_values(["dataset", "rank", *ROW[1:]], na_position="last")
    return board.loc[order.set_index(ROW).index]


# ------------------------------------------------------------------------------------------ one data set, as text


@dataclass(frozen=True)
class Line:
    """A row ready to print. key: by ROW. cells: (text, whether it is the best of its column)."""

    key: tuple[Any, ...]
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
        digits = {name: 1 if rows[name, "error"].notna().any() else 3 for name in columns}  # percent, or of order one
        competing = rows[[not is_labelled(label) for label in rows.index.get_level_values("label")]]
        best = {name: round(competing[name, "mean"].max(), digits[name]) for name in columns}
        lines = []
        for key, row in zip(rows.index, rows.to_dict("records"), strict=True):
            named = dict(zip(ROW, key, strict=True))
            cells = [(str(named[k]), False) for k in keys] + [(_runs(row), False)]
            competes = scores and not is_labelled(named["label"])
            for name in columns:
                top = competes and round(row[name, "mean"], digits[name]) == best[name]
                cells.append((_cell(row, name, digits[name]), bool(top)))
            cells += [(_cost(row, name), False) for name in COSTS if scores]
            lines.append(Line(key, tuple(cells), is_baseline(named["label"], named["encoder"])))
        yield View(str(dataset), tuple(header), len(keys) + 1, tuple(lines), tuple(_footnotes(rows, columns)))


def _runs(row: Row) -> str:
    """ "2", or "2 +1 diverged": how many runs are complete, and what became of the others."""
    rest = [f"{int(row['runs', s])} {s}" for s in COUNTS[1:] if row["runs", s]]
    done = int(row["runs", "complete"])
    return " + ".join(([str(done)] if done or not rest else []) + rest)


def _cell(row: Row, name: str, digits: int) -> str:
    n, finished = int(row[name, "n"]), int(row["runs", "complete"] + row["runs", "collapsed"])
    if not n:
        return "–"
    text = f"{row[name, 'mean']:.{digits}f}"
    if n > 1:
        text += f" ± {row[name, 'std']:.{digits}f}"
    return text + (f" ({n})" if n != finished else "")


def _cost(row: Row, name: str) -> str:
    if not row[name, "n"] or not row[name, "mean"]:
        return "–"
    return f"{row[name, 'mean']:,.0f}" if name == "images/s" else f"{row[name, 'mean']:.1f}"


def _footnotes(rows: "pandas.DataFrame", columns: list[str]) -> Iterator[str]:
    errors = {name: rows[name, "error"].max() for name in columns if rows[name, "error"].notna().any()}
    if errors:
        low, high = min(errors.values()), max(errors.values())
        span = f"{low:.1f}" if round(low, 1) == round(high, 1) else f"{low:.1f}-{high:.1f}"
        yield f"± is the spread over seeds; the test set's own sampling error is {span} points at its largest"
    if any(is_baseline(key[1], key[2]) for key in rows.index):
        yield "rows in italics learn nothing; a method has to beat them"
    if any(is_labelled(key[1]) for key in rows.index):
        yield "rows with (labels) read what the others may not; they are a ceiling, and never the best of a column"
    if rows["runs", "collapsed"].sum():
        yield "collapsed runs count in the means"


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
