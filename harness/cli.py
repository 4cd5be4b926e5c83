"""The command line: arguments, what is printed, exit codes. No logic, and no heavy import before a command runs.

Exit codes: 0 fine, 1 a check failed, 2 the user's input, 3 a run failed.
"""

import os
import sys
import traceback
from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.conf import Positional, UseAppendAction, arg

from harness.errors import BadCommand, HarnessError

Set = Annotated[tuple[str, ...], arg(metavar="PATH=VALUE"), UseAppendAction]
app = tyro.extras.SubcommandApp()


def call(words: list[str]) -> int:
    """Run one command line; returns the exit code."""
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"] or ["--help"]
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    try:
        code = app.cli(
            args=words,
            prog="harness",
            description="A benchmark and reproduction harness for self-supervised learning of images. "
            "Any command takes --debug, which shows the traceback of an error.",
        )
        return int(code or 0)
    except HarnessError as error:
        if debug:
            traceback.print_exc()
        print(f"harness: {error}", file=sys.stderr)  # noqa: T201
        return error.exit_code
    except BrokenPipeError:  # the reader of a pipe has gone, as with `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if debug:
            traceback.print_exc()
        kind = type(error).__name__
        print(f"harness: crashed with {kind}: {error}; --debug shows where", file=sys.stderr)  # noqa: T201
        return 3
    except KeyboardInterrupt:
        print("harness: stopped; start the same command again to go on", file=sys.stderr)  # noqa: T201
        return 3


def say(text: str = "") -> None:
    print(text)  # noqa: T201


@app.command
def demo(runs: Path | None = None, workers: int = 0) -> int:
    """Train, evaluate and judge the core methods on embedded data, in minutes on a laptop.

    Args:
        runs: where run directories go (else HARNESS_RUNS, else ./runs).
        workers: processes side by side; 0 chooses.
    """
    from harness import demo as demonstration

    return demonstration.main(_root(runs), workers)


@app.command(name="list")
def list_(what: Positional[Literal["recipes", "studies", "methods", "protocols", "data"]] = "recipes") -> None:
    """Show the names that can be used.

    Args:
        what: which kind of name.
    """
    from harness import registry

    if what == "recipes":
        for name, module in registry.recipe_names().items():
            say(f"{name:48} sweeps/{module}.py")
    elif what == "studies":
        from harness.studies import request

        for name, about in request.files().items():
            say(f"{name:36} {about}")
    elif what == "methods":
        for name in registry.names("methods"):
            say(f"{name:16} {registry.first_line('methods', name)}")
    elif what == "protocols":
        for name in registry.names("harness.evals"):
            say(f"{name:20} {registry.first_line('harness.evals', name)}")
    else:
        from harness import data

        for name in data.NAMES:
            say(f"{name:16} {data.revision(name)}")


@app.command
def show(recipe: Positional[str], set: Set = ()) -> None:
    """Print a recipe with everything it resolves to.

    Args:
        recipe: its name.
        set: a setting to override, for example optimiser.lr=0.1; may be repeated.
    """
    import json

    from harness import registry

    found = registry.recipe(recipe, set)
    say(json.dumps({"digest": found.digest} | found.resolved(), indent=2))


@app.command
def cost(
    recipes: Positional[tuple[str, ...]] = (),
    tflops: float | None = None,
    timings: bool = False,
    format: Literal["table", "markdown", "json"] = "table",
) -> None:
    """Count what recipes cost before anything runs: parameters, FLOPs, and an estimate of GPU-hours.

    FLOPs are counted on one real training step, forward and backward, without data or a GPU.

    Args:
        recipes: their names, or patterns like "vicreg_*".
        tflops: 10^12 FLOP/s that a GPU achieves, as `harness bench` measures it; else a median of published timings.
        timings: show those published timings, and the rate that each comes to.
        format: how to print.
    """
    from harness import commands

    if bool(recipes) == timings:
        raise BadCommand("name at least one recipe, `harness list` shows them; or ask for --timings alone")
    if timings:
        commands.show_timings()
    else:
        commands.show_costs(recipes, tflops, format)


