"""Submit items: what is not done and not under way goes to a cluster as job arrays, with a copy of the code."""

import contextlib
import io
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import submitit
from submitit.core.utils import FailedJobError, FailedSubmissionError
from submitit.slurm.slurm import _make_sbatch_string  # no public way to see what would be submitted

from harness import attempts, data, provenance, registry
from harness.errors import BadCommand, Held, Refused
from harness.recipe import check_processes
from harness.runs import Run, writable, write_atomically
from slurm import job, local, profiles, scheduler, snapshot, states, submission
from slurm.job import Task
from slurm.profiles import Profile, Shape
from slurm.states import State
from slurm.submission import Array, Item, Submission

NODE_LOCAL = ("/tmp", "/var/tmp", "/dev/shm", "/run")
NODE_LOCAL_TYPES = ("tmpfs", "ramfs", "devtmpfs")


@dataclass
class Report:
    """made: None where nothing was left to submit. jobs: the scheduler's ids. scripts: what a dry run would submit."""

    made: Submission | None = None
    jobs: list[str] = field(default_factory=list)
    scripts: list[str] = field(default_factory=list)
    submitted: int = 0
    finished: int = 0
    under_way: int = 0


def items_of(wanted: Sequence[Run]) -> list[Item]:
    """Errors: UnknownName, BadRecipe."""
    wanted = list(dict.fromkeys(wanted))
    kinds = dict.fromkeys((name, overrides) for name, _, overrides in wanted)  # seeds share a recipe
    digests = {kind: registry.recipe(*kind).digest for kind in kinds}
    return [Item(name, seed, overrides, digests[name, overrides]) for name, seed, overrides in wanted]


def submit(
    items: Sequence[Item],
    runs: Path,
    cluster: str,
    *,
    data_root: Path | None = None,
    dry_run: bool = False,
    asked: bool = True,
    code: Path | None = None,
    known: dict[Item, State] | None = None,
    place: tuple[int, int] = (0, 1),
) -> Report:
    """Submit what is neither finished nor under way.

    asked: by a person, so that what was cancelled, refused or stuck is tried again; else that is left alone.
    code: snapshot to run; None takes one of the working tree. known: what `states.survey` has just found, if it has.
    place: on this machine, the number of the first worker among so many that share it, also those of other submissions.
    Errors: UnknownName, BadProfile, BadRecipe, BadCommand, Unavailable, Refused, NotWritable.
    """
    profile = profiles.load(cluster)
    if data_root is None and "HARNESS_DATA" in os.environ:  # jobs have another working directory
        data_root = Path(os.environ["HARNESS_DATA"])
    if profile.launcher == "slurm" and not dry_run:
        scheduler.need()
    if code is None:  # else the recipes of that code were checked when it was submitted, and may be gone here
        for name, overrides in {(item.recipe, item.overrides) for item in items if item.stage == "train"}:
            recipe = registry.recipe(name, overrides)
            if not dry_run:
                data.check_there(recipe.data, data_root)
            check_processes(recipe, profile.shape_of(name).processes)
    _check_shared(runs.resolve(), profile)
    if not dry_run:
        _check_writable(runs)
    report, todo = Report(), []
    if known is None:  # a dry run needs no scheduler
        known = {} if dry_run else states.survey(submission.read_all(runs))
    for item in items:
        state = known.get(item)
        if state is None or (item.stage == "evaluate" and state.word not in states.IN_FLIGHT):
            state = states.of(item, runs, None)
        if state.word in states.OVER:
            report.finished += 1
        elif state.word in states.IN_FLIGHT:
            report.under_way += 1
        elif asked or state.word not in states.ON_REQUEST:
            todo.append(item)
    if not todo:
        return report
    size = scheduler.max_array_size() if profile.launcher == "slurm" and not dry_run else 1001
    made = submission.make(
        runs,
        tuple(_arrays(todo, profile, size)),
        cluster=cluster,
        launcher=profile.launcher,
        snapshot=code or (runs.resolve() / "snapshots" / "preview" if dry_run else snapshot.take(runs)),
        **(snapshot.git(code) if code else provenance.git()),
        data_root=str(data_root.resolve()) if data_root else None,
    )
    report.made, report.submitted = made, len(todo)
    if dry_run:
        report.scripts = [_script(made, number, array, profile) for number, array in enumerate(made.arrays)]
        return report
    if asked:
        for item in todo:
            with contextlib.suppress(Held):  # it has just started: that is what was asked for
                attempts.ask(item.path(runs))
    made.write()
    if profile.launcher == "local":
        report.jobs = _launch_local(made, profile, place)
    else:
        report.jobs = _launch_slurm(made, profile, report)
    return report


def _arrays(items: Sequence[Item], profile: Profile, size: int) -> Iterator[Array]:
    """One array per shape, cut where the cluster's MaxArraySize says so."""
    if profile.launcher == "local":
        yield Array(profile.shape_of("*"), tuple(items))
        return
    shapes: list[tuple[Shape, list[Item]]] = []
    for item in items:
        shape = profile.shape_of(item.recipe, item.stage)
        same = next((members for known, members in shapes if known == shape), None)
        if same is None:
            shapes.append((shape, [item]))
        else:
            same.append(item)
    for shape, members in shapes:
        for start in range(0, len(members), size):
            yield Array(shape, tuple(members[start : start + size]))


