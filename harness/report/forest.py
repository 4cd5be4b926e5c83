"""Claims and verdicts: one forest plot per source, one row per claim.

An effect is ours minus what it is held against (`verdict.Verdict`). Claims of one unit share a scale; their zero is the
printed value, or no difference. What nobody has tried is counted, not listed.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from math import inf, isfinite
from pathlib import Path
from statistics import median
from typing import Any

from harness.claims import Claim, File, Paper
from harness.claims.kinds import Source
from harness.report.document import link, notes, wide
from harness.report.plots import ticks
from harness.report.ranking import records
from harness.summary import NOTE, Summary, summarise
from harness.verdict import Verdict

WIDTH, HEIGHT, EDGE = 320, 26, 12
SHOWN_RUNS = 12  # of one claim
LOOKS = {  # colour, shape and sign of a verdict; whoever sees no colour has the other two, and the word
    "reproduced": ("good", "circle", "✓"),
    "held": ("good", "circle", "✓"),
    "differs": ("bad", "cross", "✗"),
    "regressed": ("bad", "cross", "✗"),
    "undecided": ("open", "diamond", "?"),
    "stale": ("open", "diamond", "!"),
}
OTHER = ("none", "diamond", "–")
SIGNS = (  # of the legend: SVG of 26 x 14, and what it says
    ('<rect class="band" width="26" height="14"/>', "agrees with the claim"),
    ('<line class="zero" x1="13" x2="13" y1="0" y2="14"/>', "the printed value, or no difference"),
    ('<path class="printed" d="M13 3v8"/>', "the printed difference"),
    ('<line class="span" x1="0" x2="26" y1="7" y2="7"/>', "90 % interval"),
    ('<circle class="seed" cx="13" cy="7" r="2.5"/>', "one seed"),
)

Owner = tuple[File, Claim]


def claims(verdicts: Sequence[Verdict], files: Sequence[File], root: Path, folder: str) -> Iterator[str]:
    """folder: of the claims files, relative to the page; "" where it should not link there."""
    yield "<h2 id=claims>Claims and verdicts</h2>"
    if not verdicts:
        yield "<p>No claims were checked.</p>"
        return
    yield notes(
        [
            "What sources printed, against our runs. An effect is our mean minus what is printed, minus the other "
            "recipe's mean, or minus the bound. Open a claim for its place in the source, the statistics and the runs. "
            "At reduced scale a pattern was checked on smaller data and networks, not the printed number.",
            f"{NOTE}.",
        ]
    )
    yield _legend()
    owner = {claim.id: (file, claim) for file in files for claim in file.claims}
    together = {one.stem: one for one in summarise(verdicts)}
    untried = []
    for file in files:
        mine = [v for v in verdicts if v.id in owner and owner[v.id][0] is file]
        tried = [v for v in mine if v.word != "untried"]
        stem = file.name.removesuffix(".toml")
        about = _about(file, mine, together.get(stem), folder)
        if tried:
            yield f"<h3>{escape(file.paper.title)}</h3>{about}"
            yield _table(tried, owner, root, f"{stem}: claims that were tried")
        elif mine:
            untried.append(f"<h4>{escape(file.paper.title)}</h4>{about}")
    if ours := [v for v in verdicts if v.id not in owner]:
        yield "<h3>Our own earlier runs</h3>"
        compared = [v for v in ours if v.word != "held" or v.effect is not None]
        if unchanged := len(ours) - len(compared):
            records = "1 record" if unchanged == 1 else f"{unchanged} records"
            yield f"<p class=note>{records} held: no code on the path has changed since they were promoted</p>"
        if compared:
            yield _table(compared, {}, root, "runs of a recipe against its promoted records")
    if untried:
        sources = "1 source" if len(untried) == 1 else f"{len(untried)} sources"
        yield f"<details><summary>{sources} of which no claim was tried</summary>{''.join(untried)}</details>"


def _legend() -> str:
    parts = [f'<span><svg width="26" height="14">{drawing}</svg> {text}</span>' for drawing, text in SIGNS]
    for word, text in (("reproduced", "reproduced, holds"), ("differs", "differs"), ("undecided", "undecided")):
        colour, shape, _ = LOOKS[word]
        parts.append(f'<span class={colour}><svg width="16" height="14">{_shape(shape, 8, 7)}</svg> {text}</span>')
    return f"<div class=legend>{''.join(parts)}</div>"


def _about(file: File, mine: Sequence[Verdict], together: Summary | None, folder: str) -> str:
    """Who, where, how many claims have which verdict, and how many of the tested ones differ for all together."""
    words = [verdict.text for verdict in mine]
    counts = [f"{words.count(word)} {word}" for word in sorted(set(words), key=lambda w: (w == "untried", w))]
    paper, place = file.paper, f"{folder}/{file.name}"
    parts = [
        escape(", ".join(text for text in (paper.authors, paper.venue) if text != "none")),
        link(_arxiv(paper.arxiv), f"arXiv:{paper.arxiv}") if _arxiv(paper.arxiv) else "",
        escape(f"{len(mine)} claim{'s' if len(mine) > 1 else ''}: {', '.join(counts)}"),
        f"{len(together.differing)} of {together.tested} tested differ (Holm)" if together and together.tested else "",
        link(place, file.name) if folder else f"results/claims/{escape(file.name)}",
    ]
    return f"<p class=note>{' · '.join(filter(None, parts))}</p>"


def _table(tried: Sequence[Verdict], owner: Mapping[str, Owner], root: Path, caption: str) -> str:
    head = "".join(f"<th scope=col>{name}</th>" for name in ("claim", "printed", "ours", "n", "effect", "verdict"))
    drawn = [v for v in tried if _drawn(v)]
    body = []
    for unit in sorted({v.unit for v in drawn}):
        some = [v for v in drawn if v.unit == unit]
        axis = _Axis.of(some)
        title = f"<th scope=rowgroup colspan=4>effect{escape(f' in {unit}' if unit else '')}</th>"
        body.append(f"<tr class=axis>{title}<td class=plot>{axis.svg}</td><td></td></tr>")
        body += [_row(v, owner.get(v.id), root, axis.row(v)) for v in some]
    counted = [v for v in tried if not _drawn(v)]
    if counted and drawn:
        body.append("<tr class=axis><th scope=rowgroup colspan=6>counted, or without a number</th></tr>")
    body += [_row(v, owner.get(v.id), root, "") for v in counted]
    return wide(head, body, caption=caption, kind="forest", columns=6)


def _drawn(v: Verdict) -> bool:
    return v.effect is not None and isfinite(v.effect)


def _row(v: Verdict, owner: Owner | None, root: Path, plot: str) -> str:
    colour, _, sign = LOOKS.get(v.word, OTHER)
    colour = "none" if v.known else colour
    name = escape(v.id).replace("/", "/<wbr>")
    cells = [
        f"<td class=claim><details><summary>{name}</summary>{_details(v, owner, root)}</details></td>",
        f"<td data-name=printed>{escape(v.printed)}</td>",
        f"<td data-name=ours>{escape(v.ours)}</td>",
        f"<td data-name=n>{' / '.join(map(str, v.n))}</td>",
        f"<td class=plot>{plot}</td>",
        f"<td class={colour}><b>{sign} {escape(v.text)}</b>{'; known' if v.known else ''}{_needed(v)}</td>",
    ]
    return f"<tr>{''.join(cells)}</tr>"


def _needed(v: Verdict) -> str:
    """How many further seeds would decide, in words."""
    if not v.needed:
        return ""
    return f"; {v.needed} {'of seeds' if v.more == inf else 'more seed' if v.more == 1 else 'more seeds'} would decide"


def _details(v: Verdict, owner: Owner | None, root: Path) -> str:
    facts = {"why": escape(v.why)} if v.why else {}
    if owner:
        file, claim = owner
        source = claim.source
        where = address(source, file.paper)
        place = f"{source.table}, row {source.row}, column {source.column}"
        facts["source"] = f"{link(where, source.where) if where else escape(source.where)}, {escape(source.at)}"
        facts["place"] = escape(place)
        facts["quote"] = f"<q>{escape(source.quote)}</q>"
        if claim.origin == "quoted":
            facts["origin"] = "quoted by the source from somebody else"
        for name in ("tolerance", "margin", "bound"):
            if allowed := getattr(claim, name, None):
                facts[name] = escape(f"{allowed.value}: {allowed.why}")
        for name in ("reduced", "known", "doubt"):
            if text := getattr(claim, name):
                facts[name] = escape(text)
        facts["recipes"] = escape(", ".join(claim.recipes))
    if v.runs:
        rest = f" and {len(v.runs) - SHOWN_RUNS} more" if len(v.runs) > SHOWN_RUNS else ""
        facts["runs"] = records(v.runs[:SHOWN_RUNS], root) + rest
    return "<dl>" + "".join(f"<dt>{name}</dt><dd>{text}</dd>" for name, text in facts.items() if text) + "</dl>"


# ------------------------------------------------------------------------------------------ where a claim stands


def address(source: Source, paper: Paper) -> str:
    """Of the source on the web: a repository's file at its commit, or the arXiv page; "" for what has neither."""
    named = re.search(
        r"github\.com/([\w.-]+/[\w.-]+)(?:[/, ]+([\w./-]+\.\w+))?(?:[/, ]+issues?[/ ](\d+))?", source.where
    )
    commit = re.search(r"\b[0-9a-f]{7,40}\b", source.at)
    if named:
        repository, file, issue = named.groups()
        place = f"/issues/{issue}" if issue else f"/blob/{commit[0]}/{file}" if commit and file else ""
        return f"https://github.com/{repository}" + (place or (f"/tree/{commit[0]}" if commit else ""))
    found = re.search(r"\b(\d{4}\.\d{4,5})(v\d+)?\b", source.where)
    return _arxiv(found[0] if found else paper.arxiv if source.kind in ("paper", "supplement", "transcription") else "")


