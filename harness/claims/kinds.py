"""What a claim says, as types. Every field and its meaning: results/README.md. No derived field is stored."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

CHOICES = {
    "kind": ("value", "ordering", "equivalence", "collapse", "bound"),
    "scale": ("paper", "reduced"),
    "origin": ("own", "quoted"),
    "selection": ("last", "best-on-val", "best-on-test", "unstated"),
    "expect": ("collapse", "train"),
    "relation": ("below", "above"),
    "split": ("test", "held_out"),
    "source.kind": ("paper", "supplement", "repository", "erratum", "transcription", "expectation"),
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

    read_by: who compared the claim with the source, one reader at least. kind `expectation`: nobody printed it; it
    follows from the equations, and `quote` is our own sentence.
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
    """What all kinds share. method, backbone, epochs, batch and details say what the source did, as it prints it.

    method: our file's name where we have it. dataset: our name where we have the set. details: how the source
    evaluates (k, temperature, network, layer, online or offline). origin: whether the source quotes somebody else.
    reduced: what our recipe changes. known: why that is known not to show the pattern (what was measured, and when).
    doubt: why the print itself may be wrong. obstacle: why no recipe can attempt it, where only a person can tell.
    """

    id: str
    kind: str
    method: str
    dataset: str
    backbone: str
    epochs: str
    batch: str
    details: str
    origin: str
    seeds: Seeds
    selection: str
    scale: str
    reduced: str = ""
    known: str = ""
    doubt: str = ""
    obstacle: str = ""
    source: Source

    @property
    @abstractmethod
    def recipes(self) -> tuple[str, ...]:
        """Our attempts; empty as long as nobody has written one."""

    @property
    @abstractmethod
    def printed(self) -> tuple[str, ...]:
        """The texts that must stand in the quote."""

    @property
    @abstractmethod
    def said(self) -> str:
        """What the source says, in short: a number with its unit and spread, or what is said of two."""


@dataclass(frozen=True, kw_only=True)
class Scored(Claim):
    """A claim about a score. split, protocol, metric: where in our records the answer stands."""

    split: str
    protocol: str
    metric: str
    unit: str

    @property
    def column(self) -> str:
        """Of `tracking.table`."""
        return f"{self.split}/{self.protocol}/{self.metric}"


@dataclass(frozen=True, kw_only=True)
class Value(Scored):
    """Our number equals the printed one. value: as printed, its digits carry the rounding."""

    recipe: str = ""
    value: str
    spread: Spread
    tolerance: Allowance

    @property
    def recipes(self) -> tuple[str, ...]:
        return _given(self.recipe)

    @property
    def printed(self) -> tuple[str, ...]:
        return (self.value,)

    @property
    def said(self) -> str:
        spread = f" ± {self.spread.value} ({self.spread.kind})" if self.spread.value else ""
        return f"{self.value}{spread} {_sign(self.unit)}"

    @property
    def half_unit(self) -> float:
        """Half a unit of the last printed digit: 92.07 -> 0.005."""
        return 0.5 * 10.0 ** -len(self.value.partition(".")[2])


@dataclass(frozen=True, kw_only=True)
class Ordering(Scored):
    """better beats worse by more than the margin; better_value and worse_value are what the source prints for them."""

    better: str = ""
    worse: str = ""
    better_value: str
    worse_value: str
    margin: Allowance

    @property
    def recipes(self) -> tuple[str, ...]:
        return _given(self.better, self.worse)

    @property
    def printed(self) -> tuple[str, ...]:
        return (self.better_value, self.worse_value)

    @property
    def said(self) -> str:
        return f"{self.better_value} > {self.worse_value} {_sign(self.unit)}"


@dataclass(frozen=True, kw_only=True)
class Equivalence(Scored):
    """Recipes `one` and `other` differ by less than the tolerance."""

    one: str = ""
    other: str = ""
    one_value: str
    other_value: str
    tolerance: Allowance

    @property
    def recipes(self) -> tuple[str, ...]:
        return _given(self.one, self.other)

    @property
    def printed(self) -> tuple[str, ...]:
        return (self.one_value, self.other_value)

    @property
    def said(self) -> str:
        return f"{self.one_value} ≈ {self.other_value} {_sign(self.unit)}"


@dataclass(frozen=True, kw_only=True)
class Collapse(Claim):
    """With this recipe training collapses, or trains. value: the printed cell, "collapse" or the accuracy reached."""

    recipe: str = ""
    expect: str
    value: str

    @property
    def recipes(self) -> tuple[str, ...]:
        return _given(self.recipe)

    @property
    def printed(self) -> tuple[str, ...]:
        return (self.value,)

    @property
    def said(self) -> str:
        return self.expect + (f": {self.value}" if self.value != self.expect else "")


@dataclass(frozen=True, kw_only=True)
class Bound(Claim):
    """A measured number of every run lies below, or above, a bound. measure: a column of `tracking.table`."""

    recipe: str = ""
    measure: str
    relation: str
    bound: Allowance
    unit: str
    value: str

    @property
    def recipes(self) -> tuple[str, ...]:
        return _given(self.recipe)

    @property
    def printed(self) -> tuple[str, ...]:
        return (self.value,)

    @property
    def said(self) -> str:
        return f"{self.measure} {self.relation} {self.bound.value} {_sign(self.unit)}: {self.value}"


def _given(*recipes: str) -> tuple[str, ...]:
    return recipes if all(recipes) else ()


def _sign(unit: str) -> str:
    return unit.replace("percent", "%")


KINDS: dict[str, type[Claim]] = {
    "value": Value,
    "ordering": Ordering,
    "equivalence": Equivalence,
    "collapse": Collapse,
    "bound": Bound,
}


@dataclass(frozen=True)
class File:
    """What one source claims. name: of the TOML file."""

    name: str
    paper: Paper
    claims: tuple[Claim, ...]
