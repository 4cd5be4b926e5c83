"""The HTML page: self-contained, well-formed, the same bytes from the same runs, and it holds what the tables hold."""

import json
import os
import re
import subprocess
import sys
import xml.dom.minidom
from html.parser import HTMLParser
from itertools import pairwise
from math import inf
from pathlib import Path
from typing import Any

import pandas
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from run_directories import DIGEST, FINGERPRINT, metric_line, write_field, write_run
from study_files import write_study
from test_claims import collapse, load, ordering, value
from test_leaderboard import frame

from harness import claims, report, verdict
from harness.errors import NotWritable
from harness.report import forest, plots, ranking, training
from harness.verdict import Verdict

TESTS = Path(__file__).resolve().parent
FOLDER = TESTS.parent / "results" / "claims"
TRAINS = "vicreg_digits_r10_e60"


@pytest.fixture(scope="module")
def field(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs with a study, and its page."""
    root = tmp_path_factory.mktemp("field")
    write_field(root)
    write_study(root, over=12, finals="none")
    runs = frame(root)
    current = dict.fromkeys(set(runs["recipe"]), verdict.Current(DIGEST, FINGERPRINT))
    own = load(
        collapse(id="p/holds", recipe=f"{TRAINS}_l1_m0_n0"),
        collapse(id="p/differs", recipe=TRAINS),
        collapse(id="p/known", recipe=TRAINS, known="it <trains>"),
    )
    files = [claims.load(FOLDER / "vicreg.toml"), own]
    verdicts = verdict.check([claim for file in files for claim in file.claims], runs, current)
    assert report.write(root, runs, verdicts, files) == root / "leaderboard.html"
    return root


@pytest.fixture(scope="module")
def page(field: Path) -> str:
    return (field / "leaderboard.html").read_text()


def section(page: str, name: str) -> str:
    return page.split(f"<h2 id={name}>")[1].split("<h2 ")[0]


class Balance(HTMLParser):
    """Every tag that is opened is closed, every id is there once, and every link inside the page has its end."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "wbr", "col"):
            self.open.append(tag)
        self.ids += [value or "" for name, value in attrs if name == "id"]
        self.links += [value or "" for name, value in attrs if name == "href"]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass  # of a drawing

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def parsed(page: str) -> Balance:
    checker = Balance()
    checker.feed(page)
    assert checker.open == []
    assert len(checker.ids) == len(set(checker.ids))
    return checker


def test_it_is_self_contained_and_well_formed(page: str) -> None:
    for outside in (" src=", "<link", "<img", "url(", "@import", "fetch(", "http:"):
        assert outside not in page
    assert page.count("<script>") == 1
    checker = parsed(page)
    outside = [link for link in checker.links if ":" in link]
    assert outside
    assert all(link.startswith("https://arxiv.org/abs/") for link in outside)
    assert page.count("https:") == len(outside)
    drawings = re.findall(r"<svg.*?</svg>", page)
    for drawing in drawings:
        xml.dom.minidom.parseString(drawing)
        assert "nan" not in drawing
        assert "inf" not in drawing.replace("mean", "")


def test_it_holds_tables_plots_and_verdicts(page: str) -> None:
    headings = {
        "leaderboards": "Leaderboards", "claims": "Claims and verdicts", "cost": "Cost", "curves": "Training curves",
        "studies": "Studies of coefficients", "runs": "Runs", "made": "How this page was made",
    }  # fmt: skip
    for name, text in headings.items():
        assert f"<h2 id={name}>{text}</h2>" in page
        assert f"<a href=#{name}>{text}</a>" in page
    assert page.count("<h3>digits</h3>") == 3
    assert "<b>98.3</b>" in page
    assert "<tr class=baseline>" in page
    assert "2 collapsed" in page
    assert "<td class=good><b>✓ holds at reduced scale</b></td>" in page
    assert page.count("<td class=bad><b>✗ differs at reduced scale</b></td>") == 1
    assert page.count("<td class=none><b>✗ differs at reduced scale</b>; known</td>") == 1
    assert "<dt>known</dt><dd>it &lt;trains&gt;</dd>" in page
    assert "<h4>SSL-HSIC <span class=note>invariance = 25, variance = 25, covariance = 1</span></h4>" in page
    assert "runs with overrides left out" in page
    assert "commits of the runs</dt><dd>ffffffffffff</dd>" in page
    assert "<dt>newest run ended</dt><dd>2026-03-01T12:02:00+00:00</dd>" in page
    made = section(page, "made")
    assert [word in made for word in ("complete, 2 collapsed", "diverged", "running")] == [True] * 3


def test_every_curve_of_a_data_set_is_drawn(page: str) -> None:
    curves = section(page, "curves")
    figure = next(f for f in curves.split("<figure>") if f.startswith("<figcaption>effective rank"))
    # methods, collapsed, diverged, live; of the override nothing
    assert figure.count("<polyline") == 4 * 2 + 2 + 1 + 1


def test_terms_are_drawn_weighted_and_as_they_are(field: Path) -> None:
    lines = training.sampled(next(field.glob(f"{TRAINS}/*/seed-0")) / "metrics.jsonl")
    text = training._terms("VICReg", [lines, lines])
    loss, weighted, raw = text.split("<figure>")[1:]
    assert (loss.count("<polyline"), weighted.count("<polyline"), raw.count("<polyline")) == (2, 6, 6)
    assert 'aria-label="terms times coefficients"' in weighted
    assert ">0.5</text>" in raw  # the covariance term is 0.5 throughout
    for line in lines:
        del line["coefficients"]["covariance"]
    assert training._terms("VICReg", [lines]).split("<figure>")[2].count("<polyline") == 2


def test_a_number_leads_to_its_runs_and_their_records(field: Path, page: str) -> None:
    checker = parsed(page)
    inside = {link.removeprefix("#") for link in checker.links if link.startswith("#")}
    assert inside <= set(checker.ids)
    cell = re.search(r"<td>SSL-HSIC</td>.*?<a href=#(r\d+)>2</a>", page)
    assert cell
    runs = section(page, "runs").split(f"<tr id={cell[1]}>")[1].split("<tr id=")[0]
    records = re.findall(r'href="([^"]*record.json)"', runs)
    assert records == [f"ssl_hsic_digits_r10_e60/{DIGEST}/seed-{seed}/record.json" for seed in (0, 1)]
    for link in checker.links:
        if link.endswith("record.json"):
            assert (field / link).exists()
    assert "<td>byol_digits_r10_e60 seed 0</td><td>running</td>" in page  # which has no record yet


def test_of_many_runs_a_row_lists_a_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(11):
        write_run(tmp_path, seed=seed)
    monkeypatch.setattr(ranking, "LISTED", 3)
    runs = section(report.page(tmp_path, frame(tmp_path), []), "runs")
    assert runs.count("record.json") == 3
    assert f"and 8 more in <a href='{TRAINS}/{DIGEST}/'>{TRAINS}/{DIGEST}</a>" in runs
    assert [runs.index(f"seed {seed}<") for seed in (0, 1, 2)] == sorted(runs.index(f"seed {i}<") for i in (0, 1, 2))


def test_of_many_rows_the_best_of_each_method_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for epochs in (10, 20, 30):
        write_run(tmp_path, f"vicreg_digits_r10_e{epochs}", epochs=epochs, top1=90.0 + epochs / 10)
    write_run(tmp_path, "dino_digits_r10_e60", label="DINO", top1=70.0)
    monkeypatch.setattr(training, "SHOWN_ROWS", 2)
    text = report.page(tmp_path, frame(tmp_path), [])
    assert re.findall("<h4>(.*?) <span", section(text, "curves")) == ["VICReg 30 epochs", "DINO 60 epochs"]
    assert section(text, "curves").count("The best row of each method and the next best, 2 of 4 rows.") == 1


def test_cost_names_devices_and_hours(field: Path, page: str) -> None:
    row = section(page, "cost").split("<td>SSL-HSIC</td>")[1].split("</tr>")[0]
    assert row.startswith("<td>r10</td><td>60</td><td></td><td>cpu</td>")
    hours = (90 + 91) / 3600
    assert row.endswith(
        f"<td class=number>1,000</td><td class=number>1.5</td><td class=number>{hours:.2f}</td><td class=number>–</td>"
    )
    assert "<td>Untrained</td>" not in section(page, "cost")
    assert "counts as one device" not in page


def test_a_run_without_its_record_counts_as_one_device(tmp_path: Path) -> None:
    record = json.loads((write_run(tmp_path) / "record.json").read_text())
    record["device"]["count"] = 4
    write_run(tmp_path, "dino_digits_r10_e60", label="DINO")
    (tmp_path / TRAINS / DIGEST / "seed-0" / "record.json").write_text(json.dumps(record))
    runs = frame(tmp_path)
    (tmp_path / "dino_digits_r10_e60" / DIGEST / "seed-0" / "record.json").unlink()
    cost = section(report.page(tmp_path, runs, []), "cost")
    assert (
        f"<td>4 x cpu</td><td class=number>1,000</td><td class=number>1.5</td><td class=number>{360 / 3600:.2f}" in cost
    )
    assert f"<td></td><td class=number>1,000</td><td class=number>1.5</td><td class=number>{90 / 3600:.2f}" in cost
    assert "a run whose record is not here counts as one device" in cost


def test_data_wait_is_shown_where_it_is_logged(field: Path) -> None:
    runs = frame(field).assign(data_wait=0.051)
    assert "<td class=number>5%</td></tr>" in section(report.page(field, runs, []), "cost")


def test_a_study_shows_its_objective_over_each_coefficient(page: str) -> None:
    text = section(page, "studies")
    assert "<h3>vicreg_digits_coefficients</h3>" in text  # a link once its own page is there
    assert re.findall(r'text-anchor="middle">([a-z]+)</text>', text) == ["invariance", "variance", "covariance"]
    complete = int(re.search(r"(\d+) complete trials", text)[1])  # type: ignore[index]
    assert text.count("h0M") + text.count('h0"') == 3 * complete > 3


def test_a_damaged_study_is_one_line(field: Path, tmp_path: Path) -> None:
    write_run(tmp_path)
    (tmp_path / "studies" / "mine").mkdir(parents=True)
    (tmp_path / "studies" / "mine" / "study.json").write_text("{")
    text = section(report.page(tmp_path, frame(tmp_path), []), "studies")
    assert "<h3>mine</h3><p class=note>Damaged; `harness sweep report mine` says where.</p>" in text


def test_text_from_runs_is_escaped(tmp_path: Path) -> None:
    write_run(tmp_path, label="<b>&", encoder='"r10"')
    text = report.page(tmp_path, frame(tmp_path), [])
    assert "&lt;b&gt;&amp;" in text
    assert "<b>&" not in text
    parsed(text)


def test_no_runs_and_an_unwritable_place(tmp_path: Path) -> None:
    empty = pandas.DataFrame(columns=["run", "recipe", "seed", "dataset", "status"])
    assert "No runs yet" in report.page(tmp_path, empty, [])
    (tmp_path / "file").write_text("")
    with pytest.raises(NotWritable, match="cannot write"):
        report.write(tmp_path / "file", empty, [])


def test_ten_thousand_runs_stay_a_few_megabytes(tmp_path: Path) -> None:
    """Of 2,000 rows of five seeds; their directories are elsewhere."""
    write_run(tmp_path)
    (one,) = frame(tmp_path).to_dict("records")
    many = [
        one | {"run": f"r{row}/{DIGEST}/seed-{seed}", "recipe": f"r{row}", "seed": seed, "label": f"Method {row % 50}",
               "encoder": f"encoder {row // 50}"}
        for row in range(2000) for seed in range(5)
    ]  # fmt: skip
    text = report.page(tmp_path, pandas.DataFrame(many), [])
    assert 1e6 < len(text) < 3e6
    assert section(text, "leaderboards").count("<td>encoder ") == 2 * 2000  # the scores, and what else was measured
    assert ranking.LISTED // 2000 == 1
    assert section(text, "runs").count("and 4 more in") == 2000


# ------------------------------------------------------------------------------------------ the same bytes


MAKE = """
import sys
from pathlib import Path
from test_leaderboard import frame
from harness import claims, report, verdict
root = Path(sys.argv[1])
runs = frame(root).sample(frac=1.0, random_state=int(sys.argv[2]), ignore_index=True)
runs = runs[sorted(runs, key=hash)]
files = claims.load_all(claims.FOLDER)
verdicts = verdict.check([claim for file in files for claim in file.claims], runs.sort_values("run"), {})
report.write(root, runs, verdicts, files)
"""


def test_the_same_runs_give_the_same_bytes(tmp_path: Path) -> None:
    """Written in another order, elsewhere, and read with another order of rows, columns and sets."""
    found = []
    for number, name in enumerate(("one", "two")):
        root = tmp_path / name
        for seed in (0, 1, 2)[:: 1 if number else -1]:
            for stem in ("vicreg", "dino", "byol")[:: 1 if number else -1]:
                top1 = 90.1 + 0.3 * seed if stem != "byol" else 90.4  # byol and vicreg tie
                write_run(root, f"{stem}_digits_r10_e60", seed, label=stem, top1=top1)
        env = os.environ | {"PYTHONHASHSEED": str(number + 1), "PYTHONPATH": f"{TESTS.parent}{os.pathsep}{TESTS}"}
        subprocess.run([sys.executable, "-c", MAKE, root, str(number)], env=env, check=True, timeout=120)
        found.append({path.name: path.read_bytes() for path in sorted(root.glob("leaderboard.*"))})
    assert set(found[0]) == {f"leaderboard.{ending}" for ending in ("csv", "html", "md", "tex")}
    assert found[0] == found[1]
    assert str(tmp_path).encode() not in b"".join(found[0].values())


# ------------------------------------------------------------------------------------------ claims


def judged(claim: dict[str, Any], word: str, **more: Any) -> tuple[Verdict, claims.File]:
    file = load(claim)
    (one,) = file.claims
    found = Verdict(one.id, one.kind, one.scale, word, " > ".join(one.printed), claim=one, n=(3,), **more)
    return found, file


def claims_section(*some: tuple[Verdict, claims.File], folder: str = "") -> str:
    text = "".join(forest.claims([v for v, _ in some], [file for _, file in some], Path("runs"), folder))
    parsed(text)
    return text


def test_a_value_is_drawn_with_its_band_interval_and_seeds() -> None:
    found = judged(value(), "reproduced", effect=0.1, low=-0.2, high=0.4, band=(-0.5, 0.5), points=(0.0, 0.1, 0.2))
    text = claims_section(found)
    svg = re.search(r"<svg class=.good.*?</svg>", text)
    assert svg
    drawing = xml.dom.minidom.parseString(svg[0]).documentElement
    said = "effect +0.1, agrees from -0.5 to +0.5, 90 % interval -0.2 to +0.4"
    assert drawing.getAttribute("aria-label") == said
    by_class = {one.getAttribute("class"): one for one in drawing.childNodes}
    band, mean = by_class["band"], by_class["mean"]
    start, width = (float(band.getAttribute(name)) for name in ("x", "width"))
    assert float(mean.getAttribute("cx")) == pytest.approx(start + width * 0.6, abs=0.2)
    assert svg[0].count('class="seed"') == 3
    assert "<b>✓ reproduced</b>" in text


def test_records_that_nothing_was_compared_with_are_counted() -> None:
    quiet = [Verdict(f"record/r{i}", "record", "paper", "held", "3 promoted runs") for i in range(2)]
    compared = Verdict("record/r2", "record", "paper", "held", "3 promoted runs", effect=0.4, why="not better")
    text = "".join(forest.claims([*quiet, compared], [], Path("runs"), ""))
    assert "2 records held: no code on the path has changed" in text
    assert "record/<wbr>r2" in text
    assert "r0" not in text


def test_verdicts_differ_in_shape_and_word_not_only_in_colour() -> None:
    drawn = {"effect": 0.1, "low": -0.2, "high": 0.4, "band": (-0.5, 0.5)}
    shapes = {}
    for word in ("reproduced", "differs", "undecided"):
        text = claims_section(judged(value(), word, **drawn))
        shapes[word] = re.findall(r'class="(mean|cross|hollow)"', text.split("<table")[1])
        assert f"{forest.LOOKS[word][2]} {word}</b>" in text
    assert shapes == {"reproduced": ["mean"], "differs": ["cross"], "undecided": ["hollow"]}


@pytest.mark.parametrize(
    ("more", "text"),
    [
        (None, "undecided</b></td>"),
        (1, "undecided</b>; 1 more seed would decide</td>"),
        (12, "undecided</b>; 12 more seeds would decide</td>"),
        (5000, "undecided</b>; over 999 more seeds would decide</td>"),
        (inf, "undecided</b>; no number of seeds would decide</td>"),
    ],
)
def test_an_undecided_claim_says_how_many_seeds_would_decide(more: float | None, text: str) -> None:
    assert text in claims_section(judged(value(), "undecided", effect=0.1, more=more))


def test_an_effect_beyond_the_scale_is_an_arrow_at_its_end() -> None:
    file = load(*(value(id=f"p/{name}") for name in ("a", "b", "c", "far")))
    some = [
        Verdict(one.id, one.kind, one.scale, "differs", "", effect=x, low=x - 1, high=x + 1, band=(-0.5, 0.5))
        for one, x in zip(file.claims, (0.8, 0.9, -2.0, -40.0), strict=True)
    ]
    rows = "".join(forest.claims(some, [file], Path("runs"), "")).split("</summary>")
    row = rows[-1]
    assert rows[1].count('class="cross"') == 1
    assert f'<path class="mean" d="M{forest.EDGE:.1f} ' in row
    assert 'class="cross"' not in row


def test_units_have_scales_of_their_own_and_what_is_counted_has_none() -> None:
    percent = judged(value(id="p/a"), "differs", effect=5.0, low=4.0, high=6.0, band=(-0.5, 0.5), unit="percent")
    r2 = judged(ordering(id="p/b"), "reproduced", effect=0.05, low=0.04, high=0.06, band=(0.0, inf), unit="r2")
    counted = judged(collapse(id="p/c"), "reproduced", ours="3 of 3 collapsed")
    file = load(value(id="p/a"), ordering(id="p/b"), collapse(id="p/c"))
    text = "".join(forest.claims([percent[0], r2[0], counted[0]], [file], Path("runs"), ""))
    titles = re.findall(r"<th scope=rowgroup colspan=\d>(.*?)</th>", text)
    assert titles == [
        "effect in percent",
        "effect in r2",
        "counted, or without a number",
    ]
    assert ">+5</text>" in text
    assert ">+0.05</text>" in text
    beats = text.split("p/<wbr>b</summary>")[1].split("</tr>")[0]
    assert "agrees from +0 to any" in beats
    assert 'class="printed"' not in beats  # 11.1 points lie beyond this scale
    assert "3 of 3 collapsed" in text


def test_untried_claims_are_counted_and_folded_away() -> None:
    file = load(*(value(id=f"p/{i}") for i in range(3)), collapse(id="p/c"))
    words = ("untried", "untried", "untried", "reproduced")
    some = [Verdict(one.id, one.kind, one.scale, word, "") for one, word in zip(file.claims, words, strict=True)]
    text = "".join(forest.claims(some, [file], Path("runs"), "../results/claims"))
    assert "4 claims: 1 holds at reduced scale, 3 untried" in text
    assert '<a href="../results/claims/p.toml">p.toml</a>' in text
    assert "p/<wbr>c</summary>" in text
    assert "p/<wbr>0" not in text
    text = "".join(forest.claims(some[:3], [file], Path("runs"), ""))
    assert "<summary>1 source of which no claim was tried</summary><h4>T</h4>" in text
    assert "results/claims/p.toml" in text


def test_claims_of_one_source_are_judged_together() -> None:
    file = load(*(value(id=f"p/{i}") for i in range(3)), value(id="p/theirs", origin="quoted"))
    some = [
        Verdict(one.id, one.kind, one.scale, "differs", "", claim=one, p=p)
        for one, p in zip(file.claims, (0.001, 0.03, 0.04, 0.001), strict=True)
    ]
    text = "".join(forest.claims(some, [file], Path("runs"), ""))
    assert "4 claims: 4 differs · 1 of 3 tested differ (Holm) · results/claims/p.toml" in text
    assert "Claims of one source share seeds" in text
    assert text.count("<dt>origin</dt><dd>quoted by the source from somebody else</dd>") == 1


def test_a_claim_leads_to_its_source_and_its_runs(field: Path) -> None:
    keys = tuple(frame(field)["run"][frame(field)["recipe"] == TRAINS])
    found, file = judged(value(recipe=TRAINS, doubt="a <misprint>"), "differs", runs=keys, why="because")
    text = "".join(forest.claims([found], [file], field, ""))
    for expected in (
        "<dt>place</dt><dd>Table 1, row VICReg, column top-1</dd>",
        "<q>| VICReg | 73.20 |</q>",
        '<dt>source</dt><dd><a href="https://arxiv.org/abs/2105.04906">arXiv</a>, v3</dd>',
        "<dt>tolerance</dt><dd>0.5: because</dd>",
        "<dt>doubt</dt><dd>a &lt;misprint&gt;</dd>",
        f'<a href="{TRAINS}/{DIGEST}/seed-0/record.json">{TRAINS}/{DIGEST}/seed-0</a>',
    ):
        assert expected in text


@pytest.mark.parametrize(
    ("kind", "where", "at", "expected"),
    [
        ("paper", "arXiv:2104.14294v2, PDF", "v2", "https://arxiv.org/abs/2104.14294v2"),
        ("transcription", "a conversion of the PDF", "2022", "https://arxiv.org/abs/2105.04906"),
        (
            "repository", "github.com/vturrisi/solo-learn, README.md, Results", "commit 9187ea3, 2026-04-22",
            "https://github.com/vturrisi/solo-learn/blob/9187ea3/README.md",
        ),
        (
            "repository", "github.com/SkrighYZ/AdaSSL docs/3DIdent.md", "8f7148f6",
            "https://github.com/SkrighYZ/AdaSSL/blob/8f7148f6/docs/3DIdent.md",
        ),
        (
            "repository", "github.com/zhirongw/lemniscate.pytorch", "f7cfe29",
            "https://github.com/zhirongw/lemniscate.pytorch/tree/f7cfe29",
        ),
        (
            "repository", "github.com/facebookresearch/dino issue 130", "comment of 2021-09-27",
            "https://github.com/facebookresearch/dino/issues/130",
        ),
        ("repository", "github.com/facebookresearch/dino", "2021", "https://github.com/facebookresearch/dino"),
        ("repository", "the authors' code", "7c446df5", ""),
        ("expectation", "our own derivation", "2026-01-01", ""),
    ],
)  # fmt: skip
def test_the_address_of_a_source(kind: str, where: str, at: str, expected: str) -> None:
    file = load(value(source=value()["source"] | {"kind": kind, "where": where, "at": at}))
    assert forest.address(file.claims[0].source, file.paper) == expected


# ------------------------------------------------------------------------------------------ plots


def test_long_curves_are_sampled(tmp_path: Path) -> None:
    lines = [json.dumps(metric_line(step, 10_000)) for step in [*range(1, 5001), *range(4000, 10_001)]]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines) + '\n{"step": 10001, "lo')
    found = [line["step"] for line in training.sampled(tmp_path / "metrics.jsonl")]
    assert len(found) <= training.SHOWN_POINTS
    assert found == sorted(set(found))
    assert found[-1] == 10_000
    assert max(b - a for a, b in pairwise(found)) < 2 * 11_000 / training.SHOWN_POINTS
    assert training.sampled(tmp_path / "missing") == []


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=5))
def test_ticks_are_round_and_span_the_values(values: list[float]) -> None:
    marks = plots.ticks(values)
    assert 2 <= len(marks) <= 9
    slack = 1e-6 * max(1.0, *map(abs, values))
    assert marks[0] <= min(values) + slack
    assert marks[-1] >= max(values) - slack
    steps = {round((b - a) / (marks[1] - marks[0]), 3) for a, b in pairwise(marks)}
    assert steps == {1.0}


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=5))
def test_powers_span_the_values(values: list[float]) -> None:
    marks = plots.powers(values)
    assert len(marks) >= 2
    assert marks[0] <= min(values) * 1.001
    assert marks[-1] >= max(values) / 1.001
    assert all(b / a == pytest.approx(10) for a, b in pairwise(marks))


@pytest.mark.parametrize(
    ("number", "text"), [(0.0, "0"), (0.05, "0.05"), (2e-5, "2e-5"), (1500.0, "1500"), (25e3, "25k"), (3e6, "3e6")]
)
def test_numbers_on_an_axis_are_short(number: float, text: str) -> None:
    assert plots._short(number) == text
