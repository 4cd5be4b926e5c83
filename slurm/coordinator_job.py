"""The coordinator of a study as a job of its own, for whoever may not leave processes on a login node."""

import contextlib
import io
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import submitit
from submitit.core.utils import DelayedSubmission, FailedJobError, FailedSubmissionError

from harness.errors import HarnessError, Interrupted, Unavailable
from harness.studies import study as studies
from harness.studies.study import Study
from slurm import job, local, profiles, scheduler
from slurm.coordinator import code_of
from slurm.submit import options


def send(study: Study, runs: Path, cluster: str, parallel: int, data_root: Path | None) -> tuple[str, Path]:
    """Have the coordinator run as a job of its own, or, on `local`, in the background. Returns its id and its log.

    Errors: UnknownName, BadProfile, Unavailable, Refused, NotWritable.
    """
    profile = profiles.load(cluster)
    studies.write(study, runs)
    code, folder = code_of(study, runs), (study.folder(runs) / "coordinator").resolve()
    folder.mkdir(exist_ok=True)
    data = str(data_root.resolve()) if data_root else os.environ.get("HARNESS_DATA")
    task = CoordinatorJob(study.name, study.recipe, str(runs.resolve()), cluster, parallel, data)
    executor: submitit.Executor
    if profile.launcher == "local":
        executor = submitit.LocalExecutor(folder=folder)
        executor.update_parameters(timeout_min=60 * 24 * 14)
        with local.detached(code):
            sent = executor.submit(task)
    else:
        scheduler.need()
        shape = profile.shape_of(study.recipe, "coordinate")
        executor = submitit.SlurmExecutor(folder=folder, python=job.wrapped_python())
        own = {"job_name": f"coordinator-{study.name}"}
        executor.update_parameters(**options(shape) | job.lines(code, folder, shape) | own)
        try:
            with contextlib.redirect_stderr(io.StringIO()):
                sent = executor.submit(task)
        except (FailedJobError, FailedSubmissionError) as error:
            raise scheduler.refusal(str(error), 0, 1) from error
    return sent.job_id, sent.paths.stdout


@dataclass(frozen=True)
class CoordinatorJob:
    """`harness sweep` as a job. It exits with EX_TEMPFAIL when a signal ends it; slurm/after.py requeues it then."""

    name: str
    recipe: str
    runs: str
    cluster: str
    parallel: int
    data_root: str | None

    def checkpoint(self) -> DelayedSubmission:
        """submitit calls this for a signal that comes before `__call__` has begun: the same again."""
        return DelayedSubmission(self)

    def __call__(self) -> None:
        from harness import launching

        for name in [name for name in os.environ if name.startswith(("SLURM_", "SBATCH_")) and name != "SLURM_CONF"]:
            del os.environ[name]  # of this job; those that it submits are not to inherit them
        data_root = Path(self.data_root) if self.data_root else None
        try:
            code = launching.sweep(
                self.recipe, {"name": self.name}, Path(self.runs), self.cluster, self.parallel, data_root
            )
        except HarnessError as error:
            print(f"harness: {error}", file=sys.stderr, flush=True)  # noqa: T201
            code = os.EX_TEMPFAIL if isinstance(error, Interrupted | Unavailable) else error.exit_code
        sys.stdout.flush()
        if code:
            raise SystemExit(code)
