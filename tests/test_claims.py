"""The strict loader of claims, and the claims that are committed."""

import json
import tomllib
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import claims, registry
from harness.errors import BadClaim
from slurm import fill

FOLDER = Path(__file__).resolve().parent.parent / "results" / "claims"
PAPER = {"title": "T", "authors": "A", "venue": "V", "arxiv": "2105.04906"}


ABOUT = {
    "method": "vicreg", "backbone": "ResNet-50", "epochs": "100", "batch": "unstated", "details": "frozen features",
    "origin": "own",
}  # fmt: skip


def source(quote: str) -> dict[str, Any]:
    return {
        "kind": "paper", "where": "arXiv", "at": "v3", "table": "Table 1", "row": "VICReg", "column": "top-1",
        "quote": quote, "read_by": ["reader 2026-01-01"],
    }  # fmt: skip


def value(**changes: Any) -> dict[str, Any]:
    return ABOUT | {
        "id": "p/t1/top1", "kind": "value", "recipe": "", "dataset": "imagenet_1k", "split": "test",
        "protocol": "linear", "metric": "top1", "unit": "percent", "value": "73.20",
        "spread": {"kind": "unstated"}, "seeds": {"kind": "unstated"}, "selection": "unstated",
        "scale": "paper", "tolerance": {"value": "0.5", "why": "because"},
        "source": source("| VICReg | 73.20 |"),
    } | changes  # fmt: skip


def collapse(**changes: Any) -> dict[str, Any]:
    return ABOUT | {
        "id": "p/t7/collapse", "kind": "collapse", "recipe": "vicreg_digits", "expect": "collapse", "value": "collapse",
        "dataset": "digits", "seeds": {"kind": "unstated"}, "selection": "unstated",
        "scale": "reduced", "reduced": "all", "source": source("| 1 | 0 | 0 | collapse |"),
    } | changes  # fmt: skip


def ordering(**changes: Any) -> dict[str, Any]:
    return ABOUT | {
        "id": "p/t7/beats", "kind": "ordering", "better": "a", "worse": "b",
        "better_value": "68.6", "worse_value": "57.5", "dataset": "digits", "split": "test",
        "protocol": "knn", "metric": "top1", "unit": "percent",
        "margin": {"value": "0", "why": "an order"}, "seeds": {"kind": "unstated"}, "selection": "unstated",
        "scale": "reduced", "reduced": "all", "source": source("| 68.6 |\n| 57.5 |"),
    } | changes  # fmt: skip


def load(*items: dict[str, Any], recipes: set[str] | None = None) -> claims.File:
    return claims.parse({"schema": 2, "paper": PAPER, "claim": list(items)}, "p.toml", recipes)


def refuse(item: dict[str, Any], recipes: set[str] | None = None) -> str:
    with pytest.raises(BadClaim) as caught:
        load(item, recipes=recipes)
    message = str(caught.value)
    assert "\n" not in message
    return message


def without(item: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in item.items() if key != name}


def test_a_good_file_loads() -> None:
    loaded = load(value(), collapse(known="k"), ordering(), recipes={"vicreg_digits", "a", "b"}).claims
    assert [type(claim).__name__ for claim in loaded] == ["Value", "Collapse", "Ordering"]
    assert isinstance(loaded[0], claims.Value)
    assert loaded[0].half_unit == pytest.approx(0.005)
    assert loaded[2].recipes == ("a", "b")
    assert [claim.known for claim in loaded] == ["", "k", ""]


def test_an_unquoted_number() -> None:
    assert refuse(value(value=73.2)) == (
        "p.toml claim 1 (p/t1/top1): value = 73.2 must be quoted, so that its printed digits survive"
    )
    message = refuse(value(tolerance={"value": 0.5, "why": "x"}))
    assert message.endswith("tolerance.value = 0.5 must be quoted, so that its printed digits survive")


