"""Commands about what was measured: tables, claims, verdicts, records."""

import sys
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from harness.cli.app import app, root_of, say


@app.command
def sync(runs: Path | None = None, mlflow: str | None = None) -> None:
    """Send run directories to MLflow; safe to repeat, also while runs are live.

    Args:
        runs: where run directories are.
        mlflow: tracking URI (else an SQLite file beside the runs).
    """
    from harness import commands, tracking

    root = root_of(runs)
    commands.need_runs(root)
    counts = tracking.sync(root, mlflow)
    say(str(counts))
    for line in counts.problems:
        print(f"harness: left out {line}", file=sys.stderr)  # noqa: T201
    say(f"look at them: {tracking.where_to_look(mlflow or tracking.default_uri(root))}")


@app.command
def leaderboard(
    runs: Path | None = None, mlflow: str | None = None, dataset: str | None = None, overrides: bool = False
) -> None:
    """Print the tables of all runs, and write them as Markdown, CSV, LaTeX and one HTML page.

    Args:
        runs: where run directories are; the tables are written there too.
        mlflow: tracking URI (else an SQLite file beside the runs).
        dataset: only this data set.
        overrides: also show runs whose recipe was overridden.
    """
    from harness import commands

    page = commands.show_leaderboard(root_of(runs), mlflow, dataset, overrides)
    say(f"wrote {page} and, beside it, leaderboard.md, leaderboard.csv and leaderboard.tex")


@app.command(name="claims")
def claims_(
    ids: Positional[tuple[str, ...]] = (),
    paper: str | None = None,
    kind: str | None = None,
    dataset: str | None = None,
    method: str | None = None,
    status: str | None = None,
    count: bool = False,
    format: Literal["table", "json"] = "table",
) -> None:
    """Show what was claimed, where it is printed, and which recipe attempts it or why none can.

    Args:
        ids: only those whose id starts with one of these.
        paper: only those of this file in results/claims.
        kind: only value, ordering, equivalence, collapse or bound.
        dataset: only those on this data set.
        method: only those on this method.
        status: only attempted (a recipe names it), open (none does yet) or impossible (none can, as things stand).
        count: instead of the claims, how many there are of each paper, kind and status, and what stands in the way.
        format: tables, or JSON with every field.
    """
    from rich.console import Console

    from harness import claims, registry
    from harness.claims import listing

    files = claims.load_all(claims.FOLDER, registry.recipe_names())
    filters = {"paper": paper, "kind": kind, "dataset": dataset, "method": method, "status": status}
    found = listing.select(files, ids, filters)
    if format == "json":
        say(listing.to_json(found, count))
        return
    console = Console(width=None if sys.stdout.isatty() else 120)  # as in commands.py, which needs torch
    (listing.show_counts if count else listing.show)(found, console)


@app.command
def check(
    claims: Positional[tuple[str, ...]] = (),
    runs: Path | None = None,
    mlflow: str | None = None,
    allow_dirty: bool = False,
    untried: bool = False,
    fail_on: str = "differs,regressed",
    format: Literal["table", "markdown", "json", "junit"] = "table",
) -> int:
    """Hold runs against what was claimed and against our own records; exit code 1 if one differs or has regressed.

    Args:
        claims: only those claims and records (record/<recipe>) whose id starts with one of these.
        runs: where run directories are; without any the records alone are judged.
        mlflow: tracking URI (else an SQLite file beside the runs).
        allow_dirty: judge runs of a checkout with uncommitted changes too.
        untried: also list claims that nobody has run.
        fail_on: verdicts that make the exit code 1, separated by commas: differs, regressed, stale, undecided, untried,
            barred.
        format: a table, the same with reasons as Markdown, or for other programs JSON or JUnit XML.
    """
    from harness import commands

    return commands.show_verdicts(
        root_of(runs), mlflow, claims, allow_dirty=allow_dirty, untried=untried, fail_on=fail_on, format=format
    )


@app.command
def promote(recipes: Positional[tuple[str, ...]], runs: Path | None = None) -> None:
    """Copy the finished runs of recipes to results/records: numbers that we stand by, and later runs are held against.

    Args:
        recipes: names of recipes; all finished seeds of each are taken.
        runs: where run directories are.
    """
    from harness import commands

    commands.promote(recipes, root_of(runs))
