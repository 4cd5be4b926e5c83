"""The methods as a catalogue: what each is, needs, lets vary and costs. Printed, or as the page methods/README.md.

All of it is read from a method's file and its recipes, so a new file in methods/ is a new entry.
"""

import ast
import inspect
import re
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, Field, asdict, dataclass, fields, replace
from functools import cache
from typing import Any

from harness import cost, registry
from harness.api import MethodConfig, Requirements
from harness.data.sets import GENERATED
from harness.recipe import Recipe

YARDSTICK, BATCH = "simclr_cifar10_r18_e200", 256  # costs are those of its data set and encoder, over its own
EMBEDDED = ("digits", *GENERATED)  # data sets that need no files
KINDS = ("coefficient", "tunable")


@dataclass(frozen=True)
class Setting:
    """A field of a `Config` with a range. kind: "coefficient" or "tunable"."""

    name: str
    kind: str
    default: Any
    low: float
    high: float
    log: bool
    source: str


@dataclass(frozen=True)
class Entry:
    """A method. paper, loss, oracle, departs: from the header of its file. about: of the defaults, the Config's own.

    others: names and defaults of the settings without a range. embedded: its recipes on embedded data.
    costed: the recipe whose step is counted, "" for none; cost: its FLOPs per image over the yardstick's.
    """

    name: str
    title: str
    line: str
    paper: str
    loss: str
    oracle: str
    departs: str
    lines: int
    about: str
    settings: tuple[Setting, ...]
    others: tuple[tuple[str, str], ...]
    requirements: Requirements | None
    embedded: tuple[str, ...]
    costed: str
    cost: float | None

    @property
    def needs(self) -> str:
        return "–" if self.requirements is None else "; ".join(in_words(self.requirements))

    def to_data(self) -> dict[str, Any]:
        """JSON-ready."""
        return {**asdict(self), "others": dict(self.others)}


def header(name: str) -> dict[str, str]:
    """The lines Paper, Loss, Oracle, Departs, Shapes of a method's file, each in one line; the file is only read."""
    text = ast.get_docstring(ast.parse((registry.ROOT / "methods" / f"{name}.py").read_text())) or ""
    found: dict[str, str] = {}
    for line in text.splitlines()[1:]:
        if line and not line[0].isspace():
            word, _, line = line.partition(" ")
            found[word] = line.strip()
        elif line:
            found[word] += " " + line.strip()
    return found


def recipes() -> dict[str, list[Recipe]]:
    """Method -> all its recipes, in the order of the files."""
    found: dict[str, list[Recipe]] = {name: [] for name in registry.names("methods")}
    for name in registry.recipe_names():
        recipe = registry.recipe(name)
        found[method_of(recipe)].append(recipe)
    return found


def method_of(recipe: Recipe) -> str:
    return str(recipe.resolved()["method"]["name"])


def entries(names: Sequence[str] = ()) -> list[Entry]:
    """Of these methods, or of all. Errors: UnknownName."""
    kinds = {name: registry.load("methods", name).Config for name in names or registry.names("methods")}
    of, yardstick = recipes(), registry.recipe(YARDSTICK)
    unit = _image_flops(yardstick)
    found = []
    for name, kind in kinds.items():
        about = header(name)
        like = (one for one in of[name] if (one.data, one.encoder) == (yardstick.data, yardstick.encoder))
        costed = next((one for one in like if one.budget.epochs), None)
        found.append(
            Entry(
                name=name,
                title=kind.title,
                line=registry.first_line("methods", name),
                **{word.lower(): about[word] for word in ("Paper", "Loss", "Oracle", "Departs")},
                lines=len((registry.ROOT / "methods" / f"{name}.py").read_text().splitlines()),
                about=_about(kind),
                settings=tuple(_settings(kind)),
                others=tuple((f.name, _spell(f)) for f in fields(kind) if not set(KINDS) & set(f.metadata)),
                requirements=_requirements(kind, of[name]),
                embedded=tuple(one.name for one in of[name] if one.data.name in EMBEDDED),
                costed=costed.name if costed else "",
                cost=_image_flops(costed) / unit if costed else None,
            )
        )
    return found


@cache
def _image_flops(recipe: Recipe) -> float:
    recipe = replace(recipe, budget=replace(recipe.budget, batch=BATCH, accumulate=1))
    return cost.step_flops(cost.build(recipe, "meta"), cost.fixed_batch(recipe, BATCH, "meta")) / BATCH


def _about(kind: type[MethodConfig]) -> str:
    """The docstring, unless it is the one that `dataclass` writes."""
    text = " ".join((inspect.getdoc(kind) or "").split())
    return "" if text.startswith("Config(") else text


def _settings(kind: type[MethodConfig]) -> Iterator[Setting]:
    for f in fields(kind):
        for word in KINDS:
            if word in f.metadata:
                yield Setting(f.name, word, f.default, **vars(f.metadata[word]))


