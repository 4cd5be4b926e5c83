"""The first 20 losses of recipes of every method, as they were when the files in tests/golden were written.

A change that does not touch the numbers leaves these files alone; one that does writes them anew (`make golden`) and
says why. That also records a new method, which a published recipe must have. One thread, CPU; another processor may
round differently, so other platforms are skipped.
"""

import platform
from dataclasses import replace
from pathlib import Path

import pytest
from contracts import recipe_cases

from harness import data, registry, train
from harness.api import Batch, Step
from harness.progress import Bar
from harness.runs import RunDirectory

FOLDER = Path(__file__).parent / "golden"
STEPS = 20
DIGESTS = FOLDER / "digests.txt"
RECIPES = sorted({file.stem for file in FOLDER.glob("*.txt") if file != DIGESTS} | set(recipe_cases().values()))


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
    if not file.exists():
        assert name not in published(), "a published recipe's first losses are missing; `make golden` records them"
        pytest.skip("no first losses are recorded yet; `make golden` does it")
    golden = [float(line.split()[1]) for line in file.read_text().splitlines()]
    assert found == pytest.approx(golden, rel=1e-4, abs=1e-6)  # a cosine may start near 0


def published() -> list[str]:
    return [line.split()[0] for line in DIGESTS.read_text().splitlines()]


def test_every_published_method_has_a_golden_file() -> None:
    methods = {registry.recipe_names()[name] for name in published()}
    recorded = {registry.recipe_names()[name] for name in RECIPES if (FOLDER / f"{name}.txt").exists()}
    assert recorded == methods - {"untrained"}