def _arxiv(id: str) -> str:
    return f"https://arxiv.org/abs/{id}" if re.fullmatch(r"\d{4}\.\d{4,5}(v\d+)?", id) else ""


# ------------------------------------------------------------------------------------------ drawing


class _Axis:
    """The scale of one unit, with zero inside; what lies beyond an end is drawn at it, with an arrow."""

    def __init__(self, limit: float) -> None:
        marks = ticks([-limit, limit], 4)
        self.low, self.high, self.marks = marks[0], marks[-1], marks

    @classmethod
    def of(cls, verdicts: Sequence[Verdict]) -> "_Axis":
        """So wide that one far effect does not squeeze all others: four times the median reach at most."""
        reaches = [max(abs(x) for x in _numbers(v)) for v in verdicts]
        bands = [abs(x) for v in verdicts for x in v.band or () if isfinite(x)]
        return cls(max(min(max(reaches), 4 * median(reaches)), *(1.2 * x for x in bands), 1e-9))

    def place(self, value: float) -> float:
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return EDGE + share * (WIDTH - 2 * EDGE)

    @property
    def svg(self) -> str:
        parts = [
            f'<text x="{self.place(x):.1f}" y="12" text-anchor="{self._anchor(x)}">{f"{x:+g}" if x else "0"}</text>'
            f'<line class="grid" x1="{self.place(x):.1f}" x2="{self.place(x):.1f}" y1="16" y2="20"/>'
            for x in self.marks
        ]
        return f'<svg width="{WIDTH}" height="20" viewBox="0 0 {WIDTH} 20" aria-hidden="true">{"".join(parts)}</svg>'

    def _anchor(self, mark: float) -> str:
        """The labels at the edges lie inside, or they would be cut."""
        room = self.place(mark)
        return "start" if room < 2 * EDGE else "end" if room > WIDTH - 2 * EDGE else "middle"

    def row(self, v: Verdict) -> str:
        assert v.effect is not None
        colour, shape, _ = LOOKS.get(v.word, OTHER)
        middle, parts, said = HEIGHT / 2, [], [f"effect {v.effect:+.3g}"]
        if v.band:
            start, end = (EDGE if x == -inf else WIDTH - EDGE if x == inf else self.place(x) for x in v.band)
            parts.append(f'<rect class="band" x="{start:.1f}" y="0" width="{end - start:.1f}" height="{HEIGHT}"/>')
            said.append("agrees from " + " to ".join("any" if not isfinite(x) else f"{x:+.3g}" for x in v.band))
        zero = f"{self.place(0):.1f}"
        parts.append(f'<line class="zero" x1="{zero}" x2="{zero}" y1="0" y2="{HEIGHT}"/>')
        if (printed := _printed(v)) is not None and self.low <= printed <= self.high:
            parts.append(f'<path class="printed" d="M{self.place(printed):.1f} 4v{HEIGHT - 8}"/>')
        if v.low is not None and v.high is not None:
            low, high = self.place(v.low), self.place(v.high)
            parts.append(f'<line class="span" x1="{low:.1f}" x2="{high:.1f}" y1="{middle}" y2="{middle}"/>')
            said.append(f"90 % interval {v.low:+.3g} to {v.high:+.3g}")
        parts += [
            f'<circle class="seed" cx="{self.place(x):.1f}" cy="{middle}" r="2.5"/>' for x in v.points if isfinite(x)
        ]
        beyond = -1 if v.effect < self.low else 1 if v.effect > self.high else 0
        at = self.place(v.effect)
        if beyond:
            parts.append(f'<path class="mean" d="M{at:.1f} {middle - 5}l{beyond * 8} 5l{-beyond * 8} 5z"/>')
        else:
            parts.append(_shape(shape, at, middle))
        return (
            f'<svg class="{"none" if v.known else colour}" width="{WIDTH}" height="{HEIGHT}" '
            f'viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(", ".join(said))}">{"".join(parts)}</svg>'
        )


def _numbers(v: Verdict) -> list[float]:
    found: list[Any] = [v.effect, v.low, v.high, *v.points]
    return [x for x in found if x is not None and isfinite(x)]


def _printed(v: Verdict) -> float | None:
    """The printed difference of an ordering or an equivalence; None where the two are not numbers."""
    if v.kind not in ("ordering", "equivalence") or v.claim is None:
        return None
    try:
        one, other = map(float, v.claim.printed)
    except ValueError:
        return None
    return one - other


def _shape(shape: str, x: float, y: float) -> str:
    if shape == "circle":
        return f'<circle class="mean" cx="{x:.1f}" cy="{y}" r="4.5"/>'
    if shape == "cross":
        return f'<path class="cross" d="M{x - 4.5:.1f} {y - 4.5}l9 9m0 -9l-9 9"/>'
    return f'<path class="hollow" d="M{x:.1f} {y - 5.5}l5.5 5.5l-5.5 5.5l-5.5 -5.5z"/>'
