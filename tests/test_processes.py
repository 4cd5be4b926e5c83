"""Several processes train, evaluate, stop and go on like one, and say in one line what keeps them from starting."""

import json
import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from same_end import assert_same_end, curves
from spawned import ALL, core, cut_and_resume, features, small, spawn, train_exactly
from test_resume import final_state, run, short
from torch import nn

from harness import registry
from harness.errors import BadRecipe, Unavailable
from harness.nn.collectives import synchronise_batch_norm
from harness.recipe import Recipe, check_processes
from harness.runs import RunDirectory, read_lines
from slurm import processes
from slurm.processes import Place, check, join, leave

CORE = ("vicreg",)
REST = ("ssl_hsic", "simclr", "byol", "dino", "adassl_s")


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes left behind. A rendezvous file that a killed attempt left first leads them nowhere."""
    folder = tmp_path_factory.mktemp("two")
    (folder / "rendezvous").write_text("localhost 1")
    spawn(partial(core, names=CORE), 2, folder)
    assert not (folder / "rendezvous").exists()
    return folder


# ---------------------------------------------------------------------------------------------- like one


def assert_equal(name: str, several: Path, one: Path, count: int) -> None:
    """In float64, where nothing but an error can make a difference.

    In float32 two processes and one part as far as one process with two threads and one process with one do: 3e-4 of
    the loss after 8 steps of VICReg, 2e-3 of BYOL, 1e-2 of AdaSSL. torch's batch norm on CPU adds up channels-last
    images one by one, and Adam makes much of a small gradient's rounding.
    """
    recipe = small(name)
    found, expected = (RunDirectory(place, recipe, 0) for place in (several, one))
    lines, wanted = curves(found.path), curves(expected.path)
    assert list(lines) == list(wanted) == list(range(1, 9))
    for step, line in lines.items():
        assert line["loss"] == pytest.approx(wanted[step]["loss"], rel=1e-9)
        assert line["terms"] == pytest.approx(wanted[step]["terms"], rel=1e-8, abs=1e-12)
        for what in ("embedding_std", "embedding_scale", "effective_rank"):  # of the embedding in float32
            assert line[what] == pytest.approx(wanted[step][what], rel=1e-6)
    record, other = found.record(), expected.record()
    assert record is not None
    assert other is not None
    assert (record["device"]["count"], other["device"]["count"]) == (count, 1)
    assert len(record["evals"]) == len(other["evals"]) > 4
    for evaluation, same in zip(record["evals"], other["evals"], strict=True):
        assert evaluation["n"] == same["n"]
        assert evaluation["metrics"] == pytest.approx(same["metrics"], rel=1e-5)
    state, joined = final_state(recipe, several), final_state(recipe, one)
    assert (state["step"], state["images"]) == (joined["step"], joined["images"]) == (8, 512)
    for part in ("method", "probe"):
        torch.testing.assert_close(dict(state[part]), dict(joined[part]), rtol=1e-6, atol=1e-8)
    events = [line["event"] for line in read_lines(found.path / "attempts.jsonl")]
    assert events == ["start", "end"]


@pytest.mark.parametrize("name", CORE)
def test_two_processes_equal_one(name: str, two: Path, tmp_path: Path) -> None:
    train_exactly(tmp_path, [name])
    assert_equal(name, two / "exact", tmp_path, 2)


@pytest.mark.slow
def test_two_processes_equal_one_for_the_other_methods(tmp_path: Path) -> None:
    train_exactly(tmp_path / "one", REST)
    spawn(partial(train_exactly, names=REST), 2, tmp_path)
    for name in REST:
        assert_equal(name, tmp_path, tmp_path / "one", 2)


def test_features_of_every_image_once_and_in_order(two: Path) -> None:
    alone = features()
    found = torch.load(two / "tables.pt") | torch.load(two / "more.pt")
    for split in ("train", "held_out", "test"):
        assert torch.equal(found[split], getattr(alone, split).x)
    for split, pair in alone.pairs.items():
        assert all(map(torch.equal, found[f"pairs {split}"], pair))


# ---------------------------------------------------------------------------------------------- stop and go on


def assert_resumed(recipe: Recipe, folder: Path) -> None:
    whole, cut = (RunDirectory(folder / place, recipe, 0).path for place in ("whole", "cut"))
    assert_same_end(whole, cut)
    events = [(line["event"], line["step"], line.get("reason")) for line in read_lines(cut / "attempts.jsonl")]
    assert events == [("start", 0, None), ("end", 4, "SIGTERM"), ("start", 4, None), ("end", 8, "")]


def test_a_signal_to_one_of_two_stops_both_and_they_go_on_with_the_same_bits(two: Path) -> None:
    assert_resumed(short(ALL[CORE[0]]), two)


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 3])
def test_every_method_goes_on_with_the_same_bits(world: int, tmp_path: Path) -> None:
    """Three: a ring's order of addition depends on where a gradient lies in its bucket."""
    batch = 63 if world == 3 else 64
    names = tuple(name for name, recipe in ALL.items() if takes(registry.recipe(recipe), batch))
    assert set(ALL) - set(names) == ({"swav"} if world == 3 else set())  # its queue holds whole batches of 64
    spawn(partial(cut_and_resume, names=names, batch=batch), world, tmp_path)
    for name in names:
        recipe = short(ALL[name])
        assert_resumed(replace(recipe, budget=replace(recipe.budget, batch=batch)), tmp_path)


