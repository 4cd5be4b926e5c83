"""A run that is killed at any step and started again ends with the same bits as one that was not."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from contracts import recipe_cases
from same_end import assert_same, assert_same_end, last_state

from harness import checkpoint, registry, train
from harness.errors import BadCheckpoint, Interrupted, NotWritable, RunConflict
from harness.recipe import Recipe
from harness.runs import RunDirectory, read_lines

METHODS = {  # a short recipe of every kind of state: teacher, own Adam, centre, latent pair, queue, bank, running mean
    "vicreg": "vicreg_digits_r10w16_e50",
    "ssl_hsic": "ssl_hsic_digits_r10w16_e50",
    "dino": "dino_digits_r10w16_e50",
    "byol": "byol_digits_r10w16_e50",
    "adassl_s": "adassl_s_simclr_factors_r10w16_e4",
    "aninfonce": "aninfonce_sphere_mlp_s1001_bimodal",
    "swav": "swav_digits_r10w16_e50_queue",
    "inst_disc": "inst_disc_digits_r10w16_e50",
    "tico": "tico_digits_r10w16_e50",
}


def short(name: str, epochs: int = 2) -> Recipe:
    """The recipe on a few images: 2 epochs of 4 steps."""
    recipe = registry.recipe(name)
    budget = replace(recipe.budget, epochs=epochs, batch=64, warmup=min(1, recipe.budget.warmup), steps=None)
    return replace(recipe, data=replace(recipe.data, train_images=256), budget=budget, evals=(), online_probe=True)


def run(recipe: Recipe, root: Path, **options: Any) -> dict[str, Any]:
    return train.run(recipe, 0, root, device="cpu", show=False, **options)


def final_state(recipe: Recipe, root: Path) -> dict[str, Any]:
    return last_state(RunDirectory(root, recipe, 0).path)


@pytest.mark.parametrize("name", sorted({*METHODS.values(), *recipe_cases().values()}))
def test_interrupted_in_the_middle_of_an_epoch_equals_uninterrupted(name: str, tmp_path: Path) -> None:
    recipe = short(name)
    whole = run(recipe, tmp_path / "whole")
    for stop_at in (3, 6):  # inside the first and the second epoch
        with pytest.MonkeyPatch.context() as patch:
            original = train.Attempt.one_step

            def step(self: train.Attempt, bar: Any, at: int = stop_at, original: Any = original) -> tuple[str, str]:
                out = original(self, bar)
                if self.step == at:
                    checkpoint.save(self.directory.path, self.step, self.state())
                    raise KeyboardInterrupt
                return out

            patch.setattr(train.Attempt, "one_step", step)
            with pytest.raises(KeyboardInterrupt):
                run(recipe, tmp_path / "cut")
    resumed = run(recipe, tmp_path / "cut")
    assert resumed["steps"] == whole["steps"] == 8
    directories = [RunDirectory(tmp_path / place, recipe, 0).path for place in ("whole", "cut")]
    assert_same_end(*directories)
    starts = [line["step"] for line in read_lines(directories[1] / "attempts.jsonl") if line["event"] == "start"]
    assert starts == [0, 3, 6]


def test_kill_nine_then_resume(tmp_path: Path) -> None:
    """A real process, killed without a chance to clean up."""
    recipe = short(METHODS["vicreg"], epochs=40)
    overrides = ["budget.epochs=40", "budget.batch=64", "budget.warmup=1", "data.train_images=256"]
    code = (
        "from pathlib import Path; from harness import registry, train; import torch; torch.set_num_threads(1); "
        f"train.run(registry.recipe({METHODS['vicreg']!r}, {tuple(overrides)!r}), 0, Path({str(tmp_path)!r}), "
        "device='cpu', show=False, checkpoint_every_s=0.05)"
    )
    recipe = registry.recipe(METHODS["vicreg"], tuple(overrides))
    directory = RunDirectory(tmp_path, recipe, 0)
    process = subprocess.Popen([sys.executable, "-c", code], env=os.environ | {"OMP_NUM_THREADS": "1"})
    deadline = time.monotonic() + 60
    while not list(directory.path.glob("checkpoint-*.pt")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert directory.record() is None
    resumed = run(recipe, tmp_path)
    starts = [line["step"] for line in read_lines(directory.path / "attempts.jsonl") if line["event"] == "start"]
    assert starts[0] == 0
    assert starts[1] > 0
    whole = run(recipe, tmp_path / "whole")
    assert whole["steps"] == resumed["steps"] == 160
    assert_same(final_state(recipe, tmp_path / "whole"), final_state(recipe, tmp_path))
    assert whole["evals"] == resumed["evals"]


def test_a_signal_writes_a_checkpoint_and_ends_the_attempt(tmp_path: Path) -> None:
    recipe = short(METHODS["vicreg"], epochs=30)
    directory = RunDirectory(tmp_path, recipe, 0)

    def ask_to_stop() -> None:
        while not read_lines(directory.metrics):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=ask_to_stop, daemon=True).start()
    with pytest.raises(Interrupted, match=r"stopped at step .* by SIGTERM; start it again to go on"):
        run(recipe, tmp_path)
    state, _ = checkpoint.newest(directory.path)
    assert state is not None
    last = read_lines(directory.path / "attempts.jsonl")[-1]
    assert (last["event"], last["status"], last["reason"], last["step"]) == (
        "end",
        "interrupted",
        "SIGTERM",
        state["step"],
    )
    assert run(recipe, tmp_path)["status"] == "complete"


def test_a_finished_run_is_left_alone(tmp_path: Path) -> None:
    recipe = short(METHODS["vicreg"])
    first = run(recipe, tmp_path)
    before = {p.name: p.stat().st_mtime_ns for p in RunDirectory(tmp_path, recipe, 0).path.iterdir()}
    assert run(recipe, tmp_path) == json.loads(json.dumps(first))
    after = {p.name: p.stat().st_mtime_ns for p in RunDirectory(tmp_path, recipe, 0).path.iterdir()}
    assert {k: v for k, v in after.items() if k != "lock"} == {k: v for k, v in before.items() if k != "lock"}


def test_a_truncated_newest_checkpoint_falls_back_to_the_older(tmp_path: Path) -> None:
    recipe = short(METHODS["vicreg"])
    run(recipe, tmp_path / "whole")
    run(recipe, tmp_path / "cut", checkpoint_every_s=0)  # one checkpoint per step
    directory = RunDirectory(tmp_path / "cut", recipe, 0)
    (directory.path / "record.json").unlink()
    newest, older = sorted(directory.path.glob("checkpoint-*.pt"), reverse=True)
    newest.write_bytes(newest.read_bytes()[:1000])
    run(recipe, tmp_path / "cut")
    lines = read_lines(directory.path / "attempts.jsonl")
    assert [line["reason"] for line in lines if line["event"] == "warning"] == [
        f"{newest} is damaged (its checksum does not match its content)"
    ]
    assert lines[-2]["step"] == int(older.stem.split("-")[1])
    assert_same(final_state(recipe, tmp_path / "whole"), final_state(recipe, tmp_path / "cut"))
    for path in directory.path.glob("checkpoint-*.pt"):
        path.write_bytes(b"")
    (directory.path / "record.json").unlink()
    with pytest.raises(BadCheckpoint, match="no checkpoint in"):
        run(recipe, tmp_path / "cut")


def test_nan_ends_a_run_with_a_clear_status(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = short(METHODS["vicreg"])
    recipe = replace(
        recipe,
        optimiser=replace(recipe.optimiser, name="sgd", lr=1e12, lr_batch=None),
        budget=replace(recipe.budget, warmup=0),
    )
    record = run(recipe, tmp_path)
    assert record["status"] == "diverged"
    assert record["reason"].startswith("loss is ")
    assert record["evals"] == []


def test_collapse_ends_a_run_with_a_clear_status(tmp_path: Path) -> None:
    recipe = short(METHODS["vicreg"], epochs=40)
    recipe = replace(recipe, method=replace(recipe.method, variance=0.0, covariance=0.0))  # type: ignore[call-arg]
    record = run(recipe, tmp_path)
    assert record["status"] == "collapsed"
    assert "effective rank" in record["reason"]
    assert record["steps"] < 40 * 4


def test_one_directory_one_recipe_one_writer(tmp_path: Path) -> None:
    recipe = short(METHODS["vicreg"])
    directory = RunDirectory(tmp_path, recipe, 0)
    with directory.leased(), pytest.raises(RunConflict, match="is being written by another process"):
        run(recipe, tmp_path)
    file = directory.path / "recipe.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"digest": "0" * 12}))
    with pytest.raises(
        RunConflict,
        match=rf"holds a run of digest 0{{12}} and seed 0, this one has {recipe.digest} and 0; move",
    ):
        run(recipe, tmp_path)


def test_an_unwritable_place_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(NotWritable, match=r"cannot write .*; free some room, or choose another place"):
        run(short(METHODS["vicreg"]), tmp_path / "file")


def test_seeds_differ_and_repeat(tmp_path: Path) -> None:
    recipe = short(METHODS["vicreg"])
    a = train.run(recipe, 0, tmp_path / "a", device="cpu", show=False)
    b = train.run(recipe, 0, tmp_path / "b", device="cpu", show=False)
    c = train.run(recipe, 1, tmp_path / "a", device="cpu", show=False)
    assert a["last"]["loss"] == b["last"]["loss"]
    assert a["last"]["loss"] != c["last"]["loss"]
