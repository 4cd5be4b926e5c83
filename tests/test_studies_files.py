"""The studies in sweeps/studies: each loads, each of its points is a recipe, and the papers' grids are the papers'."""

import tomllib
from pathlib import Path
from typing import Any

import pytest

from harness import registry
from harness.recipe import check_processes
from harness.studies.request import FILES, study
from harness.studies.space import value_at
from harness.studies.study import Study

NAMES = sorted(path.stem for path in FILES.glob("*.toml"))
WHY_NOT = "The recipe's own settings are not among the points"

TABLE7 = [  # arXiv:2105.04906: lambda, mu, nu
    (1, 0, 0), (25, 0, 1), (0, 25, 1), (1, 1, 0), (1, 1, 1), (1, 10, 1),
    (10, 1, 1), (5, 5, 1), (10, 10, 1), (25, 25, 1), (50, 50, 1),
]  # fmt: skip
TABLE12 = [256, 512, 1024, 2048, 4096, 8192, 16384]  # width of the expander
TABLE13 = [(128, 0.8), (256, 0.5), (512, 0.4), (1024, 0.3), (2048, 0.3), (4096, 0.3)]  # batch, base rate
PROTOTYPES = [1024, 4096, 16384, 65536, 262144]  # arXiv:2104.14294, App. C
CENTRE_MOMENTUM = [0, 0.9, 0.99, 0.999]  # App. D
TEACHER_TEMPERATURE = [0.02, 0.04, 0.06, 0.08]  # App. D, without 0
BETAS = [(0.1,), (0.5,), (0.8,)]  # SkrighYZ/AdaSSL@8f7148f6, docs

GRIDS: dict[str, list[tuple[Any, ...]]] = {
    "vicreg_digits_table7": TABLE7,
    "vicreg_cifar10_table7": TABLE7,
    "vicreg_digits_table12": [((width // 32,) * 3,) for width in TABLE12],
    "vicreg_cifar10_table12": [((width,) * 3,) for width in TABLE12],
    "vicreg_digits_table13": [(batch // 16, round(lr / 0.3 * 4e-3, 4)) for batch, lr in TABLE13],
    "vicreg_cifar10_table13": TABLE13,
    "dino_digits_centre_momentum": [(m,) for m in CENTRE_MOMENTUM],
    "dino_cifar10_centre_momentum": [(m,) for m in CENTRE_MOMENTUM],
    "dino_digits_teacher_temperature": [*((t, 0) for t in TEACHER_TEMPERATURE), (0.07, 15)],
    "dino_cifar10_teacher_temperature": [*((t, 0) for t in TEACHER_TEMPERATURE), (0.07, 30)],
    "dino_digits_out_dim": [(K // 256,) for K in PROTOTYPES],
    "dino_cifar10_out_dim": [(K,) for K in PROTOTYPES],
    "adassl_s_factors_beta": BETAS,
    "adassl_v_factors_beta": BETAS,
    "adassl_s_cifar10_beta": BETAS,
}
OURS = {"ssl_hsic_digits_gamma", "ssl_hsic_cifar10_gamma", "ssl_hsic_digits_features", "ssl_hsic_cifar10_features"}


def points(one: Study) -> list[dict[str, Any]]:
    """The settings of its points; without points, the corners of its space that all low and all high ends make."""
    if one.points:
        return one.first()
    ends = [{p.name: p.levels(2)[end] for p in one.parameters} for end in (0, -1)]
    return [*one.first(), *ends]


@pytest.mark.parametrize("name", NAMES)
def test_a_study_is_whole_and_says_what_it_is(name: str, tmp_path: Path) -> None:
    one, text = study(name, {}, tmp_path), (FILES / f"{name}.toml").read_text()
    assert one.name == name
    assert registry.recipe_names()[one.recipe] in name
    assert one.base().data.name in name
    assert text.startswith("# ")
    assert "minutes" in text or "not measured" in text
    assert ("ours" in text.lower()) == (name in OURS or (name in GRIDS and scaled(name))), "what is not the paper's"


def scaled(name: str) -> bool:
    """Whether a paper's grid is adapted to the scale of digits."""
    return name.startswith(("vicreg_digits_table1", "dino_digits_out", "dino_digits_teacher"))


@pytest.mark.parametrize("name", NAMES)
def test_every_point_is_a_recipe_that_two_processes_can_share(name: str, tmp_path: Path) -> None:
    one = study(name, {}, tmp_path)
    digests = []
    for params in points(one):
        recipe = registry.recipe(one.recipe, one.settings(params))
        check_processes(recipe, 2)
        assert {p.name: value_at(recipe, p.path) for p in one.parameters} == params
        digests.append(recipe.digest)
    assert len(set(digests)) == len(digests)


@pytest.mark.parametrize("name", NAMES)
def test_the_recipes_own_settings_are_tried_or_the_file_says_why_not(name: str, tmp_path: Path) -> None:
    one, text = study(name, {}, tmp_path), (FILES / f"{name}.toml").read_text()
    own = {p.name: value_at(one.base(), p.path) for p in one.parameters}
    assert (own in one.first()) != (WHY_NOT in text)


@pytest.mark.parametrize("name", sorted(GRIDS))
def test_the_papers_grids_are_the_papers(name: str, tmp_path: Path) -> None:
    assert list(study(name, {}, tmp_path).points) == GRIDS[name]


def test_each_explicit_grid_is_a_papers_or_ours() -> None:
    explicit = {name for name in NAMES if "points" in tomllib.loads((FILES / f"{name}.toml").read_text())}
    assert explicit == GRIDS.keys() | OURS


def test_table_7_on_digits_is_what_its_recipes_are(tmp_path: Path) -> None:
    one = study("vicreg_digits_table7", {}, tmp_path)
    named = {registry.recipe(name).digest for name in registry.recipe_names() if "_e20_l" in name}
    assert {registry.recipe(one.recipe, one.settings(params)).digest for params in one.first()} == named
