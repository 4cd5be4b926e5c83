"""`harness check`: claims and earlier records against runs, for people, for other programs and for CI."""

import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness import claims, predictions, provenance, records, registry, tracking, train, verdict
from harness.errors import UnknownName
from harness.summary import NOTE, summarise

if TYPE_CHECKING:
    import pandas

    from harness.summary import Summary
    from harness.verdict import Verdict

RECORDS = registry.ROOT / "results" / "records"
WORDS = ("differs", "regressed", "stale", "undecided", "untried", "barred")  # what `--fail-on` may name
COLOURS = {
    "reproduced": "green", "held": "green", "differs": "red", "regressed": "red", "undecided": "yellow",
    "stale": "yellow",
}  # fmt: skip


def judge(
    frame: "pandas.DataFrame", ids: Sequence[str] = (), *, allow_dirty: bool, root: Path | None = None
) -> "list[Verdict]":
    """Every claim and record whose id starts with one of `ids` (all, if none) against the runs of a `tracking.table`.

    Where this machine has no run of a recipe and seed, the promoted one counts for the claims. root: of the run
    directories, where they are at hand.
    """
    import pandas

    known = registry.recipe_names()
    wanted = [claim for file in claims.load_all(claims.FOLDER, known) for claim in file.claims]
    promoted = records.load(RECORDS)
    names = [claim.id for claim in wanted] + [f"record/{record.recipe}" for record in promoted]
    if unknown := [one for one in ids if not any(name.startswith(one) for name in names)]:
        raise UnknownName("claim", unknown[0], [*{name.partition("/")[0] for name in names}, *names])
    if ids:
        wanted = [claim for claim in wanted if claim.id.startswith(tuple(ids))]
    theirs = records.frame(promoted)
    runs = pandas.concat([frame, theirs[~theirs["run"].isin(frame["run"])]]) if len(theirs) else frame
    current = {}
    for name in {*runs["recipe"]} & {*known} if len(runs) else ():
        recipe = registry.recipe(name)
        current[name] = verdict.Current(recipe.digest, provenance.fingerprint(train.methods_of(recipe)))
    correct = predictions.reader(root, records.by_key(promoted))
    found = verdict.check(wanted, runs, current, allow_dirty=allow_dirty, correct=correct)
    if ids:
        promoted = [record for record in promoted if f"record/{record.recipe}".startswith(tuple(ids))]
    return found + records.judge(promoted, frame, current, allow_dirty=allow_dirty, root=root)


def judged(root: Path, uri: str | None, ids: Sequence[str], *, allow_dirty: bool) -> "list[Verdict]":
    """The same of a folder of run directories, after a sync; without runs the records alone."""
    import pandas

    if uri is None and not any(root.glob("*/*/seed-*/recipe.json")):
        return judge(
            pandas.DataFrame(columns=["run", "recipe", "seed", "dataset", "status"]), ids, allow_dirty=allow_dirty
        )
    tracking.sync(root, uri)
    return judge(tracking.table(uri or tracking.default_uri(root)), ids, allow_dirty=allow_dirty, root=root)


def words(text: str) -> tuple[str, ...]:
    """The words of `--fail-on`, separated by commas; an empty text is none. Errors: UnknownName."""
    found = tuple(word for word in (part.strip() for part in text.split(",")) if word)
    for word in found:
        if word not in WORDS:
            raise UnknownName("verdict to fail on", word, WORDS)
    return found


# ------------------------------------------------------------------------------------------ three forms


