"""What only a GPU can show. Skipped where there is none."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from harness import data, registry, train
from harness.progress import Bar
from harness.recipe import Recipe
from harness.runs import RunDirectory

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"),
]

RECIPES = (
    "vicreg_digits_r10w16_e50",
    "ssl_hsic_digits_r10w16_e50",
    "dino_digits_r10w16_e50",
    "simclr_digits_r10w16_e50",
    "byol_digits_r10w16_e50",
    "simsiam_digits_r10w16_e50",
    "adassl_s_byol_factors_r10w16_e4",
)


def short(name: str, **changes: Any) -> Recipe:
    recipe = registry.recipe(name)
    budget = replace(recipe.budget, epochs=2, batch=64, warmup=min(1, recipe.budget.warmup))
    return replace(recipe, data=replace(recipe.data, train_images=256), budget=budget, online_probe=True, **changes)


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_step_waits_for_nothing(name: str, precision: str, tmp_path: Path) -> None:
    recipe = short(name, precision=precision)
    directory, bar = RunDirectory(tmp_path, recipe, 0), Bar(name, 8, 0, show=False)
    with directory.leased():
        attempt = train.Attempt(directory, data.load(recipe.data).to("cuda"), "cuda")
        attempt.method.train()
        attempt.one_step(bar)  # the first allocates, and chooses kernels
        torch.cuda.set_sync_debug_mode("error")
        try:
            attempt.one_step(bar)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        assert attempt.step == 2
        assert len(attempt.interval.pending) == 2


@pytest.mark.parametrize("name", RECIPES)
def test_a_run_is_near_that_on_the_cpu(name: str, tmp_path: Path) -> None:
    recipe = short(name)
    cpu, gpu = (train.run(recipe, 0, tmp_path / device, device=device, show=False) for device in ("cpu", "cuda"))
    assert (gpu["status"], gpu["steps"]) == ("complete", cpu["steps"])
    assert gpu["last"]["loss"] == pytest.approx(cpu["last"]["loss"], rel=0.05, abs=0.05)


def test_an_interrupted_run_goes_on(tmp_path: Path) -> None:
    recipe = short(RECIPES[0])
    one_step = train.Attempt.one_step

    def step(self: train.Attempt, bar: Any) -> tuple[str, str]:
        out = one_step(self, bar)
        if self.step == 4:  # the end of an epoch, where losses are looked at
            self.save()
            raise KeyboardInterrupt
        return out

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train.Attempt, "one_step", step)
        with pytest.raises(KeyboardInterrupt):
            train.run(recipe, 0, tmp_path, device="cuda", show=False)
    record = train.run(recipe, 0, tmp_path, device="cuda", show=False)
    assert (record["status"], record["steps"]) == ("complete", 8)
