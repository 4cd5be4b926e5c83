"""Methods, recipes, protocols and launchers by file name. The only module that imports by name.

There is no list to edit: a file in methods/ is a method, a public function in sweeps/ is a recipe, a file in
harness/evals/ is a protocol.
"""

import ast
import importlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass, replace
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, get_type_hints

from harness.errors import BadRecipe, UnknownName

if TYPE_CHECKING:
    from harness.recipe import Recipe  # it needs torch, and most names are read without

ROOT = Path(__file__).resolve().parent.parent
KINDS = {"methods": "method", "sweeps": "recipe file", "harness.evals": "protocol", "slurm": "launcher"}


def names(package: str) -> list[str]:
    """The modules of a package, in alphabetical order, without importing one."""
    folder = ROOT.joinpath(*package.split("."))
    return sorted(path.stem for path in folder.glob("*.py") if not path.stem.startswith("_"))


def load(package: str, name: str) -> ModuleType:
    """A module of a package by its name. Errors: UnknownName with the nearest name."""
    if name not in names(package):
        raise UnknownName(
            KINDS[package], name, names(package), fix=f"to add one, write {package.replace('.', '/')}/{name}.py"
        )
    return importlib.import_module(f"{package}.{name}")


@cache
def recipe_names() -> dict[str, str]:
    """Recipe name -> the file in sweeps/ that defines it. Reads the files, imports none."""
    found: dict[str, str] = {}
    for module in names("sweeps"):
        try:
            tree = ast.parse((ROOT / "sweeps" / f"{module}.py").read_text())
        except SyntaxError as error:
            raise BadRecipe(f"sweeps/{module}.py is not Python: {error}") from error
        for node in tree.body:
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_") and not node.args.args:
                if node.name in found:
                    raise BadRecipe(
                        f"two recipes are named {node.name!r}: sweeps/{found[node.name]}.py and sweeps/{module}.py"
                    )
                found[node.name] = module
    return found


def matching(patterns: Sequence[str]) -> list[str]:
    """The recipes that patterns like "vicreg_*" mean, in the order given, each once. Errors: UnknownName."""
    found: dict[str, None] = {}
    for pattern in patterns:
        known = [name for name in recipe_names() if fnmatchcase(name, pattern)]
        if not known:
            raise UnknownName("recipe", pattern, recipe_names(), fix="`harness list` shows all")
        found |= dict.fromkeys(known)
    return list(found)


@cache
def data_names() -> tuple[str, ...]:
    """What `harness.data.NAMES` holds, in that order. Reads the file, does not import it."""
    body = ast.parse((ROOT / "harness" / "data" / "sets.py").read_text()).body
    values = {
        ast.unparse(target): node.value for node in body if isinstance(node, ast.Assign) for target in node.targets
    }

    def texts(node: ast.AST) -> Iterator[str]:
        for part in ast.walk(node):
            if isinstance(part, ast.Constant):
                yield str(part.value)
            elif isinstance(part, ast.Name) and isinstance(table := values.get(part.id), ast.Dict):
                yield from (str(ast.literal_eval(key)) for key in table.keys if key)

    return tuple(sorted(texts(values["NAMES"])))


@cache
def protocol_ids() -> dict[str, re.Pattern[str]]:
    """Protocol -> what its ids look like, from `Config.id`. Reads the files, imports none."""
    found = {}
    for name in names("harness.evals"):
        tree = ast.parse((ROOT / "harness" / "evals" / f"{name}.py").read_text())
        bodies = [node.body for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == "id"]
        (returned,) = bodies[0] if bodies else (None,)
        found[name] = re.compile(_looks(returned.value) if isinstance(returned, ast.Return) else re.escape(name))
    return found


def _looks(node: ast.expr | None) -> str:
    """The pattern of the texts that an expression can give; a setting is anything without an underscore."""
    if isinstance(node, ast.Constant):
        return re.escape(str(node.value))
    if isinstance(node, ast.JoinedStr):
        return "".join(map(_looks, node.values))
    if isinstance(node, ast.BinOp):
        return _looks(node.left) + _looks(node.right)
    if isinstance(node, ast.IfExp):
        return f"(?:{_looks(node.body)}|{_looks(node.orelse)})"
    return "[^_]+"


