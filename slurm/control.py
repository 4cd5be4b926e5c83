"""What a person asks of submitted runs: cancel them, or go on with them."""

import contextlib
import os
import signal
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path

from harness import lease
from harness.runs import cancel_mark, writable
from slurm import scheduler, states, watch
from slurm.states import State
from slurm.submission import Item
from slurm.submit import Report, submit


def cancel(runs: Path, names: Sequence[str]) -> dict[Item, State]:
    """Stop what is under way, after a checkpoint, and mark the rest so that nobody starts it again by itself.

    Returns what was cancelled, as it stood. Errors: UnknownName, Unavailable.
    """
    found = watch.look(runs, names)
    open_ = {item: state for item, state in found.items() if state.word not in (*states.OVER, "cancelled")}
    stop(open_, runs)
    return open_


def stop(found: Mapping[Item, State], runs: Path, why: str = "") -> None:
    """Stop what is under way, after a checkpoint, and mark all so that nobody starts it again by itself.

    why: for the run directory; else it is by `harness cancel`.
    """
    for item in found:  # first: an attempt that gets the signal looks here for why
        mark = cancel_mark(item.path(runs))
        with writable(mark):
            mark.parent.mkdir(parents=True, exist_ok=True)
            mark.write_text(why)
    scheduler.cancel([state.job for state in found.values() if state.job])
    for item, state in found.items():
        holder = lease.holder(item.path(runs)) if state.word == "running" and not state.job else None
        if holder and holder["host"] == socket.gethostname():
            with contextlib.suppress(ProcessLookupError):
                os.kill(holder["pid"], signal.SIGTERM)


def resume(runs: Path, names: Sequence[str], cluster: str | None) -> list[Report]:
    """Submit again, with the code they were submitted with, the named runs that are neither over nor under way.

    Jobs that SLURM holds since it could not launch them are released.

    cluster: another one than theirs. Errors: UnknownName, Unavailable, and those of `submit`.
    """
    reports = []
    found = watch.look(runs, names)
    scheduler.release([state.job for state in found.values() if state.word == "held"])
    at_rest = {item for item, state in found.items() if state.word not in (*states.OVER, *states.IN_FLIGHT)}
    for one in reversed(watch.chosen(runs, names)):  # an item goes with the newest submission that has it
        items = [item for _, _, item in one.items() if item in at_rest and watch.picks(one, item, names)]
        at_rest -= {*items}
        if not items:
            continue
        data_root = Path(one.data_root) if one.data_root else None
        reports.append(submit(items, runs, cluster or one.cluster, data_root=data_root, code=one.snapshot))
    return reports
