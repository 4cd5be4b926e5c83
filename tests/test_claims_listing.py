"""`harness claims`: what is listed, filtered and counted, and why a claim cannot be attempted."""

import csv
import io
import json
import subprocess
import sys
import tomllib
from collections import Counter
from typing import Any

import pytest
from rich.console import Console
from test_claims import FOLDER, collapse, load, ordering, source, value

from harness import claims, cli, data, registry
from harness.claims import listing
from harness.claims.obstacles import obstacle
from harness.errors import UnknownName

CIFAR = {"dataset": "cifar10", "backbone": "ResNet-18 (3x3 stem)"}


def committed() -> list[listing.Entry]:
    return listing.select(claims.load_all(FOLDER, registry.recipe_names()), (), {})


def call(*words: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    code = cli.call(["claims", *words])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


# ---------------------------------------------------------------------------------------------- names without imports


def test_names_of_data_sets_are_those_of_the_module() -> None:
    assert registry.data_names() == data.NAMES


def test_ids_of_protocols_are_those_of_the_modules() -> None:
    ids = registry.protocol_ids()
    assert list(ids) == registry.names("harness.evals")
    for name in ids:
        default = registry.protocol_id(name)
        assert [other for other in ids if ids[other].fullmatch(default)] == [name]
    assert ids["knn"].fullmatch("knn_k200_t0.1")
    assert ids["few_label"].fullmatch("few_label_n13")
    assert ids["factor_regression"].fullmatch("factor_regression_l2")
    assert not any(pattern.fullmatch("knn_k20") for pattern in ids.values()), "a temperature is missing"
    assert not any(pattern.fullmatch("linear_svm") for pattern in ids.values())


def test_listing_imports_nothing_heavy() -> None:
    code = (
        "import sys, harness.cli\n"
        "assert harness.cli.call(['claims']) == 0\n"
        "print(sorted({'torch', 'mlflow', 'pandas', 'timm', 'datasets', 'numpy'} & set(sys.modules)), file=sys.stderr)"
    )
    root = FOLDER.parent.parent
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True)
    assert done.stderr.strip() == "[]"


# ---------------------------------------------------------------------------------------------- why none can


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (CIFAR, ""),
        (CIFAR | {"recipe": "a", "method": "nobody"}, ""),
        (CIFAR | {"obstacle": "needs 32 GPUs", "method": "nobody"}, "needs 32 GPUs"),
        ({"method": "infomin_aug", "dataset": "imagenet_21k"}, "no method 'infomin_aug' in methods/"),
        ({"dataset": "coco", "protocol": "detection"}, "no data set 'coco' in harness/data/sets.py"),
        (CIFAR | {"protocol": "linear_svm", "backbone": "AlexNet"}, "no protocol 'linear_svm' in harness/evals/"),
        (CIFAR | {"protocol": "knn_k200_t0.1"}, ""),
        (CIFAR | {"backbone": "ResNet-50 (x2)"}, "no encoder of harness/backbones.py is known to be 'ResNet-50 (x2)'"),
        (CIFAR | {"backbone": "N-R50 (x2)"}, ""),
        (CIFAR | {"backbone": "RN50w4"}, "no encoder of harness/backbones.py is known to be 'RN50w4'"),
        (CIFAR | {"backbone": "ResNet-50 and ViT-S"}, "no encoder of harness/backbones.py is known to be "
         "'ResNet-50 and ViT-S'"),
        (CIFAR | {"backbone": "ViT-S/16"}, ""),
        (CIFAR | {"backbone": "unstated"}, ""),
    ],
)  # fmt: skip
def test_the_most_specific_obstacle(changes: dict[str, Any], reason: str) -> None:
    (claim,) = load(value(**changes)).claims
    assert obstacle(claim) == reason


def test_a_collapse_needs_no_protocol() -> None:
    (claim,) = load(collapse(recipe="", **CIFAR)).claims
    assert obstacle(claim) == ""


# ---------------------------------------------------------------------------------------------- what is listed


def made() -> list[claims.File]:
    file = load(
        value(id="p/t1/a", **CIFAR),
        value(id="p/t1/b", dataset="coco", origin="quoted", spread={"kind": "std", "value": "0.1"}),
        collapse(id="p/t7/c"),
        collapse(id="p/t7/d", expect="train", value="57.5", source=source("57.5") | {"kind": "transcription"}),
        ordering(id="p/t7/e", method="byol"),
    )
    return [file]


