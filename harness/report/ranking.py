"""The leaderboards of the page, and the runs behind every row of them."""

from collections.abc import Iterable, Iterator, Mapping
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from harness import leaderboard as boards
from harness.report.document import link, notes, wide

if TYPE_CHECKING:
    import pandas

LISTED = 3000  # runs on the page, shared by all rows; the others are in their folders
FILTERS = {"dataset": "data set", "protocol": "protocol", "encoder": "encoder", "epochs": "epochs"}

Key = tuple[Any, ...]  # of a row, by leaderboard.ROW


def anchors(board: "pandas.DataFrame") -> dict[Key, str]:
    """The name of the place on the page where a row's runs are listed."""
    return {key: f"r{number}" for number, key in enumerate(board.index)}


def by_row(named: "pandas.DataFrame") -> dict[Key, list[dict[str, Any]]]:
    """The runs of each row, by recipe and seed. named: `leaderboard.rows_of`."""
    rows: dict[Key, list[dict[str, Any]]] = {}
    if len(named):
        for run in named.sort_values(["recipe", "digest", "seed"]).to_dict("records"):
            rows.setdefault(tuple(run[name] for name in boards.ROW), []).append(run)
    return rows


def leaderboards(board: "pandas.DataFrame", places: Mapping[Key, str]) -> Iterator[str]:
    yield "<h2 id=leaderboards>Leaderboards</h2>"
    if board.empty:
        yield "<p>No runs yet.</p>"
    else:
        yield _form(board)
    further = {view.dataset: view for view in boards.views(board, scores=False)}
    for view in boards.views(board):
        more = ""
        if view.dataset in further:
            table = _table(further[view.dataset], places, "what else was measured")
            more = f"<details><summary class=note>What else was measured</summary>{table}</details>"
        yield (
            f"<section data-dataset='{escape(view.dataset)}'><h3>{escape(view.dataset)}</h3>"
            + _table(view, places, "mean ± standard deviation over seeds; test split, last epoch")
            + notes(view.notes)
            + more
            + "</section>"
        )
    yield notes(board.attrs.get("notes", ()))


def _form(board: "pandas.DataFrame") -> str:
    """What to show. Hidden until the script, which does the filtering, is there to show it."""
    rows = board.index.to_frame(index=False)
    measures = [*boards.measures(board, scores=True), *boards.measures(board, scores=False)]
    choices: dict[str, list[Any]] = {name: sorted(rows[name].unique()) for name in ("dataset", "encoder", "epochs")}
    choices["protocol"] = sorted({name.rpartition("/")[0] for name in measures})
    fields = [
        f"<label>{text}<select name={name}><option value=''>all</option>"
        + "".join(f"<option>{escape(str(one))}</option>" for one in choices[name])
        + "</select></label>"
        for name, text in FILTERS.items()
        if len(choices[name]) > 1
    ]
    if not fields:
        return ""
    return f"<form hidden>{''.join(fields)}<button type=reset>show all</button><output class=note></output></form>"


def _table(view: boards.View, places: Mapping[Key, str], what: str) -> str:
    head = "".join(_head(view, column, name) for column, name in enumerate(view.header))
    rows = []
    for line in view.lines:
        cells = "".join(
            f"<td>{escape(text)}</td>" if column < view.keys - 1 else _number(text, best, places[line.key])
            for column, (text, best) in enumerate(line.cells)
        )
        rows.append(f"<tr{' class=baseline' if line.baseline else ''}>{cells}</tr>")
    return wide(head, rows, caption=f"{view.dataset}: {what}", kind="board")


def _head(view: boards.View, column: int, name: str) -> str:
    protocol = "" if name in boards.COSTS or column < view.keys else name.rpartition("/")[0]
    shown = escape(name).replace("/", "/<wbr>") if protocol else escape(name)
    about = f' data-protocol="{escape(protocol)}"' if protocol else f' data-key="{escape(name)}"'
    return f"<th scope=col{' class=number' if column >= view.keys - 1 else ''}{about}>{shown}</th>"


def _number(text: str, best: bool, place: str) -> str:
    shown = f"<b>{escape(text)}</b>" if best else escape(text)
    return f"<td class=number>{f'<a href=#{place}>{shown}</a>' if text != '–' else shown}</td>"


# ------------------------------------------------------------------------------------------ runs


def listing(
    board: "pandas.DataFrame", runs: Mapping[Key, list[dict[str, Any]]], places: Mapping[Key, str], root: Path
) -> Iterator[str]:
    """Every row's runs, each with its values and a link to its record."""
    if board.empty:
        return
    yield "<h2 id=runs>Runs</h2>"
    share = max(1, LISTED // len(board))
    for dataset, rows in board.groupby(level="dataset", sort=False):
        names = boards.measures(rows, scores=True)
        digits = {name: 2 if rows[name, "error"].notna().any() else 4 for name in names}
        head = "".join(f"<th scope=col>{name}</th>" for name in ("run", "status", "commit")) + "".join(
            f"<th scope=col class=number>{escape(name).replace('/', '/<wbr>')}</th>" for name in (*names, "minutes")
        )
        body = []
        for key in rows.index:
            title = " · ".join([str(key[1]), str(key[2]), f"{key[3]} epochs", *filter(None, key[4:])])
            body.append(f"<tr id={places[key]}><th scope=rowgroup colspan={4 + len(names)}>{escape(title)}</th></tr>")
            body += [_run(run, digits, root) for run in runs[key][:share]]
            if len(runs[key]) > share:
                folders = sorted({str(Path(run["run"]).parent) for run in runs[key]})
                where = ", ".join(f"<a href='{quote(folder)}/'>{escape(folder)}</a>" for folder in folders[:3])
                body.append(f"<tr><td colspan={4 + len(names)}>and {len(runs[key]) - share} more in {where}</td></tr>")
        count = sum(len(runs[key]) for key in rows.index)
        table = wide(head, body, caption=f"{dataset}: values of single runs, test split, last epoch")
        name = escape(str(dataset))
        yield f"<details data-dataset='{name}'><summary>{count} runs on {name}</summary>{table}</details>"


def _run(run: Mapping[str, Any], digits: Mapping[str, int], root: Path) -> str:
    values = [_spell(run.get(f"test/{name}"), places) for name, places in digits.items()]
    values.append(_spell(run.get("cost/minutes") or None, 1))
    status = f"{run['status']}: {run['reason']}" if run.get("reason") else run["status"]
    words = [record(run["run"], root, f"{run['recipe']} seed {run['seed']}"), escape(status)]
    words.append(escape((run.get("commit") or "–")[:12]) + (" + changes" if run.get("dirty") else ""))
    return (
        "<tr>"
        + "".join(f"<td>{x}</td>" for x in words)
        + "".join(f"<td class=number>{x}</td>" for x in values)
        + "</tr>"
    )


def record(run: str, root: Path, text: str) -> str:
    """A link to the record of a run, relative to the page; the text alone where the run directory is elsewhere."""
    return link(quote(f"{run}/record.json"), text) if (root / run / "record.json").exists() else escape(text)


def records(runs: Iterable[str], root: Path) -> str:
    return ", ".join(record(run, root, run) for run in runs)


def _spell(value: Any, digits: int) -> str:
    return "–" if value is None or value != value else f"{value:.{digits}f}"
