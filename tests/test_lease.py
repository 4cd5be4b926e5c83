"""A folder has one writer, wherever it runs, and a dead writer does not keep it."""

import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness import lease
from harness.errors import Held, LeaseLost

HOLD = "import sys, time; from pathlib import Path; from harness.lease import hold\nwith hold(Path(sys.argv[1]), {'job': '7'}): print('held', flush=True); time.sleep(60)"  # noqa: E501


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "HEARTBEAT_S", 0.05)
    monkeypatch.setattr(lease, "STALE_S", 0.6)


def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on this process is on another machine."""
    monkeypatch.setattr(lease, "_boot", lambda: "another machine")


def start(folder: Path) -> "subprocess.Popen[str]":
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def end(process: "subprocess.Popen[str]", number: int) -> None:
    process.send_signal(number)
    process.communicate()


def test_one_holder_and_the_next_after_it(tmp_path: Path) -> None:
    with lease.hold(tmp_path, {}):
        with pytest.raises(Held, match=rf"is being written by another process \(process {os.getpid()} on "):
            lease._acquire(tmp_path, {}, wait=False)
        assert [path.name for path in tmp_path.iterdir()] == ["lease-000001"]
    assert list(tmp_path.iterdir()) == []
    with lease.hold(tmp_path, {}):
        pass


def test_a_killed_holder_on_this_machine_does_not_keep_it(tmp_path: Path) -> None:
    process = start(tmp_path)
    with pytest.raises(Held) as held:
        lease._acquire(tmp_path, {}, wait=False)
    assert held.value.owner["job"] == "7"
    seen = lease.holder(tmp_path)
    assert seen is not None
    assert seen["pid"] == process.pid
    end(process, signal.SIGKILL)
    assert lease.holder(tmp_path) is None
    begun = time.monotonic()
    with lease.hold(tmp_path, {}):
        assert time.monotonic() - begun < 1
        assert [path.name for path in tmp_path.iterdir()] == ["lease-000002"]


def test_a_silent_holder_on_another_machine_is_waited_for(
    tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = start(tmp_path)
    end(process, signal.SIGKILL)
    elsewhere(monkeypatch)
    begun = time.monotonic()
    with lease.hold(tmp_path, {}):
        assert time.monotonic() - begun > 0.6


def test_a_living_holder_on_another_machine_without_shared_locks_is_seen_by_its_heartbeat(
    tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with lease.hold(tmp_path, {}) as mine:
        monkeypatch.setattr(lease, "_state", lambda path, owner: "unknown")
        with pytest.raises(Held):
            lease._acquire(tmp_path, {}, wait=False)
        mine.check()


def test_a_suspended_holder_finds_that_it_was_taken_over(
    tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with lease.hold(tmp_path, {}) as mine:
        mine._over.set()  # no more heartbeats
        monkeypatch.setattr(lease, "_state", lambda path, owner: "unknown")
        with lease.hold(tmp_path, {}) as other:
            with pytest.raises(LeaseLost, match="taken over by another process"):
                mine.check()
            other.check()
            mine.release()  # does not take the other's away
            mine.descriptor = os.open(tmp_path, os.O_RDONLY)  # for the release at the end of the block
            other.check()


def test_waiting_for_a_living_holder(tmp_path: Path) -> None:
    process = start(tmp_path)
    end_it = multiprocessing.get_context("spawn").Process(target=_kill_soon, args=(process.pid,))
    end_it.start()
    with lease.hold(tmp_path, {}, wait=True) as mine:
        mine.check()
    end_it.join()
    process.communicate()


def _kill_soon(pid: int) -> None:
    time.sleep(0.5)
    os.kill(pid, signal.SIGKILL)


def race(folder: str, turns: int) -> None:
    """Add one to a number in a file, which without exclusion loses some."""
    file = Path(folder) / "number"
    for _ in range(turns):
        with lease.hold(Path(folder), {}, wait=True):
            number = int(file.read_text()) if file.exists() else 0
            time.sleep(0.001)
            file.write_text(str(number + 1))


def test_four_processes_never_hold_it_together(tmp_path: Path) -> None:
    processes = [multiprocessing.get_context("spawn").Process(target=race, args=(str(tmp_path), 10)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert (tmp_path / "number").read_text() == "40"


def test_what_the_file_says(tmp_path: Path) -> None:
    with lease.hold(tmp_path, {"job": "12_3", "node": "node7"}):
        (file,) = tmp_path.iterdir()
        assert json.loads(file.read_text()) == {
            "job": "12_3", "node": "node7", "host": socket.gethostname(), "boot": lease._boot(), "pid": os.getpid()
        }  # fmt: skip
