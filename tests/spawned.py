"""What processes do that a test starts: gloo, on this machine, joined as on a cluster."""

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing
from contracts import SmallBackbone
from test_resume import METHODS, run, short

import harness.features
from harness import data, registry, train
from harness.errors import BadCheckpoint, Interrupted, UnknownName
from harness.evals import online_linear
from harness.features import Features, extract
from harness.nn import rank
from harness.processes import first
from harness.recipe import Data, Recipe, View
from slurm.processes import Place, join, leave

ALL = METHODS | {"simclr": "simclr_digits_r10w16_e50"}
CUT_AT = 3  # steps; a signal then ends the attempt a step later


def spawn(work: Callable[[Path], None], world: int, folder: Path) -> None:
    """`work(folder)` by every process of a group of `world`."""
    torch.multiprocessing.spawn(_process, args=(work, world, folder), nprocs=world)


def _process(rank: int, work: Callable[[Path], None], world: int, folder: Path) -> None:
    torch.set_num_threads(1)
    join(Place(rank, world, rank, world, "localhost", cpus=1, gpus=0), folder / "rendezvous", 60)
    work(folder)
    leave()


def small(name: str) -> Recipe:
    """Eight steps, and evaluations that take no time."""
    cheap = [one for one in registry.recipe(ALL[name]).evals if one.protocol in ("knn", "collapse")]
    return replace(short(ALL[name]), evals=(*cheap, online_linear.Config()))


@contextmanager
def exact() -> Iterator[None]:
    """Train in float64 and log every step."""
    init = train.Attempt.__init__

    def build(self: train.Attempt, *args: Any) -> None:
        torch.set_default_dtype(torch.float64)
        try:
            init(self, *args)
        finally:
            torch.set_default_dtype(torch.float32)

    def doubled(make: Callable[..., Any]) -> Callable[..., Any]:
        def made(*args: Any) -> Any:
            views = make(*args)
            return [view.double() for view in views] if isinstance(views, list) else views.double()

        return made

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "LOG_EVERY", 1)
        patch.setattr(train.Attempt, "__init__", build)
        patch.setattr(harness.feed, "make_views", doubled(harness.feed.make_views))
        patch.setattr(harness.features, "make_views", doubled(harness.features.make_views))
        patch.setattr(harness.features, "plain", doubled(harness.features.plain))
        yield


def train_exactly(root: Path, names: Sequence[str]) -> None:
    with exact():
        for name in names:
            record = run(small(name), root)
            assert bool(record) == (rank() == 0)


def features() -> Features:
    torch.manual_seed(0)
    splits = data.load(Data(name="digits"))
    return extract(SmallBackbone(), splits, views=(View(px=8, count=2),), device="cpu", batch=100)


def interrupt(recipe: Recipe, root: Path, by_rank: int) -> None:
    """Start, and get a signal on one process only."""
    one_step = train.Attempt.one_step

    def step(self: train.Attempt, bar: Any) -> tuple[str, str]:
        out = one_step(self, bar)
        if self.step == CUT_AT and rank() == by_rank:
            os.kill(os.getpid(), signal.SIGTERM)
        return out

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train.Attempt, "one_step", step)
        with pytest.raises(Interrupted, match="stopped at step 4 by SIGTERM"):
            run(recipe, root)


def cut_and_resume(folder: Path, names: Sequence[str], batch: int = 64) -> None:
    """Each recipe once as a whole, and once with a signal to the last process in between."""
    for name in names:
        recipe = replace(short(ALL[name]), budget=replace(short(ALL[name]).budget, batch=batch))
        run(recipe, folder / "whole")
        interrupt(recipe, folder / "cut", by_rank=1)
        run(recipe, folder / "cut")


def core(folder: Path, names: Sequence[str]) -> None:
    """All that the fast tests look at, in one start."""
    train_exactly(folder / "exact", names)
    cut_and_resume(folder, names[:1])
    interrupt(small(names[0]), folder / "fewer", by_rank=1)
    found = features()
    if rank() == 0:
        torch.save({split: found.table(split).x for split in ("held_out", "test")}, folder / "tables.pt")
        torch.save({"train": found.train.x, **{f"pairs {k}": v for k, v in found.pairs.items()}}, folder / "more.pt")
    else:
        assert len(found.train.x) == len(found.train.labels) == len(found.pairs) == 0
    assert first(rank) == 0
    for error in (BadCheckpoint("no checkpoint"), UnknownName("recipe", "a", ["b"])):
        with pytest.raises(type(error), match=f"^{error}$"):
            first(partial(_fail, error))


def _fail(error: Exception) -> None:
    raise error
