"""What the commands that launch do, one function each: on a cluster, in the background here, and studies."""

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from harness import registry
from harness.commands import console
from harness.errors import BadCommand, Held, Refused, Unavailable
from harness.runs import Run


def submit(wanted: Sequence[Run], root: Path, cluster: str, data_root: Path | None, dry_run: bool) -> None:
    """Submit runs, or print the job scripts."""
    submitting = registry.load("slurm", "submit")
    items = submitting.items_of(wanted)
    report = submitting.submit(items, root, cluster, data_root=data_root, dry_run=dry_run)
    for script in report.scripts:
        print(script)  # noqa: T201
    _say_submitted(report)


def _say_submitted(report: Any) -> None:
    if report.finished or report.under_way:
        console.print(f"{report.finished} finished and {report.under_way} under way already", highlight=False)
    if report.jobs:
        made, jobs = report.made, ", ".join(report.jobs)
        what = "worker" if made.launcher == "local" else "job"
        console.print(
            f"submitted {report.submitted} runs to {made.cluster} as {made.id} ({what} {jobs})\n"
            f"watch them: harness status {made.id} -f",
            highlight=False,
        )


def show_status(root: Path, names: Sequence[str], follow: bool, everything: bool) -> None:
    """Where submitted runs stand, once or until nothing is under way."""
    from rich.console import Group
    from rich.live import Live

    watching, states = registry.load("slurm", "watch"), registry.load("slurm", "states")
    rows = 0 if everything else watching.ROWS

    def page() -> tuple[Group, bool]:
        found = watching.look(root, names)
        more = len(found) - rows if rows and len(found) > rows else 0
        lines = [watching.summary(found)] + ([f"{more} more rows with --all"] if more else [])
        busy = any(state.word in states.IN_FLIGHT for state in found.values())
        return Group(watching.table(root, found, rows), *lines), busy

    shown, busy = page()
    if not follow:
        console.print(shown, highlight=False)
        return
    with Live(shown, console=console, auto_refresh=False) as live:
        while busy:
            time.sleep(watching.EVERY_S)
            try:
                shown, busy = page()
            except Unavailable as error:  # a scheduler that is down for a while
                shown = Group(shown, str(error))
            live.update(shown, refresh=True)


def show_log(root: Path, recipe: str, seed: int, follow: bool) -> None:
    """A run's log; with `follow` as it grows."""
    watching, states = registry.load("slurm", "watch"), registry.load("slurm", "states")
    path = watching.log_file(root, recipe, seed)
    if not follow:
        print(path.read_text(errors="replace"), end="")  # noqa: T201
        return

    def under_way() -> bool:
        found = watching.look(root, [recipe])
        return any(s.word in states.IN_FLIGHT for item, s in found.items() if item.seed == seed)

    for text in watching.follow(path, under_way):
        print(text, end="", flush=True)  # noqa: T201


def cancel(root: Path, names: Sequence[str]) -> None:
    done = registry.load("slurm", "control").cancel(root, names)
    console.print(f"cancelled {len(done)} runs; `harness resume` goes on with them", highlight=False)


def resume(root: Path, names: Sequence[str], cluster: str | None) -> None:
    reports = registry.load("slurm", "control").resume(root, names, cluster)
    for report in reports:
        _say_submitted(report)
    if not reports:
        console.print("nothing to go on with: all are finished or under way", highlight=False)


def fill(plan: str, root: Path, cluster: str, every: float | None, data_root: Path | None) -> int:
    """One look at what is missing, or one every so many seconds. Returns the exit code: 3 if some need a person."""
    filling, states = registry.load("slurm", "fill"), registry.load("slurm", "states")
    looked = False
    while True:
        try:
            tick = filling.tick(plan, root, cluster, data_root)
        except Held as held:
            console.print(f"another controller is at it: {held}", highlight=False)
            return 0
        except (Unavailable, Refused) as error:  # down, or no more jobs for now; a mistake shows at the first look
            if not every or (isinstance(error, Refused) and not looked):
                raise
            console.print(f"{error}; looking again in {every:.0f} s", highlight=False)
            time.sleep(every)
            continue
        looked = True
        counts = ", ".join(f"{n} {word}" for word, n in tick.counts.most_common())
        console.print(f"{plan}: {counts}", highlight=False)
        if tick.released:
            console.print(f"released {tick.released} jobs that SLURM could not launch and held", highlight=False)
        for report in tick.reports:
            _say_submitted(report)
        if not every or not tick.left:
            return 3 if any(tick.counts[word] for word in states.ON_REQUEST) else 0
        time.sleep(every)


# ---------------------------------------------------------------------------------------------- studies


def sweep(
    what: str,
    given: dict[str, Any],
    root: Path,
    cluster: str,
    parallel: int,
    data_root: Path | None,
    as_job: bool = False,
) -> int:
    """Run a study, or go on with it, then show what it found. Returns the exit code."""
    from harness import data, signals, tracking
    from harness.studies import request

    if parallel < 1:
        raise BadCommand(f"--parallel is {parallel}; expected 1 or more")
    study = request.study(what, given, root)
    data.load(study.base().data, data_root)  # else every trial would find that it is missing
    say = partial(console.print, highlight=False, markup=False, soft_wrap=True)
    varied = "; ".join(map(str, study.parameters))
    say(f"study {study.name}: {study.trials} trials of {study.recipe}, {parallel} at once on {cluster}\n{varied}")
    if as_job:
        id, log = registry.load("slurm", "coordinator_job").send(study, root, cluster, parallel, data_root)
        say(f"its coordinator is job {id}; look: tail -f {log}; harness sweep report {study.name}")
        return 0
    with signals.noted() as stop:
        registry.load("slurm", "coordinator").coordinate(study, root, cluster, parallel, data_root, stop, say)
    tracking.sync(root)
    report_study(root, study.name)
    return 0


def report_study(root: Path, name: str | None) -> None:
    """Print how a study stands; write its page and, if it has one, the winner's recipe."""
    from harness.studies import report, study

    known = study.names(root)
    if name is None and len(known) != 1:
        raise BadCommand(f"name a study; in {root} there are: {', '.join(known) or 'none'}")
    found = study.read(root, name or known[0])
    report.show(found, root, console)
    for path in report.write(found, root):
        console.print(f"wrote {path}", highlight=False)