def _spell(f: "Field[Any]") -> str:
    return "to be given" if f.default is MISSING else repr(f.default)


def _requirements(kind: type[MethodConfig], recipes: Sequence[Recipe]) -> Requirements | None:
    """Of the defaults, or of the first recipe where a setting has none, as of a method around another."""
    if all(f.default is not MISSING for f in fields(kind)):
        return kind().requirements()
    return recipes[0].method.requirements() if recipes else None


def in_words(needs: Requirements) -> Iterator[str]:
    """What a method asks of a recipe, but for two images a step."""
    counts = [f"{needs.views.count(role)} {role}" for role in dict.fromkeys(needs.views)]
    views = f"{' and '.join(counts) or 'no'} view{'' if len(needs.views) == 1 else 's'}"
    if needs.local_views:
        views += ", any number of local ones"
    if needs.sources != (0, 1)[: len(needs.sources)]:
        views += f" (elements {', '.join(map(str, needs.sources))} of the pair)"
    yield views
    if needs.min_batch > 2:
        yield f"a batch of at least {needs.min_batch:,}"
    if needs.batch_divisor > 1:
        yield f"a batch that is a multiple of {needs.batch_divisor:,}"
    if needs.batch_divides:
        yield f"a batch that divides {needs.batch_divides:,}, the queue"
    if needs.index:
        yield "images that come again, by their index"
    if needs.labels:
        yield "labels"
    if needs.patches:
        yield "an encoder with a patch embedding"


# ---------------------------------------------------------------------------------------------- as text

ABOUT = f"""# Methods

`harness methods --format markdown > methods/README.md` makes this page from files and recipes, and a test holds it to
them. *Needs*: what a recipe must offer, with the defaults. *Cost*: FLOPs of a training step per image, as `harness
cost` counts them, over those of `{YARDSTICK}`: the same data set, encoder and batch ({BATCH}), each method's
own views and heads.
"""
HEADER = ("file", "method", "paper", "needs", "cost")


def row(entry: Entry) -> tuple[str, ...]:
    """One line of the table. paper: up to the number at arXiv, where it has one."""
    paper = re.match(r".*?arXiv:[\d.]*\d", entry.paper)
    return entry.name, entry.title, paper[0] if paper else entry.paper, entry.needs, _cost(entry)


def to_markdown(found: Sequence[Entry]) -> str:
    """The whole page: a table, and a section per method under its file's name."""
    lines = [ABOUT, _row(HEADER), "| --- | --- | --- | --- | --: |"]
    for entry in found:
        name, *rest = row(entry)
        lines.append(_row((f"[{name}](#{name})", *map(_links, rest))))
    return "\n".join([*lines, *(f"\n{section(entry)}" for entry in found)]) + "\n"


def section(entry: Entry) -> str:
    """What the page says of one method, in Markdown, from its heading on."""
    costed = f"{_cost(entry)}, of `{entry.costed}`" if entry.costed else "–, no recipe of that kind"
    first = f", first `{entry.embedded[0]}`" if entry.embedded else ""
    items = [
        f"**Paper** {_links(entry.paper)}",
        f"**Loss** `{entry.loss.rstrip('.')}`",
        f"**Oracle** {_links(entry.oracle)}",
        f"**Departs** {_links(entry.departs)}",
        f"**Needs** {entry.needs}",
        f"**Cost** {costed}",
        f"**File** [{entry.name}.py]({entry.name}.py), {entry.lines} lines",
        f"**Recipes** {len(entry.embedded)} on embedded data{first}",
    ]
    if entry.about:
        items.append(f"**Defaults** {_links(entry.about)}")
    if entry.others:
        items.append("**Without a range** " + ", ".join(f"`{name}` {default}" for name, default in entry.others))
    parts = [f"## {entry.name}", entry.line, "\n".join(f"- {item}" for item in items)]
    if entry.settings:
        table = [
            _row(("setting", "kind", "default", "range", "scale", "source")),
            "| --- | --- | --: | --- | --- | --- |",
        ]
        for s in entry.settings:
            span, scale = f"{s.low:g} to {s.high:g}", "log" if s.log else "linear"
            table.append(_row((f"`{s.name}`", s.kind, f"{s.default:g}", span, scale, _links(s.source))))
        parts.append("\n".join(table))
    return "\n\n".join(parts)


def _cost(entry: Entry) -> str:
    return "–" if entry.cost is None else f"{entry.cost:.2f}"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _links(text: str) -> str:
    """Papers at arXiv and repositories at a commit, as links."""
    text = re.sub(r"arXiv:([\d.]*\d)", r"[arXiv:\1](https://arxiv.org/abs/\1)", text)
    return re.sub(r"([\w.-]+/[\w.-]+)@([0-9a-f]{7,40})\b", r"[\1@\2](https://github.com/\1/tree/\2)", text)
