"""The SLURM on this machine: it runs jobs, survives faults as a real one does, and leaves nothing behind."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.errors import BadCommand, NotWritable, Unavailable, UnknownName
from slurm import devcluster as module
from slurm.devcluster import Devcluster

ROOT = Path(__file__).resolve().parent.parent


def client(*words: str, **env: str) -> str:
    """What a client of SLURM prints."""
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60, env=os.environ | env)
    return done.stdout.strip()


def until(ready: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def submit(script: str, folder: Path, *options: str) -> str:
    """The id of a job of one task, which works and prints in the folder."""
    options = ("--parsable", f"--chdir={folder}", f"--output={folder}/%j.out", *options)
    return client("sbatch", *options, f"--wrap={script}")


def state(job: str) -> str:
    return client("squeue", "-h", "-t", "all", "-j", job, "-o", "%T")


def processes(root: Path) -> list[str]:
    """Command lines of all processes that have to do with the cluster: by environment, folder or words."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        pid = int(entry.name)
        words = module._link(pid, "cwd"), *module._environment(pid)
        if module._alive(pid) and pid != os.getpid() and any(str(root) in word for word in words):
            found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode())
    return found


@pytest.mark.slurm
def test_it_has_idle_nodes_with_gpus_and_three_partitions(devcluster: Devcluster) -> None:
    names = ["127.0.0.11", "127.0.0.12", "127.0.0.13", "127.0.0.14"]
    assert devcluster.node_states() == dict.fromkeys(names, "idle")
    assert list(devcluster.nodes) == names
    assert all(devcluster.running().values())
    partitions = client("sinfo", "-h", "-o", "%P %c %G %D").splitlines()
    assert sorted(partitions) == [f"{name} 4 gpu:2 4" for name in ("high", "normal*", "preemptible")]


@pytest.mark.slurm
@pytest.mark.usefixtures("no_jobs_left")
def test_it_runs_a_job_with_a_gpu(tmp_path: Path) -> None:
    job = submit("echo $SLURMD_NODENAME $CUDA_VISIBLE_DEVICES", tmp_path, "--gres=gpu:1")
    until(lambda: state(job) == "COMPLETED")
    assert (tmp_path / f"{job}.out").read_text() == "127.0.0.11 0\n"


@pytest.mark.slurm
@pytest.mark.usefixtures("no_jobs_left")
def test_a_job_outlives_its_controller(devcluster: Devcluster, tmp_path: Path) -> None:
    job = submit("touch began; while [ ! -e end ]; do sleep 0.1; done; echo whole", tmp_path)
    until((tmp_path / "began").exists)
    client("scontrol", "update", f"jobid={job}", "comment=it-runs")
    saved = devcluster.root / "state/job_state"  # written every few seconds; what is newer dies with the controller
    until(lambda: saved.exists() and b"it-runs" in saved.read_bytes())
    devcluster.kill("slurmctld")
    assert devcluster.running()["slurmctld"] is False
    assert Devcluster.at(devcluster.root) == devcluster
    devcluster.start("slurmctld")
    devcluster.start("slurmctld")  # which runs, and is left alone
    assert state(job) == "RUNNING"
    (tmp_path / "end").touch()
    until(lambda: state(job) == "COMPLETED")
    assert (tmp_path / f"{job}.out").read_text() == "whole\n"


