"""Fixtures for all tests: one thread, no network, small networks."""

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from torch import Tensor, nn

import harness  # noqa: F401  (the torchvision hook comes before any import of torchvision)
from harness.api import Backbone
from slurm.devcluster import SBIN, Devcluster


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-golden", action="store_true", help="write tests/golden anew")


class TinyBackbone(Backbone):
    """A linear map of the mean-pooled image and a non-linearity: no batch norm, any image size."""

    width = 12

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(4)
        self.linear = nn.Linear(48, self.width)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.linear(self.pool(x).flatten(1)))


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def tiny_backbone() -> TinyBackbone:
    torch.manual_seed(0)
    return TinyBackbone()


@pytest.fixture
def held(record_property: Callable[[str, object], None]) -> Callable[..., None]:
    """`held(ours, restated, *inputs)`: two losses of the same float64 tensors agree to 1e-10, as do their gradients.

    The largest relative error goes into the JUnit report, from which tests/benchmarks/methods.py reads it.
    """

    def agree(ours: Callable[..., Tensor], restated: Callable[..., Tensor], *inputs: Tensor) -> None:
        found = []
        for loss in (ours, restated):
            leaves = [x.detach().clone().requires_grad_(x.is_floating_point()) for x in inputs]
            value = loss(*leaves)
            wanted = [x for x in leaves if x.requires_grad]
            gradients = torch.autograd.grad(value, wanted, allow_unused=True)  # a teacher's outputs have none
            gradients = [torch.zeros_like(x) if g is None else g for x, g in zip(wanted, gradients, strict=True)]
            found.append([value.detach(), *gradients])
        error = max(float((a - b).abs().max() / b.abs().max().clamp_min(1e-12)) for a, b in zip(*found, strict=True))
        record_property("oracle_error", error)
        assert all(b.dtype == torch.float64 for b in found[1])
        assert error < 1e-10
        assert any(float(gradient.abs().max()) > 0 for gradient in found[1][1:])

    return agree


FAULTS = ("fault", "how many", "outcome", "seconds lost per fault")


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """The rows that tests/test_slurm_faults.py has noted, as a table; HARNESS_FAULT_TABLE names a file for it, too."""
    reports = [one for some in terminalreporter.stats.values() for one in some if getattr(one, "when", "") == "call"]
    rows = [value for one in reports for name, value in one.user_properties if name == "fault"]
    if rows:
        lines = [" | ".join(["", *row, ""]).strip() for row in (FAULTS, ["---"] * len(FAULTS), *rows)]
        terminalreporter.section("faults on a real SLURM")
        terminalreporter.write_line("\n".join(lines))
        if file := os.environ.get("HARNESS_FAULT_TABLE"):
            Path(file).write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="session")
def devcluster() -> Iterator[Devcluster]:
    """A SLURM of four nodes for the session, with SLURM_CONF set. HARNESS_KEEP_DEVCLUSTER=1 keeps its folder."""
    with short_root() as root:
        cluster = Devcluster.up(root)
        saved = os.environ.get("SLURM_CONF")
        os.environ.update(cluster.env)
        try:
            yield cluster
        finally:
            os.environ.pop("SLURM_CONF")
            if saved is not None:
                os.environ["SLURM_CONF"] = saved


@pytest.fixture
def cluster_root() -> Iterator[Path]:
    """A folder for a cluster of the test's own, which is stopped at the end if the test did not."""
    with short_root() as root:
        yield root


@contextlib.contextmanager
def short_root() -> Iterator[Path]:
    """A new folder (unix sockets need a short path, which tmp_path is not); a cluster in it is stopped at the end."""
    if not shutil.which("slurmctld", path=os.pathsep.join([os.environ["PATH"], *SBIN])):
        pytest.skip("SLURM is not installed")
    root = Path(tempfile.mkdtemp(prefix="hdc-", dir="/tmp"))
    try:
        yield root
    finally:
        if (cluster := Devcluster.stored(root)) is not None:
            cluster.down()
        if not os.environ.get("HARNESS_KEEP_DEVCLUSTER"):
            shutil.rmtree(root)


@pytest.fixture
def no_jobs_left(devcluster: Devcluster) -> Iterator[None]:
    """Give the next test a cluster as new: daemons alive, no jobs, idle nodes."""
    yield
    for daemon in devcluster.daemons:
        devcluster.start(daemon)
    subprocess.run("squeue -h -o %A | sort -u | xargs -r scancel", shell=True, check=True, timeout=30)
    started = time.monotonic()
    while True:
        states = devcluster.node_states()
        jobs = subprocess.run(["squeue", "-h"], capture_output=True, text=True, check=True, timeout=30).stdout
        if not jobs and set(states.values()) == {"idle"}:
            return
        for node in [node for node, state in states.items() if state.startswith(("down", "drain"))]:
            subprocess.run(["scontrol", "update", f"nodename={node}", "state=resume"], timeout=30)
        if time.monotonic() - started > 8:  # SLURM gives jobs 5 s, and has no hold on a process that left its session
            devcluster.kill_jobs()
        assert time.monotonic() - started < 60, f"jobs left: {jobs}; nodes: {states}"
        time.sleep(0.1)
