"""Labels reach the methods that ask for them and no other; in tables these are a ceiling, never the best."""

from dataclasses import replace
from pathlib import Path

import large_set
import pandas
import pytest
import torch
from contracts import config
from run_directories import write_run
from test_leaderboard import KNN, frame

from harness import data, leaderboard, registry, train
from harness.api import Batch, Clock, Step
from harness.progress import Bar
from harness.recipe import Budget, Data, View
from harness.report import ranking, tables
from harness.runs import RunDirectory
from harness.stream import Streamed
from methods import t_regs

UNLABELLED = ("vicreg", "simclr", "inst_disc")
LABELLED = ("supcon", "supervised")


@pytest.mark.parametrize("method", [*UNLABELLED, *LABELLED])
def test_training_shows_labels_to_who_asks_for_them(method: str, tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path, registry.recipe(f"{method}_digits_r10w16_e50"), 0)
    with directory.leased():
        attempt = train.Attempt(directory, data.load(Data(name="digits")), "cpu")
        seen: list[Batch] = []
        step = attempt.method.step

        def noted(batch: Batch) -> Step:
            seen.append(batch)
            return step(batch)

        attempt.method.step = noted  # type: ignore[method-assign]
        attempt.one_step(Bar(method, 1, 0, show=False))
    (batch,) = seen
    if method in LABELLED:
        assert batch.labels is not None
        assert torch.equal(batch.labels, attempt.splits.train.labels[batch.index])
        assert len(batch.labels.unique()) == 10
    else:
        assert batch.labels is None


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> data.Splits:
    root = tmp_path_factory.mktemp("large")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HARNESS_CACHE", str(root / "cache"))
        large_set.make(root / "data", patch)
        return data.load(Data(name=large_set.NAME), root / "data")


@pytest.mark.parametrize("method", ["inst_disc", *LABELLED])
def test_a_streamed_set_does_too(large: data.Splits, method: str) -> None:
    recipe = registry.recipe(f"{method}_digits_r10w16_e50")
    views = tuple(View(px=8, source=source) for source in recipe.method.requirements().sources)
    recipe = replace(recipe, data=Data(name=large_set.NAME), views=views, budget=Budget(epochs=1, batch=32))
    batch, labels = Streamed(large, recipe, 0, "cpu", 0).batch(Clock(0, 4, 4))
    assert torch.equal(labels, large.train.labels[batch.index])
    assert batch.labels is labels if method in LABELLED else batch.labels is None


# ------------------------------------------------------------------------------------------ tables


def test_the_label_of_every_recipe_says_whether_its_method_reads_labels() -> None:
    for name in registry.recipe_names():
        method = registry.recipe(name).method
        assert leaderboard.is_labelled(method.label) == method.requirements().labels, name


def test_a_wrapper_reads_what_its_base_reads() -> None:
    for base in (config("supcon"), config("simclr")):
        assert leaderboard.is_labelled(t_regs.Config(base=base).label) == base.requirements().labels
    assert t_regs.Config(base=config("supcon")).label == "T-REGS (SupCon (labels))"


@pytest.fixture
def board(tmp_path: Path) -> pandas.DataFrame:
    """Two methods with labels, one of them inside a wrapper, above two without."""
    rows = {
        "supervised": ("Supervised (labels)", 99.4),
        "around": ("Around (SupCon (labels))", 98.8),
        "vicreg": ("VICReg", 97.2),
        "simclr": ("SimCLR", 96.1),
    }
    for stem, (label, top1) in rows.items():
        write_run(tmp_path, f"{stem}_digits_r10_e60", label=label, top1=top1)
    return leaderboard.leaderboard(frame(tmp_path))


FOOTNOTE = "rows with (labels) read what the others may not; they are a ceiling, and never the best of a column"


def test_labelled_rows_are_never_best_and_have_a_footnote(board: pandas.DataFrame) -> None:
    (view,) = leaderboard.views(board)
    column = view.header.index(KNN)
    assert {line.key[1]: line.cells[column] for line in view.lines} == {
        "Supervised (labels)": ("99.4", False),
        "Around (SupCon (labels))": ("98.8", False),
        "VICReg": ("97.2", True),
        "SimCLR": ("96.1", False),
    }
    assert FOOTNOTE in view.notes


def test_every_form_of_the_table_agrees(board: pandas.DataFrame) -> None:
    markdown = tables.to_markdown(board)
    assert "**97.2**" in markdown
    latex = tables.to_latex(board)
    assert r"\textbf{97.2}" in latex
    page = "".join(ranking.leaderboards(board, ranking.anchors(board)))
    assert "<b>97.2</b>" in page
    for text in (markdown, latex, page):
        assert "99.4" in text
        for mark in ("**", r"\textbf{", "<b>"):
            assert mark + "99.4" not in text
            assert mark + "98.8" not in text
        assert FOOTNOTE[1:] in text  # sentences begin with a capital


def test_a_table_of_labelled_rows_alone_has_no_best(tmp_path: Path) -> None:
    write_run(tmp_path, "supervised_digits_r10_e60", label="Supervised (labels)", top1=99.4)
    (view,) = leaderboard.views(leaderboard.leaderboard(frame(tmp_path)))
    assert not any(best for line in view.lines for _, best in line.cells)
