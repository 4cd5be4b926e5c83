"""`harness check` for people, for other programs and for CI."""

import io
import json
import re
from math import inf
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from rich.console import Console
from run_directories import FINGERPRINT
from test_claims import load, value
from test_cli import call
from test_records import RECIPE, promote, write

from harness import check, provenance, verdict
from harness import claims as source
from harness.errors import UnknownName
from harness.verdict import Verdict

MADE = [
    Verdict("p/a", "value", "paper", "reproduced", "97.0", "97.1 ± 0.2", "inside", effect=0.1, band=(-1.0, 1.0)),
    Verdict("p/b", "ordering", "reduced", "differs", "1 > 0", why="below", band=(0.0, float("inf"))),
    Verdict("p/c", "collapse", "reduced", "differs", "collapse", why="known", known=True),
    Verdict("q/d", "value", "paper", "untried", "3 <&> 4", why="no run"),
    Verdict("record/r", "record", "paper", "stale", "3 promoted runs", why="code"),
]


def test_junit_is_a_suite_per_paper_and_fails_what_was_asked() -> None:
    root = ElementTree.fromstring(check.as_junit(MADE, ("differs",)))
    assert [(s.get("name"), s.get("tests"), s.get("failures"), s.get("skipped")) for s in root] == [
        ("p", "3", "1", "1"), ("q", "1", "0", "1"), ("record", "1", "0", "1"),
    ]  # fmt: skip
    failure = root.find("./testsuite/testcase[@name='p/b']/failure")
    assert failure is not None
    assert failure.get("message") == "differs at reduced scale: below"
    assert root.find("./testsuite/testcase[@name='p/a']/*[@message]") is None
    stale = ElementTree.fromstring(check.as_junit(MADE, ("differs", "stale")))
    assert stale.find("./testsuite/testcase[@name='record/r']/failure") is not None


def test_json_is_strict_and_complete() -> None:
    found = json.loads(check.as_json(MADE), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert [one["id"] for one in found] == [v.id for v in MADE]
    assert found[1]["band"] == [0.0, None]
    assert (found[0]["effect"], found[0]["text"], found[1]["text"]) == (0.1, "reproduced", "differs at reduced scale")
    assert "claim" not in found[0]


def test_the_table_says_what_would_decide_and_ends_with_the_sources(tmp_path: Path) -> None:
    def one(word: str, **more: Any) -> Verdict:
        (claim,) = load(value(id=f"p/{word}")).claims
        return Verdict(claim.id, "value", "paper", word, "73.2", ours="70.0", claim=claim, **more)

    (other,) = load(value(id="q/a")).claims
    verdicts = [one("differs", p=0.001), one("undecided", p=1.0, more=inf), one("barred"), *MADE[4:]]
    verdicts.append(Verdict(other.id, "value", "paper", "untried", "73.2", claim=other))
    console = Console(width=120, record=True, file=io.StringIO())
    check.show(verdicts, console, untried=False)
    text = console.export_text()
    assert re.search(r"p/undecided +undecided +∞ +73.2", text)
    assert "∞: no number would" in text
    rows = [line.split() for line in text.splitlines() if line.strip().startswith(("p ", "q "))]
    assert rows == [["p", "0", "1", "1", "1", "0", "1", "of", "2"]]  # q is untried
    assert " ".join(text.split()).endswith("is no test")
    console = Console(width=120, record=True, file=io.StringIO())
    check.show(verdicts[-1:], console, untried=False)
    assert "Holm" not in console.export_text()
    assert json.loads(check.as_json(verdicts))[1]["more"] is None


def test_markdown_is_a_table_of_what_was_tried_with_its_reasons() -> None:
    head, rule, *rows = check.as_markdown(MADE).splitlines()
    assert head.startswith("| claim | verdict | printed | ours |")
    assert rule.count("---") == head.count("|") - 1
    assert [row.split(" | ")[0] for row in rows] == ["| p/a", "| p/b", "| p/c", "| record/r"]
    assert "| differs at reduced scale | 1 > 0 |" in rows[1]
    assert "a \\| b" in check.as_markdown([Verdict("p/a", "value", "paper", "differs", "a | b")])


def test_words_to_fail_on() -> None:
    assert check.words("differs, stale") == ("differs", "stale")
    assert check.words("") == ()
    with pytest.raises(UnknownName, match=r"^no verdict to fail on 'stail'; did you mean 'stale'\?$"):
        check.words("differs,stail")
    assert [v.id for v in MADE if verdict.fails(v)] == ["p/b"]
    assert [v.id for v in MADE if verdict.fails(v, ("stale",))] == ["record/r"]


def test_records_alone_are_judged_and_their_runs_count_for_claims(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "RECORDS", tmp_path / "records")
    monkeypatch.setattr(provenance, "fingerprint", lambda methods: FINGERPRINT)
    claims = tmp_path / "claims"
    claims.mkdir()
    text = (source.FOLDER / "vicreg.toml").read_text().replace("vicreg_digits_r10w16_e20_l25_m25_n1", RECIPE.name)
    (claims / "vicreg.toml").write_text(text.partition("[bulk]")[0])
    monkeypatch.setattr(source, "FOLDER", claims)
    write(tmp_path / "old", [97.0, 97.3])
    promote(tmp_path / "old", tmp_path / "records")
    here = ["--runs", str(tmp_path / "none")]
    code, out, _ = call("check", *here, "--format", "json", capsys=capsys)
    found = {one["id"]: one for one in json.loads(out)}
    assert code == 0
    assert found[f"record/{RECIPE.name}"]["word"] == "held"
    assert found["vicreg/t7/l25-m25-n1/train"]["text"] == "holds at reduced scale"
    code, out, err = call("check", "record", *here, "--format", "junit", capsys=capsys)
    assert (code, [s.get("name") for s in ElementTree.fromstring(out)]) == (0, ["record"])
    monkeypatch.setattr(provenance, "fingerprint", lambda methods: "1" * 12)
    code, out, _ = call("check", "record", *here, capsys=capsys)
    assert code == 0
    assert "stale" in out
    assert call("check", "record", *here, "--fail-on", "regressed,stale", capsys=capsys)[0] == 1
    code, _, err = call("check", "recod", *here, capsys=capsys)
    assert code == 2
    assert "no claim 'recod'; did you mean" in err
    file = tmp_path / "records" / f"{RECIPE.name}.json"
    file.write_text(file.read_text().replace("97.3", "98.3", 1))
    code, _, err = call("check", *here, capsys=capsys)
    assert code == 2
    assert "it was edited by hand" in err
