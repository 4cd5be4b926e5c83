"""Commands for a cluster, or the background of this machine."""

from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from harness.cli.app import Set, app, root_of, runs_of, say
from harness.errors import BadCommand


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
    from harness import launching

    launching.submit(runs_of(recipes, seeds, first_seed, set), root_of(runs), cluster, data_root, dry_run)


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
    from harness import launching

    launching.show_status(root_of(runs), names, follow, all)


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
    from harness import launching

    launching.show_log(root_of(runs), recipe, seed, follow)


@app.command
def cancel(names: Positional[tuple[str, ...]], runs: Path | None = None) -> None:
    """Stop submitted runs after a checkpoint; nothing starts them again until you ask.

    Args:
        names: submissions or recipes (or how a submission begins, or a pattern like "vicreg_*").
        runs: where run directories are.
    """
    from harness import launching

    if not names:
        raise BadCommand("name at least one submission or recipe; `harness status` shows them")
    launching.cancel(root_of(runs), names)


@app.command
def resume(names: Positional[tuple[str, ...]] = (), cluster: str | None = None, runs: Path | None = None) -> None:
    """Go on with submitted runs that are not finished and not under way, with the code they were submitted with.

    Args:
        names: submissions or recipes; else all.
        cluster: another one than they were submitted to.
        runs: where run directories are.
    """
    from harness import launching

    launching.resume(root_of(runs), names, cluster)


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
    from harness import launching

    return launching.fill(plan, root_of(runs), cluster, every, data_root)


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
