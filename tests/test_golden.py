"""The first 20 losses of one recipe per method, as they were when the files in tests/golden were written.

A change that does not touch the numbers leaves these files alone; one that does writes them anew (`make golden`) and
says why. One thread, CPU; another processor may round differently, so other platforms are skipped.
"""

import platform
from dataclasses import replace
from pathlib import Path

import pytest

from harness import data, registry, train
from harness.api import Batch, Step
from harness.progress import Bar
from harness.runs import RunDirectory

FOLDER = Path(__file__).parent / "golden"
STEPS = 20
RECIPES = (
    "vicreg_digits_r10w16_e50",
    "ssl_hsic_digits_r10w16_e50",
    "ssl_hsic_digits_r10w16_e50_notarget",
    "dino_digits_r10w16_e50",
    "simclr_digits_r10w16_e50",
    "byol_digits_r10w16_e50",
    "simsiam_digits_r10w16_e50",
    "aninfonce_sphere_mlp_s1001_bimodal",
    "adassl_v_simclr_factors_r10w16_e4",
    "adassl_s_byol_factors_r10w16_e4",
)


def losses(name: str, root: Path) -> list[float]:
    recipe = registry.recipe(name)
    recipe = replace(recipe, budget=replace(recipe.budget, batch=64))
    directory = RunDirectory(root, recipe, 0)
    with directory.leased():
        attempt = train.Attempt(directory, data.load(recipe.data), "cpu")
        attempt.method.train()
        found: list[float] = []
        step = attempt.method.step

        def noted(batch: Batch) -> Step:
            out = step(batch)
            found.append(float(out.loss.detach()))
            return out

        attempt.method.step = noted  # type: ignore[method-assign]
        bar = Bar(name, STEPS, 0, show=False)
        for _ in range(STEPS):
            attempt.one_step(bar)
    return found


@pytest.mark.skipif(
    (platform.system(), platform.machine()) != ("Linux", "x86_64"), reason="golden losses are of Linux on x86_64"
)
@pytest.mark.parametrize("name", RECIPES)
def test_first_losses_are_the_golden_ones(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    file = FOLDER / f"{name}.txt"
    found = losses(name, tmp_path)
    if request.config.getoption("--write-golden"):
        FOLDER.mkdir(exist_ok=True)
        file.write_text("".join(f"{step} {loss:.8g}\n" for step, loss in enumerate(found)))
    golden = [float(line.split()[1]) for line in file.read_text().splitlines()]
    assert found == pytest.approx(golden, rel=1e-4, abs=1e-6)  # a cosine may start near 0


def test_every_method_has_a_golden_file() -> None:
    methods = {registry.recipe(name).resolved()["method"]["name"] for name in RECIPES}
    assert methods == set(registry.names("methods")) - {"untrained"}
