"""Submitting: what is asked of SLURM, what is left alone, and what is refused before anything is asked."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from harness import provenance, registry
from harness.errors import BadCommand, BadRecipe, NotWritable, RunConflict, Unavailable
from slurm import control, profiles, scheduler, snapshot, states, submission, submit
from slurm.profiles import Profile, Shape
from slurm.submission import Array, Item, Submission

NAME = "vicreg_digits_r10w16_e50"
PROFILE = 'launcher = "slurm"\none_machine = true\npartition = "normal"\nmem_gb = 1.5\ntime_min = 90\n'


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """Write a profile named "mine" with these further lines."""
    (tmp_path / "clusters").mkdir()
    monkeypatch.setattr(profiles, "FOLDER", tmp_path / "clusters")

    def write(text: str = "") -> str:
        (tmp_path / "clusters" / "mine.toml").write_text(PROFILE + text)
        return "mine"

    return write


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> list[Submission]:
    """Submissions that would have gone to a scheduler, which knows of no job."""
    found: list[Submission] = []

    def launch(made: Submission, profile: Profile, report: submit.Report) -> list[str]:
        found.append(made)
        return ["7"]

    monkeypatch.setattr(submit, "_launch_slurm", launch)
    monkeypatch.setattr(scheduler, "need", lambda: None)
    monkeypatch.setattr(scheduler, "queue", dict)
    monkeypatch.setattr(scheduler, "max_array_size", lambda: 1001)
    return found


def items(seeds: int, name: str = NAME, *overrides: str) -> list[Item]:
    return submit.items_of([(name, seed, overrides) for seed in range(seeds)])


def test_a_dry_run_prints_the_script_and_leaves_nothing(cluster, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    cluster('account = "ssl"\nnodes = 2\ntasks_per_node = 4\ngpus_per_node = 4\ncpus_per_task = 12\n'
            'array_parallelism = 7\nsetup = ["module load cuda"]\n[extra]\nnice = 100\n')  # fmt: skip
    report = submit.submit(items(40), tmp_path / "runs", "mine", dry_run=True)
    (script,) = report.scripts
    for line in (
        "#SBATCH --array=0-39%7", "#SBATCH --account=ssl", "#SBATCH --nodes=2", "#SBATCH --ntasks-per-node=4",
        "#SBATCH --gpus-per-node=4", "#SBATCH --cpus-per-task=12", "#SBATCH --mem=1536MB", "#SBATCH --time=90",
        "#SBATCH --signal=USR2@120", "#SBATCH --requeue", "#SBATCH --nice=100", "module load cuda", "code=$?",
    ):  # fmt: skip
        assert line in script.splitlines()
    assert '--kill-on-bad-exit=1 --cpus-per-task=12 bash -c \'trap "" USR2; exec' in script
    assert not (tmp_path / "runs").exists()
    checked = subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True)
    assert checked.returncode == 0, checked.stderr


def test_one_array_per_shape_cut_at_the_largest_array(  # type: ignore[no-untyped-def]
    cluster, launched: list[Submission], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster('[[shape]]\nrecipes = "simclr_*"\ncpus_per_task = 4\n')
    monkeypatch.setattr(scheduler, "max_array_size", lambda: 10)
    wanted = [item for pair in zip(items(25), items(25, "simclr_digits_r10w16_e50"), strict=True) for item in pair]
    submit.submit(wanted, tmp_path / "runs", "mine")
    (made,) = launched
    assert [(array.shape.cpus_per_task, len(array.items)) for array in made.arrays] == [
        (1, 10), (1, 10), (1, 5), (4, 10), (4, 10), (4, 5)
    ]  # fmt: skip
    assert {item for _, _, item in made.items()} == set(wanted)


def test_what_is_finished_or_under_way_is_left_alone(  # type: ignore[no-untyped-def]
    cluster, launched: list[Submission], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster()
    wanted = items(4)
    finished = wanted[0].path(tmp_path)
    finished.mkdir(parents=True)
    (finished / "record.json").write_text("{}")
    report = submit.submit(wanted[:2], tmp_path, "mine")
    assert (report.submitted, report.finished, report.under_way) == (1, 1, 0)
    job = scheduler.Queued("7", "PENDING", "Priority")
    monkeypatch.setattr(scheduler, "queue", lambda: {launched[0].name(0): {0: job}})
    report = submit.submit(wanted, tmp_path, "mine")
    assert (report.submitted, report.finished, report.under_way) == (2, 1, 1)
    assert [item.seed for _, _, item in launched[1].items()] == [2, 3]


def test_what_is_cancelled_is_submitted_only_when_somebody_asks(  # type: ignore[no-untyped-def]
    cluster, launched: list[Submission], tmp_path: Path
) -> None:
    cluster()
    (item,) = items(1)
    item.path(tmp_path).mkdir(parents=True)
    (item.path(tmp_path) / "cancel").touch()
    assert submit.submit([item], tmp_path, "mine", asked=False).submitted == 0
    assert submit.submit([item], tmp_path, "mine").submitted == 1
    assert not (item.path(tmp_path) / "cancel").exists()


@pytest.mark.parametrize(
    ("lines", "names", "error", "says"),
    [
        ("nodes = 3", [NAME], BadRecipe, "a batch of 128 does not divide over 3 processes; use 1, 2, 4, 8, 16"),
        ("one_machine = false", [NAME], BadCommand, "is on this node only .*, jobs on other nodes would not see it"),
    ],
)
def test_refused_before_the_scheduler_is_asked(  # type: ignore[no-untyped-def]
    cluster, launched: list[Submission], tmp_path: Path, lines: str, names: list[str], error: type, says: str
) -> None:
    cluster()
    text = PROFILE.replace("one_machine = true\n", "") if "one_machine" in lines else PROFILE
    (profiles.FOLDER / "mine.toml").write_text(text + lines + "\n")
    with pytest.raises(error, match=says):
        submit.submit(items(1), Path("/tmp/runs-of-nobody"), "mine")
    assert not launched
    assert not Path("/tmp/runs-of-nobody").exists()


def test_a_runs_folder_that_cannot_be_written(cluster, launched: list[Submission], tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    cluster()
    (tmp_path / "file").write_text("")
    with pytest.raises(NotWritable, match=r"cannot write .*; free some room, or choose another place"):
        submit.submit(items(1), tmp_path / "file", "mine")


def test_no_slurm_here(cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    cluster()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unavailable, match=r"no sbatch on this machine; .* use --cluster local"):
        submit.submit(items(1), tmp_path / "runs", "mine")


# ---------------------------------------------------------------------------------------------- going on


def test_resume_goes_on_with_the_code_of_the_submission_also_if_the_recipe_is_gone_here(  # type: ignore[no-untyped-def]
    cluster, launched: list[Submission], tmp_path: Path
) -> None:
    cluster()
    code = tmp_path / "runs" / "snapshots" / "0123456789ab"
    code.mkdir(parents=True)
    (code / "snapshot.json").write_text('{"commit": "abc", "dirty": true}')
    item = Item("a_recipe_of_last_year", 0, (), "0123456789ab")
    fields = {"cluster": "mine", "launcher": "slurm", "snapshot": code, "commit": "abc", "dirty": True}
    submission.make(tmp_path / "runs", (Array(Shape(), (item,)),), data_root=None, **fields).write()
    (report,) = control.resume(tmp_path / "runs", [], None)
    assert report.submitted == 1
    (made,) = launched
    assert (made.snapshot, made.commit, made.dirty, [one for _, _, one in made.items()]) == (code, "abc", True, [item])
    made.write()
    shutil.rmtree(code)
    with pytest.raises(RunConflict, match=r"the code of a submission is gone or damaged .*; `harness submit` goes on"):
        control.resume(tmp_path / "runs", [], None)


# ---------------------------------------------------------------------------------------------- snapshots


def test_a_snapshot_is_the_code_with_its_commit_and_is_taken_once(tmp_path: Path) -> None:
    first = snapshot.take(tmp_path)
    assert snapshot.take(tmp_path) == first
    assert [path.name for path in (tmp_path / "snapshots").iterdir()] == [first.name]
    for file in ("harness/train.py", "methods/vicreg.py", "sweeps/vicreg.py", "slurm/job.py"):
        assert (first / file).read_bytes() == (registry.ROOT / file).read_bytes()
    assert not list(first.rglob("__pycache__"))
    assert json.loads((first / "snapshot.json").read_text()) == provenance.git()
    assert (first / "diff.patch").exists() == bool(provenance.git()["dirty"])


def test_a_job_runs_the_snapshot_and_not_the_checkout(tmp_path: Path) -> None:
    folder = snapshot.take(tmp_path)
    code = (
        "from harness import provenance, registry; import slurm.job; print(registry.ROOT); print(slurm.job.__file__);"
        f"print(provenance.git()); print(registry.recipe({NAME!r}).digest)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env={"PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == [
        str(folder), str(folder / "slurm" / "job.py"), str(provenance.git()), registry.recipe(NAME).digest
    ]  # fmt: skip


def test_a_submission_reads_back_also_where_it_was_moved_to(tmp_path: Path) -> None:
    further = Item(NAME, 1, ("optimiser.lr=0.1",), "0123456789ab", "evaluate", ("linear",))
    made = submission.make(
        tmp_path / "a",
        (Array(Shape(extra={"nice": 1}, setup=["true"]), (Item(NAME, 0, (), "0123456789ab"), further)),),
        cluster="c", launcher="slurm", snapshot=tmp_path / "s", commit="f" * 40, dirty=True, data_root=None,
    )  # fmt: skip
    made.write()
    assert submission.read(tmp_path / "a", made.id) == made
    shutil.move(tmp_path / "a", tmp_path / "b")
    assert submission.read(tmp_path / "b", made.id).folder == tmp_path / "b" / "submissions" / made.id
    assert states.survey([]) == {}