def ids(*wanted: str, **filters: str) -> str:
    return " ".join(entry.claim.id.removeprefix("p/") for entry in listing.select(made(), wanted, filters))


def test_filters() -> None:
    assert ids() == "t1/a t1/b t7/c t7/d t7/e"
    assert ids("p/t7") == "t7/c t7/d t7/e"
    assert ids("p/t7/e", "p/t1/a") == "t1/a t7/e", "in the order of the file"
    assert ids(kind="collapse") == "t7/c t7/d"
    assert ids(dataset="cifar10") == "t1/a"
    assert ids(method="byol") == "t7/e"
    assert ids(paper="p", status="attempted") == "t7/c t7/d t7/e"
    assert ids(status="open") == "t1/a"
    assert ids(status="impossible", kind="value") == "t1/b"
    assert ids(status="open", kind="bound") == ""


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        ({"paper": "q"}, "no claims file 'q'; known: p"),
        ({"kind": "colapse"}, "no kind of claim 'colapse'; did you mean 'collapse'?"),
        ({"dataset": "cifar"}, "no data set of a claim 'cifar'; did you mean 'cifar10'?"),
        ({"method": "bjol"}, "no method of a claim 'bjol'; did you mean 'byol'?"),
        ({"status": "opn"}, "no status 'opn'; did you mean 'open'?"),
    ],
)
def test_a_mistyped_filter(filters: dict[str, str], message: str) -> None:
    with pytest.raises(UnknownName) as caught:
        listing.select(made(), (), filters)
    assert str(caught.value) == message


def test_a_mistyped_id() -> None:
    with pytest.raises(UnknownName) as caught:
        listing.select(made(), ("p/t7", "p/t1/aa"), {})
    assert str(caught.value) == "no claim 'p/t1/aa'; did you mean 'p/t1/a'?"


def test_what_is_printed_in_short() -> None:
    texts = [entry.claim.said for entry in listing.select(made(), (), {})]
    assert texts == ["73.20 %", "73.20 ± 0.1 (std) %", "collapse", "train: 57.5", "68.6 > 57.5 %"]


def test_counts() -> None:
    nothing = {"attempted": 0, "open": 0, "impossible": 0, "own": 0, "quoted": 0, "transcribed": 0}
    assert listing.counts(listing.select(made(), (), {})) == [
        nothing | {"paper": "p", "kind": "collapse", "claims": 2, "attempted": 2, "own": 2, "transcribed": 1},
        nothing | {"paper": "p", "kind": "ordering", "claims": 1, "attempted": 1, "own": 1},
        nothing | {"paper": "p", "kind": "value", "claims": 2, "open": 1, "impossible": 1, "own": 1, "quoted": 1},
    ]


def shown(entries: list[listing.Entry], width: int) -> str:
    out = io.StringIO()
    console = Console(file=out, width=width)
    listing.show(entries, console)
    listing.show_counts(entries, console)
    return out.getvalue()


def test_tables_fit_and_cut_nothing_off() -> None:
    longest = sorted(committed(), key=lambda entry: len(entry.claim.id))[-50:]
    for width in (80, 120):
        text = shown(longest, width)
        assert max(map(len, text.splitlines())) <= width
        assert "…" not in text
    text = shown(longest, 200)
    assert [entry.claim.id for entry in longest if entry.claim.id not in text] == []


def test_what_a_table_says() -> None:
    text = shown(listing.select(made(), (), {}), 120)
    assert "p: T, A, V, arXiv:2105.04906" in text
    assert "transcription: arXiv, v3" in text
    assert "73.20 ± 0.1 (std) %, quoted" in text
    assert "Table 1, VICReg, top-1, paper" in text
    assert "no recipe yet" in text
    assert "no data set 'coco' in harness/data/sets.py" in text
    assert "5 claims: 3 attempted, 1 open, 1 impossible" in text


def test_rare_obstacles_are_summed_up() -> None:
    file = load(*(value(id=f"p/t1/{n}", method=f"m{n}") for n in range(listing.REASONS + 2)))
    text = shown(listing.select([file], (), {}), 120)
    assert "and 2 more obstacles, to 2 claims; --format json has them" in text


