"""Commands that show, cost, train, sweep and evaluate recipes."""

import sys
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from harness.cli.app import Set, app, root_of, runs_of, say
from harness.errors import BadCommand


@app.command
def demo(runs: Path | None = None, workers: int = 0) -> int:
    """Train, evaluate and judge the core methods on embedded data, in minutes on a laptop.

    Args:
        runs: where run directories go (else HARNESS_RUNS, else ./runs).
        workers: processes side by side; 0 chooses.
    """
    from harness import demo as demonstration

    return demonstration.main(root_of(runs), workers)


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
def methods(names: Positional[tuple[str, ...]] = (), format: Literal["table", "markdown", "json"] = "table") -> None:
    """Show what methods are: paper, loss, oracle, needs of a recipe, settings and their ranges, cost beside SimCLR.

    All of it comes from their files and recipes; `--format markdown` makes methods/README.md.

    Args:
        names: methods, each to be shown in full; else all, one line each.
        format: how to print.
    """
    from harness import commands

    commands.show_methods(names, format)


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
    repeats: int = 5,
    against: str = "",
    workers: int | None = None,
    evals: bool = True,
    set: Set = (),
    data_root: Path | None = None,
    format: Literal["table", "json"] = "table",
) -> None:
    """Time a recipe on this machine's device: views, forward and backward, the full loop, memory, start-up, probes.

    Nothing is kept. Loop efficiency is the loop's images/s over those of bare steps: forward and backward on fixed
    tensors. All parts take turns, and so do other libraries, each in a process of its own.

    Args:
        recipe: its name.
        batch: images of a step, where the recipe's own are too many for one device.
        repeats: rounds, in each of which every part has its turn.
        against: libraries that do the same work, with commas: lightly,solo-learn. They are no dependencies: in an
            environment of its own, `pip install lightly==1.6.0`; or `pip install lightning einops wandb omegaconf` and
            a checkout of github.com/vturrisi/solo-learn at 9187ea3 on PYTHONPATH. Methods: simclr, vicreg.
        workers: processes that load images for those libraries; else one per core.
        evals: whether to time the recipe's k-NN and linear probes, too, on drawn features of the data set's sizes.
        set: a setting to override, for example encoder.name=resnet18; may be repeated.
        data_root: folder of data sets as parquet (else HARNESS_DATA, else the hub).
        format: how to print.
    """
    import json

    from harness import bench as timing
    from harness import registry

    libraries = [name.strip() for name in against.split(",") if name.strip()]
    found = timing.bench(
        registry.recipe(recipe, set),
        batch,
        repeats,
        against=libraries,
        workers=workers,
        evaluate=evals,
        data_root=data_root,
    )
    if format == "json":
        say(json.dumps(found.to_data(), indent=2))
    else:
        from harness.bench import table
        from harness.commands import console

        table.show(found, console)


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

    root, wanted = root_of(runs), runs_of(recipes, seeds, first_seed, set)
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

    from harness import launching

    if what[:1] == ("report",) and len(what) <= 2:
        launching.report_study(root_of(runs), what[1] if len(what) == 2 else None)
        return 0
    if len(what) != 1:
        raise BadCommand("name one recipe or study, `harness list` shows them; or `harness sweep report STUDY`")
    given = {
        "name": study, "trials": trials, "sampler": sampler, "pruner": pruner, "objective": objective, "every": every,
        "finalists": finalists, "seeds_final": seeds_final, "seed": seed, "storage": storage, "overrides": set or None,
        "parameters": re.split(r",(?![^()]*\))", coefficients) if coefficients else None,
    }  # fmt: skip
    return launching.sweep(what[0], given, root_of(runs), cluster, parallel, data_root, as_job)


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
    commands.evaluate_again(recipe, seed, set, protocols, root_of(runs), data_root)
    commands.print_record(recipe, seed, set, root_of(runs))


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

    say(commands.export(recipe, seed, set, to, root_of(runs)))


@app.command
def doctor(runs: Path | None = None, data_root: Path | None = None) -> int:
    """Look at this machine and checkout: what is there, what is missing, how to get it.

    Args:
        runs: where run directories would go.
        data_root: folder of data sets as parquet.
    """
    from harness import doctor as surgery

    return surgery.main(root_of(runs), data_root)
