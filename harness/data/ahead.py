"""Work done ahead of time, in worker processes, and handed over in order."""

import atexit
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from multiprocessing import resource_tracker
from multiprocessing.connection import wait
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from harness.errors import HarnessError, RunFailed

AHEAD = 2  # items that each worker makes before they are asked for
OURS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)  # what ends a run is for its main process


class Ahead:
    """`work(n)` for each n of `places`, in that order, computed by worker processes before it is asked for.

    work: picklable; gives tensors, or tuples and lists of them. workers: how many, 0 works in this process.
    pinned: whether tensors come in pinned memory, for copies to a GPU.

    Workers start afresh (no fork of a process with threads), use one thread each, and outlive no main process.
    """

    def __init__(self, work: Callable[[int], Any], places: range, workers: int, pinned: bool = False) -> None:
        options: dict[str, Any] = {}
        if workers:
            multiprocessing.set_forkserver_preload(["torch", "datasets"])  # imported once, not by each worker
            resource_tracker.ensure_running()  # starting it would undo the mask below (Python 3.11)
            options = {
                "multiprocessing_context": "forkserver",
                "prefetch_factor": AHEAD,
                "worker_init_fn": _end_with_the_main_process,
            }
        loader: DataLoader[Any] = DataLoader(
            _Work(work),
            batch_size=None,
            sampler=places,
            num_workers=workers,
            pin_memory=pinned,
            generator=torch.Generator(),  # not the global one, which dropout draws from
            **options,
        )
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, OURS)  # workers inherit it, this process gets them after
        try:
            self._items: Any = iter(loader)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        atexit.register(self.close)  # before multiprocessing waits for its children

    def next(self) -> Any:
        """What `work` gave for the next place. Errors: those of `work`; RunFailed where a worker was killed."""
        try:
            item = next(self._items)
        except RuntimeError as error:
            if "exited unexpectedly" not in str(error):
                raise
            raise RunFailed(
                "a process that decodes images was killed, most often for want of memory, or of room in /dev/shm; "
                "start the run again, with more memory or fewer cores"
            ) from error
        if isinstance(item, HarnessError):
            raise item
        return item

    def close(self) -> None:
        """End the workers."""
        atexit.unregister(self.close)
        if hasattr(self._items, "_shutdown_workers"):  # what its __del__ calls, too late for a tidy end
            self._items._shutdown_workers()
        self._items = iter(())


class _Work(Dataset[Any]):
    def __init__(self, work: Callable[[int], Any]) -> None:
        self.work = work

    def __getitem__(self, place: int) -> Any:
        try:
            return self.work(place)
        except HarnessError as error:  # raised here, its message would be a traceback
            return error


def _end_with_the_main_process(number: int) -> None:
    """Torch looks whether the parent lives, but the parent is the fork server, which lives while a worker does."""
    main = multiprocessing.parent_process()
    assert main is not None

    def watch() -> None:
        wait([main.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def workers() -> int:
    """One process per core that is ours, but for the one that trains."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    cores //= int(os.environ.get("LOCAL_WORLD_SIZE", 1))  # several processes started by torchrun share them
    return max(1, int(os.environ.get("SLURM_CPUS_PER_TASK", cores)) - 1)