# ---------------------------------------------------------------------------------------------- SLURM


def _parameters(made: Submission, number: int, shape: Shape) -> dict[str, Any]:
    return options(shape) | job.lines(made.snapshot, made.jobs, shape) | {"job_name": made.name(number)}


def options(shape: Shape) -> dict[str, Any]:
    """What a job of this shape asks of sbatch, in submitit's names for it."""
    named = {key: value for key, value in asdict(shape).items() if value is not None}
    for ours in ("extra", "setup", "mem_gb", "time_min"):
        named.pop(ours, None)
    if not shape.gpus_per_node:
        named.pop("gpus_per_node")
    named["ntasks_per_node"] = named.pop("tasks_per_node")
    if shape.mem_gb is not None:
        named["mem"] = f"{round(shape.mem_gb * 1024)}MB"
    more = {"requeue": True} | shape.extra
    return named | {"time": shape.time_min, "additional_parameters": more, "stderr_to_stdout": True}


def _script(made: Submission, number: int, array: Array, profile: Profile) -> str:
    """The sbatch file of an array, as submitit writes it."""
    command = f"{job.wrapped_python()} -u -m submitit.core._submit {made.jobs}"
    count = len(array.items) if len(array.items) > 1 else None
    parameters = _parameters(made, number, array.shape)
    text: str = _make_sbatch_string(command=command, folder=made.jobs, map_count=count, **parameters)
    return text


def _launch_slurm(made: Submission, profile: Profile, report: Report) -> list[str]:
    """One sbatch for each array. Returns job ids."""
    ids: list[str] = []
    done = 0
    for number, array in enumerate(made.arrays):
        executor = submitit.SlurmExecutor(folder=made.jobs, python=job.wrapped_python())
        executor.update_parameters(**_parameters(made, number, array.shape))
        try:
            with contextlib.redirect_stderr(io.StringIO()), executor.batch():  # sbatch's words come with the error
                jobs = [executor.submit(task) for task in _tasks(made, array, profile)]
        except (FailedJobError, FailedSubmissionError) as error:
            refusal = scheduler.refusal(str(error), done, report.submitted)
            if not done and isinstance(refusal, Refused):
                shutil.rmtree(made.folder)  # as if nothing had been asked
            raise refusal from error
        ids.append(jobs[0].job_id.split("_")[0])
        done += len(array.items)
    return ids


def _tasks(made: Submission, array: Array, profile: Profile) -> list[Task]:
    return [
        Task(
            item=item,
            runs=str(made.runs),
            snapshot=str(made.snapshot),
            data_root=made.data_root,
            meetings=str(made.folder / "meetings"),
            shape=array.shape,
            checkpoint_every_s=profile.checkpoint_every_s,
            join_timeout_s=profile.join_timeout_s,
        )
        for item in array.items
    ]


def _check_shared(runs: Path, profile: Profile) -> None:
    """Errors: BadCommand for a folder that other nodes cannot see."""
    if profile.launcher == "local" or profile.one_machine:
        return
    kind = _file_system(runs)
    if kind in NODE_LOCAL_TYPES or any(runs.is_relative_to(place) for place in NODE_LOCAL):
        raise BadCommand(
            f"{runs} is on this node only ({kind or 'by its name'}), jobs on other nodes would not see it; choose a "
            "shared folder with --runs or HARNESS_RUNS"
        )


def _check_writable(runs: Path) -> None:
    """Errors: NotWritable."""
    with writable(runs):
        runs.mkdir(parents=True, exist_ok=True)
    write_atomically(runs / ".writable", b"")
    (runs / ".writable").unlink()


def _file_system(path: Path) -> str:
    """Type of the file system of a path, "" where the system does not tell."""
    best, kind = Path(), ""
    with contextlib.suppress(OSError):
        for line in Path("/proc/mounts").read_text().splitlines():
            _, mount, type_, *_ = line.split()
            if path.is_relative_to(mount) and len(Path(mount).parts) >= len(best.parts):
                best, kind = Path(mount), type_
    return kind


# ---------------------------------------------------------------------------------------------- this machine


def _launch_local(made: Submission, profile: Profile, place: tuple[int, int]) -> list[str]:
    """Workers that share the items and outlive this process and its terminal. Returns their process ids."""
    items = made.arrays[0].items
    trainings = [(one.recipe, one.seed, one.overrides) for one in items if one.stage == "train"]
    evaluations = [(one.recipe, one.seed, one.overrides, one.protocols) for one in items if one.stage == "evaluate"]
    data_root = Path(made.data_root) if made.data_root else None
    with local.detached(made.snapshot):
        workers = local.launch(
            trainings, made.runs, data_root, profile.array_parallelism, evaluations, made.jobs, place
        )
        return [worker.job_id for worker in workers]