def test_unknown_missing_and_wrong_fields() -> None:
    assert (
        refuse(value(tolerence="1"))
        == "p.toml claim 1 (p/t1/top1): unknown field 'tolerence'; did you mean 'tolerance'?"
    )
    assert refuse(without(value(), "spread")) == "p.toml claim 1 (p/t1/top1): field 'spread' is missing"
    assert refuse(value(kind="number")).endswith(
        "kind = 'number', expected one of value, ordering, equivalence, collapse, bound"
    )
    assert refuse(without(value(), "kind")).endswith(
        "field 'kind' is missing; expected one of value, ordering, equivalence, collapse, bound"
    )
    assert "source.quote" in refuse(value(source=without(source("73.20"), "quote")))
    assert refuse(value(source=source("73.20") | {"kind": "memory"})).endswith(
        "source.kind = 'memory', expected one of paper, supplement, repository, erratum, transcription, expectation"
    )
    assert refuse(value(selection="best")).endswith("expected one of last, best-on-val, best-on-test, unstated")
    assert refuse(value(seeds="three")).endswith("seeds is 'three', expected a table { ... }")
    assert refuse(value(seeds={"kind": "count", "value": "3"})).endswith("seeds.value = '3' must be a whole number")
    assert refuse(value(metric="")).endswith('metric is empty; "unstated" is a value, an empty text is not')
    assert refuse(collapse(known="")).endswith('known is empty; "unstated" is a value, an empty text is not')
    assert refuse(collapse(known=3)).endswith("known = 3 must be quoted, so that its printed digits survive")
    assert refuse(collapse(known=True)).endswith("known = True must be text")
    assert refuse(value(source=source("73.20") | {"read_by": "me"})).endswith("read_by = 'me' must be a list of texts")


def test_what_fields_say_together() -> None:
    assert "'73.20' does not stand in source.quote '| VICReg | 73.2 |'" in refuse(
        value(source=source("| VICReg | 73.2 |"))
    )
    assert "'57.5' does not stand in" in refuse(ordering(source=source("| 68.6 |")))
    assert "a value cannot be checked at a reduced scale" in refuse(value(scale="reduced", reduced="all"))
    assert "`reduced` says what our recipe changes" in refuse(without(collapse(), "reduced"))
    assert refuse(value(known="x")) == (
        "p.toml claim 1 (p/t1/top1): `known` says why a reduced scale does not show the pattern; "
        'it belongs to scale = "reduced" only'
    )
    assert "read_by is empty" in refuse(value(source=source("73.20") | {"read_by": []}))
    assert "spread needs a value" in refuse(value(spread={"kind": "std"}))
    assert "spread.value = '±0.1' must be a number of at least 0" in refuse(
        value(spread={"kind": "std", "value": "±0.1"})
    )
    assert "seeds needs a value" in refuse(value(seeds={"kind": "unstated", "value": 3}))
    assert "must be a number of at least 0" in refuse(value(tolerance={"value": "-1", "why": "x"}))
    assert "value = 'collapse' must be a number" in refuse(value(value="collapse", source=source("collapse")))


def test_a_recipe_that_does_not_exist_and_a_used_id() -> None:
    message = refuse(collapse(recipe="vicreg_digit"), recipes={"vicreg_digits", "byol_digits"})
    assert message == "p.toml claim 1 (p/t7/collapse): no recipe 'vicreg_digit'; did you mean 'vicreg_digits'?"
    with pytest.raises(BadClaim, match=r"claim 2 \(p/t1/top1\): a claim before it has the same id"):
        load(value(), value())


