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
from harness.studies.space import Parameter, grid, parameters, taken, tuples
from harness.studies.study import Pruner, Sampler, Study, names, read

FILES = registry.ROOT / "sweeps" / "studies"
POINTS = 20  # of a run's curve that a pruner sees, unless the study says otherwise
FREE = ("trials", "finalists", "seeds_final", "storage")  # what may change while a study exists
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
    said = from_file(what) | {key: value for key, value in given.items() if value is not None}
    name = said.setdefault("name", said["recipe"])
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        raise BadCommand(f"study {name!r}: a name is made of letters, digits, '_', '-' and '.'")
    old = read(runs, name) if name in names(runs) else None
    known = {f.name: getattr(old, f.name) for f in fields(Study)} if old else {}
    if old and said["recipe"] != old.recipe:
        raise _other(old, "recipe", said["recipe"], runs)
    base = registry.recipe(said["recipe"], said.get("overrides", known.get("overrides", ())))
    if "parameters" in said or not old:
        said["parameters"] = parameters(base, said.get("parameters", ()), "points" in said)
        if old and old.points:  # of which the ranges became choices
            stored = {replace(p, choices=()): p for p in old.parameters}
            said["parameters"] = tuple(stored.get(p, p) for p in said["parameters"])
    if "objective" in said or not old:
        said["objective"] = objective(base, said.get("objective", "knn/top1"))
    if not old:
        said = {"every": max(1, base.budget.epochs // POINTS), "trials": len(said.get("points", ())) or 50} | said
        if said.get("sampler") == "grid" and "points" not in said:
            _check(Study(**said), base)
            said["points"] = grid(said["parameters"], said["trials"])
    if "points" in said:
        said = {"sampler": "grid", "pruner": "none", "parameters": known.get("parameters")} | said
        said["parameters"], said["points"] = _columns(base, said["parameters"], said["points"])
    asked = Study(**(known | said))
    if asked.points:
        asked = replace(asked, trials=min(asked.trials, len(asked.points)))
    _check(asked, base)
    if old:
        _same(old, asked, runs)
    return asked


def _columns(
    base: Recipe, varied: Sequence[Parameter], points: Sequence[Any]
) -> tuple[tuple[Parameter, ...], tuple[tuple[Any, ...], ...]]:
    """The parameters with the points' values as choices, and the points, as the recipe takes their values.

    Errors: BadCommand, BadRecipe.
    """
    for point in points or [()]:
        if not isinstance(point, tuple) or len(point) != len(varied):
            wanted = ", ".join(p.name for p in varied)
            raise BadCommand(f"point {point!r} is not a list of one value for each of {wanted}")
    columns = [[taken(base, p.path, repr(point[i])) for point in points] for i, p in enumerate(varied)]
    parameters = (replace(p, choices=tuple(dict.fromkeys(column))) for p, column in zip(varied, columns, strict=True))
    return tuple(parameters), tuple(zip(*columns, strict=True))


def files() -> dict[str, str]:
    """The ready-made studies by name, with the first line of each."""
    return {file.stem: file.read_text().partition("\n")[0].lstrip("# ") for file in sorted(FILES.glob("*.toml"))}


def from_file(what: str) -> dict[str, Any]:
    """What a study's file says, as `given` of `study`; a recipe's name stands for a file that says nothing else.

    Errors: UnknownName, BadRecipe.
    """
    file = Path(what) if what.endswith(".toml") else FILES / f"{what}.toml"
    if not file.is_file():
        recipes = registry.recipe_names()
        if what not in recipes:
            raise UnknownName("recipe or study", what, [*files(), *recipes], fix="`harness list studies` shows those")
        return {"recipe": what}
    try:
        data = tomllib.loads(file.read_text())
    except ValueError as error:
        raise BadRecipe(f"{file} is not TOML: {error}") from error
    for key, value in data.items():
        if key not in KEYS:
            raise UnknownName("key of a study", key, KEYS, fix=f"in {file}")
        texts = all(isinstance(one, str) for one in value) if key in ("set", "coefficients") and value else True
        if not texts or type(value) is not KEYS[key]:
            wanted = f"{KEYS[key].__name__}" + (" of texts" if not texts else "")
            raise BadRecipe(f"{file}: {key} is {value!r}, expected {wanted}")
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
    if asked.every > base.budget.epochs:
        raise BadCommand(f"{where}: every is {asked.every}, expected no more than the {base.budget.epochs} epochs")
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
        if f.name not in FREE and getattr(asked, f.name) != getattr(old, f.name):
            raise _other(old, f.name, getattr(asked, f.name), runs)


def _other(old: Study, key: str, ours: Any, runs: Path) -> RunConflict:
    theirs = getattr(old, key)
    spelled = [", ".join(map(str, v)) or "none" if isinstance(v, tuple) else repr(v) for v in (theirs, ours)]
    return RunConflict(
        f"study {old.name!r} in {old.folder(runs)} has other {key}: {spelled[0]}; you ask for {spelled[1]}; "
        "choose another name with --study, or leave the option out"
    )