@app.command
def bench(
    recipe: Positional[str],
    batch: int | None = None,
    repeats: int = 10,
    set: Set = (),
    format: Literal["text", "json"] = "text",
) -> None:
    """Time bare training steps of a recipe on this machine's device: forward and backward on fixed tensors.

    Args:
        recipe: its name.
        batch: images of a step, where the recipe's own are too many for one device.
        repeats: how many steps to time.
        set: a setting to override, for example encoder.name=resnet18; may be repeated.
        format: how to print.
    """
    import json

    from harness import bench as timing
    from harness import registry

    found = timing.bench(registry.recipe(recipe, set), batch, repeats)
    say(json.dumps(found.to_data(), indent=2) if format == "json" else str(found))


@app.command
def run(
    recipes: Positional[tuple[str, ...]],
    seeds: int = 1,
    first_seed: int = 0,
    set: Set = (),
    runs: Path | None = None,
    data_root: Path | None = None,
    workers: int = 0,
    sync: bool = True,
) -> int:
    """Train and evaluate recipes here; finished runs are left alone, interrupted ones go on.

    Args:
        recipes: their names.
        seeds: how many seeds of each.
        first_seed: the lowest seed.
        set: a setting to override, for example optimiser.lr=0.1; may be repeated. Such runs are barred from verdicts.
        runs: where run directories go (else HARNESS_RUNS, else ./runs).
        data_root: folder of data sets as parquet (else HARNESS_DATA, else the hub).
        workers: processes side by side where there are several runs; 0 chooses.
        sync: send the results to MLflow afterwards.
    """
    from harness import commands

    root, wanted = _root(runs), _wanted(recipes, seeds, first_seed, set)
    failed = commands.run_all(wanted, root, data_root, workers)
    if sync:
        from harness import tracking

        tracking.sync(root)
    for item in wanted:
        failed += commands.print_record(*item, root)
    for line in failed:
        print(f"harness: {line}", file=sys.stderr)  # noqa: T201
    return 3 if failed else 0


@app.command
def submit(
    recipes: Positional[tuple[str, ...]],
    cluster: str = "local",
    seeds: int = 1,
    first_seed: int = 0,
    set: Set = (),
    runs: Path | None = None,
    data_root: Path | None = None,
    dry_run: bool = False,
) -> None:
    """Send runs to a cluster, with a copy of the code; what is finished or under way is left alone.

    Args:
        recipes: their names.
        cluster: a profile, see slurm/clusters/; `local` is this machine, in the background.
        seeds: how many seeds of each.
        first_seed: the lowest seed.
        set: a setting to override, for example optimiser.lr=0.1; may be repeated. Such runs are barred from verdicts.
        runs: where run directories go (else HARNESS_RUNS, else ./runs); every node must see it.
        data_root: folder of data sets as parquet (else HARNESS_DATA, else the hub).
        dry_run: print what would be submitted, and submit nothing.
    """
    from harness import commands

    commands.submit(_wanted(recipes, seeds, first_seed, set), _root(runs), cluster, data_root, dry_run)


@app.command
def status(
    names: Positional[tuple[str, ...]] = (),
    runs: Path | None = None,
    follow: Annotated[bool, arg(aliases=["-f"])] = False,
    all: bool = False,
) -> None:
    """Show where submitted runs stand.

    Args:
        names: submissions or recipes (or how a submission begins, or a pattern like "vicreg_*"); else all.
        runs: where run directories are.
        follow: keep the table up to date until nothing is under way.
        all: every row, however many.
    """
    from harness import commands

    commands.show_status(_root(runs), names, follow, all)


@app.command
def logs(
    recipe: Positional[str],
    seed: int = 0,
    follow: Annotated[bool, arg(aliases=["-f"])] = False,
    runs: Path | None = None,
) -> None:
    """Print the log of a submitted run's newest attempt.

    Args:
        recipe: name of the recipe that was submitted.
        seed: which run of it.
        follow: keep printing what comes, until the run ends.
        runs: where run directories are.
    """
    from harness import commands

    commands.show_log(_root(runs), recipe, seed, follow)


@app.command
def cancel(names: Positional[tuple[str, ...]], runs: Path | None = None) -> None:
    """Stop submitted runs after a checkpoint; nothing starts them again until you ask.

    Args:
        names: submissions or recipes (or how a submission begins, or a pattern like "vicreg_*").
        runs: where run directories are.
    """
    from harness import commands

    if not names:
        raise BadCommand("name at least one submission or recipe; `harness status` shows them")
    commands.cancel(_root(runs), names)


