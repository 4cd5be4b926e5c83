"""What a person sees of a run: a bar with terms, images/s and time left; plain lines where there is no terminal."""

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

LINE_EVERY_S = 10.0


class Bar:
    def __init__(self, name: str, steps: int, done: int, show: bool = True) -> None:
        self.name, self.steps, self.show = name, steps, show
        self.last_line = time.monotonic()
        self.started, self.first = time.monotonic(), done
        terminal = show and sys.stderr.isatty()
        self.rich = (
            Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=20),
                TextColumn("{task.completed}/{task.total} steps"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[text]}"),  # last: what a narrow terminal cuts off
                console=Console(stderr=True),
            )
            if terminal
            else None
        )
        self.task = self.rich.add_task(name, total=steps, completed=done, text="") if self.rich else None

    def __enter__(self) -> "Bar":
        if self.rich:
            self.rich.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.rich:
            self.rich.stop()

    def update(self, step: int, epoch: int, loss: float, terms: dict[str, float], images_per_s: float) -> None:
        parts = " ".join(f"{name} {value:.3g}" for name, value in terms.items())
        text = f"{images_per_s:.0f} images/s epoch {epoch} loss {loss:.4g} ({parts})"
        if self.rich and self.task is not None:
            self.rich.update(self.task, completed=step, text=text)
        elif self.show and (time.monotonic() - self.last_line > LINE_EVERY_S or step == self.steps):
            left = (self.steps - step) * (time.monotonic() - self.started) / max(1, step - self.first)
            print(f"{self.name} {step}/{self.steps} steps {text} {left:.0f} s left", file=sys.stderr, flush=True)  # noqa: T201
            self.last_line = time.monotonic()
