"""Claims: what somebody printed, as typed data with its source. One TOML file per paper in results/claims/.

Three kinds. `value`: our number equals the printed one. `ordering`: recipe `better` beats recipe `worse`. `collapse`:
with this setting training collapses, or trains. An ordering or a collapse may be checked at a reduced scale, and then
says what is reduced; a value may not. Where the reduced scale is known not to show the pattern, `known` says so, and
*differs* is expected. Every field and its meaning: results/README.md. No derived field is stored.
"""

import tomllib
from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import MISSING, dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from harness.errors import BadClaim

SCHEMA = 1
SELECTIONS = ("last", "best-on-val", "best-on-test", "unstated")
SOURCES = ("paper", "supplement", "repository", "erratum", "transcription")
CHOICES = {
    "kind": ("value", "ordering", "collapse"),
    "scale": ("paper", "reduced"),
    "selection": SELECTIONS,
    "expect": ("collapse", "train"),
    "split": ("test", "held_out"),
    "source.kind": SOURCES,
    "spread.kind": ("std", "sem", "ci95", "range", "unstated"),
    "seeds.kind": ("count", "unstated"),
}


@dataclass(frozen=True, kw_only=True)
class Paper:
    title: str
    authors: str
    venue: str
    arxiv: str


@dataclass(frozen=True, kw_only=True)
class Spread:
    """value: as printed; only where it is stated."""

    kind: str
    value: str = ""


@dataclass(frozen=True, kw_only=True)
class Seeds:
    kind: str
    value: int = 0


@dataclass(frozen=True, kw_only=True)
class Allowance:
    """A tolerance or a margin, in the unit of the metric, and why it is that large."""

    value: str
    why: str


@dataclass(frozen=True, kw_only=True)
class Source:
    """at: commit, version or date of what was read. quote: verbatim, and it contains what is claimed.

    read_by: who compared the claim with the source, one reader at least.
    """

    kind: str
    where: str
    at: str
    table: str
    row: str
    column: str
    quote: str
    read_by: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Claim(ABC):
    """What all kinds share. dataset, split, protocol and metric name where in *our* records the answer stands.

    reduced: what our recipe changes. known: why that is known not to show the pattern (what was measured, and when).
    """

    id: str
    kind: str
    dataset: str
    seeds: Seeds
    selection: str
    scale: str
    reduced: str = ""
    known: str = ""
    source: Source

    @property
    @abstractmethod
    def recipes(self) -> tuple[str, ...]:
        """The recipes it is about; "" stands for one that nobody has written."""

    @property
    @abstractmethod
    def printed(self) -> tuple[str, ...]:
        """The texts that must stand in the quote."""


@dataclass(frozen=True, kw_only=True)
class Value(Claim):
    """recipe: our attempt, "" as long as nobody has tried. value: as printed, its digits carry the rounding."""

    recipe: str
    split: str
    protocol: str
    metric: str
    unit: str
    value: str
    spread: Spread
    tolerance: Allowance

    @property
    def recipes(self) -> tuple[str, ...]:
        return (self.recipe,) if self.recipe else ()

    @property
    def printed(self) -> tuple[str, ...]:
        return (self.value,)

    @property
    def half_unit(self) -> float:
        """Half a unit of the last printed digit: 92.07 -> 0.005."""
        return 0.5 * 10.0 ** -len(self.value.partition(".")[2])


@dataclass(frozen=True, kw_only=True)
class Ordering(Claim):
    """better beats worse by more than the margin; better_value and worse_value are what the source prints for them."""

    better: str
    worse: str
    better_value: str
    worse_value: str
    split: str
    protocol: str
    metric: str
    unit: str
    margin: Allowance

    @property
    def recipes(self) -> tuple[str, ...]:
        return (self.better, self.worse)

    @property
    def printed(self) -> tuple[str, ...]:
        return (self.better_value, self.worse_value)


@dataclass(frozen=True, kw_only=True)
class Collapse(Claim):
    """value: the printed cell, "collapse" or the accuracy that was reached."""

    recipe: str
    expect: str
    value: str

    @property
    def recipes(self) -> tuple[str, ...]:
        return (self.recipe,)

    @property
    def printed(self) -> tuple[str, ...]:
        return (self.value,)


KINDS: dict[str, type[Claim]] = {"value": Value, "ordering": Ordering, "collapse": Collapse}


@dataclass(frozen=True)
class File:
    name: str
    paper: Paper
    claims: tuple[Claim, ...]


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
    """One claims file. recipes: the names that exist; None skips that check. Errors: BadClaim."""
    try:
        data = tomllib.loads(path.read_text())
    except OSError as error:
        raise BadClaim(f"cannot read {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadClaim(f"{path.name} is not TOML: {error}") from error
    return parse(data, path.name, recipes)


def parse(data: dict[str, Any], name: str, recipes: Collection[str] | None = None) -> File:
    """The content of a claims file as typed claims. Errors: BadClaim."""
    _known(data, ("schema", "paper", "claim"), ("schema", "paper", "claim"), name)
    if data["schema"] != SCHEMA:
        raise BadClaim(f"{name}: schema = {data['schema']!r}, expected {SCHEMA}")
    if not isinstance(data["claim"], list) or not all(isinstance(item, dict) for item in data["claim"]):
        raise BadClaim(f"{name}: claims are written as [[claim]], with double brackets")
    claims: list[Claim] = []
    for number, item in enumerate(data["claim"], 1):
        where = f"{name} claim {number} ({item.get('id', 'without id')})"
        kind = item.get("kind", MISSING)
        if kind is MISSING:
            raise BadClaim(f"{where}: field 'kind' is missing; expected one of {', '.join(KINDS)}")
        _choice("kind", kind, where)
        claim = _build(KINDS[kind], item, where)
        _check(claim, where, recipes)
        if claim.id in [other.id for other in claims]:
            raise BadClaim(f"{where}: a claim before it has the same id; an id is unique and never reused")
        claims.append(claim)
    return File(name, _build(Paper, data["paper"], f"{name} paper"), tuple(claims))


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
    for recipe in claim.recipes if recipes is not None else ():
        if recipe not in (recipes or ()):
            raise BadClaim(f"{where}: no recipe {recipe!r}{_nearest(recipe, recipes or ())}")


def _pair(spread: Spread | None) -> tuple[str, str]:
    return (spread.kind, spread.value) if spread else ("unstated", "")


def _build(cls: type[Any], table: Any, where: str, prefix: str = "") -> Any:
    """A dataclass from a TOML table: no unknown field, none missing, every type as declared."""
    if not isinstance(table, dict):
        raise BadClaim(f"{where}: {prefix.rstrip('.')} is {table!r}, expected a table {{ ... }}")
    declared = {field.name: field for field in fields(cls)}
    required = [name for name, field in declared.items() if field.default is MISSING]
    _known(table, declared, required, where, prefix)
    types = get_type_hints(cls)
    return cls(**{name: _convert(types[name], value, where, prefix + name) for name, value in table.items()})


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
    if name.endswith(".value") and name.split(".")[0] in ("tolerance", "margin"):
        _number(value, where, name)
    if name in CHOICES:
        _choice(name, value, where)
    if value == "" and name not in ("recipe", "reduced", "spread.value"):
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
