"""What a person asks for, on the command line or in a file of sweeps/studies, as a study.

A file is TOML: recipe = "vicreg_digits_r10w16_e50", and any key of `KEYS`. `coefficients` and `set` are lists of texts
as on the command line, `points` lists the settings to try, one value for each of the coefficients.
"""

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, get_args

from harness import registry
from harness.errors import BadCommand, BadRecipe, RunConflict, UnknownName
from harness.recipe import Recipe
from harness.studies.space import Parameter, grid, parameters, tuples
from harness.studies.study import Pruner, Sampler, Study, names, read

FILES = registry.ROOT / "sweeps" / "studies"
POINTS = 20  # of a run's curve that a pruner sees, unless the study says otherwise
FREE = ("trials", "finalists", "seeds_final")  # what may change while a study exists
KEYS = {
    "recipe": str, "set": list, "coefficients": list, "points": list, "objective": str, "trials": int,
    "sampler": str, "pruner": str, "seed": int, "every": int, "finalists": int, "seeds_final": int,
}  # fmt: skip


def study(what: str, given: Mapping[str, Any], runs: Path) -> Study:
    """The study that a command asks for. what: a file of sweeps/studies by name, a path to one, or a recipe.

    given: fields of `Study` as a person gives them (objective as "knn/top1", parameters as texts), None where nothing
    was said: then the study of that name says it, if there is one, then the file, then the defaults.
    Errors: UnknownName, BadCommand, BadRecipe; RunConflict for a study of that name that varies something else.
    """
    said = {key: value for key, value in given.items() if value is not None}
    said = from_file(what) | said
    name = said.setdefault("name", said["recipe"])
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        raise BadCommand(f"study {name!r}: a name is made of letters, digits, '_', '-' and '.'")
    old = read(runs, name) if name in names(runs) else None
    known = {f.name: getattr(old, f.name) for f in fields(Study)} if old else {}
    base = registry.recipe(said["recipe"], said.get("overrides", known.get("overrides", ())))
    if "parameters" in said or not old:
        said["parameters"] = parameters(base, said.get("parameters", ()), "points" in said)
    if "objective" in said or not old:
        said["objective"] = objective(base, said.get("objective", "knn/top1"))
    if not old:
        said = {"every": max(1, base.budget.epochs // POINTS), "trials": 50} | said
        if said.get("sampler") == "grid" and "points" not in said:
            said["points"] = grid(said["parameters"], said["trials"])
    if "points" in said:
        said = {"sampler": "grid", "pruner": "none"} | said | {"trials": len(said["points"])}
        said["parameters"] = _columns(name, said.get("parameters") or known["parameters"], said["points"])
    asked = Study(**(known | said))
    _check(asked, base)
    if old:
        _same(old, asked, runs)
    return asked


def _columns(name: str, varied: Sequence[Parameter], points: Sequence[tuple[Any, ...]]) -> tuple[Parameter, ...]:
    """The parameters with the points' values as choices. Errors: BadCommand."""
    for point in points:
        if not isinstance(point, tuple) or len(point) != len(varied):
            wanted = ", ".join(p.name for p in varied)
            raise BadCommand(f"study {name!r}: point {point!r} is not a list of one value for each of {wanted}")
    return tuple(replace(p, choices=tuple(dict.fromkeys(point[i] for point in points))) for i, p in enumerate(varied))


def files() -> dict[str, str]:
    """The ready-made studies by name, with the first line of each."""
    return {file.stem: file.read_text().partition("\n")[0].lstrip("# ") for file in sorted(FILES.glob("*.toml"))}


def from_file(what: str) -> dict[str, Any]:
    """What a study's file says, as `given` of `study`; a recipe's name stands for a file that says nothing else.

    Errors: UnknownName, BadRecipe.
    """
    file = Path(what) if what.endswith(".toml") else FILES / f"{what}.toml"
    if not file.exists():
        recipes = registry.recipe_names()
        if what not in recipes:
            raise UnknownName("recipe or study", what, [*files(), *recipes], fix="`harness list studies` shows those")
        return {"recipe": what}
    try:
        data = tomllib.loads(file.read_text())
    except tomllib.TOMLDecodeError as error:
        raise BadRecipe(f"{file} is not TOML: {error}") from error
    for key, value in data.items():
        if key not in KEYS:
            raise UnknownName("key of a study", key, KEYS, fix=f"in {file}")
        if not isinstance(value, KEYS[key]):
            raise BadRecipe(f"{file}: {key} is {value!r}, expected {KEYS[key].__name__}")
    if "recipe" not in data:
        raise BadRecipe(f"{file}: recipe is missing; write recipe = and the name of one, see `harness list`")
    renamed = {"set": "overrides", "coefficients": "parameters"}
    return {"name": file.stem} | {renamed.get(key, key): tuples(value) for key, value in data.items()}


def objective(base: Recipe, text: str) -> str:
    """`<protocol>/<metric>` with the protocol by its name or id -> by its id. Errors: UnknownName, BadCommand."""
    from harness.leaderboard import is_score

    protocol, _, metric = text.partition("/")
    fit = [one for one in base.evals if protocol in (one.id, one.protocol)]
    measured = [f"{one.id}/{name}" for one in base.evals for name in registry.load("harness.evals", one.protocol).UNITS]
    if not fit or metric not in registry.load("harness.evals", fit[0].protocol).UNITS:
        raise UnknownName("objective", text, measured, fix=f"recipe {base.name!r} measures no other")
    if len(fit) > 1:
        ids = " or ".join(f"{one.id}/{metric}" for one in fit)
        raise BadCommand(f"objective {text!r} may be {ids}; say which")
    if not is_score(metric):
        raise BadCommand(f"objective {text!r}: {metric} does not rank methods; choose an accuracy or an r2")
    return f"{fit[0].id}/{metric}"


def _check(asked: Study, base: Recipe) -> None:
    """Errors: BadCommand."""
    where = f"study {asked.name!r}"
    if asked.sampler not in get_args(Sampler):
        raise UnknownName("sampler", asked.sampler, get_args(Sampler))
    if asked.pruner not in get_args(Pruner):
        raise UnknownName("pruner", asked.pruner, get_args(Pruner))
    if not base.budget.epochs:
        raise BadCommand(f"{where}: recipe {base.name!r} is never trained, there is nothing to vary")
    for key, low in (("trials", 1), ("every", 1), ("finalists", 1), ("seeds_final", 0), ("seed", 0)):
        if getattr(asked, key) < low:
            raise BadCommand(f"{where}: {key} is {getattr(asked, key)}, expected {low} or more")
    if asked.seeds_final == 1:
        raise BadCommand(f"{where}: one final seed has no spread; give 2 or more, or 0 for no comparison")
    for p in asked.parameters:
        if not p.choices and not p.low < p.high:
            raise BadCommand(f"{where}: the range of {p.path} is empty: {p.low:g} to {p.high:g}; expected low < high")
        if not p.choices and p.log and p.low <= 0:
            raise BadCommand(f"{where}: a log scale needs a range above 0, {p.path} begins at {p.low:g}")


def _same(old: Study, asked: Study, runs: Path) -> None:
    """Errors: RunConflict."""
    for f in fields(Study):
        ours, theirs = getattr(asked, f.name), getattr(old, f.name)
        if f.name in FREE:
            continue
        if ours != theirs:
            spelled = [", ".join(map(str, v)) if isinstance(v, tuple) else repr(v) for v in (theirs, ours)]
            raise RunConflict(
                f"study {old.name!r} in {old.folder(runs)} has other {f.name}: {spelled[0]}; you ask for {spelled[1]}; "
                "choose another name with --study, or leave the option out"
            )
