"""Which settings of a recipe a study varies: coefficients that its method declares, or any setting with a range.

As text: `variance`, declared by the method; `variance=1..100`; `optimiser.lr=1e-4..1e-2:log`; `budget.batch=128|256`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from itertools import product
from typing import Any

from harness import registry
from harness.api import MethodConfig
from harness.errors import BadCommand, UnknownName
from harness.recipe import UNSHAPING, Recipe


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """A setting that trials vary. path: in the recipe. low to high, on a log scale or not; or one of the choices.

    whole: integers only. source: where the range comes from.
    """

    name: str
    path: str
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    whole: bool = False
    choices: tuple[Any, ...] = ()
    source: str = field(default="", compare=False)

    def __str__(self) -> str:
        if self.choices:
            return f"{self.path} in {' | '.join(map(str, self.choices))}"
        return f"{self.path} from {self.low:g} to {self.high:g}" + (", log" if self.log else "")

    def levels(self, count: int) -> tuple[Any, ...]:
        """The choices, or so many values from low to high, evenly on the parameter's scale."""
        if self.choices:
            return self.choices
        shares = [i / (count - 1) for i in range(count)]
        if self.log:
            values = [self.low * (self.high / self.low) ** share for share in shares]
        else:
            values = [self.low + (self.high - self.low) * share for share in shares]
        neat = (round(v) if self.whole else min(max(float(f"{v:.6g}"), self.low), self.high) for v in values)
        return tuple(dict.fromkeys(neat))


def parameters(base: Recipe, texts: Sequence[str], points: bool = False) -> tuple[Parameter, ...]:
    """What the texts name; without any, the coefficients that the method declares, or, if none, its tunables.

    points: the values are given apart, so any setting's path will do.

    Errors: BadCommand, UnknownName.
    """
    known = declared(base)
    if not texts:
        weights = [name for name, (_, kind) in known.items() if kind == "coefficient"]
        texts = weights or list(known)
    if not texts:
        raise BadCommand(
            f"{base.method.label} declares nothing to vary; say what, for example --coefficients "
            "optimiser.lr=1e-4..1e-2:log"
        )
    found = [parameter(base, text, points) for text in texts]
    twice = [p.path for p in found if sum(q.path == p.path for q in found) > 1]
    if twice:
        raise BadCommand(f"{twice[0]} is given twice; once is enough")
    shared = {p.name for p in found if sum(q.name == p.name for q in found) > 1}
    return tuple(replace(p, name=p.path) if p.name in shared else p for p in found)


def parameter(base: Recipe, text: str, points: bool = False) -> Parameter:
    """`name` as the method declares it; `name=LOW..HIGH`; `path=LOW..HIGH[:log]`; or `path=A|B|C`.

    Errors: BadCommand, UnknownName, BadRecipe for a value that the recipe cannot take.
    """
    name, sign, values = (part.strip() for part in text.partition("="))
    known = declared(base)
    at = [found for found, _ in known.values() if name in (found.name, found.path)]
    if not at and not sign and not points:
        raise UnknownName(
            "coefficient", name, known, fix="or give any setting a range, as in optimiser.lr=1e-4..1e-2:log"
        )
    found = at[0] if at else Parameter(name=name.rpartition(".")[2], path=name)
    now = value_at(base, found.path)
    if found.path.partition(".")[0] in UNSHAPING:
        raise BadCommand(f"{text!r}: {found.path} does not shape a run, there is nothing to vary")
    if not sign:
        return found
    if "|" in values or ".." not in values:
        choices = tuple(dict.fromkeys(taken(base, found.path, one) for one in values.split("|")))
        if len(choices) < 2:
            raise BadCommand(f"{text!r}: one choice is nothing to vary; expected A|B|... or LOW..HIGH")
        return Parameter(name=found.name, path=found.path, choices=choices, source="given")
    ends, _, scale = (part.strip() for part in values.partition(":"))
    low, _, high = ends.partition("..")
    if scale not in ("", "log", "linear"):
        raise BadCommand(f"{text!r}: the scale is {scale!r}, expected log or linear, as in optimiser.lr=1e-4..1e-2:log")
    if isinstance(now, bool) or not isinstance(now, int | float):
        raise BadCommand(f"{text!r}: {found.path} is {now!r}, no number; give choices, as in {found.path}=A|B")
    try:
        ends_at = float(low), float(high)
    except ValueError:
        raise BadCommand(f"{text!r}: {ends!r} is no range; expected LOW..HIGH, as in 1e-4..1e-2") from None
    whole, log = isinstance(now, int), scale == "log" if scale else found.log
    for end in ends_at:  # a whole number is spelled as one; another there is refused by the recipe
        taken(base, found.path, str(int(end)) if whole and end.is_integer() else repr(end))
    return Parameter(
        name=found.name, path=found.path, low=ends_at[0], high=ends_at[1], log=log, whole=whole, source="given"
    )


def declared(base: Recipe) -> dict[str, tuple[Parameter, str]]:
    """What the recipe's method, and one that it wraps, declare: by name, with "coefficient" or "tunable"."""
    found: dict[str, tuple[Parameter, str]] = {}

    def walk(config: MethodConfig, path: str) -> None:
        for kind, ranges in (("coefficient", config.coefficients()), ("tunable", config.tunables())):
            for name, one in ranges.items():
                whole = isinstance(getattr(config, name), int)
                short = name if name not in found else f"{path}.{name}"
                found[short] = (
                    Parameter(
                        name=short, path=f"{path}.{name}", low=one.low, high=one.high, log=one.log, whole=whole,
                        source=one.source,
                    ),
                    kind,
                )  # fmt: skip
        for f in fields(config):
            inner = getattr(config, f.name)
            if isinstance(inner, MethodConfig):
                walk(inner, f"{path}.{f.name}")

    walk(base.method, "method")
    return found


def grid(over: Sequence[Parameter], trials: int) -> tuple[tuple[Any, ...], ...]:
    """All combinations of choices and of evenly spaced values, as many of these as `trials` allow.

    Errors: BadCommand if there is not room for two of each.
    """
    fixed = 1
    for p in over:
        fixed *= len(p.choices) or 1
    ranges = sum(not p.choices for p in over)
    count = max((n for n in range(2, trials + 1) if fixed * n**ranges <= trials), default=2)
    points = tuple(product(*(p.levels(count) for p in over)))
    if len(points) > trials:
        raise BadCommand(f"a grid over these {len(over)} settings has {len(points)} points at least; raise --trials")
    return points


def value_at(recipe: Recipe, path: str) -> Any:
    """The value of a setting, by its path. Errors: UnknownName."""
    node: Any = recipe
    for part in path.split("."):
        if isinstance(node, tuple) and part.isdigit() and int(part) < len(node):
            node = node[int(part)]
        elif is_dataclass(node) and part in {f.name for f in fields(node)}:
            node = getattr(node, part)
        else:
            known = [f.name for f in fields(node)] if is_dataclass(node) else []
            raise UnknownName("setting", part, known, fix=f"in {path}")
    return node


def taken(base: Recipe, path: str, text: str) -> Any:
    """A value as the recipe takes it there, from its spelling. Errors: BadRecipe, UnknownName."""
    return value_at(registry.recipe(base.name, (*base.overrides, f"{path}={text}")), path)


def tuples(value: Any) -> Any:
    """Lists, as JSON and TOML have them, as the tuples that a recipe has."""
    return tuple(map(tuples, value)) if isinstance(value, list | tuple) else value
