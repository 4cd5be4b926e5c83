"""Runs on this machine, through submitit's local executor.

A few workers share one list: each takes the next run that is neither finished nor held by another process (the run
directory's lock), so a worker that is left over from a killed launch does no harm. Runs that fail do not stop the rest.
"""

import contextlib
import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType

import submitit

from harness.attempts import Place, refuse
from harness.errors import HarnessError, Interrupted, NotWritable, RunConflict, Unavailable
from harness.runs import Run, RunDirectory, cancel_mark

Evaluation = tuple[str, int, tuple[str, ...], tuple[str, ...]]  # recipe, seed, overrides, protocols


def launch(
    runs: Sequence[Run],
    root: Path,
    data_root: Path | None,
    workers: int = 0,
    evaluations: Sequence[Evaluation] = (),
    folder: Path | None = None,
    place: tuple[int, int] = (0, 1),
) -> list[submitit.Job[list[str]]]:
    """Start `workers` processes (0: one per two cores, at least two) that together do all runs.

    evaluations: what the first worker does when it is done with the runs. folder: of logs, else <root>/launches.
    place: the number of the first worker among so many that share this machine, also those of other launches.
    """
    workers = min(max(1, len(runs)), workers or max(2, (os.cpu_count() or 2) // 2))
    first, beside = place
    threads = max(1, (os.cpu_count() or 1) // max(workers, beside))
    executor = submitit.LocalExecutor(folder=folder or root / "launches")
    executor.update_parameters(timeout_min=60 * 24 * 14)
    gpus = os.environ.get("CUDA_VISIBLE_DEVICES")  # submitit hides all of them from its local jobs
    data = str(data_root) if data_root else None
    with executor.batch():
        return [
            executor.submit(
                worker,
                list(runs),
                str(root),
                data,
                threads,
                first + n,
                gpus,
                [] if n else list(evaluations),
                bool(folder),
            )
            for n in range(workers)
        ]


@contextlib.contextmanager
def detached(code: Path) -> Iterator[None]:
    """Processes that are started meanwhile use that code, and outlive this process and its terminal."""
    saved = os.environ.get("PYTHONPATH")
    hangup = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # inherited
    os.environ["PYTHONPATH"] = str(code)
    try:
        with contextlib.chdir(code):
            yield
    finally:
        signal.signal(signal.SIGHUP, hangup)
        os.environ.pop("PYTHONPATH")
        if saved is not None:
            os.environ["PYTHONPATH"] = saved


def worker(
    runs: list[Run],
    root: str,
    data_root: str | None,
    threads: int,
    number: int,
    gpus: str | None,
    evaluations: list[Evaluation],
    submitted: bool,
) -> list[str]:
    """Process `number` of a launch, see `work`. gpus: CUDA_VISIBLE_DEVICES where it was launched, shared in turns."""
    for asked in (signal.SIGTERM, signal.SIGINT):
        signal.signal(asked, _stop)  # submitit ignores SIGTERM; the training loop has handlers of its own meanwhile
    os.environ.pop("CUDA_VISIBLE_DEVICES", None)
    if gpus is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus
    import torch

    torch.set_num_threads(threads)
    device = f"cuda:{number % torch.cuda.device_count()}" if torch.cuda.is_available() else "cpu"
    place = Place({"log": str(submitit.JobEnvironment().paths.stderr)})
    data = Path(data_root) if data_root else None
    failed = work(runs, Path(root), data, device, place, submitted)
    return failed + [line for one in evaluations for line in _evaluate(one, Path(root), data)]


def _evaluate(one: Evaluation, root: Path, data_root: Path | None) -> list[str]:
    """Returns a line if it failed."""
    from harness import commands, registry

    name, seed, overrides, protocols = one
    try:
        commands.evaluate_again(name, seed, overrides, protocols, root, data_root)
    except HarnessError as error:
        if error.exit_code == 2 and not isinstance(error, NotWritable | Unavailable):
            refuse(RunDirectory(root, registry.recipe(name, overrides), seed).path, str(error), protocols)
        return [f"{name} seed {seed}: {error}"]
    return []


def _stop(number: int, frame: FrameType | None) -> None:
    raise Interrupted(f"a worker was stopped by {signal.Signals(number).name}; start again to go on")


def work(
    runs: list[Run],
    root: Path,
    data_root: Path | None,
    device: str,
    place: Place | None = None,
    submitted: bool = False,
) -> list[str]:
    """Every run once, first those nobody holds, none that is cancelled. Returns a line for each that failed.

    submitted: nobody waits for these lines, so a run that cannot start says so in its directory, too.
    """
    from harness import registry, train

    failed: dict[Run, str] = {}
    for wait in (False, True):  # the second pass waits for runs that others held, and finds them finished
        for item in runs:
            if item in failed:
                continue
            name, seed, overrides = item
            path: Path | None = None
            try:
                recipe = registry.recipe(name, overrides)
                path = RunDirectory(root, recipe, seed).path
                cancelled = cancel_mark(path)
                if cancelled.exists():
                    continue
                train.run(recipe, seed, root, data_root=data_root, device=device, wait=wait, place=place)
            except RunConflict:
                continue
            except Interrupted as error:
                if cancelled.exists():
                    continue
                return [*failed.values(), str(error)]
            except HarnessError as error:
                failed[item] = f"{name} seed {seed}: {error}"
                lasting = error.exit_code == 2 and not isinstance(error, NotWritable | Unavailable)
                if submitted and lasting and path:
                    refuse(path, str(error))
            except Exception as error:  # one broken run must not take the others with it
                failed[item] = f"{name} seed {seed}: {type(error).__name__}: {error}"
    return list(failed.values())


def cancel(job: submitit.Job[list[str]]) -> None:
    """Ask a worker to write a checkpoint and end.

    A local job's id is the process that watches it, which hands SIGTERM on. submitit's own `cancel` sends SIGINT, which
    a shell's background jobs ignore.
    """
    with contextlib.suppress(ProcessLookupError):
        os.kill(int(job.job_id), signal.SIGTERM)


def failures(job: submitit.Job[list[str]]) -> list[str]:
    """Lines about runs of one worker that failed; a worker that died says so."""
    try:
        return job.result()
    except Exception as error:  # submitit raises its own kinds for a lost job and for an exception inside
        last = str(error).strip().splitlines()[-1]
        return [f"a worker died ({last}); its log is {job.paths.stderr}; start again to go on"]