@app.command
def resume(names: Positional[tuple[str, ...]] = (), cluster: str | None = None, runs: Path | None = None) -> None:
    """Go on with submitted runs that are not finished and not under way, with the code they were submitted with.

    Args:
        names: submissions or recipes; else all.
        cluster: another one than they were submitted to.
        runs: where run directories are.
    """
    from harness import commands

    commands.resume(_root(runs), names, cluster)


@app.command
def fill(
    plan: Positional[str],
    cluster: str = "local",
    every: float | None = None,
    runs: Path | None = None,
    data_root: Path | None = None,
) -> int:
    """Launch what is missing for a table: training, then further protocols. Safe to repeat, also from cron.

    Args:
        plan: a file of groups of recipes and seeds in sweeps/, by name, or a path that ends in .toml.
        cluster: a profile, see slurm/clusters/.
        every: seconds; look again so often until nothing is missing. Else look once.
        runs: where run directories are.
        data_root: folder of data sets as parquet.
    """
    from harness import commands

    return commands.fill(plan, _root(runs), cluster, every, data_root)


@app.command
def sweep(
    what: Positional[tuple[str, ...]],
    study: str | None = None,
    trials: int | None = None,
    parallel: int = 2,
    cluster: str = "local",
    coefficients: str | None = None,
    sampler: Literal["tpe", "gp", "cmaes", "random", "grid", "qmc"] | None = None,
    pruner: Literal["hyperband", "median", "none"] | None = None,
    objective: str | None = None,
    every: int | None = None,
    finalists: int | None = None,
    seeds_final: int | None = None,
    seed: int | None = None,
    storage: str | None = None,
    as_job: bool = False,
    set: Set = (),
    runs: Path | None = None,
    data_root: Path | None = None,
) -> int:
    """Vary a recipe's loss coefficients, or other settings, and compare the best with the recipe as it is.

    `harness sweep RECIPE` or `harness sweep STUDY`, a file in sweeps/studies; the same command goes on with a study
    that was interrupted. `harness sweep report STUDY` prints how it stands and writes a page and the winner's recipe.

    Args:
        what: a recipe or a study; or `report` and a study.
        study: name of the study, else the recipe's or the file's.
        trials: how many settings to try; more can be asked for later. Else 50.
        parallel: runs side by side.
        cluster: a profile, see slurm/clusters/; `local` is this machine.
        coefficients: what to vary, with commas: names that the method declares (else all of them), or any setting with
            a range or choices: variance=1..100,optimiser.lr=1e-4..1e-2:log,budget.batch=128|256
        sampler: how Optuna proposes settings; else tpe.
        pruner: how Optuna ends unpromising runs early; else hyperband.
        objective: <protocol>/<metric>, measured on held-out images; else knn/top1.
        every: epochs between two measurements for the pruner.
        finalists: how many of the best trials run again, beside the recipe's own settings; else 2.
        seeds_final: with how many fresh seeds; 0 for no comparison; else 5.
        seed: of the trials and of the sampler; else 1000.
        storage: an Optuna URL, for example postgresql+psycopg://...; else a journal file beside the study.
        as_job: what asks, prunes and compares is a job of the cluster, too (on `local`: in the background).
        set: a setting of all runs to override, for example budget.epochs=100; may be repeated.
        runs: where run directories are.
        data_root: folder of data sets as parquet.
    """
    import re

    from harness import commands

    if what[:1] == ("report",) and len(what) <= 2:
        commands.report_study(_root(runs), what[1] if len(what) == 2 else None)
        return 0
    if len(what) != 1:
        raise BadCommand("name one recipe or study, `harness list` shows them; or `harness sweep report STUDY`")
    given = {
        "name": study, "trials": trials, "sampler": sampler, "pruner": pruner, "objective": objective, "every": every,
        "finalists": finalists, "seeds_final": seeds_final, "seed": seed, "storage": storage, "overrides": set or None,
        "parameters": re.split(r",(?![^()]*\))", coefficients) if coefficients else None,
    }  # fmt: skip
    return commands.sweep(what[0], given, _root(runs), cluster, parallel, data_root, as_job)