def test_an_empty_list_is_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call("--kind", "bound", "--dataset", "voc07", capsys=capsys)
    assert code == 0
    assert out == "0 claims: 0 attempted, 0 open, 0 impossible; --count counts them by paper and kind\n"


# ---------------------------------------------------------------------------------------------- JSON


ALWAYS = {
    "paper", "id", "kind", "method", "dataset", "backbone", "epochs", "batch", "details", "origin", "seeds",
    "selection", "scale", "reduced", "known", "doubt", "obstacle", "source", "recipes", "status",
}  # fmt: skip
SCORE = {"split", "protocol", "metric", "unit"}
ALSO = {
    "value": SCORE | {"recipe", "value", "spread", "tolerance"},
    "ordering": SCORE | {"better", "worse", "better_value", "worse_value", "margin"},
    "equivalence": SCORE | {"one", "other", "one_value", "other_value", "tolerance"},
    "collapse": {"recipe", "expect", "value"},
    "bound": {"recipe", "measure", "relation", "bound", "unit", "value"},
}


def test_json_is_one_complete_document(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call("--format", "json", capsys=capsys)
    assert code == 0
    assert out == call("--format", "json", capsys=capsys)[1], "and the same each time"
    document = json.loads(out)
    assert list(document) == ["counts", "papers", "claims"]
    assert [item["id"] for item in document["claims"]] == [entry.claim.id for entry in committed()]
    for item in document["claims"]:
        assert set(item) == ALWAYS | ALSO[item["kind"]]
        assert (item["status"] == "attempted") == bool(item["recipes"])
        assert (item["status"] == "impossible") == bool(item["obstacle"])
        assert set(item["source"]) == {"kind", "where", "at", "table", "row", "column", "quote", "read_by"}
        assert document["papers"][item["paper"]]["title"]
    _, out, _ = call("--format", "json", "--count", capsys=capsys)
    assert json.loads(out) == {"counts": document["counts"]}


def test_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("--status", "opn", capsys=capsys) == (2, "", "harness: no status 'opn'; did you mean 'open'?\n")
    code, out, _ = call("vicreg/t7/l1-m0-n0", "--status", "attempted", capsys=capsys)
    assert code == 0
    assert "vicreg_digits_r10w16_e20_l1_m0_n0" in out
    assert "2 claims: 2 attempted" in out
    code, out, _ = call("--count", capsys=capsys)
    assert code == 0
    assert "vicreg, collapse" in out


# ---------------------------------------------------------------------------------------------- the committed files


def test_every_row_of_the_committed_files_is_listed() -> None:
    written: Counter[str] = Counter()
    for path in FOLDER.glob("*.toml"):
        written[path.stem] += len(tomllib.loads(path.read_text()).get("claim", []))
        if (table := path.with_suffix(".csv")).exists():
            with table.open(newline="") as file:
                written[path.stem] += sum(1 for _ in csv.DictReader(file))
    assert written == Counter(entry.paper for entry in committed())
    total: Counter[str] = Counter()
    for row in listing.counts(committed()):
        total[row["paper"]] += row["claims"]
    assert total == written


def test_vicreg_is_complete() -> None:
    """Per table what the paper prints: 15 cells of Table 1 less those that are empty, and so on."""
    with (FOLDER / "vicreg.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    cells = Counter(row["id"].split("/")[1] for row in rows)
    cells["t1"] += 2  # the linear probe, in the TOML file
    assert cells == {
        "t1": 48, "t2": 48, "t3": 17, "t4": 24, "t5": 13, "t6": 3, "t7": 11, "t8": 5, "t9": 25, "t10": 28, "t11": 11,
        "t12": 7, "t13": 6, "t14": 15, "sec6": 1, "appc4": 1, "appd8": 2, "readme": 3,
    }  # fmt: skip
    doubted = Counter(row["id"].split("/")[1] for row in rows if row["doubt"])
    assert doubted == {"t2": 6, "t3": 17, "t4": 1, "t7": 1, "t8": 2, "t12": 1, "t13": 1}


def test_the_files_beside_it_are_complete() -> None:
    number = Counter(entry.paper for entry in committed())
    assert (number["vicregl"], number["augustwester_vicreg"]) == (14, 1)
