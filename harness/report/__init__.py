"""Tables as files, and one self-contained HTML page: leaderboards, claims, costs, training curves, and every run.

The page needs no network, and no script to be read. It is a function of the run directories, the claims and the code:
the same give the same bytes, wherever, whenever and in whatever order they are read.
"""

import os
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from harness import leaderboard as boards
from harness import provenance, runs
from harness.claims import FOLDER, File
from harness.report import coefficients, forest, ranking, tables, training
from harness.report.document import SCRIPT, document, notes
from harness.verdict import Verdict

if TYPE_CHECKING:
    import pandas

STATUSES = ("complete", "collapsed", "diverged", "running", "interrupted")


def write(
    root: Path,
    frame: "pandas.DataFrame",
    verdicts: Sequence[Verdict],
    files: Sequence[File] = (),
    *,
    overrides: bool = False,
) -> Path:
    """leaderboard.md, .csv, .tex and .html in the folder of the runs; returns the path of the last.

    frame: `tracking.table`. files: the claims that verdicts are on. overrides: show runs with overrides, too.
    Errors: NotWritable.
    """
    board = boards.leaderboard(frame, overrides=overrides)
    texts = {
        "md": tables.to_markdown(board),
        "csv": tables.to_csv(board),
        "tex": tables.to_latex(board),
        "html": page(root, frame, verdicts, files, overrides=overrides),
    }
    with runs.writable(root):
        root.mkdir(parents=True, exist_ok=True)
    for ending, text in texts.items():
        runs.write_atomically(root / f"leaderboard.{ending}", text.encode())
    return root / "leaderboard.html"


def page(
    root: Path,
    frame: "pandas.DataFrame",
    verdicts: Sequence[Verdict],
    files: Sequence[File] = (),
    *,
    overrides: bool = False,
) -> str:
    board = boards.leaderboard(frame, overrides=overrides)
    rows, places = ranking.by_row(boards.rows_of(frame, overrides=overrides)), ranking.anchors(board)
    sections = [
        list(ranking.leaderboards(board, places)),
        list(forest.claims(verdicts, files, root, _claims_folder(root))),
        list(
            training.costs(board, rows, training.devices(root, (run["run"] for some in rows.values() for run in some)))
        ),
        list(training.curves(board, rows, root)),
        list(coefficients.studies(root)),
        list(ranking.listing(board, rows, places, root)),
        list(_made(frame)),
    ]
    body = [*_summary(frame, verdicts, [some[0] for some in sections if some]), *(x for some in sections for x in some)]
    return document("Self-supervised learning: leaderboard and claims", body, script=SCRIPT)


def _claims_folder(root: Path) -> str:
    """From the page to the claims files, for runs inside the checkout; "" for runs elsewhere, whose page may move."""
    inside = root.absolute().is_relative_to(provenance.ROOT)
    return Path(os.path.relpath(FOLDER, root.absolute())).as_posix() if inside else ""


def _summary(frame: "pandas.DataFrame", verdicts: Sequence[Verdict], heads: Sequence[str]) -> Iterator[str]:
    yield "<h1>Self-supervised learning: leaderboard and claims</h1>"
    sets = sorted(frame["dataset"].unique()) if len(frame) else []
    words = [verdict.text for verdict in verdicts]
    parts = [f"{len(frame)} runs on {len(sets)} data sets"] + [f"{words.count(w)} {w}" for w in sorted(set(words))]
    yield notes([" · ".join(parts)])
    yield (
        "<p>Methods that learn from images without labels, ranked by what their frozen encoders are good for, and held "
        "against what their papers print. A row is a method on an encoder; a number is the mean ± standard deviation "
        "over seeds on the test split, after the last epoch. A click on a number shows its runs, on a column's name "
        "sorts by it.</p>"
    )
    links = []
    for head in heads:
        name, _, text = head.removeprefix("<h2 id=").removesuffix("</h2>").partition(">")
        links.append(f"<a href=#{name}>{text}</a>")
    yield f"<nav>{''.join(links)}</nav>"


def _made(frame: "pandas.DataFrame") -> Iterator[str]:
    commits = sorted({c[:12] for c in frame["commit"] if c}) if "commit" in frame else []
    status = frame["status"].value_counts().to_dict() if len(frame) else {}
    words = [f"{status[word]} {word}" for word in STATUSES if word in status]
    ends = sorted(end for end in frame["ended"] if end) if "ended" in frame else []
    facts = {
        "newest run ended": ends[-1] if ends else "no run has ended",
        "commits of the runs": ", ".join(commits) or "none",
        "runs": ", ".join(words) or "none",
    }
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in facts.items())
    yield "<h2 id=made>How this page was made</h2>"
    yield f"<dl>{rows}</dl>" + notes(
        ["Generated from stored runs by `harness leaderboard`; no number was typed by hand."]
    )
