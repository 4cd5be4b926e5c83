"""Reads claims, strictly: one line per mistake, with its file, its place and how to mend it."""

import csv
import tomllib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import MISSING, fields
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from harness.claims.kinds import CHOICES, KINDS, Claim, File, Paper, Spread, Value
from harness.errors import BadClaim
from harness.provenance import ROOT

FOLDER = ROOT / "results" / "claims"
SCHEMA = 2
EMPTY = ("recipe", "better", "worse", "one", "other", "reduced", "spread.value")  # may say "none yet"


def load_all(folder: Path, recipes: Collection[str] | None = None) -> list[File]:
    """All claims files of a folder, by name. Errors: BadClaim, also for an id that two files use."""
    files = [load(path, recipes) for path in sorted(folder.glob("*.toml"))]
    owner: dict[str, str] = {}
    for file in files:
        for claim in file.claims:
            other = owner.setdefault(claim.id, file.name)
            if other != file.name:
                raise BadClaim(f"{file.name}: id {claim.id!r} is taken by {other}; an id is unique and never reused")
    return files


def load(path: Path, recipes: Collection[str] | None = None) -> File:
    """A claims file and its table, if one lies beside it. recipes: the names that exist; None skips that check.

    Errors: BadClaim.
    """
    try:
        data = tomllib.loads(path.read_text())
    except OSError as error:
        raise BadClaim(f"cannot read {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadClaim(f"{path.name} is not TOML: {error}") from error
    table = path.with_suffix(".csv")
    if table.exists() != ("bulk" in data):
        raise BadClaim(
            f"{path.name}: [bulk] states the defaults of the rows of {table.name} and belongs to it; "
            + ("the table has none" if table.exists() else "there is no such table")
        )
    rows = list(_rows(table, data["bulk"])) if table.exists() else []
    return parse(data, path.name, recipes, rows)


def parse(
    data: dict[str, Any],
    name: str,
    recipes: Collection[str] | None = None,
    rows: Sequence[tuple[str, dict[str, Any]]] = (),
) -> File:
    """The content of a claims file, and (place, claim) of the rows of its table, as typed claims. Errors: BadClaim."""
    _known(data, ("schema", "paper", "claim", "bulk"), ("schema", "paper"), name)
    if data["schema"] != SCHEMA:
        raise BadClaim(f"{name}: schema = {data['schema']!r}, expected {SCHEMA}")
    own = data.get("claim", [])
    if not isinstance(own, list) or not all(isinstance(item, dict) for item in own):
        raise BadClaim(f"{name}: claims are written as [[claim]], with double brackets")
    claims: dict[str, Claim] = {}
    for place, item in [*((f"{name} claim {number}", item) for number, item in enumerate(own, 1)), *rows]:
        where = f"{place} ({item.get('id', 'without id')})"
        kind = item.get("kind", MISSING)
        if kind is MISSING:
            raise BadClaim(f"{where}: field 'kind' is missing; expected one of {', '.join(KINDS)}")
        _choice("kind", kind, where)
        claim = _build(KINDS[kind], item, where)
        _check(claim, where, recipes)
        if claim.id in claims:
            raise BadClaim(f"{where}: a claim before it has the same id; an id is unique and never reused")
        claims[claim.id] = claim
    return File(name, _build(Paper, data["paper"], f"{name} paper"), tuple(claims.values()))


NESTED = ("source", "seeds", "spread", "tolerance", "margin", "bound")


def _rows(path: Path, defaults: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, claim) of every row: the defaults of [bulk], overridden by the cells that are not empty.

    A default counts for the rows whose kind has such a field, so that one table may hold several kinds.
    A nested field is a column of its own: `source_quote`, `tolerance_value`. `seeds` and `spread` are unstated unless
    `seeds_value` or `spread_value` is given. Readers in `source_read_by` are separated by "; ".
    """
    if not isinstance(defaults, dict):
        raise BadClaim(f"{path.stem}.toml: [bulk] is {defaults!r}, expected a table")
    columns = {kind: set(_columns(cls)) for kind, cls in KINDS.items()}
    known = set[str]().union(*columns.values())
    _known(defaults, known, (), f"{path.stem}.toml [bulk]")
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file, strict=True)
            _known(dict.fromkeys(reader.fieldnames or ()), known, ("id",), path.name)
            for row in reader:
                place = f"{path.name} line {reader.line_num}"
                if None in row or None in row.values():
                    raise BadClaim(f"{place}: {len(reader.fieldnames or ())} cells expected; quote cells with commas")
                given = {name: cell for name, cell in row.items() if cell}
                fitting = columns.get(str(given.get("kind", defaults.get("kind"))), known)
                flat = {name: default for name, default in defaults.items() if name in fitting} | given
                yield place, _unflattened(flat, place)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadClaim(f"cannot read {path}: {error}") from error


def _columns(kind: type[Claim]) -> Iterator[str]:
    for name, wanted in _types(kind).items():
        if name in NESTED:
            yield from (f"{name}_{field.name}" for field in fields(wanted))
        else:
            yield name


def _unflattened(flat: dict[str, Any], place: str) -> dict[str, Any]:
    claim: dict[str, Any] = {"seeds": {"kind": "unstated"}}
    if flat.get("kind") == "value":
        claim["spread"] = {"kind": "unstated"}
    for name, cell in flat.items():
        outer, _, inner = name.partition("_")
        if outer in NESTED and inner:
            claim.setdefault(outer, {})[inner] = cell
        else:
            claim[name] = cell
    if "value" not in claim.get("spread", {"value": ""}):
        claim["spread"] = {"kind": "unstated"}
    if "value" in claim["seeds"]:
        if not str(claim["seeds"]["value"]).isdecimal():
            raise BadClaim(f"{place}: seeds_value = {claim['seeds']['value']!r} must be a whole number")
        claim["seeds"] = {"kind": "count", "value": int(claim["seeds"]["value"])}
    if isinstance(claim.get("source"), dict) and isinstance(claim["source"].get("read_by"), str):
        claim["source"]["read_by"] = claim["source"]["read_by"].split("; ")
    return claim


def _check(claim: Claim, where: str, recipes: Collection[str] | None) -> None:
    """What no single field can tell."""
    if (claim.scale == "reduced") != bool(claim.reduced):
        raise BadClaim(
            f'{where}: `reduced` says what our recipe changes; it belongs to scale = "reduced" and only to it'
        )
    if claim.known and claim.scale != "reduced":
        raise BadClaim(
            f'{where}: `known` says why a reduced scale does not show the pattern; it belongs to scale = "reduced" only'
        )
    if isinstance(claim, Value):
        _number(claim.value, where, "value")
    if claim.kind == "value" and claim.scale != "paper":
        raise BadClaim(
            f'{where}: a value cannot be checked at a reduced scale; make it an ordering, or use scale = "paper"'
        )
    if claim.obstacle and claim.recipes:
        raise BadClaim(f"{where}: `obstacle` says why no recipe can attempt it, and yet it names {claim.recipes[0]!r}")
    for text in claim.printed:
        if text not in claim.source.quote:
            raise BadClaim(
                f"{where}: {text!r} does not stand in source.quote {claim.source.quote!r}; copy both from the source"
            )
    if not claim.source.read_by:
        raise BadClaim(f"{where}: source.read_by is empty; name who compared the claim with the source")
    stated = getattr(claim, "spread", None)
    for name, state, value in (("seeds", claim.seeds.kind, claim.seeds.value), ("spread", *_pair(stated))):
        if (state == "unstated") == bool(value):
            raise BadClaim(
                f'{where}: {name} needs a value, and kind "unstated" has none; got kind {state!r}, value {value!r}'
            )
    if stated and stated.value:
        _number(stated.value, where, "spread.value")
    for recipe in claim.recipes if recipes is not None else ():
        if recipe not in (recipes or ()):
            raise BadClaim(f"{where}: no recipe {recipe!r}{_nearest(recipe, recipes or ())}")


def _pair(spread: Spread | None) -> tuple[str, str]:
    return (spread.kind, spread.value) if spread else ("unstated", "")


def _build(cls: Any, table: Any, where: str, prefix: str = "") -> Any:
    """A dataclass from a TOML table: no unknown field, none missing, every type as declared."""
    if not isinstance(table, dict):
        raise BadClaim(f"{where}: {prefix.rstrip('.')} is {table!r}, expected a table {{ ... }}")
    declared = {field.name: field for field in fields(cls)}
    required = [name for name, field in declared.items() if field.default is MISSING]
    _known(table, declared, required, where, prefix)
    types = _types(cls)
    return cls(**{name: _convert(types[name], value, where, prefix + name) for name, value in table.items()})


@cache
def _types(cls: type[Any]) -> dict[str, Any]:
    """Resolving them takes as long as reading the rest of a claim."""
    return get_type_hints(cls)


def _convert(wanted: Any, value: Any, where: str, name: str) -> Any:
    if hasattr(wanted, "__dataclass_fields__"):
        return _build(wanted, value, where, f"{name}.")
    if get_origin(wanted) is tuple:
        if not isinstance(value, list):
            raise BadClaim(f"{where}: {name} = {value!r} must be a list of texts")
        return tuple(_convert(get_args(wanted)[0], item, where, name) for item in value)
    if wanted is str and isinstance(value, int | float) and not isinstance(value, bool):
        raise BadClaim(f"{where}: {name} = {value!r} must be quoted, so that its printed digits survive")
    if type(value) is not wanted:
        raise BadClaim(f"{where}: {name} = {value!r} must be {'text' if wanted is str else 'a whole number'}")
    if name.endswith(".value") and name.split(".")[0] in ("tolerance", "margin", "bound"):
        _number(value, where, name)
    if name in CHOICES:
        _choice(name, value, where)
    if value == "" and name not in EMPTY:
        raise BadClaim(f'{where}: {name} is empty; "unstated" is a value, an empty text is not')
    return value


def _number(text: str, where: str, name: str) -> None:
    try:
        good = float(text) >= 0
    except ValueError:
        good = False
    if not good:
        raise BadClaim(f"{where}: {name} = {text!r} must be a number of at least 0, in quotes")


def _choice(name: str, value: Any, where: str) -> None:
    if value not in CHOICES[name]:
        raise BadClaim(f"{where}: {name} = {value!r}, expected one of {', '.join(CHOICES[name])}")


def _known(
    table: dict[str, Any], known: Collection[str], required: Sequence[str], where: str, prefix: str = ""
) -> None:
    for name in table:
        if name not in known:
            raise BadClaim(f"{where}: unknown field {prefix + name!r}{_nearest(name, known)}")
    for name in required:
        if name not in table:
            raise BadClaim(f"{where}: field {prefix + name!r} is missing")


def _nearest(name: str, known: Collection[str]) -> str:
    near = get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(sorted(known))}"
