"""What the commands do, one function each."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table

from harness import registry
from harness.errors import BadCommand, BadRecipe, Interrupted, RunFailed, Unavailable
from harness.runs import Run, RunDirectory, cancel_mark, writable
from harness.watch import watch

if TYPE_CHECKING:
    from harness.signals import Stop

console = Console(width=None if sys.stdout.isatty() else 120)  # a log is wide enough for the tables


def run_all(wanted: Sequence[Run], root: Path, data_root: Path | None, workers: int) -> list[str]:
    """Do all runs here: one in this process, several through the local launcher. Returns a line per failed run."""
    from harness import data

    recipes = [registry.recipe(name, overrides) for name, _, overrides in wanted]
    for recipe in recipes:
        data.check_there(recipe.data, data_root)
    directories = [RunDirectory(root, recipe, seed) for recipe, (_, seed, _) in zip(recipes, wanted, strict=True)]
    with writable(root):
        root.mkdir(parents=True, exist_ok=True)
    missing = [run for run, directory in zip(wanted, directories, strict=True) if directory.record() is None]
    for directory in directories:  # who asks for a run again lifts its cancellation
        cancel_mark(directory.path).unlink(missing_ok=True)
    if done := len(wanted) - len(missing):
        console.print(f"{done} of {len(wanted)} runs are finished already", highlight=False)
    if len(missing) == 1:
        from harness import train

        name, seed, overrides = missing[0]
        try:
            train.run(registry.recipe(name, overrides), seed, root, data_root=data_root)
        except RunFailed as error:
            return [str(error)]
        return []
    if not missing:
        return []
    launcher = registry.load("slurm", "local")
    jobs = launcher.launch(missing, root, data_root, workers)
    try:
        watch(directories, alive=lambda: not all(job.done() for job in jobs))
        return sorted({line for job in jobs for line in launcher.failures(job)})
    except KeyboardInterrupt:
        for job in jobs:
            launcher.cancel(job)
        raise


def show_costs(patterns: Sequence[str], tflops: float | None, format: str) -> None:
    """Print what recipes cost. Errors: UnknownName, BadRecipe, BadCommand."""
    import json

    from harness import cost

    if tflops is not None and not 0 < tflops < float("inf"):
        raise BadCommand(f"--tflops is {tflops}; expected 10^12 FLOP/s as achieved, above 0")
    rate, basis = (cost.TFLOPS, cost.CALIBRATION) if tflops is None else (tflops, "as given")
    found = [cost.of(registry.recipe(name)) for name in registry.matching(patterns)]
    if format == "json":
        data = {"tflops": rate, "basis": basis, "recipes": [one.to_data(rate) for one in found]}
        print(json.dumps(data, indent=2))  # noqa: T201
        return
    _print_table(cost.HEADER, [cost.row(one, rate) for one in found], format)
    note = f"GPU-hours are an estimate at {rate:g} TFLOP/s achieved by a GPU: {basis}."
    console.print(note, highlight=False, soft_wrap=True)


def show_timings() -> None:
    """Print what published timings come to, in FLOP/s."""
    from statistics import median

    from harness import cost

    known = cost.timings(registry.ROOT / "results" / "timings.toml")
    rates = [one.tflops(cost.of(registry.recipe(one.recipe))) for one in known]
    rows = [
        (f"{one.gpus} x {one.gpu}", f"{one.hours:g}", f"{rate:.1f}", one.source)
        for one, rate in zip(known, rates, strict=True)
    ]
    _print_table(("GPUs", "hours", "TFLOP/s", "source"), rows, "table")
    note = f"median {median(rates):.1f} TFLOP/s achieved by a GPU; `harness cost` takes {cost.TFLOPS:g}"
    console.print(note, highlight=False)


def show_methods(names: Sequence[str], format: str) -> None:
    """Print what methods are; named ones in the table's form with all that the page says. Errors: UnknownName."""
    import json

    from rich.markdown import Markdown

    from harness import catalogue

    found = catalogue.entries(names)
    if format == "json":
        print(json.dumps([entry.to_data() for entry in found], indent=2))  # noqa: T201
    elif format == "markdown":
        print(catalogue.to_markdown(found), end="")  # noqa: T201
    else:
        _print_table(catalogue.HEADER, [catalogue.row(entry) for entry in found], format)
        for entry in found if names else ():
            console.print(Markdown(catalogue.section(entry)))


