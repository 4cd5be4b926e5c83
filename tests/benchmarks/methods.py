"""Every method and variant in one Markdown table: size, how exact it is, what it learns on digits, what a step takes.

    python tests/benchmarks/methods.py [oracle] [processes] [digits] [time] [--runs runs] [--shapes 8 32 r18]

oracle      largest relative error of loss and gradients against the restated equations, float64: the property
            oracle_error of tests/test_oracle*.py, of a file or test that is named after the method
processes   largest relative difference of losses, gradients and state after two steps, float64, between one process and
            two. It is that of a tensor's largest entry; a tensor under a thousandth of the largest of its kind, as the
            gradient of a bias before a batch norm, is held against that thousandth
digits      k-NN and linear accuracy on the test images, mean and standard deviation over the seeds that are in --runs
            or, where it has none of the recipe as it is, in results/records
time        seconds of a bare step (forward and backward on fixed noise) over SimCLR's, median of the rounds (lowest to
            highest). All take turns in this process. 8: the digits recipe, batch 128; 32: the same with views four
            times as large; r18: ResNet-18 at 32 px, batch 64, which takes seconds a step

Rows are methods and their variants: a label of its own or, of a method that the contract tests run as its recipes
configure it (tests/contracts.py), every recipe on digits; then controls. What has no recipe on digits is timed with
SimCLR's views and encoder.
"""

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # for contracts
sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

import contracts
from torch import Tensor

from harness import allocator, catalogue, check, cost, records, registry
from harness.api import Batch, Method
from harness.errors import BadRecipe
from harness.evals import knn, linear
from harness.leaderboard import is_labelled
from harness.recipe import Recipe
from harness.registry import ROOT
from sweeps import _bases

YARDSTICK = "simclr_digits_r10w16_e50"
PROTOCOLS = {"k-NN": knn.Config().id, "linear": linear.Config().id}
TURN_S = 0.3  # of a method in one round, or one step where that takes longer
SHAPES = ("8", "32", "r18")
TINY = 1e-3


@dataclass(frozen=True)
class Row:
    """A method in one variant. cases: of the contract, none for a control."""

    recipe: Recipe
    cases: tuple[str, ...] = ()

    @property
    def method(self) -> str:
        return catalogue.method_of(self.recipe)

    @property
    def label(self) -> str:
        return self.recipe.method.label


def rows() -> list[Row]:
    """Methods by name, those that read labels after the others, controls last."""
    found: list[Row] = []
    for method, recipes in catalogue.recipes().items():
        recipes = [recipe for recipe in recipes if recipe.data.name in catalogue.EMBEDDED]
        for recipe in sorted(recipes, key=lambda one: one.data.name != "digits"):
            like, digits = [row for row in found if row.method == method], recipe.data.name == "digits"
            if method in contracts.SMALL:
                wanted = recipe.method.label not in [row.label for row in like] or (digits and not recipe.budget.epochs)
            else:
                wanted = digits or recipe.method not in [row.recipe.method for row in like]
            if wanted:
                found.append(Row(recipe, tuple(case for case in contracts.trained_cases() if configures(case, recipe))))
    return sorted(found, key=lambda row: (not row.cases, is_labelled(row.label), row.method))


def configures(case: str, recipe: Recipe) -> bool:
    """Whether a case of the contract is the method of the recipe: as it configures it, or in a small variant of it."""
    if case in contracts.recipe_cases():
        return registry.recipe(contracts.recipe_cases()[case]).method == recipe.method
    return case.partition("-")[0] == catalogue.method_of(recipe) and contracts.config(case).label == recipe.method.label


def spell(row: Row, all_rows: Sequence[Row]) -> str:
    """The label, and what tells it from other rows of that label: variant and encoder."""
    same = [other for other in all_rows if other.label == row.label]
    variant = re.search(r"_[es]\d+_(\w+)$", row.recipe.name) if len(same) > 1 else None
    other = row.recipe.data.name == "digits" and row.recipe.encoder != _bases.R10W16
    words = (row.label, variant[1] if variant else "", row.recipe.encoder.label if other else "")
    return ", ".join(filter(None, words))


