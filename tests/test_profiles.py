"""Cluster profiles: what is in slurm/clusters/ loads, and a mistake is one line that says how to mend it."""

import re
from pathlib import Path
from typing import Any

import pytest

from harness.errors import BadProfile, UnknownName
from slurm import profiles


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    monkeypatch.setattr(profiles, "FOLDER", tmp_path)

    def file(text: str) -> str:
        (tmp_path / "mine.toml").write_text('launcher = "slurm"\n' + text)
        return "mine"

    return file


@pytest.mark.parametrize("name", profiles.names())
def test_the_profiles_that_are_shipped(name: str) -> None:
    profile = profiles.load(name)
    assert profile.name == name
    assert profile.launcher == ("local" if name in ("local", "one_gpu") else "slurm")


def test_the_first_shape_that_fits_is_over_the_profile_s_own(write) -> None:  # type: ignore[no-untyped-def]
    profile = profiles.load(
        write(
            'partition = "gpu"\ntime_min = 100\ngpus_per_node = 1\n'
            '[[shape]]\nrecipes = "*_r50_*"\nnodes = 2\ntasks_per_node = 4\n'
            '[[shape]]\nstage = "evaluate"\ntime_min = 9\n'
        )
    )
    big, small, evaluation = (
        profile.shape_of("vicreg_imagenet_r50_e100"),
        profile.shape_of("vicreg_cifar10_r18_e200"),
        profile.shape_of("vicreg_cifar10_r18_e200", "evaluate"),
    )
    assert (big.processes, big.partition, big.time_min) == (8, "gpu", 100)
    assert (small.processes, small.time_min) == (1, 100)
    assert (evaluation.processes, evaluation.time_min, evaluation.gpus_per_node) == (1, 9, 1)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("partiton = 'gpu'", "no setting 'partiton'; did you mean 'partition'?; in .*mine.toml"),
        ("nodes = '2'", "nodes is '2', expected int"),
        ("nodes = 0", "nodes is 0, expected 1 or more"),
        ("nodes = ", "is not TOML"),
        ("[[shape]]\nnode = 2", "no setting 'node'; did you mean 'nodes'?"),
        ("[[shape]]\nstage = 'eval'", "stage is 'eval', expected 'train', 'evaluate' or"),
        ("launchr = 'slurm'", "no setting 'launchr'; did you mean 'launcher'?"),
        (
            "time_min = 1\nsignal_delay_s = 60",
            r"time_min is 1, shorter than a checkpoint interval \(60 s\) and signal_delay_s \(60 s\) together",
        ),
        ("time_min = 90\n[[shape]]\nrecipes = '*'\ntime_min = 2", "time_min is 2, shorter than a checkpoint interval"),
    ],
)
def test_mistakes(write, text: str, says: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises((BadProfile, UnknownName), match=says.replace("?", r"\?")) as error:
        profiles.load(write(text))
    assert "\n" not in str(error.value)


def test_an_unknown_cluster_names_the_nearest() -> None:
    with pytest.raises(UnknownName, match=re.escape("no cluster 'devclustr'; did you mean 'devcluster'?")):
        profiles.load("devclustr")


@pytest.mark.parametrize(
    ("asked", "gpus"),
    [({}, 0), ({"gpus_per_node": 4}, 4), ({"gres": "gpu:2"}, 2), ({"gres": "gpu:a100:8"}, 8), ({"gres": "gpu"}, 1),
     ({"gres": "gpu:a100"}, 1), ({"gres": "fpga:3"}, 0)],
)  # fmt: skip
def test_gpus_by_either_word(asked: dict[str, Any], gpus: int) -> None:
    assert profiles.Shape(**asked).gpus == gpus


def test_the_coordinator_of_a_study_asks_for_no_gpu() -> None:
    profile = profiles.load("example")
    shape = profile.shape_of("vicreg_imagenet_r50_e100", "coordinate")
    assert (shape.nodes, shape.tasks_per_node, shape.gpus, shape.cpus_per_task) == (1, 1, 0, 1)
    assert (shape.partition, shape.mem_gb) == ("cpu", 4)
    assert profile.shape_of("vicreg_imagenet_r50_e100").gpus == 4
