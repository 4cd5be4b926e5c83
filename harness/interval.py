"""What is averaged between two logged lines of a run: losses, speed, and the wait for data."""


class Interval:
    """Means since the last logged line."""

    def __init__(self, sums: dict[str, float] | None = None, steps: int = 0) -> None:
        self.sums, self.steps = dict(sums or {}), steps
        self.timed, self.seconds, self.waited = 0, 0.0, 0.0

    def add(self, values: dict[str, float], seconds: float, waited: float) -> None:
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        self.steps += 1
        self.timed, self.seconds, self.waited = self.timed + 1, self.seconds + seconds, self.waited + waited

    def close(self, size: int) -> tuple[dict[str, float], float, float]:
        """Means, images per second, and the share of the time spent on data and views."""
        means = {name: value / self.steps for name, value in self.sums.items()}
        images_per_s, data_wait = self.timed * size / self.seconds, self.waited / self.seconds
        self.__init__()  # type: ignore[misc]
        return means, round(images_per_s, 1), round(data_wait, 4)
