"""How sensitive each study found its objective to be, setting by setting; its own page has the rest."""

from collections.abc import Iterator
from html import escape
from math import isfinite
from pathlib import Path
from urllib.parse import quote

from harness.errors import RunConflict
from harness.report.document import link, notes
from harness.report.plots import Series, plot

SHOWN_STUDIES, SHOWN_SETTINGS, SHOWN_TRIALS = 12, 6, 300


def studies(root: Path) -> Iterator[str]:
    names = sorted(file.parent.name for file in (root / "studies").glob("*/study.json"))
    if not names:
        return
    yield "<h2 id=studies>Studies of coefficients</h2>"
    yield notes(
        ["Every complete trial: its objective on held-out images over each setting that varied; one seed each."]
    )
    for name in names[:SHOWN_STUDIES]:
        yield _study(root, name)
    if len(names) > SHOWN_STUDIES:
        yield notes([f"And {len(names) - SHOWN_STUDIES} more: {', '.join(names[SHOWN_STUDIES:])}."])


def _study(root: Path, name: str) -> str:
    from harness.studies import study as files

    page = f"studies/{quote(name)}/report.html"
    title = link(page, name) if (root / page).exists() else escape(name)
    try:
        study = files.read(root, name)
        trials = [trial for trial in files.read_trials(root, name) if trial.outcome == "complete"]
    except RunConflict:
        return f"<h3>{escape(name)}</h3>" + notes([f"Damaged; `harness sweep report {name}` says where."])
    trials = trials[:: max(1, -(-len(trials) // SHOWN_TRIALS))]
    figures, varied = [], 0
    for parameter in study.parameters:
        pairs = [(trial.params[parameter.name], trial.value) for trial in trials]
        numbers = [
            (float(x), float(y), 0.0) for x, y in pairs if isinstance(x, int | float) and y is not None and isfinite(y)
        ]
        if len({x for x, _, _ in numbers}) < 2:
            continue
        varied += 1
        log = parameter.log and all(x > 0 for x, _, _ in numbers)
        if varied <= SHOWN_SETTINGS:
            dots = Series("trials", 0, tuple(numbers))
            figures.append(
                plot(f"{study.objective}", parameter.name, [dots], draw="dots", log=log, width=260, height=180)
            )
    more = f"; {varied - SHOWN_SETTINGS} more settings on its page" if varied > SHOWN_SETTINGS else ""
    about = f"{study.recipe}: {len(trials)} complete trials{more}"
    return f"<h3>{title}</h3>{notes([about])}<div class=plots>{''.join(figures)}</div>"
