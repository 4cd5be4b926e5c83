"""What a person asks for becomes a study, or one clear line; studies read back as they were written."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import registry
from harness.api import coefficient
from harness.errors import BadCommand, BadRecipe, HarnessError, RunConflict, UnknownName
from harness.studies import request, space
from harness.studies import study as studies
from harness.studies.space import Parameter, grid
from harness.studies.study import Final, Finalist, Study, Trial
from methods import byol

RECIPE = "vicreg_digits_r10w16_e50"
ADASSL = "adassl_v_byol_factors_r10w16_e4"
BASE = registry.recipe(RECIPE)


def asked(runs: Path, what: str = RECIPE, *parameters: str, **said: Any) -> Study:
    return request.study(what, said | {"parameters": parameters or None}, runs)


# ---------------------------------------------------------------------------------------------- grammar


def test_without_a_word_the_declared_coefficients_are_varied(tmp_path: Path) -> None:
    study = asked(tmp_path)
    assert [str(p) for p in study.parameters] == [
        "method.invariance from 1 to 50, log",
        "method.variance from 1 to 50, log",
        "method.covariance from 0.1 to 10, log",
    ]
    assert all(p.source for p in study.parameters)
    assert (study.name, study.trials, study.every, study.objective) == (RECIPE, 50, 2, "knn_k20_t0.07/top1")
    assert study.default() == {"invariance": 25.0, "variance": 25.0, "covariance": 1.0}


@pytest.mark.parametrize(
    ("text", "name", "spelled", "whole"),
    [
        ("variance", "variance", "method.variance from 1 to 50, log", False),
        ("method.variance", "variance", "method.variance from 1 to 50, log", False),
        ("variance=0.5..100", "variance", "method.variance from 0.5 to 100, log", False),
        ("variance=0..100:linear", "variance", "method.variance from 0 to 100", False),
        (" optimiser.lr = 1e-4 .. 1e-2 : log", "lr", "optimiser.lr from 0.0001 to 0.01, log", False),
        ("budget.batch=32..64", "batch", "budget.batch from 32 to 64", True),
        ("views.0.flip=0..1", "flip", "views.0.flip from 0 to 1", False),
        ("budget.batch=64|128", "batch", "budget.batch in 64 | 128", False),
        ("optimiser.lr=1|2e-3", "lr", "optimiser.lr in 1.0 | 0.002", False),
        ("method.widths=(32,)|(32,64)", "widths", "method.widths in (32,) | (32, 64)", False),
        ("optimiser.name=adam|adamw", "name", "optimiser.name in adam | adamw", False),
        ("data.train_images=None|100", "train_images", "data.train_images in None | 100", False),
        ("online_probe=true|false", "online_probe", "online_probe in True | False", False),
    ],
)
def test_the_grammar_of_what_is_varied(text: str, name: str, spelled: str, whole: bool) -> None:
    found = space.parameter(BASE, text)
    assert (found.name, str(found), found.whole) == (name, spelled, whole)


def test_adassl_varies_the_coefficients_of_its_base_too_and_names_do_not_clash(monkeypatch: pytest.MonkeyPatch) -> None:
    base = registry.recipe(ADASSL)
    by_name = {p.name: p.path for p in space.parameters(base, ())}
    assert by_name == {"beta": "method.beta", "distance": "method.base.distance"}
    assert space.parameter(base, "distance=1..2").path == "method.base.distance"
    both = space.parameters(base, ("beta", "optimiser.lr=1e-4..1e-2:log", "method.base.distance"))
    assert [p.name for p in both] == ["beta", "lr", "distance"]

    clash = {"beta": coefficient(1.0, low=0.1, high=1.0, source="test").metadata["coefficient"]}
    monkeypatch.setattr(byol.Config, "coefficients", classmethod(lambda cls: clash))
    monkeypatch.setattr(byol.Config, "beta", 1.0, raising=False)
    found = [one.name for one, kind in space.declared(base).values() if kind == "coefficient"]
    assert found == ["beta", "method.base.beta"]

    same = space.parameters(base, ("optimiser.lr=1e-4..1e-2", "views.0.flip=0..1", "views.1.flip=0..1"))
    assert [p.name for p in same] == ["lr", "views.0.flip", "views.1.flip"]


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("varianc", UnknownName, "no coefficient 'varianc'; did you mean 'variance'.*or give any setting a range"),
        ("varianc=1..2", UnknownName, "no setting 'varianc'"),
        ("optimiser.learning=1..2", UnknownName, "no setting 'learning'; .*in optimiser.learning"),
        ("variance=", BadRecipe, "expected float"),
        ("variance=5", BadCommand, "one choice is nothing to vary"),
        ("budget.batch=64|64", BadCommand, "one choice is nothing to vary"),
        ("variance=1..", BadCommand, "'1..' is no range; expected LOW..HIGH"),
        ("variance=a..b", BadCommand, "'a..b' is no range"),
        ("variance=nan..1", BadRecipe, "expected float .* got 'nan'"),
        ("variance=1..inf", BadRecipe, "expected float .* got 'inf'"),
        ("variance=1..2:lin", BadCommand, "the scale is 'lin', expected log or linear"),
        ("budget.batch=1.5..64", BadRecipe, "expected int .* got 1.5"),
        ("optimiser.name=1..2", BadCommand, "'lars', no number; give choices|'adamw', no number; give choices"),
        ("data.train_images=1..2", BadCommand, "None, no number; give choices, as in data.train_images=A|B"),
        ("method=1..2", BadCommand, "no number"),
        ("budget=1|2", BadRecipe, "a group of settings"),
        ("method.widths=(32,)|32", BadRecipe, "expected tuple"),
        ("views.0.flip=0..2", BadRecipe, "a probability, 0 to 1"),
        ("monitor.every=1..2", BadCommand, "monitor.every does not shape a run, there is nothing to vary"),
        ("evals=1|2", BadCommand, "does not shape a run"),
        ("name=a|b", BadCommand, "does not shape a run"),
    ],
)
def test_what_cannot_be_varied_is_one_line(text: str, error: type[HarnessError], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        space.parameters(BASE, (text,))
    assert "\n" not in str(caught.value)


def test_what_is_given_twice_or_not_at_all() -> None:
    with pytest.raises(BadCommand, match=r"method\.variance is given twice"):
        space.parameters(BASE, ("variance", "method.variance=1..2"))
    with pytest.raises(BadCommand, match="Untrained declares nothing to vary; say what, for example"):
        space.parameters(registry.recipe("untrained_digits_r10w16_e0"), ())


@given(st.text(alphabet="variance=.|:0123456789e-+()[], 'log\n{", max_size=30))
def test_any_text_is_a_parameter_or_one_line(text: str) -> None:
    try:
        found = space.parameter(BASE, text)
    except HarnessError:
        pass
    else:
        assert found.choices or found.path.startswith(("method.", "data.", "views.", "optimiser.", "budget."))


FINITE = st.floats(1e-6, 1e6)


@given(FINITE, FINITE, st.integers(2, 40), st.booleans())
def test_levels_lie_in_the_range_in_order(a: float, b: float, count: int, log: bool) -> None:
    low, high = sorted((a, b))
    levels = Parameter(name="x", path="x", low=low, high=high, log=log).levels(count)
    assert all(low <= level <= high for level in levels)
    assert list(levels) == sorted(set(levels))
    assert 1 <= len(levels) <= count
    assert levels[0] == pytest.approx(low, rel=1e-5)
    assert levels[-1] == pytest.approx(high, rel=1e-5)


@given(st.integers(0, 100), st.integers(1, 100), st.integers(2, 40))
def test_levels_of_whole_numbers_are_whole(low: int, more: int, count: int) -> None:
    levels = Parameter(name="x", path="x", low=float(low), high=float(low + more), whole=True).levels(count)
    assert all(type(level) is int for level in levels)
    assert (levels[0], levels[-1]) == (low, low + more)


@given(st.lists(st.sampled_from([0, 2, 3]), min_size=1, max_size=4), st.integers(1, 200))
def test_a_grid_has_no_more_points_than_trials(kinds: list[int], trials: int) -> None:
    """0: a range; else so many choices."""
    over = [
        Parameter(name=f"p{i}", path="x", low=1, high=9, choices=tuple(map(str, range(kind))))
        for i, kind in enumerate(kinds)
    ]
    try:
        points = grid(over, trials)
    except BadCommand:
        assert trials < 3 ** len(kinds)
    else:
        assert len(set(points)) == len(points) <= trials


# ---------------------------------------------------------------------------------------------- defaults, points


@pytest.mark.parametrize(
    ("text", "inside"),
    [
        ("variance=1..25", True),
        ("variance=1..24.9", False),
        ("budget.batch=64|128", True),
        ("budget.batch=32|64", False),
        ("method.widths=(256,256,256)|(32,)", True),
        ("method.widths=(64,)|(32,)", False),
    ],
)
def test_the_recipes_own_settings_come_first_if_they_are_in_the_space(tmp_path: Path, text: str, inside: bool) -> None:
    study = asked(tmp_path, RECIPE, text)
    assert (study.default() is not None) == inside
    assert study.first() == ([study.default()] if inside else [])
    if default := study.default():
        assert registry.recipe(RECIPE, study.settings(default)).digest == BASE.digest


def test_a_grid_spaces_ranges_evenly_and_takes_all_choices(tmp_path: Path) -> None:
    study = asked(tmp_path, RECIPE, "variance=1..100", "budget.batch=64|128", sampler="grid", trials=7)
    assert study.points == tuple((v, b) for v in (1.0, 10.0, 100.0) for b in (64, 128))
    assert (study.trials, study.pruner) == (6, "none")
    assert [p.choices for p in study.parameters] == [(1.0, 10.0, 100.0), (64, 128)]
    assert study.first() == [{"variance": v, "batch": b} for v, b in study.points]
    with pytest.raises(BadCommand, match="a grid over these 3 settings has 8 points at least; raise --trials"):
        asked(tmp_path, sampler="grid", trials=7)
    with pytest.raises(BadCommand, match="a log scale needs a range above 0"):
        asked(tmp_path, RECIPE, "variance=0..1", sampler="grid")


def test_the_command_that_made_a_grid_goes_on_with_it(tmp_path: Path) -> None:
    said = {"sampler": "grid", "trials": 7}
    study = asked(tmp_path, RECIPE, "variance=1..100", "budget.batch=64|128", **said)
    studies.write(study, tmp_path)
    assert asked(tmp_path, RECIPE, "variance=1..100", "budget.batch=64|128", **said) == study
    assert asked(tmp_path, sampler="grid", trials=100) == study  # there are no further points
    assert asked(tmp_path, trials=4) == replace(study, trials=4)
    with pytest.raises(RunConflict, match=r"other parameters: .*you ask for method\.variance from 1 to 99"):
        asked(tmp_path, RECIPE, "variance=1..99", "budget.batch=64|128", **said)


FILE = """
recipe = "vicreg_digits_r10w16_e50"
coefficients = ["invariance", "variance", "covariance"]
points = [[1, 0, 0], [25, 0, 1], [0, 25, 1], [25, 25, 1]]
set = ["budget.epochs=20"]
finalists = 3
"""


def written(folder: Path, text: str = FILE, name: str = "table7.toml") -> str:
    (folder / name).write_text(text)
    return str(folder / name)


def test_a_file_gives_the_points(tmp_path: Path) -> None:
    what = written(tmp_path)
    study = asked(tmp_path, what)
    assert (study.name, study.trials, study.sampler, study.pruner) == ("table7", 4, "grid", "none")
    assert (study.overrides, study.finalists, study.every) == (("budget.epochs=20",), 3, 1)
    assert study.points[0] == (1.0, 0.0, 0.0)
    assert all(type(value) is float for point in study.points for value in point)
    assert study.parameters[1].choices == (0.0, 25.0)
    studies.write(study, tmp_path)
    assert asked(tmp_path, what) == study
    assert asked(tmp_path, what, trials=2).trials == 2
    with pytest.raises(RunConflict, match=r"study 'table7' .* has other parameters"):
        asked(tmp_path, written(tmp_path, FILE.replace("[25, 0, 1], [0, 25, 1]", "[0, 25, 1], [25, 0, 1]")))


def test_a_file_may_have_more_points_than_the_usual_number_of_trials(tmp_path: Path) -> None:
    points = ", ".join(f"[{i}]" for i in range(60))
    text = f'recipe = "{RECIPE}"\ncoefficients = ["variance"]\npoints = [{points}]\n'
    assert asked(tmp_path, written(tmp_path, text)).trials == 60


def test_widths_are_points_too(tmp_path: Path) -> None:
    text = f'recipe = "{RECIPE}"\ncoefficients = ["method.widths=(8,)|(9,)"]\npoints = [[[32]], [[32, 64]]]\n'
    study = asked(tmp_path, written(tmp_path, text))
    assert study.points == (((32,),), ((32, 64),))
    assert study.settings(study.first()[1]) == ("method.widths=(32, 64)",)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (("recipe =", "recipy ="), UnknownName, r"no key of a study 'recipy'; did you mean 'recipe'\?; in .*table7"),
        (('recipe = "vicreg_digits_r10w16_e50"', ""), BadRecipe, "recipe is missing; write recipe ="),
        (("e50", "e51"), UnknownName, "no recipe 'vicreg_digits_r10w16_e51'; did you mean"),
        (("finalists = 3", "finalists = '3'"), BadRecipe, "finalists is '3', expected int"),
        (("finalists = 3", "finalists = true"), BadRecipe, "finalists is True, expected int"),
        (("finalists = 3", "finalists = 0"), BadCommand, "finalists is 0, expected 1 or more"),
        (("finalists = 3", "finalists = "), BadRecipe, "table7.toml is not TOML: "),
        (("finalists = 3", "storage = 'x'"), UnknownName, "no key of a study 'storage'"),
        (('"invariance"', "1"), BadRecipe, "coefficients is .*, expected list of texts"),
        (('["budget.epochs=20"]', "[20]"), BadRecipe, "set is .20., expected list of texts"),
        (('["budget.epochs=20"]', '"a=1"'), BadRecipe, "set is 'a=1', expected list"),
        (("[25, 0, 1]", "[25, 0]"), BadCommand, r"point \(25, 0\) is not a list of one value for each of invariance, "),
        (("[25, 0, 1]", "25"), BadCommand, "point 25 is not a list"),
        (("[25, 0, 1]", "[25, 0, 'a']"), BadRecipe, "expected float"),
        (("points = [[1, 0, 0], [25, 0, 1], [0, 25, 1], [25, 25, 1]]", "points = []"), BadCommand, "is not a list of"),
    ],
)
def test_a_bad_file_is_one_line(
    tmp_path: Path, change: tuple[str, str], error: type[HarnessError], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        asked(tmp_path, written(tmp_path, FILE.replace(*change)))
    assert "\n" not in str(caught.value)


def test_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(BadRecipe, match="is not TOML"):
        asked(tmp_path, str(tmp_path / "binary.toml"))
    for what in (str(tmp_path / "none.toml"), "nothing", f"{tmp_path}/"):
        with pytest.raises(UnknownName, match="no recipe or study"):
            asked(tmp_path, what)
    with pytest.raises(BadCommand, match="study 'my table': a name is made of letters"):
        asked(tmp_path, written(tmp_path, name="my table.toml"))


# ---------------------------------------------------------------------------------------------- what is asked for


@pytest.mark.parametrize(
    ("said", "error", "message"),
    [
        ({"name": "a/b"}, BadCommand, "study 'a/b': a name is made of letters, digits, '_', '-' and '.'"),
        ({"name": ".."}, BadCommand, "a name is made of"),
        ({"name": ""}, BadCommand, "a name is made of"),
        ({"objective": "knn"}, UnknownName, "no objective 'knn'; .*measures no other"),
        ({"objective": "knn/top3"}, UnknownName, "no objective 'knn/top3'; did you mean 'knn_k20_t0.07/top"),
        ({"objective": "factor_regression/r2"}, UnknownName, "recipe 'vicreg_digits_r10w16_e50' measures no other"),
        ({"sampler": "tpee"}, UnknownName, "no sampler 'tpee'; did you mean 'tpe'"),
        ({"pruner": "median2"}, UnknownName, "no pruner 'median2'; did you mean 'median'"),
        ({"trials": 0}, BadCommand, "trials is 0, expected 1 or more"),
        ({"trials": 0, "sampler": "grid"}, BadCommand, "trials is 0, expected 1 or more"),
        ({"every": 0}, BadCommand, "every is 0, expected 1 or more"),
        ({"every": 51}, BadCommand, "every is 51, expected no more than the 50 epochs"),
        ({"seeds_final": -1}, BadCommand, "seeds_final is -1, expected 0 or more"),
        ({"seeds_final": 1}, BadCommand, "one final seed has no spread; give 2 or more, or 0"),
        ({"seed": -1}, BadCommand, "seed is -1, expected 0 or more"),
        ({"parameters": ("variance=2..2",)}, BadCommand, r"the range of method\.variance is empty: 2 to 2"),
        ({"parameters": ("variance=3..2",)}, BadCommand, "is empty: 3 to 2; expected low < high"),
        (
            {"parameters": ("variance=0..2",)},
            BadCommand,
            r"a log scale needs a range above 0, method\.variance begins at",
        ),
        ({"overrides": ("budget.epoch=3",)}, UnknownName, "no setting 'epoch'"),
        (
            {"overrides": ("budget.epochs=0", "budget.warmup=0")},
            BadCommand,
            "is never trained, there is nothing to vary",
        ),
    ],
)
def test_a_bad_request_is_one_line(
    tmp_path: Path, said: dict[str, Any], error: type[HarnessError], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        request.study(RECIPE, said, tmp_path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "studies").exists()


def test_what_is_left_out_is_as_stored_and_some_may_change(tmp_path: Path) -> None:
    stored = asked(
        tmp_path, RECIPE, "variance=1..9", objective="linear/top1", sampler="gp", pruner="median", seed=7, every=5,
        trials=9, finalists=1, seeds_final=0, storage="sqlite:///a.db", overrides=("budget.epochs=25",), name="mine",
    )  # fmt: skip
    studies.write(stored, tmp_path)
    assert asked(tmp_path, name="mine") == stored
    free = {"trials": 20, "finalists": 4, "seeds_final": 3, "storage": ""}
    assert asked(tmp_path, name="mine", **free) == replace(stored, **free)
    assert asked(tmp_path, RECIPE, "variance=1..9", name="mine", sampler="gp", objective="linear/top1") == stored


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"sampler": "qmc"}, "has other sampler: 'tpe'; you ask for 'qmc'; choose another name with --study"),
        ({"pruner": "none"}, "has other pruner: 'hyperband'; you ask for 'none'"),
        ({"seed": 1}, "has other seed: 1000; you ask for 1"),
        ({"every": 3}, "has other every: 2; you ask for 3"),
        ({"objective": "linear/top1"}, "has other objective: 'knn_k20_t0.07/top1'; you ask for 'linear/top1'"),
        ({"overrides": ("budget.epochs=40",)}, "has other overrides: none; you ask for budget.epochs=40"),
        (
            {"parameters": ("variance",)},
            r"has other parameters: method.invariance from .*; you ask for method.variance f",
        ),
    ],
)
def test_another_study_of_that_name_is_one_line_with_both_values(
    tmp_path: Path, said: dict[str, Any], message: str
) -> None:
    studies.write(asked(tmp_path), tmp_path)
    with pytest.raises(RunConflict, match=message):
        request.study(RECIPE, said, tmp_path)
    with pytest.raises(RunConflict, match=f"has other recipe: '{RECIPE}'; you ask for '{ADASSL}'"):
        request.study(ADASSL, said | {"name": RECIPE}, tmp_path)


def test_a_new_source_of_a_range_is_no_other_study(tmp_path: Path) -> None:
    stored = asked(tmp_path)
    studies.write(replace(stored, parameters=tuple(replace(p, source="old") for p in stored.parameters)), tmp_path)
    assert asked(tmp_path, RECIPE, "invariance", "variance", "covariance") == stored


# ---------------------------------------------------------------------------------------------- files


def trial(number: int, **more: Any) -> Trial:
    params = {"variance": 1.5, "widths": (32, 64), "name": None, "nested": ((1, 2), ("a", 0.5))}
    return Trial(number=number, params=params, overrides=("a=1", "b=(1, 2)"), seed=3, digest="0" * 12, **more)


def test_files_read_back_as_they_were_written(tmp_path: Path) -> None:
    for study in (
        asked(tmp_path),
        asked(tmp_path, RECIPE, "method.widths=(32,)|(32,64)", "variance=1..2", name="w", storage="sqlite:///a"),
        asked(tmp_path, RECIPE, "method.widths=(32,)|(32,64)", "variance=1..2", name="g", sampler="grid"),
    ):
        studies.write(study, tmp_path)
        assert studies.read(tmp_path, study.name) == study
    assert studies.names(tmp_path) == sorted([RECIPE, "w", "g"])
    trials = [trial(0), trial(1, outcome="pruned", why="x", stop="y", seconds=2.5, step=3, steps=9), trial(1000000)]
    for one in reversed(trials):
        studies.write_trial(tmp_path, "w", one)
    assert sorted(studies.read_trials(tmp_path, "w"), key=lambda one: one.number) == trials
    assert studies.read_final(tmp_path, "w") is None
    settings = (Finalist(trial=None, params={"widths": (32,)}, overrides=(), digest="a"),)
    final = Final(finalists=settings, seeds=(0, 1), winner=0)
    studies.write_final(tmp_path, "w", final)
    assert studies.read_final(tmp_path, "w") == final


@pytest.mark.parametrize("damage", ["", "{", "[1, 2]", "7", "{}", '{"params": [1]}', "\xff", "null"])
def test_a_damaged_file_is_one_line_that_says_what_to_do(tmp_path: Path, damage: str) -> None:
    study = asked(tmp_path)
    studies.write(study, tmp_path)
    studies.write_trial(tmp_path, study.name, trial(0))
    for file, read in (
        ("final.json", lambda: studies.read_final(tmp_path, study.name)),
        ("trials/000000.json", lambda: studies.read_trials(tmp_path, study.name)),
        ("study.json", lambda: studies.read(tmp_path, study.name)),
    ):
        (study.folder(tmp_path) / file).write_bytes(damage.encode("latin-1"))
        with pytest.raises(
            RunConflict, match=rf"{file} is damaged .*; move .* away and start the study again"
        ) as caught:
            read()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data.pop("parameters"),
        lambda data: data.update(parameters=3),
        lambda data: data.update(parameters=[3]),
        lambda data: data["parameters"][0].pop("choices"),
        lambda data: data["parameters"][0].update(more=1),
        lambda data: data.update(more=1),
        lambda data: data.pop("objective"),
    ],
)
def test_so_is_a_study_with_other_fields(tmp_path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    study = asked(tmp_path)
    studies.write(study, tmp_path)
    file = study.folder(tmp_path) / "study.json"
    data = json.loads(file.read_text())
    change(data)
    file.write_text(json.dumps(data))
    with pytest.raises(RunConflict, match=r"study\.json is damaged"):
        studies.read(tmp_path, study.name)
    with pytest.raises(UnknownName, match=r"no study 'other'; .*`harness sweep` makes one"):
        studies.read(tmp_path, "other")


def test_a_score_that_is_no_number_is_none(tmp_path: Path) -> None:
    study = asked(tmp_path)
    row = {"protocol": "knn_k20_t0.07", "split": "held_out", "metrics": {"top1": 90.5}}
    assert studies.score(study, {"evals": [row, row | {"split": "test", "metrics": {"top1": 1}}]}) == 90.5
    assert studies.score(study, {"evals": [row | {"metrics": {"top1": float("nan")}}]}) is None
    assert studies.score(study, {"evals": []}) is None
