"""The command line as a user meets it: a light --help, exit codes, one line per mistake."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from harness import cli, registry

ROOT = Path(__file__).resolve().parent.parent
RECIPE = "vicreg_digits_r10w16_e50"
LARGE = "vicreg_imagenet_1k_r50_e100"
QUICK = ["--set", "budget.epochs=1", "--set", "budget.warmup=0", "--set", "data.train_images=512"]


def call(*words: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    code = cli.call(list(words))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_help_imports_nothing_heavy() -> None:
    """What keeps it under half a second."""
    code = (
        "import sys, harness.cli\n"
        "try: harness.cli.call(['--help'])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "print(sorted({'torch', 'mlflow', 'pandas', 'timm', 'datasets', 'numpy'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stderr.strip() == "[]"
    for name in ("demo", "list", "show", "run", "eval", "sync", "leaderboard", "claims", "check", "export", "doctor"):
        assert name in done.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["run", "vicrek_digits_r10w16_e50"],
            rf"harness: no recipe 'vicrek_digits_r10w16_e50'; did you mean '{RECIPE}'?",
        ),
        (["run", RECIPE, "--set", "optimiser.lt=3"], "harness: no setting 'lt'; did you mean 'lr'?"),
        (["run", RECIPE, "--set", "data.name=digitz"], "harness: no data set 'digitz'; did you mean 'digits'?"),
        (["run", RECIPE, "--set", "encoder.name=resnet18_small_stam"], "harness: no encoder 'resnet18_small_stam'"),
        (
            ["run", RECIPE, "--set", "budget.batch=4096"],
            "batch 4096 is larger than the 1257 training images of 'digits'; lower",
        ),
        (["run", RECIPE, LARGE], "harness: data set 'imagenet_1k' not found in"),
        (["submit", LARGE], "harness: data set 'imagenet_1k' not found in"),
        (["eval", RECIPE, "knm"], "harness: no protocol 'knm'; did you mean 'knn'?"),
        (["eval", RECIPE, "knn"], "harness: no finished run at"),
        (["export", RECIPE, "x.safetensors"], "harness: no finished run at"),
        (["run"], "harness: name at least one recipe; `harness list` shows them"),
        (["promote"], "harness: name at least one recipe; `harness list` shows them"),
        (["promote", RECIPE], f"harness: recipe {RECIPE!r} has 0 finished runs in "),
        (
            ["run", RECIPE, "--seeds", "0"],
            "harness: --seeds is 0 and --first-seed 0; expected 1 or more, and 0 or more",
        ),
        (["eval", RECIPE], "harness: name at least one protocol; `harness list protocols` shows them"),
        (["leaderboard"], "holds no runs; `harness run <recipe>` makes one"),
        (["sync"], "holds no runs; `harness run <recipe>` makes one"),
        (["leaderboard", "--dataset", "digit"], "harness: no data set 'digit'; did you mean 'digits'?"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = call(*words, "--runs", str(tmp_path), capsys=capsys)
    assert code == 2
    assert message in err
    assert len(err.strip().splitlines()) == 1
    assert out == ""
    assert not list(tmp_path.glob("*/*/seed-*")), "a refused run leaves nothing behind"


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = call("show", "nothing", "--debug", capsys=capsys)
    assert code == 2
    assert "Traceback" in err


def test_an_unforeseen_error_is_one_line_and_exit_code_3(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(name: str, overrides: tuple[str, ...] = ()) -> None:
        raise ZeroDivisionError("nobody thought of this")

    monkeypatch.setattr(registry, "recipe", broken)
    code, _, err = call("show", RECIPE, capsys=capsys)
    assert code == 3
    assert err == "harness: crashed with ZeroDivisionError: nobody thought of this; --debug shows where\n"


def test_list_and_show(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call("list", capsys=capsys)
    assert code == 0
    assert RECIPE in out
    assert "VICReg" in call("list", "methods", capsys=capsys)[1]
    assert "knn" in call("list", "protocols", capsys=capsys)[1]
    assert "digits" in call("list", "data", capsys=capsys)[1]
    both = ["--set", "method.variance=7", "--set", "budget.batch=64"]
    shown = json.loads(call("show", RECIPE, *both, capsys=capsys)[1])
    assert shown["method"]["variance"] == 7.0
    assert shown["budget"]["batch"] == 64
    assert shown["digest"] == registry.recipe(RECIPE, ("method.variance=7", "budget.batch=64")).digest


def test_cost_as_a_table_as_markdown_and_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("cost", RECIPE, capsys=capsys)[1].count(RECIPE) == 1
    rows = call("cost", "vicreg_digits_*_l25_m25_n1", RECIPE, "--format", "markdown", capsys=capsys)[1].splitlines()
    assert rows[0].startswith("| recipe | ")
    assert [row.split(" | ")[0] for row in rows[2:4]] == ["| vicreg_digits_r10w16_e20_l25_m25_n1", f"| {RECIPE}"]
    assert rows[-1].startswith(
        "GPU-hours are an estimate at 12 TFLOP/s achieved by a GPU: the median of published timings"
    )
    found = json.loads(call("cost", RECIPE, "--tflops", "2", "--format", "json", capsys=capsys)[1])
    assert (found["tflops"], found["basis"]) == (2.0, "as given")
    (row,) = found["recipes"]
    assert row["total_flops"] == row["step_flops"] * row["steps"] == row["gpu_hours"] * 2e12 * 3600


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["cost"], "name at least one recipe, `harness list` shows them; or ask for --timings alone"),
        (["cost", "vicreg_digit_*"], "no recipe 'vicreg_digit_*'; did you mean"),
        (["cost", RECIPE, "--tflops", "0"], "--tflops is 0.0; expected 10^12 FLOP/s as achieved, above 0"),
        (["bench", RECIPE, "--repeats", "0"], "--repeats is 0; expected 1 or more"),
        (["bench", RECIPE, "--batch", "1"], "batch 1 is under the 2 that VICReg needs; raise budget.batch"),
        (["bench", "untrained_digits_r10w16_e0"], "is never trained; there is no step to time"),
    ],
)
def test_what_cannot_be_costed_or_timed_is_refused(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = call(*words, capsys=capsys)
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert message in err


def test_run_eval_export_and_leaderboard(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = ["--runs", str(tmp_path)]
    code, out, err = call("run", RECIPE, *QUICK, *runs, capsys=capsys)
    assert code == 0, err
    assert "complete" in out
    assert "knn_k20_t0.07" in out
    code, out, _ = call("eval", RECIPE, "knn", "factor_regression", *QUICK, *runs, capsys=capsys)
    assert code == 2, "digits have no factors"
    code, out, _ = call("eval", RECIPE, "knn", *QUICK, *runs, capsys=capsys)
    assert code == 0
    target = tmp_path / "encoder.safetensors"
    code, out, _ = call("export", RECIPE, str(target), *QUICK, *runs, capsys=capsys)
    assert code == 0
    assert f"checkpoint_path={str(target)!r}" in out
    code = f"import harness\n{out.partition(chr(10))[2]}\nprint(model.num_features)"
    python = [sys.executable, "-W", "ignore", "-c", code]
    model = subprocess.run(python, capture_output=True, text=True, check=True, cwd=ROOT)
    assert model.stdout.strip().splitlines()[-1] == "128"
    code, out, _ = call("leaderboard", *runs, "--overrides", capsys=capsys)
    assert code == 0
    assert "VICReg" in out
    assert "leaderboard.html" in out
    table = (tmp_path / "leaderboard.csv").read_text()
    code, _, err = call("leaderboard", *runs, "--dataset", "cifar10", capsys=capsys)
    assert code == 2
    assert "no runs on 'cifar10'" in err
    assert (tmp_path / "leaderboard.csv").read_text() == table
    code, out, _ = call("check", *runs, capsys=capsys)
    assert code == 0
    (record,) = tmp_path.glob("*/*/seed-0/record.json")
    for damaged in ('{"a": 1', "{}", "[]"):
        record.write_text(damaged)
        code, _, err = call("run", RECIPE, *QUICK, *runs, capsys=capsys)
        assert code == 2
        assert f"{record} is damaged (" in err
        assert "; remove it and run the recipe again" in err


def test_doctor_finds_this_machine_fit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call("doctor", "--runs", str(tmp_path), capsys=capsys)
    assert code == 0, out
    assert "torch" in out


def test_doctor_reports_an_unwritable_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    code, out, _ = call("doctor", "--runs", str(tmp_path / "file" / "runs"), capsys=capsys)
    assert code == 1
    assert "WRONG runs" in out