@app.command(name="eval")
def eval_(
    recipe: Positional[str],
    protocols: Positional[tuple[str, ...]],
    seed: int = 0,
    set: Set = (),
    runs: Path | None = None,
    data_root: Path | None = None,
) -> None:
    """Evaluate the encoder of a finished run by further protocols, and add them to its record.

    Args:
        recipe: name of the recipe that was run.
        protocols: names, see `harness list protocols`.
        seed: which run of it.
        set: the overrides it was run with.
        runs: where run directories are.
        data_root: folder of data sets as parquet.
    """
    from harness import commands

    if not protocols:
        raise BadCommand("name at least one protocol; `harness list protocols` shows them")
    commands.evaluate_again(recipe, seed, set, protocols, _root(runs), data_root)
    commands.print_record(recipe, seed, set, _root(runs))


@app.command
def sync(runs: Path | None = None, mlflow: str | None = None) -> None:
    """Send run directories to MLflow; safe to repeat, also while runs are live.

    Args:
        runs: where run directories are.
        mlflow: tracking URI (else an SQLite file beside the runs).
    """
    from harness import commands, tracking

    root = _root(runs)
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

    page = commands.show_leaderboard(_root(runs), mlflow, dataset, overrides)
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

    files = claims.load_all(registry.ROOT / "results" / "claims", registry.recipe_names())
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
    format: Literal["table", "json", "junit"] = "table",
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
        format: a table, or for other programs JSON or JUnit XML.
    """
    from harness import commands

    return commands.show_verdicts(
        _root(runs), mlflow, claims, allow_dirty=allow_dirty, untried=untried, fail_on=fail_on, format=format
    )


@app.command
def promote(recipes: Positional[tuple[str, ...]], runs: Path | None = None) -> None:
    """Copy the finished runs of recipes to results/records: numbers that we stand by, and later runs are held against.

    Args:
        recipes: names of recipes; all finished seeds of each are taken.
        runs: where run directories are.
    """
    from harness import commands

    commands.promote(recipes, _root(runs))


@app.command
def export(
    recipe: Positional[str], to: Positional[Path], seed: int = 0, set: Set = (), runs: Path | None = None
) -> None:
    """Copy the encoder of a finished run to a safetensors file that timm loads.

    Args:
        recipe: name of the recipe that was run.
        to: the file to write.
        seed: which run of it.
        set: the overrides it was run with.
        runs: where run directories are.
    """
    from harness import commands

    say(commands.export(recipe, seed, set, to, _root(runs)))


@app.command
def doctor(runs: Path | None = None, data_root: Path | None = None) -> int:
    """Look at this machine and checkout: what is there, what is missing, how to get it.

    Args:
        runs: where run directories would go.
        data_root: folder of data sets as parquet.
    """
    from harness import doctor as surgery

    return surgery.main(_root(runs), data_root)


@app.command
def devcluster(
    action: Positional[Literal["up", "down", "status"]],
    root: Path | None = None,
    nodes: int = 4,
    cpus: int = 4,
    gpus: int = 2,
    accounting: bool = False,
    preempt_signal: bool = True,
) -> None:
    """A real SLURM on this machine, for trying out: start it, stop it, or look at it.

    Args:
        action: what to do; the settings below are for up.
        root: its folder (else one in /tmp); its path must be short.
        nodes: how many, 1 to 64.
        cpus: CPUs of each node, as SLURM counts them.
        gpus: GPUs that each node claims to have.
        accounting: with a database, so that sacct answers.
        preempt_signal: a job that is preempted gets the signal that it asked for.
    """
    from harness import registry

    cluster = registry.load("slurm", "devcluster")
    if action == "up":
        lines = cluster.up(root, nodes, cpus, gpus, accounting, preempt_signal)
    else:
        lines = cluster.down(root) if action == "down" else cluster.status(root)
    for line in lines:
        say(line)


def _wanted(
    recipes: tuple[str, ...], seeds: int, first_seed: int, overrides: tuple[str, ...]
) -> list[tuple[str, int, tuple[str, ...]]]:
    if not recipes:
        raise BadCommand("name at least one recipe; `harness list` shows them")
    if seeds < 1 or first_seed < 0:
        raise BadCommand(f"--seeds is {seeds} and --first-seed {first_seed}; expected 1 or more, and 0 or more")
    return [(name, seed, overrides) for name in recipes for seed in range(first_seed, first_seed + seeds)]


def _root(runs: Path | None) -> Path:
    from harness.runs import default_root

    return runs or default_root()
