"""How fast this machine trains and evaluates a recipe, part by part, and beside other libraries.

The parts take turns for some rounds, so that whatever else the machine does meets all of them: views, bare steps
(forward and backward on fixed tensors: the ceiling of the loop), and steps of the loop itself, as `harness run` takes
them, with views, optimiser, probe, checks and logging. Each side of a comparison is a process of its own.
"""

import os
import statistics
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from harness import cost, data, provenance
from harness.bench.against import Library
from harness.bench.against_lightly import Lightly
from harness.bench.against_solo import Solo
from harness.bench.loop import Ours
from harness.bench.turns import Turn
from harness.errors import BadCommand, BadRecipe, UnknownName
from harness.recipe import Monitor, Recipe, check

LIBRARIES: dict[str, type[Library]] = {library.name: library for library in (Lightly, Solo)}
ROUND_S = 1.0  # of a part in one round, or one step where that takes longer


@dataclass(frozen=True)
class Rounds:
    """Seconds of a step, or another figure, one per round."""

    values: tuple[float, ...]

    def __getitem__(self, i: int) -> float:
        return self.values[i]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    def per(self, amount: float) -> "Rounds":
        """amount / value, of each round."""
        return Rounds(tuple(amount / value for value in self.values))

    def over(self, other: "Rounds") -> "Rounds":
        """Ratio of each round, which both have shared."""
        return Rounds(tuple(a / b for a, b in zip(self.values, other.values, strict=True)))

    def to_data(self) -> dict[str, float]:
        return {"median": self.median, "low": min(self.values), "high": max(self.values)}


@dataclass(frozen=True)
class Bench:
    """What was found. seconds: of a step of each part; others: of each library's `bare` and `full` steps.

    step_flops: of one step at this batch. ceiling: FLOP/s of a large matrix product. views: of each image.
    evaluations: see `evaluation.timings`. encode: seconds of the encoder's features of one batch.
    """

    recipe: Recipe
    device: str
    views: int
    steps: int
    seconds: dict[str, Rounds]
    step_flops: int
    ceiling: float
    memory: int
    found: dict[str, Any]
    encode: float
    evaluations: list[dict[str, Any]]
    others: dict[str, dict[str, Rounds]] = field(default_factory=dict)
    workers: int = 0

    def to_data(self) -> dict[str, Any]:
        """JSON-ready: figures as median, low and high over the rounds, or once where they are taken once.

        efficiency: the loop's rate over the bare one's, of the medians; low and high are of single rounds. `rest` is
        the share of a step that neither views nor forward and backward explain.
        """
        batch, bare, full = self.recipe.budget.batch, self.seconds["bare"], self.seconds["full"]
        return {
            "recipe": self.recipe.name,
            "overrides": list(self.recipe.overrides),
            "encoder": self.recipe.encoder.name,
            "device": self.device,
            "threads": self.found["threads"],
            "batch": batch,
            "views": self.views,
            "precision": self.recipe.precision,
            "rounds": len(full.values),
            "steps_a_round": self.steps,
            "views_per_s": self.seconds["views"].per(batch * self.views).to_data(),
            "bare_images_per_s": bare.per(batch).to_data(),
            "tflops": self.step_flops / bare.median / 1e12,
            "ceiling_tflops": self.ceiling / 1e12,
            "full_images_per_s": full.per(batch).to_data(),
            "efficiency": _efficiency(self.seconds),
            "data_wait": Rounds(tuple(self.found["data_wait"])).to_data(),
            "rest": 1 - (bare.median + self.seconds["views"].median) / full.median,
            "memory_bytes": self.memory,
            "startup_s": self.found["startup_s"],
            "features_per_s": batch / self.encode,
            "evaluations": [
                row | {"seconds": Rounds(tuple(row["seconds"])).to_data(), "repeats": len(row["seconds"])}
                for row in self.evaluations
            ],
            "workers": self.workers,
            "against": {
                name: {
                    "bare_images_per_s": theirs["bare"].per(batch).to_data(),
                    "full_images_per_s": theirs["full"].per(batch).to_data(),
                    "efficiency": _efficiency(theirs),
                    "ratio": theirs["full"].over(full).to_data() | {"median": theirs["full"].median / full.median},
                }
                for name, theirs in self.others.items()
            },
            "seconds_a_step": {
                name: {part: list(rounds.values) for part, rounds in parts.items()}
                for name, parts in {"ours": self.seconds, **self.others}.items()
            },
        }