@pytest.mark.slurm
@pytest.mark.usefixtures("no_jobs_left")
def test_a_lost_node_takes_its_processes_along_and_its_job_runs_elsewhere(
    devcluster: Devcluster, tmp_path: Path
) -> None:
    script = "srun -n1 bash -c 'echo $SLURMD_NODENAME >> began; (setsid sleep 600 &) ; sleep 600'"
    job = submit(script, tmp_path, "--requeue", "--nodelist=127.0.0.12")
    other = submit("touch other; sleep 600", tmp_path, "--nodelist=127.0.0.13")
    until(lambda: (tmp_path / "began").exists() and (tmp_path / "other").exists())
    assert len(devcluster.job_processes("127.0.0.12")) >= 6  # two slurmstepds, script, srun, sleeps
    elsewhere = devcluster.job_processes("127.0.0.13")
    devcluster.kill_node("127.0.0.12")
    assert devcluster.job_processes("127.0.0.12") == []
    assert devcluster.job_processes("127.0.0.13") == elsewhere
    assert devcluster.running() == dict.fromkeys(devcluster.daemons, True) | {"slurmd.127.0.0.12": False}

    # What the controller finds out by itself after half a minute
    client("scontrol", "update", "nodename=127.0.0.12", "state=down", "reason=test")
    assert devcluster.node_states()["127.0.0.12"].startswith("down")
    client("scontrol", "update", f"jobid={job}", "reqnodelist=")
    until(lambda: (tmp_path / "began").read_text().split()[1:] != [])
    assert (tmp_path / "began").read_text().split()[1] != "127.0.0.12"
    assert state(other) == "RUNNING"


@pytest.mark.slurm
def test_names_that_do_not_exist(devcluster: Devcluster) -> None:
    with pytest.raises(UnknownName, match="no daemon 'slurmcltd'; did you mean 'slurmctld'"):
        devcluster.kill("slurmcltd")
    with pytest.raises(UnknownName, match=r"no node 'node1'; known: 127\.0\.0\.11, "):
        devcluster.kill_node("node1")


@pytest.mark.slurm
def test_down_leaves_no_process_even_of_jobs_that_ignore_signals(cluster_root: Path) -> None:
    cluster = Devcluster.up(cluster_root, nodes=1, gpus=0)
    script = "trap '' TERM CONT; touch began; (trap '' TERM; setsid sleep 600 &) ; while :; do sleep 600; done"
    words = ["sbatch", f"--chdir={cluster_root}", "--output=/dev/null", f"--wrap={script}"]
    client(*words, **cluster.env)
    until((cluster_root / "began").exists)
    assert len(processes(cluster_root)) >= 6
    cluster.down()
    assert processes(cluster_root) == []
    with pytest.raises(Unavailable, match=f"no devcluster runs at {cluster_root}; `harness devcluster up` starts one"):
        Devcluster.at(cluster_root)


@pytest.mark.slurm
def test_a_stranger_who_got_the_id_of_a_dead_daemon_is_left_alone(cluster_root: Path) -> None:
    cluster = Devcluster.up(cluster_root, nodes=1)
    cluster.kill("munged")
    with subprocess.Popen(["sleep", "600"]) as stranger:
        (cluster_root / "run/munged.pid").write_text(str(stranger.pid))
        assert cluster.running()["munged"] is False
        cluster.kill("munged")
        cluster.down()
        assert stranger.poll() is None
        stranger.kill()
    assert processes(cluster_root) == []


@pytest.mark.slurm
def test_a_second_start_counts_jobs_on(cluster_root: Path) -> None:
    ids = []
    for _ in range(2):
        cluster = Devcluster.up(cluster_root, nodes=1)
        ids.append(int(client("sbatch", "--parsable", "--output=/dev/null", "--wrap=true", **cluster.env)))
        with pytest.raises(Unavailable, match=f"a devcluster runs at {cluster_root} already; .* stops it"):
            Devcluster.up(cluster_root)
        cluster.down()
    assert ids[0] < ids[1]


