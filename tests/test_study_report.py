"""What a study found: tables, the page with its plots, and the winner as a recipe."""

import importlib.util
import io
import re
import shutil
import subprocess
import sys
import warnings
import xml.dom.minidom
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
from rich.console import Console
from study_files import NAME, PROTOCOL, RECIPE, asked, write_study
from test_report import Balance

from harness import registry
from harness.errors import NotWritable
from harness.studies import plots, report, space, winner
from harness.studies import study as studies
from harness.studies.study import Final, Study, Trial

ROOT = Path(__file__).resolve().parent.parent
Written = tuple[Path, Study, list[Trial], Final]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    root = tmp_path_factory.mktemp("study")
    study, trials, final = write_study(root)
    assert final
    report.write(study, root)
    return root, study, trials, final


@pytest.fixture(scope="module")
def page(written: Written) -> str:
    return (written[0] / "studies" / NAME / "report.html").read_text()


def shown(study: Study, root: Path, width: int = 120) -> str:
    text = io.StringIO()
    report.show(study, root, Console(file=text, width=width))
    return text.getvalue()


def row(text: str, start: str) -> list[str]:
    line = next(line for line in text.splitlines() if line.strip().startswith(start))
    return re.split(r"\s{2,}", line.strip())


# ---------------------------------------------------------------------------------------------- the terminal


def test_the_terminal_tells_how_it_stands(written: Written) -> None:
    root, study, trials, _ = written
    text = shown(study, root)
    assert f"Study {NAME}" in text
    assert row(text, "trials ")[1] == "30 of 30: 6 complete, 18 pruned, 4 collapsed, 1 diverged, 1 failed"
    assert row(text, "setting variance")[1] == "method.variance from 1 to 50, log"
    best = max((trial for trial in trials if trial.outcome == "complete"), key=lambda trial: trial.value or 0)
    settings = [f"{value:.4g}" for value in best.params.values()]
    assert row(text, f"{best.number} ") == [str(best.number), *settings, f"{best.value:.2f}", "21"]
    assert row(text, "0, default")[1:4] == ["25", "25", "1"]


def test_the_terminal_tells_what_the_finals_decided(written: Written) -> None:
    root, study, _, final = written
    assert final.winner == 2
    best, text = final.finalists[2].label, shown(study, root)
    finals, tests = text.split("Finals: 5 fresh seeds")[1].split("Test images")
    assert row(finals, "default")[1:5] == ["25", "25", "1", "94.11 ± 0.26"]
    assert row(finals, best)[4:] == ["96.30 ± 0.24", "+2.19", "+1.59 to +2.79", "better"]
    assert f"The winner is {best}; winner.py is its recipe, to be copied to sweeps/{NAME}.py." in finals
    assert row(tests, "default") == ["default", "93.61 ± 0.26", "–", "1.29"]  # 100 sqrt(0.936 * 0.064 / 360)
    assert row(tests, best) == [best, "95.80 ± 0.24", "+2.19", "1.06"]
    assert "Evaluated after the choice, for these alone, on 360 images." in tests


def test_the_terminal_tells_the_cost(written: Written) -> None:
    root, study, trials, _ = written
    cost = shown(study, root).split("\nCost")[1]
    spent = sum(trial.seconds for trial in trials)
    assert row(cost, "final runs") == ["final runs", "15", f"{15 * 21 / 60:.1f} min"]
    assert row(cost, "together")[-1] == f"{(spent + 15 * 21) / 60:.1f} min"
    early = [trial for trial in trials if trial.outcome in ("pruned", "collapsed", "diverged")]
    share = sum(450 - trial.step for trial in early) / (30 * 450)
    saved = sum(trial.seconds * (450 - trial.step) / trial.step for trial in early)
    assert f"Ending 23 trials early saved {share:.0%} of all steps, an estimated {saved / 60:.1f} min." in cost


def test_importance_adds_up(written: Written) -> None:
    root, study, _, _ = written
    found = report.Found.read(study, root)
    weights = plots.importance(report.in_memory(study, found.trials, found.curves))
    assert list(weights) == ["fANOVA", "PED-ANOVA"]
    assert all(sum(each.values()) == pytest.approx(1) for each in weights.values())
    importance = shown(study, root).split("Importance of settings")[1]
    assert row(importance, "variance")[1:] == [f"{each['variance']:.0%}" for each in weights.values()]


def test_importance_takes_complete_trials_only(written: Written) -> None:
    """As the page says of both."""
    root, study, _, _ = written
    found = report.Found.read(study, root)
    complete = [trial for trial in found.trials if trial.outcome == "complete"]
    whole, part = (plots.importance(report.in_memory(study, some, found.curves)) for some in (found.trials, complete))
    assert whole == part


def test_a_study_under_way(tmp_path: Path) -> None:
    study, _, _ = write_study(tmp_path, over=9, finals="none")
    text = shown(study, tmp_path)
    assert row(text, "trials ")[1] == "11 of 30: 2 complete, 7 pruned, 2 under way"
    assert "Finals" not in text
    assert "Needs 4 complete trials of different value." in text
    (file,) = report.write(study, tmp_path)
    page = file.read_text()
    assert "Needs 4 complete trials of different value; there are 2." in page
    assert page.count("<svg") == 4  # history, curves, outcomes, slices