# ---------------------------------------------------------------------------------------------- how exact


def oracle_errors() -> dict[str, float]:
    """Method -> the largest error that its oracle tests have noted."""
    files = sorted(map(str, (ROOT / "tests").glob("test_oracle*.py")))
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        words = ["-n", "0", "-q", f"--junit-xml={report}", "-o", "junit_family=xunit1", *files]
        subprocess.run([sys.executable, "-m", "pytest", *words], cwd=ROOT, stdout=sys.stderr, check=True)
        tests = list(xml.etree.ElementTree.parse(report).iter("testcase"))
    found: dict[str, float] = {}
    for test in tests:
        errors = [float(one.get("value", "")) for one in test.iter("property") if one.get("name") == "oracle_error"]
        if errors:
            name = tested(Path(test.get("file", "")).stem, test.get("name", ""))
            found[name] = max(found.get(name, 0.0), *errors)
    return found


def tested(file: str, test: str) -> str:
    """The method that a test is about, from the names of its file or its own; "" for none."""
    of_file = re.sub(r"^test_oracles?_?", "", file)
    if of_file in registry.names("methods"):
        return of_file
    return max((name for name in registry.names("methods") if test.startswith(f"test_{name}_")), key=len, default="")


def process_error(cases: Iterable[str]) -> float:
    return max(
        difference(process["methods"][case], contracts.two_steps(case))
        for case in cases
        for process in contracts.two_processes()
    )


def difference(found: dict[str, Any], expected: dict[str, Any]) -> float:
    """The largest relative one of two results of `contracts.two_steps`."""
    kinds = [({"": one["losses"]}, one["gradients"], one["state"]) for one in (found, expected)]
    return max(relative(ours, theirs) for ours, theirs in zip(*kinds, strict=True))


