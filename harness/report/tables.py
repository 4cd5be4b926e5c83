"""The leaderboard as files: Markdown, CSV and LaTeX. Each holds all scores."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from harness.leaderboard import View, views

if TYPE_CHECKING:
    import pandas


def to_markdown(board: "pandas.DataFrame") -> str:
    """The best value of a column in bold, baselines in italics."""
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
        parts += ["", *_sentences(view.notes), ""]
    parts += _sentences(board.attrs.get("notes", ()))
    return "\n".join(parts).strip() + "\n" if parts else "No runs yet.\n"


def to_csv(board: "pandas.DataFrame") -> str:
    """Everything, unrounded: one line per row, columns named `<protocol>/<metric> mean` and so on."""
    flat = board.copy()
    flat.columns = [" ".join(name) for name in board.columns]
    text: str = flat.to_csv(lineterminator="\n")
    return text


def to_latex(board: "pandas.DataFrame") -> str:
    r"""One table per data set for \input; needs the package booktabs. Bold and italics as in Markdown."""
    parts = ["% Made by `harness leaderboard`; needs \\usepackage{booktabs}.", *map(_latex, views(board))]
    return "\n\n".join(part.rstrip() for part in parts) + "\n"


def _latex(view: View) -> str:
    import pandas

    frame = pandas.DataFrame([[text for text, _ in line.cells] for line in view.lines])
    looks = pandas.DataFrame([list(_looks(view, i)) for i in range(len(view.lines))])
    frame.columns = looks.columns = pandas.Index(view.header)
    table = frame.style.format(escape="latex").format_index(escape="latex", axis=1).hide(axis=0)
    text: str = table.apply(lambda _: looks, axis=None).to_latex(
        hrules=True,
        column_format="l" * (view.keys - 1) + "r" * (len(view.header) - view.keys + 1),
        caption=" ".join([view.dataset.replace("_", r"\_") + ".", *_sentences(view.notes)]),
        label=f"tab:{view.dataset}",
        position="t",
        position_float="centering",
    )
    return text


def _looks(view: View, i: int) -> Iterator[str]:
    line = view.lines[i]
    for column, (_, best) in enumerate(line.cells):
        yield "textbf:--rwrap;" if best else "textit:--rwrap;" if line.baseline and column == 0 else ""


def _sentences(notes: Any) -> list[str]:
    return [f"{note[0].upper()}{note[1:]}." for note in notes]
