"""Signals that ask a run to stop. They set a flag; the training loop looks between two steps."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Stop:
    """signal: the name of the first signal that asked, or ""."""

    def __init__(self) -> None:
        self.signal = ""

    def note(self, number: int, frame: FrameType | None) -> None:
        if self.signal and number == signal.SIGINT:  # a person who asks twice does not wait for the end of the step
            raise KeyboardInterrupt
        self.signal = self.signal or signal.Signals(number).name


@contextmanager
def noted() -> Iterator[Stop]:
    """SIGTERM, SIGINT and SIGUSR2 go into a `Stop` for the time of the context; outside the main thread none does."""
    stop = Stop()
    before = {}
    try:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2):
            before[number] = signal.signal(number, stop.note)
    except ValueError:  # not the main thread (tests): the caller decides about signals
        pass
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
