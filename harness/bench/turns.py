"""Processes that live side by side and work in turn: one at a time, when asked.

What is timed against something else has a process of its own, so that allocator, threads and caches of one do not
touch the other. While one works, the others wait; what they have started themselves (loaders of images) they stop.
"""

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import torch

from harness.errors import BadCommand, HarnessError, RunFailed


class Turn:
    """A fresh process that makes one object and then calls its methods, as asked.

    make, args: what makes the object there; both are sent, so they are classes, functions and data.
    Errors, here and of each call: any HarnessError of that process; BadCommand where a device's memory is full;
    RunFailed where the process crashes.
    """

    def __init__(self, name: str, make: Callable[..., Any], *args: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self.name = name
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(name, theirs, make, args))
        self.process.start()
        theirs.close()
        try:
            self._answer()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Turn":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __call__(self, method: str, *args: Any) -> Any:
        self.connection.send((method, args))
        return self._answer()

    def close(self) -> None:
        self.connection.close()
        self.process.join()

    def _answer(self) -> Any:
        try:
            value, kind, message = self.connection.recv()
        except EOFError:
            self.process.join()
            raise RunFailed(
                f"{self.name}: its process ended with code {self.process.exitcode}; if memory was short, lower --batch"
            ) from None
        if kind is not None:
            raise kind.__new__(kind, message)  # not kind(message): some kinds are made of other arguments
        return value


def _serve(name: str, connection: Connection, make: Callable[..., Any], args: tuple[Any, ...]) -> None:
    multiprocessing.set_start_method(None, force=True)  # what this process starts, it starts as any other would
    try:
        served: Any = None
        while True:
            try:
                if served is None:
                    served, value = make(*args), None
                else:
                    method, words = connection.recv()
                    value = getattr(served, method)(*words)
                told: tuple[Any, Any, str] = (value, None, "")
            except HarnessError as error:
                told = None, type(error), str(error)
            except torch.OutOfMemoryError:
                told = None, BadCommand, f"{name}: the batch does not fit on the device; lower --batch"
            except (EOFError, KeyboardInterrupt):
                return
            except Exception as error:
                told = None, RunFailed, f"{name} crashed with {type(error).__name__}: {error}"
            with contextlib.suppress(OSError):  # who asked has gone, as the next call will tell
                connection.send(told)
            if served is None:
                return
    finally:
        children(signal.SIGCONT)  # what was stopped could not end


def children(what: signal.Signals) -> None:
    """Send a signal to the processes that this one has started."""
    for child in multiprocessing.active_children():
        if child.pid is not None:
            os.kill(child.pid, what)
