"""The leaderboard's numbers, what it shows of failures, and that it fits a terminal."""

import io
from math import sqrt
from pathlib import Path

import pandas
import pytest
from rich.console import Console
from run_directories import evaluation, write_field, write_run

from harness import leaderboard as boards
from harness import tracking
from harness.report import tables

KNN = "knn_k20_t0.07/top1"


def frame(root: Path) -> pandas.DataFrame:
    """What `tracking.table` returns, built from the same reader without a database."""
    rows = []
    for file in sorted(root.glob("*/*/seed-*/recipe.json")):
        local = tracking.LocalRun.read(file.parent)
        numbers = {name: int(local.tags[name]) for name in ("seed", "epochs", "batch")}
        dirty = {"True": True, "False": False}.get(local.tags["dirty"])
        rows.append({"run": local.key} | local.tags | numbers | {"dirty": dirty} | local.final)
    return pandas.DataFrame(rows)


@pytest.fixture(scope="module")
def field(tmp_path_factory: pytest.TempPathFactory) -> pandas.DataFrame:
    root = tmp_path_factory.mktemp("field")
    write_field(root)
    return frame(root)


def row(board: pandas.DataFrame, **keys: object) -> pandas.Series:
    names = board.index.to_frame(index=False)
    found = names[[all(r[k] == v for k, v in keys.items()) for _, r in names.iterrows()]]
    assert len(found) == 1, found
    return board.iloc[found.index[0]]


def test_mean_std_n_and_sampling_error(tmp_path: Path) -> None:
    for seed, top1 in enumerate((96.0, 97.0, 99.5)):
        write_run(tmp_path, seed=seed, top1=top1)
    board = boards.leaderboard(frame(tmp_path))
    assert board.index.names == boards.ROW
    cell = row(board, label="VICReg")[KNN]
    mean = (96.0 + 97.0 + 99.5) / 3
    assert cell["mean"] == pytest.approx(mean)
    assert cell["std"] == pytest.approx(sqrt(((96 - mean) ** 2 + (97 - mean) ** 2 + (99.5 - mean) ** 2) / 2))
    assert cell["n"] == 3
    assert cell["error"] == pytest.approx(100 * sqrt(mean / 100 * (1 - mean / 100) / 360))
    assert row(board, label="VICReg")["minutes", "mean"] == pytest.approx(91 / 60)
    assert pandas.isna(row(board, label="VICReg")["collapse/rankme", "error"])


def test_only_the_test_split_is_shown(field: pandas.DataFrame) -> None:
    assert "held_out/knn_k20_t0.07/top1" in field
    assert not [name for name in boards.leaderboard(field).columns.get_level_values(0) if "held_out" in name]


def test_failures_are_shown_and_counted(field: pandas.DataFrame) -> None:
    board = boards.leaderboard(field)
    collapsed = row(board, variant="l1_m0_n0")
    assert collapsed["runs", "collapsed"] == 2
    assert collapsed[KNN, "mean"] == pytest.approx(61.5)
    diverged = row(board, variant="l1_m10_n1")
    assert (diverged["runs", "diverged"], diverged[KNN, "n"]) == (1, 0)
    assert row(board, label="BYOL")["runs", "unfinished"] == 1
    text = tables.to_markdown(board)
    assert "| 2 collapsed |" in text
    assert "| 1 diverged | – |" in text
    assert "1 run not finished, without numbers yet." in text


def test_overrides_are_left_out_unless_asked_for(field: pandas.DataFrame) -> None:
    board = boards.leaderboard(field)
    assert "1 run with overrides left out; --overrides shows them" in board.attrs["notes"]
    assert "optimiser.lr=9" not in tables.to_markdown(board)
    shown = boards.leaderboard(field, overrides=True)
    assert row(shown, variant="optimiser.lr=9")[KNN, "mean"] == 99.9
    assert row(shown, label="DINO", variant="")["runs", "complete"] == 2


def test_rows_that_would_collide_are_told_apart(tmp_path: Path) -> None:
    write_run(tmp_path)
    write_run(tmp_path, seed=1, digest="b" * 12)
    write_run(tmp_path, "vicreg_digits_r10_e60_symmetric")
    board = boards.leaderboard(frame(tmp_path))
    assert set(board.index.get_level_values("variant")) == {"@012345", "@bbbbbb", "symmetric"}
    assert "variant" not in next(boards.views(boards.leaderboard(frame(tmp_path).head(1)))).header


def test_best_value_is_bold_also_when_a_baseline_has_it_and_baselines_are_italic(field: pandas.DataFrame) -> None:
    text = tables.to_markdown(boards.leaderboard(field))
    digits = text.split("### factors")[0]
    pixels = next(line for line in digits.splitlines() if "| pixels |" in line)
    assert pixels.startswith("| *Untrained* |")
    assert "**98.3**" in pixels
    assert "**97.9" not in digits
    assert digits.splitlines()[4].count("**") >= 2  # the best row comes first
    assert "| DINO |" in digits
    assert "Rows in italics learn nothing; a method has to beat them." in digits


