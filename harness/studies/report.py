"""What a study found: tables on the terminal, and a page with plots.

Everything is read from the study's files and its runs, while it is under way too; the same files give the same bytes.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from harness import attempts, registry
from harness.leaderboard import sampling_error
from harness.report.document import STYLE, document
from harness.runs import write_atomically
from harness.statistics import SEEDS_LIMIT
from harness.studies import plots, selection, winner
from harness.studies import study as studies
from harness.studies.optimise import in_memory
from harness.studies.selection import Comparison
from harness.studies.study import Final, Finalist, Study, Trial

if TYPE_CHECKING:
    from rich.console import Console

OUTCOMES = ("complete", "pruned", "collapsed", "diverged", "failed")
EARLY = ("pruned", "collapsed", "diverged")  # ended before all steps
SHOWN = 10  # of the best trials
COLUMNS = 4  # more settings than this share one column
PAGE = """
.plots figure { flex: 0 0 100%; }
.plots figure:has(svg) { flex: none; width: min-content; max-width: 100%; } figcaption b { color: var(--ink); }
.card { background: #fff; border: 1px solid var(--rule); border-radius: 6px; padding: .5rem; overflow-x: auto; }
.card svg { max-width: none; }
"""


@dataclass(frozen=True)
class Sheet:
    """A table ready to print. text: so many columns are words, the others numbers."""

    title: str
    header: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    notes: tuple[str, ...] = ()
    text: int = 1


@dataclass(frozen=True)
class Found:
    """A study as its files tell it. comparisons: empty before all final runs are over."""

    study: Study
    runs: Path
    trials: list[Trial]
    final: Final | None
    comparisons: list[Comparison]

    @classmethod
    def read(cls, study: Study, runs: Path) -> "Found":
        """Errors: RunConflict."""
        final = studies.read_final(runs, study.name)
        over = final is not None and final.winner is not None
        compared = selection.compare_runs(study, runs, final) if final and over else []
        return cls(study, runs, studies.read_trials(runs, study.name), final, compared)

    @cached_property
    def curves(self) -> dict[int, dict[int, float]]:
        return {trial.number: studies.curve(self.study, self.runs, trial) for trial in self.trials}

    @cached_property
    def unit(self) -> str:
        protocol, _, metric = self.study.objective.rpartition("/")
        (config,) = {one for one in self.study.base().evals if one.id == protocol}
        return str(registry.load("harness.evals", config.protocol).UNITS[metric.split("/")[0]])

    @property
    def winner(self) -> Finalist | None:
        """The settings that are better than the recipe's own."""
        return self.final.finalists[self.final.winner] if self.final and self.final.winner else None

    def number(self, value: float | None, sign: str = "") -> str:
        return "–" if value is None else f"{value:{sign}.{2 if self.unit == 'percent' else 4}f}"

    def settings(self, params: Mapping[str, Any]) -> tuple[str, ...]:
        if len(self.names) < len(self.study.parameters):
            return (studies.spell(params),)
        return tuple(_spell(params[name]) for name in self.names)

    @property
    def names(self) -> tuple[str, ...]:
        names = tuple(p.name for p in self.study.parameters)
        return names if len(names) <= COLUMNS else ("settings",)

    @property
    def words(self) -> int:
        """Columns that are text in tables of settings."""
        return 1 if len(self.study.parameters) <= COLUMNS else 2


def show(study: Study, runs: Path, console: "Console") -> None:
    """The tables on a terminal. Errors: RunConflict."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    for sheet in sheets(Found.read(study, runs)):
        if sheet.rows:
            table = Table(box=SIMPLE_HEAD, title=sheet.title, title_justify="left", title_style="bold")
            for i, head in enumerate(sheet.header):
                table.add_column(head, justify="left" if i < sheet.text else "right", overflow="fold")
            for row in sheet.rows:
                table.add_row(*map(Text, row))
            console.print(table, highlight=False)
        else:
            console.print(sheet.title, style="bold", highlight=False)
        for note in sheet.notes:
            console.print(f"  {note}", style="dim", highlight=False, markup=False)
        console.print()


def write(study: Study, runs: Path) -> list[Path]:
    """The page, and beside it the winner as a recipe if it is not the default. Errors: RunConflict, NotWritable."""
    found = Found.read(study, runs)
    texts = {"report.html": page(found)}
    if found.final and found.winner:
        texts["winner.py"] = winner.recipe(study, found.final, found.comparisons)
    for name, text in texts.items():
        write_atomically(study.folder(runs) / name, text.encode())
    return [study.folder(runs) / name for name in texts]


# ---------------------------------------------------------------------------------------------- tables


def sheets(found: Found) -> Iterator[Sheet]:
    yield _summary(found)
    yield _best(found)
    if found.final:
        yield _finals(found, found.final)
    if found.comparisons:
        yield _test(found)
    yield _cost(found)
    yield _importance(found)


def _summary(found: Found) -> Sheet:
    study, counts = found.study, Counter(trial.outcome or "under way" for trial in found.trials)
    words = ", ".join(f"{counts[word]} {word}" for word in (*OUTCOMES, "under way") if counts[word])
    rows = [
        ("recipe", " ".join((study.recipe, *study.overrides))),
        ("objective", f"{study.objective} on held-out images"),
        *((f"setting {p.name}", str(p)) for p in study.parameters),
        ("search", f"{study.sampler}, pruner {study.pruner}, seed {study.seed}"),
        ("trials", f"{len(found.trials)} of {study.trials}" + (f": {words}" if words else "")),
    ]
    return Sheet(f"Study {study.name}", ("what", ""), tuple(rows), text=2)


def _best(found: Found) -> Sheet:
    base, best = found.study.base().digest, selection.ranked(found.trials)
    rows = tuple(
        (
            f"{trial.number}" + (", default" if trial.digest == base else ""), *found.settings(trial.params),
            found.number(trial.value), f"{trial.seconds:.0f}",
        )
        for trial in best[:SHOWN]
    )  # fmt: skip
    note = "One seed each: the best of many is partly the luckiest." if rows else "No trial is complete yet."
    more = (f"The best {SHOWN} of {len(best)} complete trials.",) if len(best) > SHOWN else ()
    return Sheet("Best trials", ("trial", *found.names, "objective", "seconds"), rows, (note, *more), found.words)


def _finals(found: Found, final: Final) -> Sheet:
    header = ("run", *found.names, "mean ± std", "difference", "interval", "word")
    values, _ = selection.final_values(found.study, found.runs, final, "held_out")
    compared = found.comparisons or [Comparison(one, tuple(values[one.digest]), word="–") for one in final.finalists]
    rows = []
    for one in compared:
        span = f"{found.number(one.low, '+')} to {found.number(one.high, '+')}" if one.low is not None else "–"
        rows.append(
            (
                one.finalist.label, *found.settings(one.finalist.params), _spread(found, one.values),
                found.number(one.difference, "+"), span, one.word,
            )
        )  # fmt: skip
    notes = tuple(_chosen(found, final, compared))
    return Sheet(f"Finals: {len(final.seeds)} fresh seeds, held-out images", header, tuple(rows), notes, found.words)


def _chosen(found: Found, final: Final, compared: Sequence[Comparison]) -> Iterator[str]:
    if not found.comparisons:
        over, wanted = sum(len(one.measured) for one in compared), len(final.finalists) * len(final.seeds)
        yield f"{over} of {wanted} final runs have a value; the comparison follows when all are over."
        return
    yield f"Differences to the default, paired by seed; {selection.LEVEL:.0%} for all intervals together."
    if any(one.word == "unstable" for one in compared):
        yield "Unstable: a seed diverged or failed where the default's did not."
    for one in compared:
        if one.more and one.more < SEEDS_LIMIT:
            name, seeds = one.finalist.label.capitalize(), len(final.seeds) + one.more
            yield f"{name}: about {one.more} more seeds would decide, if mean and spread stay: --seeds-final {seeds}."
    if not found.winner:
        yield "Nothing was better than the recipe's own settings; they stay."
        return
    copy = f"winner.py is its recipe, to be copied to sweeps/{winner.module(found.study)}.py"
    yield f"The winner is {found.winner.label}; {copy}."


def _test(found: Found) -> Sheet:
    assert found.final
    values, n = selection.final_values(found.study, found.runs, found.final, "test")
    rows: list[tuple[str, ...]] = []
    first = None
    for one in filter(None, (found.final.finalists[0], found.winner)):
        measured = [value for value in values[one.digest] if value is not None]
        mean = fmean(measured) if measured else None
        first = first if rows else mean
        error = sampling_error(mean, n) if mean is not None and found.unit == "percent" else None
        off = mean - first if rows and mean is not None and first is not None else None
        rows.append((one.label, _spread(found, values[one.digest]), found.number(off, "+"), found.number(error)))
    header = ("run", "mean ± std", "difference", "sampling error")
    note = f"Evaluated after the choice, for these alone, on {n} images." if n else "Not evaluated yet."
    return Sheet("Test images", header, tuple(rows), (note,))


def _cost(found: Found) -> Sheet:
    rows, total = [], 0.0
    for word in OUTCOMES:
        spent = [trial.seconds for trial in found.trials if trial.outcome == word]
        total += sum(spent)
        if spent:
            rows.append((f"trials, {word}", f"{len(spent)}", _time(sum(spent))))
    if found.final:
        paths = [
            found.study.run(found.runs, one.digest, seed) for one in found.final.finalists for seed in found.final.seeds
        ]
        spent = [attempts.seconds(attempts.read(path)) for path in paths]
        total += sum(spent)
        rows.append(("final runs", f"{len(spent)}", _time(sum(spent))))
    rows.append(("together", "", _time(total)))
    return Sheet("Cost", ("runs", "number", "time"), tuple(rows), tuple(_saved(found.trials)))


def _saved(trials: Sequence[Trial]) -> Iterator[str]:
    """What ending trials early saved, at the speed that each had until then."""
    over = [trial for trial in trials if trial.outcome]
    early = [trial for trial in over if trial.outcome in EARLY]
    steps = sum(trial.steps for trial in over)
    if early and steps:
        share = sum(trial.steps - trial.step for trial in early) / steps
        time = sum(trial.seconds * (trial.steps - trial.step) / trial.step for trial in early if trial.step)
        yield f"Ending {len(early)} trials early saved {share:.0%} of all steps, an estimated {_time(time)}."


def _importance(found: Found) -> Sheet:
    weights = plots.importance(in_memory(found.study, found.trials, found.curves))
    if not weights:
        need = f"Needs {plots.ENOUGH} complete trials of different value."
        return Sheet("Importance of settings", notes=(need,))
    order = next(iter(weights.values()))
    rows = tuple((name, *(f"{each[name]:.0%}" for each in weights.values())) for name in order)
    notes = tuple(f"{name}: {note[0].lower()}{note[1:]}" for name, note in plots.NOTES.items())
    return Sheet("Importance of settings", ("setting", *weights), rows, notes)


def _spread(found: Found, values: Sequence[float | None]) -> str:
    """Mean, standard deviation, and of how many where some seeds have no value."""
    measured = [value for value in values if value is not None]
    if not measured:
        return "–"
    text = found.number(fmean(measured)) + (f" ± {found.number(stdev(measured))}" if len(measured) > 1 else "")
    return text + (f" ({len(measured)})" if len(measured) < len(values) else "")


def _spell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _time(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.1f} min"


# ---------------------------------------------------------------------------------------------- the page


def page(found: Found) -> str:
    parts = []
    for i, sheet in enumerate(sheets(found)):
        parts.append(f"<h{2 if i else 1}>{escape(sheet.title)}</h{2 if i else 1}>" + _table(sheet))
        parts += [f"<p class=note>{escape(note)}</p>" for note in sheet.notes]
    if found.final and found.winner:
        code = winner.recipe(found.study, found.final, found.comparisons)
        parts.append(f"<h2>The winner as a recipe</h2><pre class=wide>{escape(code)}</pre>")
    figures = [_figure(plot) for plot in plots.draw(found.study, found.trials, found.curves)]
    parts.append(f"<h2>Plots</h2><div class=plots>{''.join(figures)}</div>")
    return document(f"Study {found.study.name}", parts, style=STYLE + PAGE)


def _table(sheet: Sheet) -> str:
    if not sheet.rows:
        return ""

    def cells(tag: str, texts: Sequence[str]) -> str:
        kinds = ("" if i < sheet.text else " class=number" for i in range(len(texts)))
        return "".join(f"<{tag}{kind}>{escape(text)}</{tag}>" for kind, text in zip(kinds, texts, strict=True))

    rows = "".join(f"<tr>{cells('td', row)}</tr>" for row in sheet.rows)
    return (
        f"<div class=wide><table><thead><tr>{cells('th', sheet.header)}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _figure(plot: plots.Plot) -> str:
    caption = f"<figcaption><b>{escape(plot.title)}</b> {escape(plot.note)}</figcaption>"
    return f"<figure>{caption}<div class=card>{plot.svg}</div></figure>" if plot.svg else f"<figure>{caption}</figure>"
