"""The methods as the code tells them, and methods/README.md as they tell it."""

import json
import re
from dataclasses import fields
from functools import cache

import pytest

from harness import catalogue, cli, registry
from harness.api import Requirements

PAGE = registry.ROOT / "methods" / "README.md"
AGAIN = "`harness methods --format markdown > methods/README.md` makes it anew"


@cache
def entries() -> dict[str, catalogue.Entry]:
    return {entry.name: entry for entry in catalogue.entries()}


def parts(page: str) -> tuple[str, dict[str, str], dict[str, str]]:
    """What stands above the table, its rows and the sections, by method."""
    top, *sections = page.split("\n## ")
    head, *rows = re.split(r"^(?=\| \[)", top, flags=re.MULTILINE)
    named = {row[len("| [") : row.index("]")]: row.strip() for row in rows}
    return head, named, {text.partition("\n")[0]: f"## {text}".strip() for text in sections}


def test_the_page_is_what_the_code_says() -> None:
    """Of the methods that are on it: one that was just added may come later."""
    head, rows, sections = parts(PAGE.read_text())
    assert list(rows) == list(sections) == sorted(rows), f"{PAGE} was edited; {AGAIN}"
    assert set(rows) <= set(entries()), f"{PAGE} shows methods that are gone; {AGAIN}"
    expected = parts(catalogue.to_markdown([entries()[name] for name in rows]))
    assert head == expected[0], f"{PAGE} begins otherwise; {AGAIN}"
    for found, wanted in ((rows, expected[1]), (sections, expected[2])):
        for name, text in found.items():
            assert text == wanted[name], f"{PAGE} is not what methods/{name}.py and its recipes say; {AGAIN}"


def test_the_page_has_every_published_method() -> None:
    digests = (registry.ROOT / "tests" / "golden" / "digests.txt").read_text()
    published = {catalogue.method_of(registry.recipe(line.split()[0])) for line in digests.splitlines()}
    assert published <= set(parts(PAGE.read_text())[1]), f"{PAGE} lacks a published method; {AGAIN}"


@pytest.mark.parametrize("name", registry.names("methods"))
def test_an_entry_has_all_that_its_file_declares(name: str) -> None:
    entry, kind = entries()[name], registry.load("methods", name).Config
    text = catalogue.section(entry)
    assert {s.name for s in entry.settings if s.kind == "coefficient"} == set(kind.coefficients())
    assert {s.name for s in entry.settings if s.kind == "tunable"} == set(kind.tunables())
    assert {s.name for s in entry.settings} | dict(entry.others).keys() == {f.name for f in fields(kind)}
    assert all(f"\n| `{s.name}` | {s.kind} | " in text for s in entry.settings)
    assert all(len(line.replace("\\|", "").split("|")) == 8 for line in text.splitlines() if line.startswith("| "))
    assert entry.requirements is not None
    assert entry.lines == (registry.ROOT / "methods" / f"{name}.py").read_text().count("\n")


def test_cost_is_over_that_of_the_yardstick() -> None:
    assert entries()["simclr"].costed == catalogue.YARDSTICK
    assert entries()["simclr"].cost == 1.0
    assert entries()["untrained"].cost is None
    byol = entries()["byol"].cost
    assert byol == pytest.approx(4 / 3, abs=0.02)  # forward and backward, and a forward pass of the teacher


def test_a_method_around_another_is_told_by_its_first_recipe() -> None:
    entry = entries()["adassl"]
    assert dict(entry.others)["base"] == "to be given"
    first = registry.recipe(entry.embedded[0])
    assert entry.requirements == first.method.requirements()


@pytest.mark.parametrize(
    ("needs", "words"),
    [
        (Requirements(), "2 global views"),
        (Requirements(views=(), sources=()), "no views"),
        (
            Requirements(views=("global",), sources=(0,), index=True),
            "1 global view; images that come again, by their index",
        ),
        (
            Requirements(local_views=True, min_batch=4),
            "2 global views, any number of local ones; a batch of at least 4",
        ),
        (
            Requirements(views=("global",) * 2 + ("local",), sources=(0, 1, 1)),
            "2 global and 1 local views (elements 0, 1, 1 of the pair)",
        ),
        (
            Requirements(batch_divisor=64, batch_divides=4096),
            "2 global views; a batch that is a multiple of 64; a batch that divides 4,096, the queue",
        ),
        (
            Requirements(labels=True, patches=True),
            "2 global views; labels; an encoder with a patch embedding",
        ),
    ],
)
def test_needs_are_in_plain_words(needs: Requirements, words: str) -> None:
    assert "; ".join(catalogue.in_words(needs)) == words


def test_the_command_has_three_forms(capsys: pytest.CaptureFixture[str]) -> None:
    def said(*words: str) -> str:
        assert cli.call(["methods", *words]) == 0
        return capsys.readouterr().out

    table = said("vicreg")
    assert "arXiv:2105.04906" in table
    assert "covariance" in table
    page = said("vicreg", "simsiam", "--format", "markdown")
    assert list(parts(page)[2]) == ["vicreg", "simsiam"]
    (entry,) = json.loads(said("byol", "--format", "json"))
    assert entry["title"] == "BYOL"
    assert next((s["name"], s["default"], s["high"]) for s in entry["settings"]) == ("momentum", 0.996, 0.999)
    assert entry["requirements"]["views"] == ["global", "global"]
    assert cli.call(["methods", "simsia"]) == 2
    assert "no method 'simsia'; did you mean 'simsiam'?" in capsys.readouterr().err
