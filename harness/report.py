"""One self-contained HTML page: leaderboards, accuracy against cost, training curves, verdicts, and how it was made.

No script, font or image from elsewhere; the plots are inline SVG in the page's own colours, for light and dark.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from html import escape
from math import floor, isfinite, log10
from pathlib import Path
from typing import TYPE_CHECKING

from harness import leaderboard as boards
from harness import provenance, runs
from harness.verdict import Verdict, to_frame

if TYPE_CHECKING:
    import pandas

COLOURS = 8
SHOWN_POINTS = 200  # of one curve; more do not show in 300 pixels
TOGETHER = {"embedding_std": "embedding std", "effective_rank": "effective rank"}  # curves that share a scale
STYLE = """
:root { color-scheme: light dark; --page: #fff; --ink: #1d2329; --soft: #667079; --rule: #d9dee3; --zebra: #f6f8fa;
  --good: #1a7f37; --bad: #c0262d; --open: #9a6700;
  --c0: #0072b2; --c1: #d55e00; --c2: #009e73; --c3: #b8589a; --c4: #8a6d00; --c5: #3aa0d8; --c6: #6b4fbb; --c7: #555; }
@media (prefers-color-scheme: dark) { :root { --page: #14181c; --ink: #e3e8ec; --soft: #98a3ad; --rule: #343c44;
  --zebra: #1b2025; --good: #57c76b; --bad: #ff7b72; --open: #e0b040;
  --c0: #56a9e8; --c1: #ff9452; --c2: #3fcf9f; --c3: #e08ec4; --c4: #e6cc4a; --c5: #8fd0f5; --c6: #b09cf5;
  --c7: #bbb; } }
body { background: var(--page); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; max-width: 92rem;
  margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; margin-bottom: .2rem; } h2 { font-size: 1.25rem; margin: 2.2rem 0 .6rem;
  border-bottom: 1px solid var(--rule); } h3 { font-size: 1rem; margin: 1.4rem 0 .4rem; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: .9rem;
  font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .7rem; text-align: left; white-space: nowrap; }
td.text { white-space: normal; min-width: 24rem; }
th { border-bottom: 2px solid var(--rule); vertical-align: bottom; }
tbody tr:nth-child(even) { background: var(--zebra); }
.number { text-align: right; } tr.baseline { color: var(--soft); font-style: italic; }
.note, figcaption, dt { color: var(--soft); font-size: .85rem; } p.note { margin: .2rem 0; }
.good { color: var(--good); } .bad { color: var(--bad); } .open { color: var(--open); } .none { color: var(--soft); }
.plots { display: flex; flex-wrap: wrap; gap: .8rem; } figure { margin: 0; }
svg { display: block; max-width: 100%; } svg text { fill: var(--soft); font: 11px system-ui, sans-serif; }
svg .grid { stroke: var(--rule); } svg .line { fill: none; stroke-width: 1.6; stroke-linejoin: round; opacity: .85; }
.legend { display: flex; flex-wrap: wrap; gap: .1rem 1rem; font-size: .85rem; margin: .4rem 0; padding: 0; }
dl { display: grid; grid-template-columns: max-content auto; gap: .1rem 1rem; } dd { margin: 0; }
summary { cursor: pointer; }
"""
CLASS = {"reproduced": "good", "differs": "bad", "regressed": "bad", "undecided": "open"}


@dataclass(frozen=True)
class Series:
    """Points (x, y, half-length of a vertical bar) of one thing. number: place in the legend, sets the look."""

    name: str
    number: int
    points: tuple[tuple[float, float, float], ...] = ()

    def at(self, points: Iterable[tuple[float, float, float]]) -> "Series":
        return replace(self, points=tuple(points))

    @property
    def colour(self) -> str:
        return f"var(--c{self.number % COLOURS})"

    @property
    def dash(self) -> str:
        return ("", "5 3", "2 2", "8 2 2 2")[self.number // COLOURS % 4]


def write(
    path: Path,
    frame: "pandas.DataFrame",
    curves: "pandas.DataFrame",
    verdicts: Sequence[Verdict],
    *,
    overrides: bool = False,
) -> None:
    """The page. frame: `tracking.table`; curves: `tracking.curves`. Errors: NotWritable."""
    with runs.writable(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    runs.write_atomically(path, page(frame, curves, verdicts, overrides=overrides).encode())


def page(
    frame: "pandas.DataFrame", curves: "pandas.DataFrame", verdicts: Sequence[Verdict], *, overrides: bool = False
) -> str:
    board = boards.leaderboard(frame, overrides=overrides)
    named = boards.rows_of(frame, overrides=overrides)
    sections = [
        *_summary(frame, verdicts),
        *_leaderboards(board),
        *_costs(board),
        *_curves(board, named, curves),
        *_verdicts(verdicts),
        *_made(frame),
    ]
    head = "<meta charset=utf-8><meta name=viewport content='width=device-width'><title>Leaderboard</title>"
    body = "\n".join(sections)
    return f"<!doctype html>\n<html lang=en><head>{head}<style>{STYLE}</style></head>\n<body>\n{body}\n</body></html>\n"


# ------------------------------------------------------------------------------------------ sections


def _summary(frame: "pandas.DataFrame", verdicts: Sequence[Verdict]) -> Iterator[str]:
    yield "<h1>Self-supervised learning: leaderboard and claims</h1>"
    sets = sorted(frame["dataset"].unique()) if len(frame) else []
    words = [verdict.text for verdict in verdicts]
    parts = [f"{len(frame)} runs on {len(sets)} data sets"] + [f"{words.count(w)} {w}" for w in dict.fromkeys(words)]
    yield f"<p class=note>{escape(' · '.join(parts))}</p>"


def _leaderboards(board: "pandas.DataFrame") -> Iterator[str]:
    yield "<h2>Leaderboards</h2>"
    if board.empty:
        yield "<p>No runs yet.</p>"
    further = {view.dataset: view for view in boards.views(board, scores=False)}
    for view in boards.views(board):
        yield f"<h3>{escape(view.dataset)}</h3>" + _table(view)
        yield "".join(f"<p class=note>{escape(note)}</p>" for note in view.notes)
        if view.dataset in further:
            more = _table(further[view.dataset])
            yield f"<details><summary class=note>What else was measured</summary>{more}</details>"
    yield "".join(f"<p class=note>{escape(note)}</p>" for note in board.attrs.get("notes", ()))


def _table(view: boards.View) -> str:
    def cells(tag: str, texts: Iterable[str]) -> str:
        kinds = ("" if i < view.keys else " class=number" for i in range(len(view.header)))
        return "".join(f"<{tag}{kind}>{text}</{tag}>" for kind, text in zip(kinds, texts, strict=True))

    head = (escape(name).replace("/", "/<wbr>") for name in view.header)
    rows = [
        f"<tr{' class=baseline' if line.baseline else ''}>"
        + cells("td", (f"<b>{escape(text)}</b>" if best else escape(text) for text, best in line.cells))
        + "</tr>"
        for line in view.lines
    ]
    return _wide(cells("th", head), rows)


def _wide(head: str, rows: Sequence[str]) -> str:
    return f"<div class=wide><table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"


def _costs(board: "pandas.DataFrame") -> Iterator[str]:
    """Every score against the minutes it took; what takes no time is a dashed line."""
    if board.empty:
        return
    yield "<h2>Accuracy against cost</h2>"
    for dataset, rows in board.groupby(level="dataset", sort=False):
        looks, figures = _looks(rows), []
        for measure in boards.measures(rows, scores=True):
            points: list[Series] = []
            lines: list[Series] = []
            for key, row in rows.iterrows():
                minutes, mean, std = row["minutes", "mean"], row[measure, "mean"], row[measure, "std"]
                if isfinite(mean):
                    spread = std if isfinite(std) else 0.0
                    (points if minutes > 0 else lines).append(looks[key].at([(minutes, mean, spread)]))
            figures.append(plot(measure, "minutes of training", points, lines=lines, marks=True))
        yield (
            f"<h3>{escape(str(dataset))}</h3>" + _legend(looks.values()) + f"<div class=plots>{''.join(figures)}</div>"
        )


def _curves(board: "pandas.DataFrame", named: "pandas.DataFrame", curves: "pandas.DataFrame") -> Iterator[str]:
    if board.empty or not len(curves):
        return
    yield "<h2>Training curves</h2>"
    yield "<p class=note>One line per run. Losses of different methods share no scale, so each has its own plot.</p>"
    lines = dict(iter(curves.groupby("run")))
    for dataset, rows in board.groupby(level="dataset", sort=False):
        looks = _looks(rows)
        each: dict[str, list[Series]] = {column: [] for column in ("loss", *TOGETHER)}
        for _, run in named[named["dataset"] == dataset].sort_values("run").iterrows():
            if run["run"] not in lines:
                continue
            curve = lines[run["run"]]
            curve = curve.iloc[:: max(1, -(-len(curve) // SHOWN_POINTS))]
            for column, found in each.items():
                points = [(x, y, 0.0) for x, y in zip(curve["step"], curve[column], strict=True) if isfinite(y)]
                found.append(looks[tuple(run[name] for name in boards.ROW)].at(points))
        drawn = [look for look in looks.values() if any(one.number == look.number for one in each["loss"])]
        figures = [plot(title, "step", each[column]) for column, title in TOGETHER.items()]
        for look in drawn:
            losses = [one for one in each["loss"] if one.number == look.number]
            figures.append(plot(f"loss: {look.name}", "step", losses, width=230, height=160))
        yield f"<h3>{escape(str(dataset))}</h3>" + _legend(drawn) + f"<div class=plots>{''.join(figures)}</div>"


def _verdicts(verdicts: Sequence[Verdict]) -> Iterator[str]:
    yield "<h2>Claims and verdicts</h2>"
    if not verdicts:
        yield "<p>No claims were checked.</p>"
        return
    table = to_frame(verdicts)
    head = "".join(f"<th>{escape(name)}</th>" for name in table)
    rows = []
    for verdict, (_, row) in zip(verdicts, table.iterrows(), strict=True):
        look = "none" if verdict.known else CLASS.get(verdict.word, "none")
        kinds = {"verdict": f" class={look}", "why": " class=text"}
        rows.append(
            "<tr>" + "".join(f"<td{kinds.get(str(k), '')}>{escape(text)}</td>" for k, text in row.items()) + "</tr>"
        )
    yield _wide(head, rows)
    yield (
        "<p class=note>An interval is a 90 % interval over seeds. At reduced scale a pattern was checked on smaller "
        "data and networks, not the printed number.</p>"
    )


def _made(frame: "pandas.DataFrame") -> Iterator[str]:
    git = provenance.git()
    commits = sorted({c[:12] for c in frame["commit"] if c}) if "commit" in frame else []
    status = frame["status"].value_counts().to_dict() if len(frame) else {}
    facts = {
        "page written": runs.now(),
        "checkout": (git["commit"] or "outside git")[:12] + (", with uncommitted changes" if git["dirty"] else ""),
        "commits of the runs": ", ".join(commits) or "none",
        "runs": ", ".join(f"{number} {word}" for word, number in status.items()) or "none",
    }
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in facts.items())
    yield f"<h2>How this page was made</h2><dl>{rows}</dl>"
    yield "<p class=note>Generated from stored runs; no number was typed by hand. Test split, last epoch.</p>"


def _looks(rows: "pandas.DataFrame") -> dict[tuple[object, ...], Series]:
    """Name and look of each row of a data set's board: its label, and of its other keys those that differ."""
    keys = rows.index.to_frame(index=False)
    differ = [key for key in boards.ROW[2:] if keys[key].nunique() > 1]
    looks = {}
    for number, key in enumerate(rows.index):
        row = dict(zip(boards.ROW, key, strict=True))
        words = [f"{row[name]} epochs" if name == "epochs" else str(row[name]) for name in differ]
        looks[key] = Series(" ".join(filter(None, [str(row["label"]), *words])), number)
    return looks


def _legend(looks: Iterable[Series]) -> str:
    parts = []
    for one in looks:
        look = f'stroke="{one.colour}" stroke-width="2.5" stroke-dasharray="{one.dash}"'
        line = f'<line x1="0" x2="22" y1="5" y2="5" {look}/>'
        parts.append(f'<span><svg width="22" height="10" style="display:inline">{line}</svg> {escape(one.name)}</span>')
    return f"<div class=legend>{''.join(parts)}</div>"


# ------------------------------------------------------------------------------------------ plots


def plot(
    title: str,
    x_label: str,
    series: Sequence[Series],
    *,
    lines: Sequence[Series] = (),
    marks: bool = False,
    width: int = 350,
    height: int = 220,
) -> str:
    """Curves, or points with bars (marks). lines: series whose y is drawn across the whole width."""
    left, right, top, bottom = 46, 10, 8, 34
    spots = [point for one in series for point in one.points]
    heights = [(y, bar) for _, y, bar in spots] + [(y, 0.0) for one in lines for _, y, _ in one.points]
    if not heights:
        return ""
    xs = ticks([0.0, *(x for x, _, _ in spots)])
    ys = ticks([y - bar for y, bar in heights] + [y + bar for y, bar in heights])
    place_x = _scale(xs, left, width - right)
    place_y = _scale(ys, height - bottom, top)
    parts = []
    for y in ys:
        parts.append(
            f'<line class="grid" x1="{left}" x2="{width - right}" y1="{place_y(y):.1f}" y2="{place_y(y):.1f}"/>'
        )
        parts.append(f'<text x="{left - 5}" y="{place_y(y) + 4:.1f}" text-anchor="end">{y:g}</text>')
    for x in xs:
        parts.append(f'<text x="{place_x(x):.1f}" y="{height - bottom + 14}" text-anchor="middle">{x:g}</text>')
    parts.append(
        f'<text x="{(left + width - right) / 2}" y="{height - 4}" text-anchor="middle">{escape(x_label)}</text>'
    )
    for one in lines:
        y = place_y(one.points[0][1])
        look = f'stroke="{one.colour}" stroke-dasharray="6 4" stroke-width="1.5"'
        parts.append(f'<line x1="{left}" x2="{width - right}" y1="{y:.1f}" y2="{y:.1f}" {look}>{_tip(one)}</line>')
    for one in series:
        if marks:
            parts += [
                _mark(one, place_x(x), place_y(y), place_y(y - bar), place_y(y + bar)) for x, y, bar in one.points
            ]
        else:
            path = " ".join(f"{place_x(x):.1f},{place_y(y):.1f}" for x, y, _ in one.points)
            look = f'stroke="{one.colour}" stroke-dasharray="{one.dash}"'
            parts.append(f'<polyline class="line" points="{path}" {look}>{_tip(one)}</polyline>')
    svg = f'<svg width="{width}" height="{height}" viewBox="0 0 {width} {height}" role="img">{"".join(parts)}</svg>'
    return f"<figure><figcaption>{escape(title)}</figcaption>{svg}</figure>"


def _mark(one: Series, x: float, y: float, low: float, high: float) -> str:
    fill = one.colour if one.number < COLOURS else "var(--page)"
    look = f'stroke="{one.colour}" stroke-width="1.6"'
    bar = f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{low:.1f}" y2="{high:.1f}" {look}/>'
    return bar + f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{fill}" {look}>{_tip(one)}</circle>'


def _tip(one: Series) -> str:
    return f"<title>{escape(one.name)}</title>"


def _scale(marks: Sequence[float], start: float, end: float) -> Callable[[float], float]:
    low, span = marks[0], marks[-1] - marks[0]
    return lambda value: start + (value - low) / span * (end - start)


def ticks(values: Sequence[float], wanted: int = 5) -> list[float]:
    """Round numbers that span the values: steps of 1, 2 or 5 times a power of ten."""
    low, high = min(values), max(values)
    if high - low < 1e-9 * max(1.0, abs(high)):
        pad = 0.1 * abs(low) if abs(low) > 1e-9 else 1.0
        low, high = low - pad, high + pad
    raw = (high - low) / wanted
    power = 10.0 ** floor(log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)
    first, last = floor(low / step + 1e-9), -floor(-high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]