def test_finals_under_way(tmp_path: Path) -> None:
    study, _, _ = write_study(tmp_path, finals="running")
    text = shown(study, tmp_path)
    assert "14 of 15 final runs have a value; the comparison follows when all are over." in text
    assert row(text, "trial 24")[4:] == ["96.35 ± 0.24 (4)", "–", "–", "–"]
    assert "Test images" not in text


def test_a_study_that_has_just_begun(tmp_path: Path) -> None:
    study, _, _ = write_study(tmp_path, over=0, finals="none")
    assert "No trial is complete yet." in shown(study, tmp_path)
    for one in studies.folder(tmp_path, NAME).glob("trials/*"):
        one.unlink()
    assert row(shown(study, tmp_path), "trials ")[1] == "0 of 30"
    (file,) = report.write(study, tmp_path)
    assert file.read_text().count("<svg") == 0


def test_nothing_was_better(tmp_path: Path) -> None:
    study, _, final = write_study(tmp_path, gain=-0.2)
    assert final
    assert final.winner == 0
    text = shown(study, tmp_path)
    assert "Nothing was better than the recipe's own settings; they stay." in text
    assert len(row(text.split("Test images")[1], "default")) == 4
    assert [path.name for path in report.write(study, tmp_path)] == ["report.html"]
    assert "winner.py" not in [path.name for path in study.folder(tmp_path).iterdir()]
    assert re.search(
        r"Trial \d+: about \d+ more seeds would decide, if mean and spread stay: --seeds-final \d+\.", text
    )


def test_a_winner_whose_test_is_to_come(tmp_path: Path) -> None:
    study, _, final = write_study(tmp_path, finals="running")
    assert final
    studies.write_final(tmp_path, NAME, replace(final, winner=1))
    text = shown(study, tmp_path)
    assert "Not evaluated yet." in text
    assert row(text, "trial 24")[-1] == "unstable"
    assert "Unstable: a seed diverged or failed where the default's did not." in text


# ---------------------------------------------------------------------------------------------- the page


def test_it_is_self_contained_and_well_formed(page: str) -> None:
    for outside in ("<script", "<link", "<img", "@import", 'src="', "url(http", "url(//"):
        assert outside not in page
    assert not re.findall(r'href="(?!#|data:image/png)', page)
    drawings = re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL)
    assert len(drawings) == 8
    for drawing in drawings:
        xml.dom.minidom.parseString(drawing)
        assert "<metadata" not in drawing
        assert "<text" not in drawing  # letters are paths: no font of the machine matters
    checker = Balance()
    checker.feed(re.sub(r"<svg.*?</svg>", "", page, flags=re.DOTALL))
    assert checker.open == []


def test_it_holds_the_tables_and_all_plots(page: str) -> None:
    for title in ("Best trials", "Test images", "Cost", "Importance of settings", "The winner as a recipe", "Plots"):
        assert f"<h2>{title}</h2>" in page
    for title in (
        "Objective by trial", "Objective while trials ran", "Outcomes over pairs of settings", "Objective by setting",
        "Objective over pairs of settings", "Settings of each trial", "Importance by fANOVA", "Importance by PED-ANOVA",
    ):  # fmt: skip
        assert f"<figcaption><b>{title}</b>" in page
    assert "<td class=number>+1.59 to +2.79</td>" in page
    assert "A forest fitted to all complete trials; those that were pruned take no part." in page
    assert "prefers-color-scheme: dark" in page


def test_the_same_files_give_the_same_bytes(written: Written, page: str, tmp_path: Path) -> None:
    root, study, _, _ = written
    code = (
        f"from pathlib import Path; from harness.studies import report, study; root = Path({str(tmp_path)!r}); "
        f"report.write(study.read(root, {NAME!r}), root)"
    )
    shutil.copytree(root, tmp_path, dirs_exist_ok=True)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout + done.stderr == ""
    assert (study.folder(tmp_path) / "report.html").read_text() == page


def test_plots_leave_nothing_behind(written: Written) -> None:
    import matplotlib
    from matplotlib import pyplot

    root, study, _, _ = written
    before = dict(matplotlib.rcParams)
    found = report.Found.read(study, root)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plots.draw(study, found.trials, found.curves)
    assert pyplot.get_fignums() == []
    assert {key: value for key, value in matplotlib.rcParams.items() if before[key] != value and key != "backend"} == {}


@pytest.mark.parametrize(
    "texts",
    [
        ("variance",),
        ("variance", "budget.batch=64|128|256"),
        ("optimiser.name=adamw|sgd", "data.train_images=100|None", "views.0.flip=0..0.5"),
        (
            "variance",
            "invariance",
            "covariance",
            "optimiser.lr=1e-4..1e-2:log",
            "budget.batch=64|128",
            "budget.warmup=0..5",
        ),
    ],
)
def test_any_space_is_drawn(texts: tuple[str, ...], tmp_path: Path) -> None:
    study = asked(parameters=space.parameters(registry.recipe(RECIPE), texts))
    write_study(tmp_path, study)
    page = report.write(study, tmp_path)[0].read_text()
    absent = {1: ["Outcomes over pairs of settings", "Objective over pairs of settings"]}.get(len(texts), [])
    assert re.findall(r"<b>([^<]*)</b> Needs two settings that vary", page) == absent
    assert page.count("<svg") == 8 - len(absent)
    assert ("The 4 most important of 6 settings." in page) == (len(texts) == 6)
    assert texts[0].split("=")[0].rpartition(".")[2] in shown(study, tmp_path)


