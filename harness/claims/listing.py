"""The claims as a list: what is printed, in which setting, where, and which recipe attempts it or why none can."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.claims.kinds import CHOICES, Claim, File
from harness.claims.obstacles import obstacle
from harness.errors import UnknownName

STATUSES = ("attempted", "open", "impossible")
REASONS = 20  # what stands in the way of most claims; the rest are many and stop few
FILTERS = {  # what can be asked for, and what a message calls it
    "paper": "claims file",
    "kind": "kind of claim",
    "dataset": "data set of a claim",
    "method": "method of a claim",
    "status": "status",
}


@dataclass(frozen=True)
class Entry:
    """A claim in its file. obstacle: why no recipe can attempt it, as stated or found; else empty."""

    file: File
    claim: Claim
    obstacle: str

    @property
    def paper(self) -> str:
        """The stem of the claims file."""
        return self.file.name.removesuffix(".toml")

    @property
    def status(self) -> str:
        """attempted: a recipe names it. open: nobody has written one. impossible: none could, as things stand."""
        return "attempted" if self.claim.recipes else "impossible" if self.obstacle else "open"

    def to_data(self) -> dict[str, Any]:
        """Every field of the claim, and what follows from it, ready for JSON."""
        follows = {"recipes": self.claim.recipes, "status": self.status, "obstacle": self.obstacle}
        return {"paper": self.paper, **asdict(self.claim), **follows}

    def attribute(self, name: str) -> str:
        """One of FILTERS."""
        return str(getattr(self if name in ("paper", "status") else self.claim, name))


def select(files: Sequence[File], ids: Sequence[str], filters: Mapping[str, str | None]) -> list[Entry]:
    """The claims whose id starts with one of `ids` (all, if none) and that have what `filters` asks for, in file order.

    filters: values by the names of FILTERS, None for any. Errors: UnknownName, for a value that no claim can have.
    """
    entries = [Entry(file, claim, obstacle(claim)) for file in files for claim in file.claims]
    for id in ids:
        if not any(entry.claim.id.startswith(id) for entry in entries):
            raise UnknownName("claim", id, [entry.claim.id for entry in entries])
    asked = {name: value for name, value in filters.items() if value is not None}
    for name, value in asked.items():
        fixed = {"kind": CHOICES["kind"], "status": STATUSES}.get(name)
        known = fixed or {entry.attribute(name) for entry in entries}
        if value not in known:
            raise UnknownName(FILTERS[name], value, known)
    return [
        entry
        for entry in entries
        if (not ids or entry.claim.id.startswith(tuple(ids)))
        and all(entry.attribute(name) == value for name, value in asked.items())
    ]


def counts(entries: Iterable[Entry]) -> list[dict[str, Any]]:
    """Per paper and kind: how many claims there are, of each status, quoted from others, and read in a conversion."""
    rows = []
    for (paper, kind), group in groupby(sorted(entries, key=_paper_and_kind), key=_paper_and_kind):
        found = list(group)
        status = Counter(entry.status for entry in found)
        origin = Counter(entry.claim.origin for entry in found)
        transcribed = sum(entry.claim.source.kind == "transcription" for entry in found)
        rows.append(
            {"paper": paper, "kind": kind, "claims": len(found)}
            | {name: status[name] for name in STATUSES}
            | {name: origin[name] for name in CHOICES["origin"]}
            | {"transcribed": transcribed}
        )
    return rows


def _paper_and_kind(entry: Entry) -> tuple[str, str]:
    return entry.paper, entry.claim.kind


def to_json(entries: Sequence[Entry], count: bool = False) -> str:
    """One document: how many there are of what and, unless only that is asked for, the papers and all their claims."""
    data: dict[str, Any] = {"counts": counts(entries)}
    if not count:
        data["papers"] = {entry.paper: asdict(entry.file.paper) for entry in entries}
        data["claims"] = [entry.to_data() for entry in entries]
    return json.dumps(data, indent=1)


# ---------------------------------------------------------------------------------------------- for people


def show(entries: Sequence[Entry], console: Console) -> None:
    """A table per paper, and a line that sums up."""
    for _, group in groupby(entries, key=lambda entry: entry.paper):
        found = list(group)
        paper = found[0].file.paper
        facts = [paper.title, paper.authors, paper.venue, *(["arXiv:" + paper.arxiv] * (paper.arxiv != "none"))]
        console.print(
            found[0].paper + ":",
            ", ".join(fact for fact in facts if fact != "none"),
            style="bold",
            highlight=False,
            markup=False,
        )
        for source in dict.fromkeys((s.kind, s.where, s.at) for s in (entry.claim.source for entry in found)):
            console.print("{}: {}, {}".format(*source), highlight=False, markup=False)
        table = Table(box=box.SIMPLE_HEAD)
        whole = max(len(entry.claim.id) for entry in found)  # ids are copied: whole on one line, where there is room
        table.add_column("claim and setting", min_width=whole if 2 * whole <= console.width else None, overflow="fold")
        for header in ("printed", "where, and the recipe or why none"):
            table.add_column(header, overflow="fold")
        for entry in found:
            claim = entry.claim
            epochs = "" if claim.epochs == "unstated" else f"{claim.epochs} epochs"
            about = [claim.dataset, getattr(claim, "protocol", ""), claim.backbone, epochs]
            place = [claim.source.table, claim.source.row, claim.source.column, claim.source.kind]
            attempt = ("\n".join(claim.recipes), "green") if claim.recipes else entry.obstacle or "no recipe yet"
            table.add_row(
                Text.assemble(claim.id, "\n", (", ".join(filter(None, about)), "dim")),
                Text(claim.said + (", quoted" if claim.origin == "quoted" else "")),
                Text.assemble((", ".join(place), "dim"), "\n", attempt),
            )
        console.print(table)
    number = Counter(entry.status for entry in entries)
    summary = ", ".join(f"{number[status]} {status}" for status in STATUSES)
    claims = "claim" if len(entries) == 1 else "claims"
    console.print(f"{len(entries)} {claims}: {summary}; --count counts them by paper and kind", highlight=False)


def show_counts(entries: Sequence[Entry], console: Console) -> None:
    """How many there are of what, and what stands in the way of how many."""
    rows = counts(entries)
    columns = ["claims", *STATUSES, *CHOICES["origin"], "transcribed"]
    table = Table(box=box.SIMPLE_HEAD, show_footer=True, collapse_padding=True, pad_edge=False)
    table.add_column("paper, kind", "all", overflow="fold")
    for column in columns:
        table.add_column(column, str(sum(row[column] for row in rows)), justify="right", no_wrap=True)
    for row in rows:
        table.add_row(f"{row['paper']}, {row['kind']}", *(str(row[column]) for column in columns))
    console.print(table, highlight=False)
    reasons = Table("claims", "obstacle", box=box.SIMPLE_HEAD)
    found = Counter(entry.obstacle for entry in entries if entry.obstacle).most_common()
    for reason, number in found[:REASONS]:
        reasons.add_row(str(number), Text(reason))
    console.print(reasons, highlight=False)
    if rest := found[REASONS:]:
        total = sum(number for _, number in rest)
        console.print(f"and {len(rest)} more obstacles, to {total} claims; --format json has them", highlight=False)