def relative(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    sizes = {name: float(x.detach().abs().max()) for name, x in expected.items() if x.numel()}
    least = TINY * max(sizes.values())
    errors = {name: float((found[name].double() - expected[name].double()).detach().abs().max()) for name in sizes}
    return max(error / max(sizes[name], least) for name, error in errors.items() if sizes[name] or error)


# ---------------------------------------------------------------------------------------------- what it learns


def accuracies(recipe: Recipe, runs: Path) -> dict[str, list[float]]:
    """Top-1 on the test images by protocol, one per seed."""
    files = sorted((runs / recipe.name / recipe.digest).glob("seed-*/record.json"))
    found = [json.loads(file.read_text()) for file in files]
    if not found:
        kept = [one for one in records.load(check.RECORDS) if (one.recipe, one.digest) == (recipe.name, recipe.digest)]
        found = [run for one in kept for run in one.runs]
    rows = [row for run in found if not run["overrides"] for row in run["evals"] if row["split"] == "test"]
    return {
        name: [row["metrics"]["top1"] for row in rows if row["protocol"] == protocol and row["metrics"]["top1"]]
        for name, protocol in PROTOCOLS.items()
    }


def spread(values: Sequence[float]) -> str:
    if not values:
        return "–"
    return f"{statistics.fmean(values):.1f}" + (f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else "")


# ---------------------------------------------------------------------------------------------- what a step takes


def shaped(recipe: Recipe, shape: str) -> Recipe:
    """The recipe on digits, or SimCLR's with its method, in one of the shapes."""
    if recipe.data.name != "digits":
        recipe = replace(registry.recipe(YARDSTICK), name=recipe.name, method=recipe.method)
    recipe = replace(recipe, budget=replace(recipe.budget, batch=64 if shape == "r18" else 128))
    if shape != "8":
        views = tuple(replace(view, px=4 * view.px) for view in recipe.views)
        recipe = replace(recipe, data=replace(recipe.data, px=32), views=views)
    return replace(recipe, encoder=_bases.R18) if shape == "r18" else recipe


def turns(recipes: Sequence[Recipe], shape: str, rounds: int) -> list[str]:
    """The time of each recipe's step over that of SimCLR, as text."""
    steps = [stepper(shaped(recipe, shape)) for recipe in recipes]
    yardstick = steps[[recipe.name for recipe in recipes].index(YARDSTICK)]
    contestants = [step for step in steps if step]
    times: dict[int, list[float]] = {id(step): [] for step in contestants}
    counts = {id(step): max(1, round(TURN_S / timed(step, 1))) for step in contestants}
    for number in range(rounds):
        for turn in contestants if number % 2 == 0 else reversed(contestants):  # none is always the first
            times[id(turn)].append(timed(turn, counts[id(turn)]))
    cells = []
    for step in steps:
        if step is None:
            cells.append("–")
            continue
        ratios = [a / b for a, b in zip(times[id(step)], times[id(yardstick)], strict=True)]
        cells.append(f"{statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})")
    return cells


def stepper(recipe: Recipe) -> Callable[[], None] | None:
    """Forward and backward of a recipe's method on noise; None where it cannot be had in this shape."""
    try:
        method = cost.build(recipe, "cpu")
    except BadRecipe:
        return None
    method.train()
    batch = cost.fixed_batch(recipe, recipe.budget.batch, "cpu")
    return lambda: one_step(method, batch)


def one_step(method: Method[Any], batch: Batch) -> None:
    method.zero_grad(set_to_none=True)
    method.step(batch).loss.backward()


def timed(step: Callable[[], None], n: int) -> float:
    """Seconds of one of n steps, after one that finds its memory."""
    step()
    begun = time.perf_counter()
    for _ in range(n):
        step()
    return (time.perf_counter() - begun) / n


# ---------------------------------------------------------------------------------------------- the table


def beginning(text: str) -> str:
    """Up to the first full stop or semicolon; methods/README.md has the rest."""
    first = re.split(r"(?<=[.;]) ", text)[0]
    return first if first == text else first.rstrip(".;") + " …"


def main() -> None:
    parts = ("oracle", "processes", "digits", "time")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*parts, []], default=[])
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=["8", "32"])
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    wanted = asked.parts or parts
    allocator.keep()
    found = rows()
    first = {row.method: row for row in reversed(found)}  # what is of the file stands in its first row
    columns: dict[str, list[str]] = {"method": [spell(row, found) for row in found]}

    def of_files(value: Callable[[str], str]) -> list[str]:
        return [value(row.method) if first[row.method] is row else "" for row in found]

    columns["lines"] = of_files(lambda m: str(len((ROOT / "methods" / f"{m}.py").read_text().splitlines())))
    if "oracle" in wanted:
        errors = oracle_errors()
        columns["oracle"] = of_files(lambda m: f"{errors[m]:.0e}" if m in errors else "–")
    if "processes" in wanted:
        columns["two processes"] = [f"{process_error(row.cases):.0e}" if row.cases else "–" for row in found]
    if "digits" in wanted:
        scores: list[dict[str, list[float]]] = [
            accuracies(row.recipe, asked.runs) if row.recipe.data.name == "digits" else {name: [] for name in PROTOCOLS}
            for row in found
        ]
        columns |= {name: [spread(one[name]) for one in scores] for name in PROTOCOLS}
        columns["seeds"] = [str(len(one["linear"])) for one in scores]
    if "time" in wanted:
        trained = [row for row in found if row.cases]
        for shape in asked.shapes:
            cells = turns([row.recipe for row in trained], shape, asked.rounds)
            columns[f"time, {shape}"] = cells + ["–"] * (len(found) - len(trained))
    columns["departs"] = of_files(lambda m: beginning(catalogue.header(m)["Departs"]))
    say(columns)


def say(columns: dict[str, list[str]]) -> None:
    marks = ["---" if name in ("method", "departs") else "--:" for name in columns]
    for cells in (list(columns), marks, *zip(*columns.values(), strict=True)):
        print("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")  # noqa: T201


if __name__ == "__main__":
    main()
