"""Losses that are looked at now and then: the same curves, the first bad step found, a stop that all agree on."""

import math
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from same_end import assert_same_end

from harness import registry, train
from harness.errors import Interrupted
from harness.interval import Interval
from harness.recipe import Recipe
from harness.runs import RunDirectory

ANOTHER = "cpu:0"  # the CPU, by a name that the loop takes for another device's


def short(**changes: Any) -> Recipe:
    recipe = registry.recipe("vicreg_digits_r10w16_e50")
    budget = replace(recipe.budget, epochs=4, batch=16, warmup=1)
    return replace(
        recipe, data=replace(recipe.data, train_images=256), budget=budget, evals=(), online_probe=True, **changes
    )


def run(root: Path, device: str, recipe: Recipe | None = None, **options: Any) -> dict[str, Any]:
    return train.run(recipe or short(), 0, root, device=device, show=False, **options)


def test_means_are_of_the_finite_steps_whenever_they_are_looked_at() -> None:
    values = [0.5, 1.5, 2.0, math.nan, 7.0]
    often, rarely = Interval(), Interval()
    for value in values[:3]:
        often.add({"loss": torch.tensor(value), "terms/a": torch.tensor(2 * value)})
        assert often.look() == [{"loss": value, "terms/a": 2 * value}]
    for value in values:
        rarely.add({"loss": torch.tensor(value), "terms/a": torch.tensor(2 * value)})
    looked = rarely.look()
    assert [row["loss"] for row in looked[:3]] == values[:3]
    assert len(looked) == 4
    assert math.isnan(looked[3]["loss"])
    assert rarely.sums == often.sums == {"loss": 4.0, "terms/a": 8.0}
    assert (rarely.steps, rarely.pending) == (3, [])


def test_looking_rarely_ends_with_the_same_bits(tmp_path: Path) -> None:
    paths = []
    for device in ("cpu", ANOTHER):
        record = run(tmp_path / device, device)
        assert (record["status"], record["steps"]) == ("complete", 64)
        paths.append(RunDirectory(tmp_path / device, short(), 0).path)
    assert_same_end(*paths)


def test_the_first_bad_step_is_named_when_it_is_found(tmp_path: Path) -> None:
    class Spoiled(train.Attempt):
        def values(self, out: Any) -> dict[str, torch.Tensor]:
            values = super().values(out)
            return values | {"loss": values["loss"] * (math.nan if self.step == 4 else 1)}

    reasons = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "Attempt", Spoiled)
        for device in ("cpu", ANOTHER):
            record = run(tmp_path / device, device)
            assert record["status"] == "diverged"
            reasons.append(record["reason"])
    assert reasons[0] == reasons[1]
    assert reasons[0].startswith("loss is nan at step 4 (invariance ")


def test_a_signal_is_heeded_where_the_losses_are_looked_at(tmp_path: Path) -> None:
    one_step = train.Attempt.one_step

    def step(self: train.Attempt, bar: Any) -> tuple[str, str]:
        out = one_step(self, bar)
        if self.step == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return out

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train.Attempt, "one_step", step)
        with pytest.raises(Interrupted, match="stopped at step 10 by SIGTERM"):
            run(tmp_path / "cut", ANOTHER)
    run(tmp_path / "cut", ANOTHER)
    run(tmp_path / "whole", ANOTHER)
    assert_same_end(*(RunDirectory(tmp_path / place, short(), 0).path for place in ("whole", "cut")))


def test_a_checkpoint_holds_only_what_was_looked_at(tmp_path: Path) -> None:
    class Watched(train.Attempt):
        def save(self) -> None:
            assert not self.interval.pending
            saved.append(self.step)
            super().save()

    saved: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "Attempt", Watched)
        run(tmp_path, ANOTHER, checkpoint_every_s=0.0)
    assert saved == [10, 16, 26, 32, 42, 48, 58, 64, 64]


def test_bfloat16_trains_near_float32_and_leaves_weights_alone(tmp_path: Path) -> None:
    half = short(precision="bfloat16")
    assert half.digest != short().digest
    records = [run(tmp_path / one.precision, "cpu", one) for one in (short(), half)]
    losses = [record["last"]["loss"] for record in records]
    assert losses[0] != losses[1]
    assert losses[1] == pytest.approx(losses[0], rel=0.05)
    assert records[1]["resolved"]["precision"] == "bfloat16"
    from safetensors.torch import load_file

    weights = load_file(RunDirectory(tmp_path / "bfloat16", half, 0).path / "encoder.safetensors")
    assert {tensor.dtype for tensor in weights.values()} <= {torch.float32, torch.int64}
