"""The controller: launch what is missing for a table. It asks "what is missing?" anew each time and remembers nothing,
so it may be started twice, from cron, or after a crash.

A table is a plan, `sweeps/<plan>.toml`: groups of recipes, a number of seeds, and protocols beside the recipe's own:

    [[group]]
    recipes = ["vicreg_cifar10_r18_e200"]
    seeds = 5
    protocols = ["linear"]

A run that has no record is trained; one that has, and lacks a protocol, is evaluated by it.
"""

import tomllib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from harness import lease, registry
from harness.errors import BadRecipe, UnknownName
from slurm import scheduler, states, submission
from slurm.submission import Item
from slurm.submit import Report, items_of, submit

GROUP = {"recipes": list, "seeds": int, "protocols": list}


@dataclass
class Tick:
    """What one look found and did. counts: of all that the table needs, by state as it was before."""

    counts: Counter[str]
    reports: list[Report]
    left: int  # not over, and not for a person to decide
    released: int  # jobs that SLURM held, since it could not launch them


def read_plan(name: str) -> list[tuple[list[Item], tuple[str, ...]]]:
    """The runs of each group and its further protocols. name: of a file in sweeps/, or a path.

    Errors: UnknownName, BadRecipe.
    """
    file = Path(name) if name.endswith(".toml") else registry.ROOT / "sweeps" / f"{name}.toml"
    if not file.exists():
        plans = [path.stem for path in (registry.ROOT / "sweeps").glob("*.toml")]
        raise UnknownName("plan", name, plans, fix="a plan is a file in sweeps/ or a path that ends in .toml")
    try:
        groups = tomllib.loads(file.read_text()).get("group", [])
    except tomllib.TOMLDecodeError as error:
        raise BadRecipe(f"{file} is not TOML: {error}") from error
    if not groups:
        raise BadRecipe(f"{file} has no [[group]]; expected recipes and seeds in at least one")
    found = []
    for group in groups:
        for key, value in group.items():
            if key not in GROUP:
                raise UnknownName("key of a group", key, GROUP, fix=f"in {file}")
            if not isinstance(value, GROUP[key]):
                raise BadRecipe(f"{file}: {key} is {value!r}, expected {GROUP[key].__name__}")
        if not group.get("recipes") or group.get("seeds", 0) < 1:
            raise BadRecipe(f"{file}: a group needs recipes = [...] and seeds = 1 or more; got {group}")
        protocols = tuple(group.get("protocols", ()))
        for protocol in protocols:
            registry.load("harness.evals", protocol)
        wanted = [(recipe, seed, ()) for recipe in group["recipes"] for seed in range(group["seeds"])]
        found.append((items_of(wanted), protocols))
    return found


def tick(plan: str, runs: Path, cluster: str, data_root: Path | None) -> Tick:
    """Look once, and submit what is missing. Errors: Held if another controller is at it; those of `submit`."""
    groups = read_plan(plan)
    folder = runs / "submissions"
    folder.mkdir(parents=True, exist_ok=True)
    with lease.hold(folder, {}):
        known = states.survey(submission.read_all(runs))
        missing: dict[Item, None] = {}
        held: list[str] = []
        counts: Counter[str] = Counter()
        left = 0
        for items, protocols in groups:
            for item in items:
                state = known.get(item) or states.of(item, runs, None)
                if state.word in states.OVER and protocols and (lacks := _lacks(item, runs, protocols)):
                    item = Item(item.recipe, item.seed, item.overrides, item.digest, "evaluate", tuple(lacks))
                    state = known.get(item) or states.of(item, runs, None)
                    if state.word in states.OVER:  # by other protocols than these
                        state = states.State("missing")
                counts[state.word] += 1
                left += state.word not in (*states.OVER, *states.ON_REQUEST)
                if state.word in states.AT_REST:
                    missing[item] = None
                if state.word == "held":
                    held.append(state.job)
        scheduler.release(held)
        reports = []
        for stage in ("train", "evaluate"):
            if some := [item for item in missing if item.stage == stage]:
                reports.append(submit(some, runs, cluster, data_root=data_root, asked=False, known=known))
    return Tick(counts, reports, left, len(held))


def _lacks(item: Item, runs: Path, protocols: tuple[str, ...]) -> list[str]:
    return states.missing_protocols(item.path(runs), protocols)