def takes(recipe: Recipe, batch: int) -> bool:
    needs = recipe.method.requirements()
    return batch % needs.batch_divisor == 0 and (needs.batch_divides or batch) % batch == 0


def test_one_process_goes_on_where_two_stopped(two: Path) -> None:
    recipe = small(CORE[0])
    path = RunDirectory(two / "fewer", recipe, 0).path
    assert [file.name for file in path.glob("checkpoint-*.pt")] == ["checkpoint-00000004.pt"]
    record = run(recipe, two / "fewer")
    assert (record["status"], record["steps"], record["device"]["count"]) == ("complete", 8, 1)


# ---------------------------------------------------------------------------------------------- refusals


def test_a_batch_that_does_not_divide_is_refused_before_anything_starts() -> None:
    recipe = replace(short(ALL["vicreg"]), name="x")
    for fine in (1, 2, 64):
        check_processes(recipe, fine)
    with pytest.raises(
        BadRecipe,
        match=r"^recipe 'x': a batch of 64 does not divide over 3 processes; use 1, 2, 4, 8, 16, 32, 64$",
    ):
        check_processes(recipe, 3)
    recipe = replace(recipe, budget=replace(recipe.budget, batch=1024))
    with pytest.raises(BadRecipe, match=r"over 2048 processes; use 1, 2, 4, 8, 16, 32, 64, 128, \.\.\.$"):
        check_processes(recipe, 2048)


def test_a_batch_norm_of_another_kind_is_refused() -> None:
    class Other(nn.BatchNorm2d):
        pass

    with pytest.raises(ValueError, match="Other layers cannot be shared by several processes; use one process"):
        synchronise_batch_norm(nn.Sequential(Other(3)))


# ---------------------------------------------------------------------------------------------- rendezvous


def place(rank: int, world: int = 2, **changes: Any) -> Place:
    return replace(Place(rank, world, rank, world, "localhost", cpus=1, gpus=0), **changes)


def errors(*starts: Callable[[], None]) -> list[str]:
    """What each start is refused with; all at the same time."""
    found = [""] * len(starts)

    def refused(number: int) -> None:
        with pytest.raises(Unavailable) as error:
            starts[number]()
        found[number] = str(error.value)

    threads = [threading.Thread(target=refused, args=(number,)) for number in range(len(starts))]
    begun = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert time.monotonic() - begun < 15
    assert not dist.is_initialized()
    return found


def test_one_process_needs_no_rendezvous(tmp_path: Path) -> None:
    join(place(0, world=1), tmp_path / "rendezvous")
    leave()
    assert not dist.is_initialized()
    assert not list(tmp_path.iterdir())


def test_a_missing_process_is_named(tmp_path: Path) -> None:
    starts = [partial(join, place(rank, world=3), tmp_path / "rendezvous", 1.0) for rank in (0, 2)]
    first, second = errors(*starts)
    assert first == second
    assert first.startswith("only 2 of 3 processes came to the rendezvous at localhost:")
    assert first.endswith(" within 1 s (missing: ranks 1); look at their logs")
    assert not list(tmp_path.iterdir())


def test_rank_0_that_never_starts(tmp_path: Path) -> None:
    path = tmp_path / "rendezvous"
    (line,) = errors(partial(join, place(1), path, 0.5))
    assert line == (
        f"rank 1 on localhost found no rendezvous file {path} within 0.5 s; rank 0 has not started, or its node does "
        "not share that folder"
    )


def test_the_store_of_somebody_else_is_not_joined(tmp_path: Path) -> None:
    other = dist.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    path = tmp_path / "rendezvous"
    path.write_text(f"localhost {other.port}")
    (line,) = errors(partial(join, place(1), path, 0.5))
    assert line.startswith(f"rank 1 on localhost did not reach rank 0 at localhost:{other.port} within 0.5 s")


def test_what_is_wrong_with_one_place_every_process_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 20_000)  # a machine that has them, and a process that may not use them
    starts = [partial(join, place(rank, cpus=10_000 if rank else 1), tmp_path / "a", 5.0) for rank in (0, 1)]
    first, second = errors(*starts)
    assert first == second
    assert first.startswith("rank 1 on localhost may use ")
    assert " CPUs, expected 10000; give srun --cpus-per-task=10000, too" in first
    twice = [partial(join, place(rank, world=3), tmp_path / "b", 5.0) for rank in (0, 1, 1)]
    for line in errors(*twice):
        assert line.startswith("expected ranks 0 to 2 at localhost:")
        assert line.count("rank 1 on localhost") == 2
    for line in errors(partial(join, place(0), tmp_path / "c", 5.0), partial(join, place(1, 3), tmp_path / "c", 5.0)):
        assert line == "rank 1 on localhost expects 3 processes, rank 0 on localhost expects 2"


@pytest.mark.skipif(torch.cuda.device_count() > 7, reason="has that many GPUs")
def test_missing_gpus_are_counted() -> None:
    check(place(0, 1))
    expected = rf"rank 3 on localhost sees {torch.cuda.device_count()} GPUs, expected 8, one for each process"
    with pytest.raises(Unavailable, match=expected):
        check(place(3, 8, gpus=8))


def test_a_clock_that_is_off_is_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for ahead, said in ((-60, True), (2, False), (60, True)):
        entry = json.loads(json.dumps({"place": "rank 1 on b", "time": time.time() + ahead}))
        processes._compare_clocks(place(0), entry)
        assert (f"the clock of rank 1 on b is {ahead:+d} s from that of rank 0" in capsys.readouterr().err) == said