def protocol_id(name: str) -> str:
    """What records call a protocol with its default settings; what is no protocol's name is such an id already."""
    return str(load("harness.evals", name).Config().id) if name in names("harness.evals") else name


def recipe(name: str, overrides: tuple[str, ...] = ()) -> "Recipe":
    """The recipe of that name, checked, with overrides such as "method.variance=10" applied.

    Errors: UnknownName, BadRecipe.
    """
    from harness.recipe import check

    where = recipe_names()
    if name not in where:
        raise UnknownName("recipe", name, where, fix="`harness list` shows all")
    try:
        kept: list[str] = []
        found = replace(getattr(load("sweeps", where[name]), name)(), name=name)
        for text in overrides:
            changed = override(found, text)
            if shaping(changed) != shaping(found):  # neither the default spelled out, nor what is only measured
                kept.append(text)
            found = changed
    except (ValueError, TypeError) as error:  # a Config's own check
        raise BadRecipe(f"recipe {name!r}: {error}") from error
    found = replace(found, overrides=tuple(kept))
    check(found)
    return found


def shaping(found: "Recipe") -> "Recipe":
    """The recipe with the defaults for all that does not shape the weights, for comparing."""
    from harness.recipe import UNSHAPING, Recipe

    defaults: dict[str, Any] = {f.name: f.default for f in fields(Recipe) if f.name in UNSHAPING}
    return replace(found, **defaults)


def override(found: "Recipe", text: str) -> "Recipe":
    """One `path=value` applied to a recipe, e.g. "optimiser.lr=0.1" or "views.0.flip=0"."""
    path, sign, value = text.partition("=")
    if not sign:
        raise BadRecipe(f"override {text!r} is not of the form path=value, for example optimiser.lr=0.1")
    if path.split(".")[0] in ("name", "overrides"):
        raise BadRecipe(f"override {text!r}: a recipe's name and overrides are not settings")
    if path.split(".")[0] == "evals":
        raise BadRecipe(f"override {text!r}: evaluations do not shape a run; `harness eval` adds to a finished one")
    changed: Recipe = _set(found, path.split("."), value, text)
    return changed


def _set(node: Any, path: list[str], value: str, text: str) -> Any:
    """A copy of the tree with one leaf replaced."""
    head, rest = path[0], path[1:]
    if isinstance(node, tuple):
        known = [str(i) for i in range(len(node))]
        if head not in known:
            raise UnknownName("position", head, known, fix=f"in override {text!r}")
        items, i = list(node), int(head)
        items[i] = _set(items[i], rest, value, text) if rest else _parse(value, items[i], type(items[i]), text)
        return tuple(items)
    known = [f.name for f in fields(node)] if is_dataclass(node) else []
    if head not in known:
        raise UnknownName("setting", head, known, fix=f"in override {text!r}")
    old = getattr(node, head)
    hint = get_type_hints(type(node))[head]
    return replace(node, **{head: _set(old, rest, value, text) if rest else _parse(value, old, hint, text)})


def _parse(value: str, old: Any, hint: Any, text: str) -> Any:
    from typeguard import TypeCheckError, check_type

    if is_dataclass(old) or (isinstance(old, tuple) and any(map(is_dataclass, old))):
        raise BadRecipe(f"override {text!r}: that is a group of settings; give one of them, as in optimiser.lr=0.1")
    try:
        new = ast.literal_eval(value)
    except (ValueError, SyntaxError):
        new = {"true": True, "false": False, "none": None}.get(value.lower(), value)
    if isinstance(old, float) and type(new) is int:
        new = float(new)
    try:
        check_type(new, hint)
    except TypeCheckError as error:
        wanted = getattr(hint, "__name__", str(hint)) if isinstance(hint, type) else str(hint)
        raise BadRecipe(f"override {text!r}: expected {wanted} (now {old!r}), got {new!r}") from error
    return new


def first_line(package: str, name: str) -> str:
    """The first line of a module's docstring, read from the file."""
    source = ROOT.joinpath(*package.split("."), f"{name}.py").read_text()
    return (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0]