def show(verdicts: "Sequence[Verdict]", console: Console, *, untried: bool) -> None:
    """On a terminal, each in short; the page of `harness leaderboard` has the whole reason."""
    shown = [v for v in verdicts if v.word != "held" and (untried or v.word != "untried")]
    table = Table(box=box.SIMPLE_HEAD, title="claims and records against runs", title_justify="left")
    table.add_column("claim", overflow="fold", min_width=26)
    table.add_column("verdict", no_wrap=True)
    table.add_column("needs seeds", justify="right", width=6)
    table.add_column("printed", max_width=14)
    table.add_column("ours")
    for v in shown:
        text = Text(v.text + ("; known" if v.known else ""), COLOURS.get(v.word, "") if not v.known else "dim")
        table.add_row(v.id, text, _more(v), v.printed, v.ours or v.why)
    console.print(table, highlight=False)
    if any(v.needed for v in shown):
        console.print("needs seeds: so many more of each recipe would decide; ∞: no number would", style="dim")
    if any("dirty tree" in v.why for v in shown if v.word == "barred"):
        console.print("commit and run again, or judge them here with --allow-dirty", highlight=False)
    held = sum(v.word == "held" for v in verdicts)
    if held:
        console.print(f"{held} records held", highlight=False)
    if left_out := len(verdicts) - len(shown) - held:
        console.print(f"{left_out} claims are untried; --untried lists them", highlight=False)
    tried = [one for one in summarise(verdicts) if set(one.words) - {"untried"}]
    if tried:
        console.print(_by_source(tried), highlight=False)
        console.print(NOTE, style="dim", highlight=False)


def _more(v: "Verdict") -> str:
    return "" if not v.needed else "∞" if v.more == inf else v.needed.replace("over ", ">")


def _by_source(summaries: "Sequence[Summary]") -> Table:
    table = Table(box=box.SIMPLE_HEAD, title="the sources' own claims", title_justify="left")
    words = ("reproduced", "differs", "undecided", "barred", "untried")
    for header in ("source", *words, "differs (Holm)"):
        table.add_column(header, justify="left" if header == "source" else "right")
    for one in summaries:
        counts = {word: str(one.words.get(word, 0)) for word in words}
        counts["differs"] += f" ({one.known} known)" if one.known else ""
        table.add_row(one.stem, *counts.values(), f"{len(one.differing)} of {one.tested}" if one.tested else "no test")
    return table


def as_markdown(verdicts: "Iterable[Verdict]") -> str:
    """A table of all that was tried, with the reasons."""
    table = verdict.to_frame(v for v in verdicts if v.word != "untried")
    lines = ["| " + " | ".join(table) + " |", "| " + " | ".join("---" for _ in table) + " |"]
    cells = (str(cell).replace("|", "\\|") for cell in table.to_numpy().flatten())
    rows = zip(*[cells] * len(table.columns), strict=True)
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def as_json(verdicts: "Iterable[Verdict]") -> str:
    """A list of objects: every field of `verdict.Verdict` but the claim, and where the claim stands in its source."""
    return json.dumps([_plain(v) for v in verdicts], indent=1)


def _plain(v: "Verdict") -> dict[str, Any]:
    fields = asdict(v)
    claim = fields.pop("claim")
    for name in ("low", "high", "effect", "more"):  # JSON knows no infinity
        fields[name] = None if fields[name] is None or abs(fields[name]) == inf else fields[name]
    if fields["band"]:
        fields["band"] = [None if abs(edge) == inf else edge for edge in fields["band"]]
    return fields | {"text": v.text, "source": claim["source"] if claim else None}


def as_junit(verdicts: "Iterable[Verdict]", fail_on: Collection[str]) -> str:
    """JUnit XML, as CI servers read it: a suite per paper; what decides nothing is skipped, with its reason."""
    suites: dict[str, list[Verdict]] = {}
    for v in verdicts:
        suites.setdefault(v.id.partition("/")[0], []).append(v)
    root = ElementTree.Element("testsuites", name="harness check")
    for name, members in suites.items():
        suite = ElementTree.SubElement(root, "testsuite", name=name, tests=str(len(members)), errors="0")
        counts = {"failure": 0, "skipped": 0}
        for v in members:
            case = ElementTree.SubElement(suite, "testcase", classname=name, name=v.id)
            kind = "failure" if verdict.fails(v, fail_on) else "" if v.word in ("reproduced", "held") else "skipped"
            if kind:
                counts[kind] += 1
                ElementTree.SubElement(case, kind, message=f"{v.text}: {v.why}")
            ElementTree.SubElement(case, "system-out").text = f"printed {v.printed}; ours {v.ours}; {v.why}"
        suite.set("failures", str(counts["failure"]))
        suite.set("skipped", str(counts["skipped"]))
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="utf-8", xml_declaration=True).decode()
