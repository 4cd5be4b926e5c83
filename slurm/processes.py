"""The start of an attempt of several processes: they find each other, check their places, and become one group.

A rendezvous is of one attempt: rank 0 opens a store on a free port and writes where into a file that only this attempt
knows; the others read it and enlist there. One complaint of any of them ends the start of all, with the same line.
"""

import contextlib
import json
import os
import sys
import time
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]

from harness.errors import Unavailable
from harness.runs import write_atomically

POLL_S = 0.1
CONNECT_S = 5.0  # for one try; a stale file leads nowhere
CLOCKS_S = 5.0  # apart
COLLECTIVE = timedelta(minutes=10)  # longest that a process may let the others wait


@dataclass(frozen=True)
class Place:
    """Where a process runs, as its launcher says.

    local_rank, local_world: the same within the node. node: name under which the others reach it. cpus: asked for per
    process, None for not known. gpus: asked for per node.
    """

    rank: int
    world: int
    local_rank: int
    local_world: int
    node: str
    cpus: int | None
    gpus: int

    def __str__(self) -> str:
        return f"rank {self.rank} on {self.node}"


def check(place: Place) -> None:
    """Whether the process got what was asked for. Errors: Unavailable, one line."""
    found = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None  # macOS has none
    if found is not None and place.cpus is not None and found < min(place.cpus, os.cpu_count() or 1):
        raise Unavailable(
            f"{place} may use {found} CPUs, expected {place.cpus}; give srun --cpus-per-task={place.cpus}, too: "
            "since SLURM 22.05 it does not take it over from sbatch"
        )
    if place.gpus and (devices := torch.cuda.device_count()) < place.local_world:
        raise Unavailable(
            f"{place} sees {devices} GPUs, expected {place.local_world}, one for each process of the node; "
            "ask for as many per node, and let each process see all of them"
        )


def join(place: Place, rendezvous: Path, timeout_s: float = 120) -> None:
    """Check the place and become one process group of all, NCCL with GPUs and else gloo; one alone stays as it is.

    rendezvous: a path that all nodes see and that no other attempt uses. Errors: Unavailable, one line.
    """
    if place.world == 1:
        check(place)
        return
    until = time.monotonic() + timeout_s
    complaint = _complaint(place)  # before the clocks are compared: the first look at a GPU takes its time
    if place.rank == 0:
        store, where = _open(place, rendezvous)
    else:
        store, where = _find(place, rendezvous, until, timeout_s)
    entry = {"rank": place.rank, "place": str(place), "world": place.world, "complaint": complaint}
    try:
        store.set(f"entry {store.add('entries', 1)}", json.dumps(entry | {"time": time.time()}))
        if place.rank == 0:
            _decide(store, place, where, until, timeout_s)
        store.wait(["verdict"], timedelta(seconds=timeout_s + CONNECT_S))
        verdict = store.get("verdict").decode()
        store.add("told", 1)
    except RuntimeError as error:
        raise Unavailable(f"{place} lost rank 0 at {where}; look at the log of rank 0") from error
    finally:
        if place.rank == 0:
            rendezvous.unlink(missing_ok=True)  # everybody who came has read it
    if verdict:
        raise Unavailable(verdict)
    if place.gpus:
        torch.cuda.set_device(place.local_rank)
    store.set_timeout(COLLECTIVE)
    backend, group = "nccl" if place.gpus else "gloo", PrefixStore("group", store)
    try:
        dist.init_process_group(backend, store=group, rank=place.rank, world_size=place.world, timeout=COLLECTIVE)
    except RuntimeError as error:
        why = str(error).splitlines()[0]
        raise Unavailable(f"{place} cannot join the {backend} group at {where}: {why}") from error


