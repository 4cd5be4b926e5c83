"""What is averaged between two logged lines of a run: losses, speed, and the wait for data.

The values of a step stay on the device until they are looked at: reading one waits for all that the device has to do.
"""

import math

import torch
from torch import Tensor

from harness.nn import all_mean, world_size

ASKED = "asked"  # whether a process was asked to stop; it goes with the values, in one reduction


class Interval:
    """Means since the last logged line. `pending`: the values (float64, one row a step) not looked at yet."""

    def __init__(self, sums: dict[str, float] | None = None, steps: int = 0) -> None:
        self.sums, self.steps = dict(sums or {}), steps
        self.timed, self.seconds, self.waited = 0, 0.0, 0.0
        self.pending: list[Tensor] = []

    def add(self, values: dict[str, Tensor]) -> None:
        """Scalars of one step, the same names in every step."""
        self.names = tuple(values)
        self.pending.append(torch.stack([value.detach().double() for value in values.values()]))

    def look(self) -> list[dict[str, float]]:
        """The pending values, one dict a step, each averaged over the processes; they are part of the means from now.

        What follows the first step with a loss that is not finite is left out.
        """
        rows = torch.stack(self.pending)
        self.pending = []
        looked = []
        for row in (all_mean(rows) if world_size() > 1 else rows).tolist():
            looked.append(dict(zip(self.names, row, strict=True)))
            if not math.isfinite(looked[-1]["loss"]):
                break
            for name in looked[-1].keys() - {ASKED}:
                self.sums[name] = self.sums.get(name, 0.0) + looked[-1][name]
            self.steps += 1
        return looked

    def time(self, seconds: float, waited: float) -> None:
        """Of one step: all of it, and until its batch was there."""
        self.timed, self.seconds, self.waited = self.timed + 1, self.seconds + seconds, self.waited + waited

    def close(self, size: int) -> tuple[dict[str, float], float, float]:
        """Means, images per second, and the share of the time until batches were there (on a GPU, the host's)."""
        means = {name: value / self.steps for name, value in self.sums.items()}
        images_per_s, data_wait = self.timed * size / self.seconds, self.waited / self.seconds
        self.__init__()  # type: ignore[misc]
        return means, round(images_per_s, 1), round(data_wait, 4)