def _print_table(header: Sequence[str], rows: Sequence[Sequence[str]], format: str) -> None:
    """A table for the terminal, or Markdown; all columns but the first and texts are numbers."""
    numbers = [all(row[i].replace(",", "").replace(".", "").isdigit() for row in rows) for i in range(len(header))]
    if format == "markdown":
        marks = ["--:" if number else "---" for number in numbers]
        for line in (header, marks, *rows):
            print("| " + " | ".join(line) + " |")  # noqa: T201
        print()  # noqa: T201
        return
    table = Table(box=box.SIMPLE_HEAD)
    for text, number in zip(header, numbers, strict=True):
        table.add_column(text, justify="right" if number else "left", no_wrap=text == "recipe")
    for row in rows:
        table.add_row(*row)
    console.print(table, highlight=False)


def finished(recipe: str, seed: int, overrides: tuple[str, ...], root: Path) -> tuple[RunDirectory, dict[str, Any]]:
    """A finished run and its record. Errors: BadRecipe if there is none."""
    directory = RunDirectory(root, registry.recipe(recipe, overrides), seed)
    record = directory.record()
    if record is None:
        words = f"harness run {recipe} --first-seed {seed}" + "".join(f" --set {text}" for text in overrides)
        raise BadRecipe(f"no finished run at {directory.path}; `{words}` makes it")
    return directory, record


def print_record(recipe: str, seed: int, overrides: tuple[str, ...], root: Path) -> list[str]:
    """One line of outcome and a table of metrics, or nothing for an unfinished run. Returns a line if it failed."""
    record = RunDirectory(root, registry.recipe(recipe, overrides), seed).record()
    if record is None:
        return []
    speed = f", {record['images_per_s']:.0f} images/s" if record["images_per_s"] else ""
    outcome = f"{recipe} seed {seed}: {record['status']}, {record['train_seconds']:.0f} s{speed}"
    console.print(outcome, highlight=False)
    table = Table("protocol", "split", "n", "metrics", box=box.SIMPLE_HEAD)
    for row in record["evals"]:
        metrics = ", ".join(f"{name} {value:.4g}" for name, value in row["metrics"].items())
        table.add_row(row["protocol"], row["split"], str(row["n"]), metrics)
    console.print(table)
    return [] if record["status"] == "complete" else [f"{recipe} seed {seed} {record['status']}: {record['reason']}"]


def load_encoder(directory: RunDirectory, px: int) -> Any:
    """The evaluated network of a finished run, from its safetensors."""
    from safetensors.torch import load_file

    from harness import backbones, data

    recipe = directory.recipe
    backbone = backbones.build(recipe.encoder, px, vectors=recipe.data.name in data.VECTORS)
    if isinstance(backbone, backbones.TimmBackbone | backbones.MLPBackbone):
        file = directory.path / "encoder.safetensors"
        try:
            backbone.model.load_state_dict(load_file(file))
        except Exception as error:
            raise BadRecipe(
                f"{file} cannot be read ({error}); remove record.json beside it and run the recipe again"
            ) from error
    return backbone