def leave() -> None:
    """End the group, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()


def _complaint(place: Place) -> str:
    try:
        check(place)
    except Unavailable as error:
        return str(error)
    return ""


def _mark(rendezvous: Path) -> str:
    """A key that tells the store of this attempt from any other that got the same port."""
    return f"rendezvous {rendezvous}"


def _open(place: Place, rendezvous: Path) -> tuple[TCPStore, str]:
    """Rank 0: a store on a free port, and its address in the file."""
    try:
        store = TCPStore(place.node, 0, is_master=True, wait_for_workers=False)
    except RuntimeError as error:
        why = str(error).splitlines()[0]
        raise Unavailable(f"{place} cannot open a port for the others under that name: {why}") from error
    store.set(_mark(rendezvous), "")
    write_atomically(rendezvous, f"{place.node} {store.port}".encode())
    return store, f"{place.node}:{store.port}"


def _find(place: Place, rendezvous: Path, until: float, timeout_s: float) -> tuple[TCPStore, str]:
    """The others: the store that the file names; a file that leads nowhere is read again until it is replaced."""
    where, patience = "", timedelta(seconds=min(CONNECT_S, timeout_s))
    while time.monotonic() < until:
        with contextlib.suppress(OSError, ValueError, RuntimeError):  # no file, no address in it, nobody there
            node, port = rendezvous.read_text().split()
            where = f"{node}:{port}"
            store = TCPStore(node, int(port), is_master=False, wait_for_workers=False, timeout=patience)
            if store.check([_mark(rendezvous)]):
                return store, where
        time.sleep(POLL_S)
    if where:
        raise Unavailable(f"{place} did not reach rank 0 at {where} within {timeout_s:g} s; look at the log of rank 0")
    raise Unavailable(
        f"{place} found no rendezvous file {rendezvous} within {timeout_s:g} s; rank 0 has not started, or its node "
        "does not share that folder"
    )


def _decide(store: TCPStore, place: Place, where: str, until: float, timeout_s: float) -> None:
    """Rank 0: wait for all, and tell all what is wrong, "" for nothing."""
    entries: list[dict[str, Any]] = []
    while len(entries) < place.world and time.monotonic() < until:
        key = f"entry {len(entries) + 1}"
        if store.check([key]):
            entries.append(json.loads(store.get(key)))
            _compare_clocks(place, entries[-1])
        else:
            time.sleep(POLL_S)
    verdict = _verdict(place, where, entries, timeout_s)
    store.set("verdict", verdict)
    until = time.monotonic() + CONNECT_S
    while verdict and store.add("told", 0) < len(entries) - 1 and time.monotonic() < until:
        time.sleep(POLL_S)  # the store ends with this process


def _verdict(place: Place, where: str, entries: list[dict[str, Any]], timeout_s: float) -> str:
    for entry in entries:
        if entry["complaint"]:
            return str(entry["complaint"])
        if entry["world"] != place.world:
            return f"{entry['place']} expects {entry['world']} processes, {place} expects {place.world}"
    came, expected = sorted(entry["rank"] for entry in entries), set(range(place.world))
    if len(set(came)) < len(came) or not set(came) <= expected:
        places = ", ".join(entry["place"] for entry in entries)
        return f"expected ranks 0 to {place.world - 1} at {where}, each once; found {places}"
    if missing := sorted(expected - set(came)):
        return (
            f"only {len(came)} of {place.world} processes came to the rendezvous at {where} within {timeout_s:g} s "
            f"(missing: ranks {', '.join(map(str, missing))}); look at their logs"
        )
    return ""


def _compare_clocks(place: Place, entry: dict[str, Any]) -> None:
    """Warn only: every time that a run writes is rank 0's. It is other runs of that node that would look stale."""
    ahead = entry["time"] - time.time()
    if abs(ahead) > CLOCKS_S:
        print(  # noqa: T201
            f"warning: the clock of {entry['place']} is {ahead:+.0f} s from that of {place}; synchronise them, "
            "or runs on one node will look stale from the other",
            file=sys.stderr,
            flush=True,
        )