@pytest.mark.slurm
def test_a_daemon_that_does_not_start_shows_its_log_and_nothing_stays(
    cluster_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SLURM_CONF", module.SLURM_CONF + "Nonsense=1\n")
    with pytest.raises(Unavailable, match=r"slurmctld did not start: (?s:.)* key: Nonsense"):
        Devcluster.up(cluster_root)
    assert processes(cluster_root) == []


@pytest.mark.slurm
def test_a_port_in_use(cluster_root: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(Unavailable, match=f"port {port} or one of the next 66 is in use"):
            Devcluster.up(cluster_root, port=port)


def test_missing_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(module, "SBIN", ())
    monkeypatch.setattr(module, "LONGEST", "")
    message = (
        "no slurmctld, slurmd, sinfo, scontrol, munged here, of Debian's packages slurmctld slurmd slurm-client munge; "
        "apt-get install --no-install-recommends slurmctld slurmd slurm-client munge$"
    )
    with pytest.raises(Unavailable, match=message):
        Devcluster.up(tmp_path / "new")


def test_missing_packages_of_accounting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = module.PACKAGES["slurmctld slurmd slurm-client munge"]
    monkeypatch.setattr(shutil, "which", lambda name, path: name if name in there else None)
    monkeypatch.setattr(module, "LONGEST", "")
    with pytest.raises(Unavailable, match=r"no slurmdbd, mariadbd, sacct here, .* munge slurmdbd mariadb-server-core$"):
        Devcluster.up(tmp_path / "new", accounting=True)


def test_roots_that_do_not_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name, path: name)
    with pytest.raises(BadCommand, match=r"the root .*xxx is too long for unix sockets; expected at most \d\d bytes"):
        Devcluster.up(tmp_path / ("x" * 60))
    monkeypatch.setattr(module, "LONGEST", "")
    (tmp_path / "mine").touch()
    for root in (tmp_path, tmp_path / "mine"):
        with pytest.raises(BadCommand, match=f"the root {root} holds something else, which a start would wipe"):
            Devcluster.up(root)
    (tmp_path / "mine").unlink()
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    with pytest.raises(NotWritable, match=f"the root {tmp_path} belongs to another user"):
        Devcluster.up(tmp_path)
    with pytest.raises(BadCommand, match="65 nodes, 4 CPUs, 2 GPUs; expected 1 to 64, 1 or more, 0 or more"):
        Devcluster.up(tmp_path, nodes=65)
    with pytest.raises(Unavailable, match=f"no devcluster runs at {tmp_path}"):
        Devcluster.at(tmp_path)


@pytest.mark.slurm
def test_the_command_line(cluster_root: Path) -> None:
    def harness(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "harness", "devcluster", *words, "--root", str(cluster_root)]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT)

    up = harness("up", "--nodes", "2", "--cpus", "1", "--gpus", "1", "--no-preempt-signal")
    export = f"export SLURM_CONF={cluster_root}/etc/slurm.conf"
    assert (up.returncode, up.stderr) == (0, "")
    assert up.stdout.startswith("2 nodes with 1 CPUs and 1 pretended GPUs each are idle after ")
    assert up.stdout.splitlines()[1:] == [
        export,
        "harness submit RECIPE --cluster devcluster",
        f"Stop them: harness devcluster down --root {cluster_root}",
    ]
    again = harness("up")
    assert (again.returncode, len(again.stderr.splitlines())) == (2, 1)
    status = harness("status").stdout.splitlines()
    assert [line.split() for line in status] == [
        *([name, "runs"] for name in ("munged", "slurmctld", "slurmd.127.0.0.11", "slurmd.127.0.0.12")),
        *(["node", node, "idle"] for node in ("127.0.0.11", "127.0.0.12")),
        *(["partition", name, "up"] for name in ("normal", "preemptible", "high")),
        export.split(),
    ]
    assert "preempt_send_user_signal" not in (cluster_root / "etc/slurm.conf").read_text()
    down = harness("down")
    assert (down.returncode, down.stdout) == (0, f"stopped; logs are in {cluster_root}/log\n")
    assert processes(cluster_root) == []
    gone = harness("status")
    assert gone.returncode == 2
    assert gone.stderr == f"harness: no devcluster runs at {cluster_root}; `harness devcluster up` starts one\n"


@pytest.mark.slow
@pytest.mark.slurm
def test_accounting_remembers_jobs(cluster_root: Path) -> None:
    if not all(shutil.which(name, path=module._path()) for name in ("slurmdbd", "mariadbd")):
        pytest.skip("slurmdbd or mariadbd is not installed")
    cluster = Devcluster.up(cluster_root, nodes=1, accounting=True)
    job = client("sbatch", "--parsable", "--output=/dev/null", "--wrap=exit 3", **cluster.env)
    answer = ("sacct", "-n", "-X", "-j", job, "-o", "State,ExitCode", "--parsable2")
    until(lambda: client(*answer, **cluster.env) == "FAILED|3:0")
    cluster.down()
    assert processes(cluster_root) == []
