"""A lease on a folder: the right to write it, held by one process at a time, on whichever node of a cluster.

The lease is a file `lease-<n>` in the folder. Its holder keeps it locked (flock) and touches it every HEARTBEAT_S. It
is free when it is gone; when it can be locked on the machine of its holder, who is dead then; or, held on another
machine, when it was not touched for STALE_S, measured by the clock of whoever waits. Who takes it over links the next
number, which only one can, and removes the older one; a holder that was only suspended finds its file gone and stops
before its next write (`Lease.check`).

flock alone would not do: some cluster file systems keep it per node, and a node that lost power cannot release it.
"""

import contextlib
import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.errors import Held, LeaseLost, NotWritable

HEARTBEAT_S = 5.0
STALE_S = 60.0


class Lease:
    """A lease that is held. Made by `hold`."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path, self.descriptor = path, descriptor
        self._over = threading.Event()
        self._beat = threading.Thread(target=self._touch, name=f"lease of {path.parent}", daemon=True)
        self._beat.start()

    def check(self) -> None:
        """Call before each write. Errors: LeaseLost if another process has taken over."""
        own = os.fstat(self.descriptor).st_ino
        with contextlib.suppress(FileNotFoundError):
            if self.path.stat().st_ino == own:
                return
        raise LeaseLost(
            f"{self.path.parent} was taken over by another process, since this one gave no sign of life for "
            f"{STALE_S:.0f} s; nothing more is written here"
        )

    def release(self) -> None:
        self._over.set()
        self._beat.join()
        with contextlib.suppress(LeaseLost, OSError):
            self.check()
            self.path.unlink()
        os.close(self.descriptor)

    def _touch(self) -> None:
        while not self._over.wait(HEARTBEAT_S):
            with contextlib.suppress(OSError):
                os.utime(self.descriptor)


@contextlib.contextmanager
def hold(folder: Path, owner: dict[str, Any], wait: bool = False) -> Iterator[Lease]:
    """Hold the folder. owner: JSON-ready, what others are told of this process; host and pid are added.

    wait: until a living holder releases it. Waited for in any case are a holder on another machine that may be dead, up
    to STALE_S, and one of the same `job`: the scheduler has given that attempt up, and its end is near.
    Errors: Held (by whom) if it lives and `wait` is False; NotWritable.
    """
    lease = _acquire(folder, owner | {"host": socket.gethostname(), "boot": _boot(), "pid": os.getpid()}, wait)
    try:
        yield lease
    finally:
        lease.release()


def holder(folder: Path) -> dict[str, Any] | None:
    """Who seems to hold the folder, judged at a glance, for showing; `since_s` is the age of its last heartbeat."""
    path = _newest(folder)
    if path is None or (owner := _read(path)) is None:
        return None
    since = time.time() - owner.pop("beat")
    return None if _state(path, owner) == "dead" or since > STALE_S else owner | {"since_s": since}


def _acquire(folder: Path, owner: dict[str, Any], wait: bool) -> Lease:
    seen: tuple[Path | None, float, float] = (None, 0.0, 0.0)  # a lease, its last touch, and when we first saw that
    while True:
        newest = _newest(folder)
        there = _read(newest) if newest else None
        if newest is None or there is None or _state(newest, there) == "dead":
            if lease := _take(folder, newest, owner):
                return lease
            continue
        state, beat, now = _state(newest, there), there["beat"], time.monotonic()
        if seen[:2] == (newest, beat) and state == "unknown" and now - seen[2] > STALE_S:
            if lease := _take(folder, newest, owner):
                return lease
            continue
        moved = seen[0] == newest and beat != seen[1]  # it was touched while we looked
        same_job = "job" in owner and owner["job"] == there.get("job")
        if not wait and not same_job and (state == "alive" or moved):
            raise Held(folder, there)
        if seen[:2] != (newest, beat):
            seen = newest, beat, now
        time.sleep(min(0.2, HEARTBEAT_S / 2))


def _take(folder: Path, old: Path | None, owner: dict[str, Any]) -> Lease | None:
    """The next number, or None if another process was faster."""
    path = folder / f"lease-{_number(old) + 1:06d}"
    temporary = folder / f".lease.{socket.gethostname()}.{os.getpid()}.{threading.get_ident()}"
    try:
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
    except OSError as error:
        raise NotWritable(
            f"cannot write {folder}: {error.strerror}; free some room, or choose another place"
        ) from error
    try:
        with contextlib.suppress(OSError):  # a file system without locks: the heartbeat alone decides
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.write(descriptor, json.dumps(owner).encode())
        os.link(temporary, path)  # locked and complete from its first moment on
    except (FileExistsError, FileNotFoundError):  # the winner sweeps what others have left half-done
        os.close(descriptor)
        return None
    except OSError as error:
        os.close(descriptor)
        raise NotWritable(f"cannot write {path}: {error.strerror}; free some room, or choose another place") from error
    finally:
        temporary.unlink(missing_ok=True)
    if _newest(folder) != path:  # we looked before, and linked after, others had come and gone on
        path.unlink()
        os.close(descriptor)
        return None
    if old:
        old.unlink(missing_ok=True)
    return Lease(path, descriptor)


def _state(path: Path, owner: dict[str, Any]) -> str:
    """Of the holder: "alive", "dead" or "unknown" (on another machine)."""
    here = (owner.get("host"), owner.get("boot")) == (socket.gethostname(), _boot())
    try:
        descriptor = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return "dead"
    except OSError:
        return "unknown"
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: two that look do not take each other for it
    except BlockingIOError:
        return "alive"
    except OSError:
        return "unknown"
    else:
        return "dead" if here else "unknown"
    finally:
        os.close(descriptor)


def _newest(folder: Path) -> Path | None:
    return max(folder.glob("lease-[0-9]*"), default=None)


def _number(path: Path | None) -> int:
    return int(path.name.removeprefix("lease-")) if path else 0


def _read(path: Path) -> dict[str, Any] | None:
    """The owner and, as "beat", the last touch; None if the file has gone. Opening it makes NFS look at the server."""
    try:
        with open(path) as file:
            return dict(json.loads(file.read() or "{}")) | {"beat": os.fstat(file.fileno()).st_mtime}
    except FileNotFoundError:
        return None


def _boot() -> str:
    """Tells two machines of one name, and two lives of one machine, apart; empty where the system does not say."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""