def test_points_of_a_table(tmp_path: Path) -> None:
    points = ((1.0, 25.0, 1.0), (25.0, 25.0, 1.0), (25.0, 10.0, 1.0), (50.0, 50.0, 1.0), (10.0, 10.0, 1.0))
    varied = [
        replace(p, choices=tuple(dict.fromkeys(point[i] for point in points)))
        for i, p in enumerate(space.parameters(registry.recipe(RECIPE), ()))
    ]
    study = asked(parameters=tuple(varied), points=points, sampler="grid", pruner="none", trials=5)
    write_study(tmp_path, study, over=5)
    assert report.write(study, tmp_path)[0].read_text().count("<svg") >= 4
    assert "1, default" in shown(study, tmp_path)


def test_text_of_people_is_escaped(tmp_path: Path) -> None:
    study, trials, _ = write_study(tmp_path, asked(overrides=("data.train_images=900",)), over=1, finals="none")
    studies.write(replace(study, overrides=()), tmp_path)
    page = report.page(report.Found(replace(study, name="<b>&"), tmp_path, trials, None, []))
    assert "Study &lt;b&gt;&amp;" in page
    assert "<b>&" not in page
    (varied,) = space.parameters(registry.recipe(RECIPE), ("variance",))
    studies.write(replace(study, parameters=(replace(varied, choices=("[b]", 25.0)),)), tmp_path)
    for one in studies.folder(tmp_path, NAME).glob("trials/*"):
        one.unlink()
    assert "method.variance in [b] | 25.0" in shown(studies.read(tmp_path, NAME), tmp_path)  # no markup of the console


def test_an_unwritable_place(tmp_path: Path) -> None:
    study, _, _ = write_study(tmp_path, over=1, finals="none")
    (study.folder(tmp_path) / "report.html").mkdir()
    with pytest.raises(NotWritable, match=r"^cannot write .*report\.html"):
        report.write(study, tmp_path)


# ---------------------------------------------------------------------------------------------- the winner


def loaded(file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("winner", file)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_winner_is_a_recipe_of_the_same_digest(written: Written) -> None:
    root, study, _, final = written
    file = study.folder(root) / "winner.py"
    found = getattr(loaded(file), f"{RECIPE}_tuned")()
    assert found.digest == final.finalists[2].digest
    assert found.digest != study.base().digest
    text = file.read_text()
    assert f"study {NAME}" in text
    assert f"{PROTOCOL}/top1" in re.sub(r"\s", "", text)
    assert "by +2.19, interval +1.59 to +2.79" in text


def test_the_winner_can_be_copied_to_a_checkout(written: Written, tmp_path: Path) -> None:
    root, study, _, final = written
    for folder in ("harness", "methods", "sweeps"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    shutil.copy(study.folder(root) / "winner.py", tmp_path / "sweeps" / f"{NAME}.py")
    code = f"from harness import registry; print(registry.recipe('{RECIPE}_tuned').digest)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)}
    )
    assert done.stdout.strip() == final.finalists[2].digest, done.stderr
    for command in (["format", "--check"], ["check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, f"sweeps/{NAME}.py"], capture_output=True, text=True, cwd=tmp_path
        )
        assert done.returncode == 0, done.stdout


def test_long_and_odd_settings_are_formatted_too(tmp_path: Path) -> None:
    varied = space.parameters(
        registry.recipe(RECIPE), ("optimiser.name=adamw|sgd", "method.widths=(64,64)|(256,256,256)")
    )
    study = asked(name="a-study.of_odd-settings", parameters=varied, overrides=("data.train_images=900",))
    _, _, final = write_study(tmp_path, study)
    assert final
    assert final.winner
    chosen = final.finalists[final.winner]
    _, file = report.write(study, tmp_path)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for command in (["format", "--check"], ["check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, str(file)], capture_output=True, text=True, cwd=tmp_path
        )
        assert done.returncode == 0, done.stdout
    assert getattr(loaded(file), f"{RECIPE}_tuned")().digest == chosen.digest


def test_a_name_that_is_taken(written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    root, study, _, final = written
    known = registry.recipe_names() | {f"{RECIPE}_tuned": "another"}
    monkeypatch.setattr(registry, "recipe_names", lambda: known)
    found = report.Found.read(study, root)
    assert f"def {RECIPE}_tuned_{NAME}() -> Recipe:" in winner.recipe(study, final, found.comparisons)
    known[f"{RECIPE}_tuned"] = NAME  # this one, copied
    assert f"def {RECIPE}_tuned() -> Recipe:" in winner.recipe(study, final, found.comparisons)
