"""The HTML page: self-contained, well-formed, and it holds what the tables hold."""

import re
import xml.dom.minidom
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pandas
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from run_directories import DIGEST, FINGERPRINT, write_field, write_run
from test_claims import collapse, load
from test_leaderboard import frame

from harness import claims, report, tracking, verdict
from harness.errors import NotWritable

FOLDER = Path(__file__).resolve().parent.parent / "results" / "claims"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    root = tmp_path_factory.mktemp("field")
    write_field(root)
    runs = frame(root)
    current = dict.fromkeys(set(runs["recipe"]), verdict.Current(DIGEST, FINGERPRINT))
    trains = "vicreg_digits_r10_e60"
    own = load(
        collapse(id="p/holds", recipe=f"{trains}_l1_m0_n0"),
        collapse(id="p/differs", recipe=trains),
        collapse(id="p/known", recipe=trains, known="it <trains>"),
    )
    verdicts = verdict.check([*claims.load(FOLDER / "vicreg.toml").claims, *own.claims], runs, current)
    report.write(root / "out" / "index.html", runs, tracking.curves(root, runs["run"]), verdicts)
    return (root / "out" / "index.html").read_text()


class Balance(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag not in ("meta", "wbr"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_it_is_self_contained_and_well_formed(page: str) -> None:
    for outside in ("http:", "https:", "<script", "<link", "<img", "url(", "@import"):
        assert outside not in page
    checker = Balance()
    checker.feed(page)
    assert checker.open == []
    drawings = re.findall(r"<svg.*?</svg>", page)
    for drawing in drawings:
        xml.dom.minidom.parseString(drawing)
        assert "nan" not in drawing
        assert "inf" not in drawing


def test_it_holds_tables_plots_and_verdicts(page: str) -> None:
    for heading in (
        "Leaderboards",
        "Accuracy against cost",
        "Training curves",
        "Claims and verdicts",
        "How this page was made",
    ):
        assert f"<h2>{heading}</h2>" in page
    assert page.count("<h3>digits</h3>") == 3
    assert "<b>98.3</b>" in page
    assert "<tr class=baseline>" in page
    assert "2 collapsed" in page
    assert "<td class=good>holds at reduced scale</td>" in page
    assert page.count("<td class=bad>differs at reduced scale</td>") == 1
    assert page.count("<td class=none>differs at reduced scale</td>") == 1
    assert "; known: it &lt;trains&gt;</td>" in page
    assert "vicreg/t7/l1-m0-n0/collapse" in page
    assert "loss: SSL-HSIC" in page
    assert "prefers-color-scheme: dark" in page
    assert "1 run with overrides left out" in page
    assert "commits of the runs</dt><dd>ffffffffffff</dd>" in page


def test_every_curve_of_a_data_set_is_drawn(page: str) -> None:
    curves = page.split("<h2>Training curves</h2>")[1].split("<h2>")[0]
    figure = next(f for f in curves.split("<figure>") if f.startswith("<figcaption>effective rank"))
    assert (
        figure.count("<polyline") == 4 * 2 + 2 + 1 + 1
    )  # methods, collapsed, diverged, live; the override is left out


def test_text_from_runs_is_escaped(tmp_path: Path) -> None:
    write_run(tmp_path, label="<b>&", encoder='"r10"')
    text = report.page(frame(tmp_path), tracking.curves(tmp_path, []), [])
    assert "&lt;b&gt;&amp;" in text
    assert "<b>&" not in text


def test_no_runs_and_an_unwritable_place(tmp_path: Path) -> None:
    empty = pandas.DataFrame(columns=["run", "recipe", "seed", "dataset", "status"])
    assert "No runs yet" in report.page(empty, tracking.curves(tmp_path, []), [])
    (tmp_path / "file").write_text("")
    with pytest.raises(NotWritable, match="cannot write"):
        report.write(tmp_path / "file" / "index.html", empty, empty, [])


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=5))
def test_ticks_are_round_and_span_the_values(values: list[float]) -> None:
    marks = report.ticks(values)
    assert 2 <= len(marks) <= 9
    slack = 1e-6 * max(1.0, *map(abs, values))
    assert marks[0] <= min(values) + slack
    assert marks[-1] >= max(values) - slack
    steps = {round((b - a) / (marks[1] - marks[0]), 3) for a, b in pairwise(marks)}
    assert steps == {1.0}
