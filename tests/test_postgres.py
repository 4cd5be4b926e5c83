"""A study whose Optuna storage is a real PostgreSQL, which the test starts, stops and starts again."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from study_files import assert_storage_follows_files

from harness.errors import BadCommand, Unavailable
from harness.studies import request
from harness.studies import study as studies
from harness.studies.optimise import Optimiser
from harness.studies.study import Study, Trial

pytestmark = pytest.mark.slow
RECIPE = "vicreg_digits_r10w16_e50"
PASSWORD = "secret-of-the-test"


class Server:
    """A cluster of its own in a new folder, as the user postgres where the test runs as root, who may not."""

    def __init__(self, bin: Path, root: Path) -> None:
        self.bin, self.root = bin, root
        self.user = "postgres" if os.geteuid() == 0 else None
        if self.user:
            shutil.chown(root, self.user)
        (root / "password").write_text(PASSWORD)
        self.call("initdb", "-N", "-U", "me", "-A", "scram-sha-256", f"--pwfile={root}/password")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]

    def call(self, program: str, *args: str) -> None:
        command = [str(self.bin / program), "-D", f"{self.root}/data", *args]
        subprocess.run(command, user=self.user, cwd=self.root, check=True, stdout=subprocess.DEVNULL, timeout=60)

    def start(self) -> None:
        self.call(
            "pg_ctl", "start", "-w", "-l", f"{self.root}/log", "-o", f"-p {self.port} -k {self.root} -h 127.0.0.1"
        )

    def stop(self) -> None:
        self.call("pg_ctl", "stop", "-w", "-m", "immediate")

    def url(self, password: str = PASSWORD, host: str = "127.0.0.1") -> str:
        return f"postgresql+psycopg://me:{password}@{host}:{self.port}/postgres"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    pytest.importorskip("psycopg")
    found = shutil.which("initdb") or next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))), None)
    if not found:
        pytest.skip("PostgreSQL is not installed")
    if os.geteuid() == 0 and "postgres" not in {one.pw_name for one in pwd.getpwall()}:
        pytest.skip("PostgreSQL does not run as root, and there is no user postgres")
    root = Path(tempfile.mkdtemp(prefix="hpg-", dir="/tmp"))
    try:
        made = Server(Path(found).resolve().parent, root)
        made.start()
        try:
            yield made
        finally:
            if (root / "data" / "postmaster.pid").exists():
                made.stop()
    finally:
        shutil.rmtree(root)


@pytest.fixture(autouse=True)
def _closed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A coordinator leaves its connections to the end of its process; here psycopg would warn of them."""
    made, plain = [], sqlalchemy.engine.create_engine

    def engine(*args: Any, **options: Any) -> sqlalchemy.Engine:
        made.append(plain(*args, **options))
        return made[-1]

    with monkeypatch.context() as patch:
        patch.setattr(sqlalchemy.engine, "create_engine", engine)
        yield
    for one in made:
        one.dispose()


def made(runs: Path, storage: str, **given: Any) -> Study:
    asked = request.study(RECIPE, {"trials": 30, "storage": storage} | given, runs)
    studies.write(asked, runs)
    return asked


def ended(study: Study, runs: Path, trial: Trial) -> Trial:
    """With a run directory that says how the objective went; every fifth was pruned."""
    path = runs / study.recipe / trial.digest / f"seed-{trial.seed}"
    path.mkdir(parents=True, exist_ok=True)
    lines = (f'{{"epoch": {e}, "held_out": {{"{study.objective}": {trial.number + e / 50}}}}}\n' for e in (10, 20, 50))
    (path / "metrics.jsonl").write_text("".join(lines))
    bad = trial.number % 5 == 4
    return replace(trial, outcome="pruned" if bad else "complete", value=None if bad else trial.number + 1.0)


def test_a_study_on_postgresql_outlives_the_server(tmp_path: Path, server: Server) -> None:
    study = made(tmp_path, server.url())
    lines: list[str] = []

    def trials() -> list[Trial]:
        return studies.read_trials(tmp_path, study.name)

    def curve(trial: Trial) -> dict[int, float]:
        return studies.curve(study, tmp_path, trial)

    def through(action: Callable[..., Any], *args: Any) -> Any:
        """As the coordinator does: one line, and the storage catches up when the server is back."""
        try:
            return action(*args)
        except Unavailable as error:
            lines.append(str(error))
        with pytest.raises(Unavailable, match=r"does not answer: .*refused"):
            optimiser.follow(trials(), curve)
        server.start()
        for lost in optimiser.follow(trials(), curve):
            studies.write_trial(tmp_path, study.name, lost)

    optimiser = Optimiser(study, tmp_path)
    while len(known := trials()) < 30 or not all(one.outcome for one in known):
        running = [trial for trial in known if not trial.outcome]
        if len(running) < 2 and len(known) < 30:
            if len(known) == 9 and not lines:
                server.stop()
            if trial := through(optimiser.ask):
                studies.write_trial(tmp_path, study.name, trial)
            continue
        trial = ended(study, tmp_path, running[0])
        studies.write_trial(tmp_path, study.name, trial)
        if trial.number == 15:
            server.stop()
        through(optimiser.prune, trial, curve(trial))
        if trial.number == 20:
            server.stop()
        through(optimiser.tell, trial, curve(trial))
        if trial.number == 25:
            optimiser = Optimiser(study, tmp_path)  # a coordinator started again
    assert len(lines) == 3
    for line in lines:
        assert line.startswith(f"storage postgresql+psycopg://me:***@127.0.0.1:{server.port}/postgres of study")
        assert "\n" not in line
        assert PASSWORD not in line
    assert [trial.number for trial in trials()] == list(range(30))
    assert_storage_follows_files(study, tmp_path)


@pytest.mark.parametrize(
    ("password", "host", "message"),
    [
        ("wrong", "127.0.0.1", r'does not answer: .*password authentication failed for user "me"'),
        (PASSWORD, "no-such-host.invalid", r"no-such-host\.invalid.* does not answer: .*(resolve|not known)"),
    ],
)
def test_what_does_not_answer_is_one_line(
    tmp_path: Path, server: Server, password: str, host: str, message: str
) -> None:
    started = time.monotonic()
    with pytest.raises(Unavailable, match=message) as caught:
        Optimiser(made(tmp_path, server.url(password, host)), tmp_path)
    assert "\n" not in str(caught.value)
    assert password not in str(caught.value).replace("password", "")
    assert time.monotonic() - started < 20


def test_a_host_that_is_silent_is_given_up_after_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("psycopg")
    monkeypatch.setattr("harness.studies.optimise.WAIT_S", 2)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        started = time.monotonic()
        with pytest.raises(Unavailable, match=r"does not answer: .*timeout"):
            Optimiser(made(tmp_path, f"postgresql+psycopg://me@127.0.0.1:{silent.getsockname()[1]}/x"), tmp_path)
        assert time.monotonic() - started < 10


def test_a_driver_that_is_not_installed_says_which(tmp_path: Path) -> None:
    with pytest.raises(BadCommand, match=r"needs a driver: No module named 'pg8000'; for PostgreSQL pip install -c"):
        Optimiser(made(tmp_path, "postgresql+pg8000://me@127.0.0.1/x"), tmp_path)
