"""What the commands do, one function each."""

import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table

from harness import registry
from harness.errors import BadCommand, BadRecipe, Held, Interrupted, Refused, RunFailed, Unavailable
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
        data.check_loadable(recipe.data)
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

    from harness import data, provenance, train
    from harness.evals import check, evaluate
    from harness.features import extract

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
    format: str = "table",
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
    return report.write(root, frame, verdicts, claims.load_all(report.CLAIMS), overrides=overrides)


# ---------------------------------------------------------------------------------------------- on a cluster


def submit(wanted: Sequence[Run], root: Path, cluster: str, data_root: Path | None, dry_run: bool) -> None:
    """Submit runs, or print the job scripts."""
    launching = registry.load("slurm", "submit")
    items = launching.items_of(wanted)
    report = launching.submit(items, root, cluster, data_root=data_root, dry_run=dry_run)
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