def test_a_live_run_of_a_known_recipe_joins_its_row(tmp_path: Path) -> None:
    write_run(tmp_path)
    write_run(tmp_path, seed=1, status=None, until=8)
    board = boards.leaderboard(frame(tmp_path))
    assert len(board) == 1
    assert "| 1 + 1 unfinished |" in tables.to_markdown(board)


def test_descriptions_do_not_rank(field: pandas.DataFrame) -> None:
    board = boards.leaderboard(field)
    assert boards.measures(board, scores=True) == ["few_label_n5/top1", KNN]
    assert "collapse/rankme" in boards.measures(board, scores=False)
    assert not any(best for view in boards.views(board, scores=False) for line in view.lines for _, best in line.cells)


def wide_frame(root: Path) -> pandas.DataFrame:
    import json

    for seed in (0, 1):
        path = write_run(root, seed=seed)
        record = json.loads((path / "record.json").read_text())
        for i in range(9):
            record["evals"].append(evaluation(f"linear_layer_{i}", "test", 360, {"top1": 90.0 + i}, "percent"))
        (path / "record.json").write_text(json.dumps(record))
    return frame(root)


@pytest.mark.parametrize("width", [80, 120])
def test_the_terminal_table_is_readable_at_its_width(tmp_path: Path, width: int) -> None:
    out = io.StringIO()
    boards.show(boards.leaderboard(wide_frame(tmp_path)), Console(file=out, width=width))
    text = out.getvalue()
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    for word in ("linear_layer_0", "linear_layer_8", "98.0 ± 0.0", "images/s", "digits (continued)"):
        assert word in text


def test_csv_holds_everything_unrounded(field: pandas.DataFrame, tmp_path: Path) -> None:
    board = boards.leaderboard(field)
    (tmp_path / "board.csv").write_text(tables.to_csv(board))
    back = pandas.read_csv(tmp_path / "board.csv", index_col=boards.ROW, keep_default_na=True)
    assert len(back) == len(board)
    assert back[f"{KNN} mean"].to_numpy() == pytest.approx(board[KNN, "mean"].to_numpy(), nan_ok=True)
    assert {"runs collapsed", f"{KNN} error", "collapse/rankme mean", "minutes n"} <= set(back)


def test_latex_is_booktabs_and_escaped(tmp_path: Path) -> None:
    for label, top1 in (("A_b & {c}", 97.0), ("B", 96.0)):
        write_run(
            tmp_path, f"{label[0].lower()}_fashion_mnist_r10_e60", dataset="fashion_mnist", label=label, top1=top1
        )
    write_run(tmp_path, "u_fashion_mnist_r10_e0", dataset="fashion_mnist", label="Untrained", top1=50.0, epochs=0)
    text = tables.to_latex(boards.leaderboard(frame(tmp_path)))
    lines = [line.strip() for line in text.splitlines()]
    assert lines[0] == r"% Made by `harness leaderboard`; needs \usepackage{booktabs}."
    for expected in (
        r"\begin{tabular}{lllrrrrr}",
        r"\toprule",
        r"method & encoder & epochs & runs & few\_label\_n5/top1 & knn\_k20\_t0.07/top1 & images/s & minutes \\",
        r"A\_b \& \{c\} & r10 & 60 & 1 & \textbf{85.0} & \textbf{97.0} & 1,000 & 1.5 \\",
        r"\textit{Untrained} & r10 & 0 & 1 & 38.0 & 50.0 & – & – \\",
        r"\bottomrule",
        r"\label{tab:fashion_mnist}",
    ):
        assert expected in lines
    assert text.count(r"\begin{table}") == text.count(r"\end{table}") == 1
    (caption,) = [line for line in lines if line.startswith(r"\caption")]
    assert caption.startswith(r"\caption{fashion\_mnist. ± is the spread over seeds;")


def test_the_order_of_the_runs_does_not_matter(field: pandas.DataFrame) -> None:
    shuffled = field.sample(frac=1.0, random_state=1)
    assert tables.to_csv(boards.leaderboard(shuffled)) == tables.to_csv(boards.leaderboard(field))


def test_no_runs(tmp_path: Path) -> None:
    board = boards.leaderboard(pandas.DataFrame(columns=["run", "recipe", "seed", "dataset", "status"]))
    assert tables.to_markdown(board) == "No runs yet.\n"
    assert tables.to_latex(board).count("\n") == 1
    out = io.StringIO()
    boards.show(board, Console(file=out, width=80))
    assert "No runs yet" in out.getvalue()
    (tmp_path / "board.csv").write_text(tables.to_csv(board))
    assert (tmp_path / "board.csv").exists()