def evaluate_again(
    recipe: str,
    seed: int,
    overrides: tuple[str, ...],
    protocols: Sequence[str],
    root: Path,
    data_root: Path | None,
    stop: "Stop | None" = None,
) -> None:
    """Further protocols on the stored encoder; their rows replace those of the same protocol in the record.

    protocols: names, or ids of the recipe's own. The features are extracted once; the record is written after each
    protocol. Errors: BadRecipe; Interrupted between two protocols, when `stop` says so.
    """
    own = {config.id: config for config in registry.recipe(recipe, overrides).evals}
    configs = tuple(own.get(name) or registry.load("harness.evals", name).Config() for name in protocols)
    directory, record = finished(recipe, seed, overrides, root)
    import torch

    from harness import allocator, data, provenance, train
    from harness.evals import check, evaluate
    from harness.features import extract

    allocator.keep()
    splits = data.load(directory.recipe.data, data_root)
    check(configs, splits)
    encoder = load_encoder(directory, record["px"])
    device = "cuda" if torch.cuda.is_available() else "cpu"
    features = extract(encoder.to(device), splits.to(device), views=directory.recipe.views, seed=seed, device=device)
    for config in configs:
        if stop and stop.signal:
            raise Interrupted(f"evaluation of {directory.key} stopped by {stop.signal}; start it again to go on")
        rows = evaluate((config,), features, network=record["network"])
        with directory.leased(wait=True):
            _, record = finished(recipe, seed, overrides, root)  # as it is now that nobody else writes it
            record["evals"] = [row for row in record["evals"] if row["protocol"] != config.id] + rows
            record["code"] = provenance.code(train.methods_of(directory.recipe), record["code"])
            directory.write_record(record)


def export(recipe: str, seed: int, overrides: tuple[str, ...], to: Path, root: Path) -> str:
    """Write the encoder where asked; returns how to load it."""
    from harness import backbones

    directory, record = finished(recipe, seed, overrides, root)
    backbone = load_encoder(directory, record["px"])
    with writable(to):
        to.parent.mkdir(parents=True, exist_ok=True)
        lines = backbones.export(backbone, directory.recipe.encoder, to)
    return f"wrote {to}\n{lines}"


def need_runs(root: Path, uri: str | None = None) -> None:
    """Errors: Unavailable where there is nothing to show yet; another tracking URI may hold runs from elsewhere."""
    if uri is None and not any(root.glob("*/*/seed-*/recipe.json")):
        problem = "is no folder" if not root.is_dir() else "holds no runs"
        raise Unavailable(f"{root} {problem}; `harness run <recipe>` makes one, --runs says where they are")


def show_verdicts(
    root: Path,
    uri: str | None,
    ids: Sequence[str],
    *,
    allow_dirty: bool,
    untried: bool,
    fail_on: str,
    format: str,
) -> int:
    """Print the verdicts. Returns the exit code."""
    from harness import check, verdict

    failing = check.words(fail_on)
    verdicts = check.judged(root, uri, ids, allow_dirty=allow_dirty)
    if format == "table":
        check.show(verdicts, console, untried=untried)
    else:
        forms = {"json": check.as_json, "markdown": check.as_markdown}
        print(forms[format](verdicts) if format in forms else check.as_junit(verdicts, failing))  # noqa: T201
    return verdict.exit_code(verdicts, failing)


def promote(names: Sequence[str], root: Path) -> None:
    """Copy the finished runs of recipes to their records, all of them or a line why not."""
    from harness import check, provenance, records, train

    if not names:
        raise BadCommand("name at least one recipe; `harness list` shows them")
    for name in names:
        recipe = registry.recipe(name)
        fingerprint = provenance.fingerprint(train.methods_of(recipe))
        file, record = records.promote(recipe, fingerprint, root, check.RECORDS)
        console.print(f"wrote {file.relative_to(registry.ROOT)}: {len(record.runs)} runs", highlight=False)


def show_leaderboard(root: Path, uri: str | None, dataset: str | None, overrides: bool) -> Path:
    """Print the tables, write leaderboard.md, .csv, .tex and .html beside the runs; returns the page's path."""
    from harness import check, claims, data, leaderboard, report, tracking

    if dataset is not None:
        data.revision(dataset)  # refuses a name that is no data set
    need_runs(root, uri)
    tracking.sync(root, uri)
    frame = tracking.table(uri or tracking.default_uri(root), dataset=dataset)
    if dataset is not None and frame.empty:
        raise Unavailable(f"no runs on {dataset!r} in {root}; the tables are left as they are")
    leaderboard.show(leaderboard.leaderboard(frame, overrides=overrides), console)
    verdicts = check.judge(frame, allow_dirty=True, root=root)
    return report.write(root, frame, verdicts, claims.load_all(claims.FOLDER), overrides=overrides)