def _efficiency(seconds: dict[str, Rounds]) -> dict[str, float]:
    ratio = seconds["bare"].median / seconds["full"].median
    return seconds["bare"].over(seconds["full"]).to_data() | {"median": ratio}


def bench(
    recipe: Recipe,
    batch: int | None = None,
    repeats: int = 5,
    *,
    against: Sequence[str] = (),
    workers: int | None = None,
    evaluate: bool = True,
    data_root: Path | None = None,
    device: str | None = None,
) -> Bench:
    """Time a recipe in rounds. batch: images of a step, else the recipe's. workers: of the others' loaders.

    Errors: BadCommand, BadRecipe, UnknownName; DataMissing; Unavailable where a library is not installed; RunFailed.
    """
    if repeats < 1:
        raise BadCommand(f"--repeats is {repeats}; expected 1 or more")
    workers = (os.cpu_count() or 1) if workers is None else workers
    if workers < 0:
        raise BadCommand(f"--workers is {workers}; expected 0 or more")
    if not recipe.budget.epochs:
        raise BadRecipe(f"recipe {recipe.name!r} is never trained; there is no step to time")
    recipe = replace(
        recipe,
        budget=replace(recipe.budget, batch=recipe.budget.batch if batch is None else batch),
        monitor=Monitor(),  # what a study measures on the way is no part of the loop
    )
    check(recipe)
    for name in against:
        if name not in LIBRARIES:
            raise UnknownName("library to time against", name, LIBRARIES)
        LIBRARIES[name].check(recipe)
    if recipe.data.name in data.LARGE:
        raise BadCommand(
            f"data set {recipe.data.name!r} cannot be timed: its images are decoded ahead, and every part would start "
            "that anew; `harness run` logs images/s, tests/benchmarks/decoding.py times the decoding"
        )
    size = recipe.budget.batch
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    flops = cost.step_flops(cost.build(recipe, "meta"), cost.fixed_batch(recipe, size, "meta"))
    with ExitStack() as stack:
        ours = stack.enter_context(Turn(recipe.name, Ours, recipe, device, data_root, time.time()))
        step, most = ours("warm_up")
        steps = min(most, max(1, round(ROUND_S / step)))
        others = {}
        for name in against:
            arguments = (recipe, device, data_root, workers)
            others[name] = stack.enter_context(Turn(f"--against {name}", LIBRARIES[name], *arguments))
            others[name]("warm_up")
        turns = [("ours", part, ours) for part in ("views", "bare", "full")]
        turns += [(name, part, turn) for name, turn in others.items() for part in ("bare", "full")]
        seconds: dict[tuple[str, str], list[float]] = {(name, part): [] for name, part, _ in turns}
        for number in range(repeats):
            for name, part, turn in turns if number % 2 == 0 else reversed(turns):  # none is always the first
                seconds[name, part].append(turn(part, steps))
        memory, found, encode, ceiling = ours("memory"), ours("found"), ours("encode"), ours("ceiling")
        evaluations = ours("evaluations") if evaluate else []
    of = {
        name: {part: Rounds(tuple(s)) for (whose, part), s in seconds.items() if whose == name} for name, _ in seconds
    }
    return Bench(
        recipe,
        provenance.device_name(device),
        sum(view.count for view in recipe.views),
        steps,
        of.pop("ours"),
        flops,
        ceiling,
        memory,
        found,
        encode,
        evaluations,
        of,
        workers if against else 0,
    )