def test_files(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("schema = 2\nvalue = no\n")
    with pytest.raises(BadClaim, match=r"^a\.toml is not TOML: .*line 2"):
        claims.load(tmp_path / "a.toml")
    (tmp_path / "a.toml").write_text(dump([value()]))
    (tmp_path / "b.toml").write_text(dump([value()]))
    with pytest.raises(BadClaim, match=r"^b\.toml: id 'p/t1/top1' is taken by a\.toml"):
        claims.load_all(tmp_path)
    with pytest.raises(BadClaim, match=r"^b\.toml: schema = 1, expected 2"):
        claims.parse({"schema": 1, "paper": PAPER, "claim": []}, "b.toml")
    with pytest.raises(BadClaim, match=r"^cannot read .*: No such file"):
        claims.load(tmp_path / "c.toml")


BULK = """
[bulk]
kind = "value"
method = "vicreg"
backbone = "ResNet-50"
batch = "unstated"
details = "frozen features"
origin = "own"
selection = "last"
scale = "paper"
dataset = "imagenet_1k"
split = "test"
protocol = "linear"
metric = "top1"
unit = "percent"
tolerance_value = "0.5"
tolerance_why = "because"
spread_kind = "std"
source_kind = "paper"
source_where = "arXiv"
source_at = "v3"
source_table = "Table 1"
source_column = "top-1"
source_read_by = "reader 2026-01-01; checker 2026-01-02"
"""
HEADER = "id,epochs,value,spread_value,seeds_value,recipe,source_row,source_quote\n"
ROW = 'p/t1/{0},100,73.20,{1},{2},,VICReg,"| VICReg, ours | 73.20 |"\n'


def bulk(folder: Path, table: str, head: str = BULK) -> Path:
    paper = ", ".join(f'{name} = "{text}"' for name, text in PAPER.items())
    (folder / "p.toml").write_text(f"schema = 2\npaper = {{ {paper} }}\n{head}")
    (folder / "p.csv").write_text(table)
    return folder / "p.toml"


def test_a_table_of_claims_takes_its_defaults_from_the_toml_file(tmp_path: Path) -> None:
    path = bulk(tmp_path, HEADER + ROW.format("a", "0.1", "3") + ROW.format("b", "", ""))
    first, second = claims.load(path, recipes=set()).claims
    assert isinstance(first, claims.Value)
    assert isinstance(second, claims.Value)
    assert (first.id, first.value, first.spread, first.seeds) == (
        "p/t1/a", "73.20", claims.Spread(kind="std", value="0.1"), claims.Seeds(kind="count", value=3),
    )  # fmt: skip
    assert first.source.read_by == ("reader 2026-01-01", "checker 2026-01-02")
    assert (second.spread.kind, second.seeds.kind, second.tolerance.value) == ("unstated", "unstated", "0.5")
    assert second.recipes == ()


def test_a_default_counts_for_the_kinds_that_have_the_field(tmp_path: Path) -> None:
    head = "id,kind,epochs,value,expect,source_row,source_quote\n"
    rows = "p/t1/a,,100,73.2,,a,| 73.2 |\np/t1/b,collapse,100,collapse,collapse,b,| collapse |\n"
    first, second = claims.load(bulk(tmp_path, head + rows)).claims
    assert isinstance(first, claims.Value)
    assert isinstance(second, claims.Collapse)
    assert (first.unit, second.method, second.expect) == ("percent", "vicreg", "collapse")
    with pytest.raises(BadClaim, match=r"^p\.csv line 2 \(p/t1/a\): unknown field 'expect'"):
        claims.load(bulk(tmp_path, head + rows.replace("73.2,,", "73.2,train,")))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("id,valu\n", "p.csv: unknown field 'valu'; did you mean 'value'?"),
        ("epochs\n", "p.csv: field 'id' is missing"),
        (HEADER + "p/t1/a,100\n", "p.csv line 2: 8 cells expected; quote cells with commas"),
        (HEADER + ROW.format("a", "", "three"), "p.csv line 2: seeds_value = 'three' must be a whole number"),
        (HEADER + 2 * ROW.format("a", "", ""), "p.csv line 3 (p/t1/a): a claim before it has the same id; an id is "
         "unique and never reused"),
        (HEADER + ROW.format("a", "", "").replace("73.20 |", "73.2 |"), "p.csv line 2 (p/t1/a): '73.20' does not stand "
         "in source.quote '| VICReg, ours | 73.2 |'; copy both from the source"),
        (HEADER + ROW.format("a", "", "").replace("VICReg,", ",", 1), "p.csv line 2 (p/t1/a): field "
         "'source.row' is missing"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_table_is_named_by_its_line(tmp_path: Path, table: str, message: str) -> None:
    with pytest.raises(BadClaim) as caught:
        claims.load(bulk(tmp_path, table))
    assert str(caught.value) == message


def test_a_table_needs_its_defaults_and_defaults_their_table(tmp_path: Path) -> None:
    with pytest.raises(BadClaim, match=r"belongs to it; the table has none$"):
        claims.load(bulk(tmp_path, HEADER, head=""))
    path = bulk(tmp_path, HEADER)
    (tmp_path / "p.csv").unlink()
    with pytest.raises(BadClaim, match=r"belongs to it; there is no such table$"):
        claims.load(path)


def dump(items: list[dict[str, Any]]) -> str:
    """TOML of plain claims, for the round trip."""

    def inline(node: Any) -> str:
        if isinstance(node, dict):
            return "{ " + ", ".join(f"{key} = {inline(item)}" for key, item in node.items()) + " }"
        if isinstance(node, list | tuple):
            return "[" + ", ".join(map(inline, node)) + "]"
        return json.dumps(node, ensure_ascii=False)

    lines = ["schema = 2", f"paper = {inline(PAPER)}"]
    for item in items:
        lines += ["[[claim]]"] + [f"{key} = {inline(node)}" for key, node in item.items()]
    return "\n".join(lines)


TEXT = st.text(
    st.characters(min_codepoint=32, max_codepoint=0x2FFF, exclude_characters="\x7f"), min_size=1, max_size=20
)
DIGITS = st.decimals(0, 100, places=2).map(str)


@settings(deadline=None, max_examples=50)
@given(
    text=TEXT,
    number=DIGITS,
    tolerance=DIGITS,
    seeds=st.integers(0, 9),
    known=st.just("") | TEXT,
    made=st.sampled_from([value, ordering, collapse]),
)
def test_claims_round_trip(text: str, number: str, tolerance: str, seeds: int, known: str, made: Any) -> None:
    item = made(id=text, seeds={"kind": "count", "value": seeds} if seeds else {"kind": "unstated"})
    item["source"] = item["source"] | {"quote": f"{text} {number} {item['source']['quote']}", "row": text}
    if made is value:
        item |= {"value": number, "tolerance": {"value": tolerance, "why": text}}
    elif known:
        item["known"] = known
    first = claims.parse(tomllib.loads(dump([item])), "p.toml").claims[0]
    plain = asdict(first)
    if plain["seeds"]["kind"] == "unstated":
        del plain["seeds"]["value"]
    for name in ("spread", "reduced", "known", "doubt", "obstacle"):
        if plain.get(name) == {"kind": "unstated", "value": ""}:
            plain[name] = {"kind": "unstated"}
        elif plain.get(name) == "":
            del plain[name]
    assert claims.parse(tomllib.loads(dump([plain])), "p.toml").claims[0] == first
    assert first.source.quote.startswith(text)


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.toml")), ids=lambda path: path.stem)
def test_committed_claims_load_and_name_their_source(path: Path) -> None:
    file = claims.load(path)
    assert file.claims
    for claim in file.claims:
        assert claim.id.startswith(f"{path.stem}/")


def test_a_claims_recipe_measures_what_it_is_about() -> None:
    """Else its verdict would stay untried for ever."""
    for file in claims.load_all(FOLDER):
        for claim in file.claims:
            for name in claim.recipes:
                recipe = registry.recipe(name)
                assert recipe.data.name == claim.dataset, claim.id
                asked = getattr(claim, "protocol", "")
                assert not asked or asked in [one.id for one in recipe.evals], claim.id


def test_vicreg_table_7_is_complete() -> None:
    loaded = [claim for claim in claims.load(FOLDER / "vicreg.toml").claims if claim.id.startswith("vicreg/t7/")]
    cells = {claim.id: claim for claim in loaded if isinstance(claim, claims.Collapse)}
    printed = {id.replace("/collapse-imagenet", "/collapse") for id in cells if id.endswith("/collapse-imagenet")}
    cells = {id: claim for id, claim in cells.items() if claim.scale == "reduced"}
    assert printed == {id for id, claim in cells.items() if claim.expect == "collapse"}, "each at both scales"
    assert len(cells) == 11
    assert sum(claim.expect == "collapse" for claim in cells.values()) == 6
    for claim in cells.values():
        assert (claim.value == "collapse") == (claim.expect == "collapse")
        coefficients = claim.source.quote.strip("| ").split(" | ")[1:4]
        assert claim.id.split("/")[2] == "l{}-m{}-n{}".format(*coefficients)
        assert claim.recipe.endswith("_l{}_m{}_n{}".format(*coefficients))
    assert len({claim.recipe for claim in cells.values()}) == 11
    known = {claim.id.split("/")[2] for claim in loaded if claim.known}
    assert known == {"l0-m25-n1", "l1-m1-n1", "l1-m10-n1", "l10-m1-n1"}
    orderings = [claim for claim in loaded if isinstance(claim, claims.Ordering)]
    assert len(orderings) == 4
    for claim in orderings:
        assert float(claim.better_value) > float(claim.worse_value)
        assert claim.worse == cells["vicreg/t7/l1-m1-n0/train"].recipe
        assert (claim.protocol, claim.metric) == ("few_label_n5", "top1")


def test_a_plan_runs_what_the_claims_at_a_reduced_scale_are_about() -> None:
    planned = {item.recipe for items, _ in fill.read_plan("reduced") for item in items}
    files = [claims.load(FOLDER / f"{stem}.toml") for stem in ("vicreg", "simsiam", "dino", "ssl_hsic", "t_regs")]
    about = [claim for file in files for claim in file.claims if claim.scale == "reduced"]
    assert planned == {recipe for claim in about for recipe in claim.recipes}
