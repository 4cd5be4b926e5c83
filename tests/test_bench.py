"""`harness bench`: what it reports of a real, small run and of another library, and what it refuses."""

import importlib.util
import json
from dataclasses import replace
from statistics import median
from typing import Any

import pytest
import torch
from plain_library import Failing, Plain
from rich.console import Console

from harness import bench, cli, cost, data, registry
from harness.bench import against, table
from harness.bench.against import Library
from harness.bench.against_lightly import Lightly
from harness.bench.against_solo import Solo
from harness.bench.turns import Turn
from harness.errors import BadCommand, BadRecipe, RunFailed, Unavailable, UnknownName
from harness.evals import collapse, knn, linear
from methods import simclr, vicreg

VICREG = registry.recipe("vicreg_digits_r10w16_e50")
EVALS = (knn.Config(k=5), linear.Config(weight_decays=(1.0,)), collapse.Config())


@pytest.fixture(scope="module")
def found() -> Any:
    """Two rounds, on digits, beside a library with one loader process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(bench.LIBRARIES, "plain", Plain)
        patch.setattr(bench, "ROUND_S", 0.05)
        recipe = replace(VICREG, evals=EVALS)
        return bench.bench(recipe, 64, 2, against=("plain",), workers=1, device="cpu")


def test_rates_are_those_of_the_seconds_and_efficiency_is_full_over_bare(found: Any) -> None:
    shown = json.loads(json.dumps(found.to_data()))
    assert (shown["batch"], shown["views"], shown["rounds"], shown["precision"]) == (64, 2, 2, "float32")
    for name, part in (("bare_images_per_s", "bare"), ("full_images_per_s", "full")):
        seconds = shown["seconds_a_step"]["ours"][part]
        assert len(seconds) == 2
        assert shown[name]["median"] == pytest.approx(median(64 / one for one in seconds))
        assert shown[name]["low"] == pytest.approx(64 / max(seconds))
    ours = {part: median(seconds) for part, seconds in shown["seconds_a_step"]["ours"].items()}
    assert shown["efficiency"]["median"] == pytest.approx(ours["bare"] / ours["full"])
    assert shown["rest"] == pytest.approx(1 - (ours["bare"] + ours["views"]) / ours["full"])
    at_64 = replace(VICREG, budget=replace(VICREG.budget, batch=64))
    assert shown["ceiling_tflops"] > 0
    assert shown["tflops"] == pytest.approx(cost.of(at_64).step_flops / ours["bare"] / 1e12)
    theirs = {part: median(seconds) for part, seconds in shown["seconds_a_step"]["plain"].items()}
    assert shown["against"]["plain"]["ratio"]["median"] == pytest.approx(theirs["full"] / ours["full"])
    assert shown["against"]["plain"]["efficiency"]["median"] == pytest.approx(theirs["bare"] / theirs["full"])


def test_the_loop_tells_of_itself_and_of_its_start(found: Any) -> None:
    shown = found.to_data()
    assert 1 <= shown["steps_a_round"] < 1257 // 64, "a round of the loop ends on an epoch's first logged step"
    assert 0 < shown["data_wait"]["low"] <= shown["data_wait"]["high"] < 1
    assert shown["memory_bytes"] > 50 * 2**20
    start = dict(shown["startup_s"])
    assert start.pop("total") == pytest.approx(sum(start.values()))
    assert set(start) == {"imports", "data", "network", "first_step"}


def test_probes_are_timed_at_the_sizes_of_the_set(found: Any) -> None:
    rows = found.to_data()["evaluations"]
    assert [row["protocol"] for row in rows] == ["knn_k5_t0.07", "linear"], "a collapse is not looked for in noise"
    for row in rows:
        assert (row["bank"], row["queries"], row["width"], row["classes"]) == (1257, 360, 128, 10)
        assert 0 < row["seconds"]["low"] <= row["seconds"]["median"]


def test_the_table_has_a_row_for_each_figure(found: Any) -> None:
    console = Console(width=120)
    with console.capture() as capture:
        table.show(found, console)
    text = capture.get()
    first = f"{VICREG.name}: resnet18_small_stem, batch 64, 2 views, float32; "
    assert text.startswith(first)
    assert f"threads; 2 rounds of {found.steps} steps\n" in text
    shown = {row[0]: row[1:] for row in table.rows(found.to_data())}
    assert all(name in text for name in shown)
    assert shown["loop efficiency"][0] == f"{found.to_data()['efficiency']['median']:.3f}"
    assert shown["plain: full loop"][3] == "images/s, 1 loader processes"
    assert shown["linear"][3] == "s: 1,257 x 128, 360 queries, 10 classes, drawn features"
    assert "full loop, ours over plain" in shown


def test_ratios_are_of_rounds() -> None:
    """Ratios are taken round by round: what slows a whole round down leaves them."""
    bare, loop = bench.Rounds((1.0, 4.0, 2.0)), bench.Rounds((2.0, 8.0, 4.0))
    assert bare.over(loop).to_data() == {"median": 0.5, "low": 0.5, "high": 0.5}
    assert loop.per(8).to_data() == {"median": 2.0, "low": 1.0, "high": 4.0}


# ---------------------------------------------------------------------------------------------- the others


@pytest.mark.parametrize("method", ["simclr", "vicreg"])
@pytest.mark.parametrize("library", [Lightly, Solo])
def test_the_work_of_another_library_is_ours(library: type[Library], method: str) -> None:
    """The same loss of the same embeddings, and views of the same shape from the same images."""
    if importlib.util.find_spec(library.package) is None:
        pytest.skip(f"{library.name} is not installed")
    recipe = registry.recipe(f"{method}_digits_r10w16_e50")
    theirs = library(replace(recipe, budget=replace(recipe.budget, batch=16)), "cpu", None, 0)
    a, b = torch.randn(2, 16, 64)
    if method == "simclr":
        expected = simclr.nt_xent(b, a, a, b, 1 / recipe.method.temperature, None)
    else:
        expected = sum(weight * vicreg.vicreg_terms(a, b)[term] for term, weight in recipe.method.weights().items())
    assert float(theirs.loss(a, b, torch.arange(16))) == pytest.approx(float(expected), rel=1e-4)
    index, views, labels = next(theirs.batches)
    assert [tuple(view.shape) for view in views] == [(16, 3, 8, 8)] * 2
    assert not views[0].equal(views[1])
    assert labels.equal(data.load(recipe.data).train.labels[index])
    assert theirs.full(1) > 0


# ---------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--repeats", "0"], "harness: --repeats is 0; expected 1 or more"),
        (["--workers", "-1"], "harness: --workers is -1; expected 0 or more"),
        (["--batch", "1"], f"harness: recipe {VICREG.name!r}: batch 1 is under the 2 that VICReg needs; raise"),
        (["--against", "lightli"], "harness: no library to time against 'lightli'; did you mean 'lightly'?"),
        (
            ["--set", "data.name=imagenet_1k"],
            "harness: data set 'imagenet_1k' cannot be timed: its images are decoded ahead, and every part would",
        ),
    ],
)
def test_mistakes_are_one_line(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.call(["bench", VICREG.name, *words]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(message)
    assert (captured.out, len(captured.err.splitlines())) == ("", 1)


def test_a_recipe_that_is_never_trained_has_no_step() -> None:
    with pytest.raises(BadRecipe, match=r"^recipe 'untrained_.*' is never trained; there is no step to time$"):
        bench.bench(registry.recipe("untrained_digits_r10w16_e0"))


def test_what_another_library_has_no_counterpart_of() -> None:
    with pytest.raises(
        BadRecipe,
        match=r"^--against lightly: recipe 'byol_.*' trains BYOL; possible are the methods simclr, vicreg$",
    ):
        bench.bench(registry.recipe("byol_digits_r10w16_e50"), against=["lightly"])
    with pytest.raises(BadRecipe, match=r"^--against solo-learn: recipe 'simclr_factors_.*' has other pairs than two"):
        bench.bench(registry.recipe("simclr_factors_r10w16_e4"), against=["solo-learn"])


def test_a_library_that_is_not_there_says_how_to_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(against.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(Unavailable, match=r"^--against lightly: it is not installed; in an environment of its own, .*"):
        bench.bench(VICREG, against=["lightly"])
    with pytest.raises(Unavailable, match=r"pip install lightning einops wandb omegaconf, .* checkout 9187ea3"):
        bench.bench(VICREG, against=["solo-learn"])


def test_errors_of_another_process_are_raised_here() -> None:
    with Turn("x", Failing) as turn:
        assert turn("add", 1, 2) == 3
        with pytest.raises(BadCommand, match=r"^x: the batch does not fit on the device; lower --batch$"):
            turn("fill")
        with pytest.raises(UnknownName, match=r"^no data set 'digitz'; did you mean 'digits'\?$"):
            turn("misspell")
        with pytest.raises(RunFailed, match=r"^x crashed with ZeroDivisionError: division by zero$"):
            turn("crash")
        with pytest.raises(RunFailed, match=r"^x: its process ended with code 7; if memory was short, lower --batch$"):
            turn("die")
