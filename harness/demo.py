"""The demonstration: the whole chain on embedded data, from `sweeps/demo.toml` to the leaderboard."""

import time
import tomllib
from pathlib import Path

from harness import check, commands, registry, tracking, verdict


def main(root: Path, workers: int) -> int:
    """Run what is missing, then show it. Stopped half-way and started again, it goes on. Returns the exit code."""
    begun = time.monotonic()
    plan = tomllib.loads((registry.ROOT / "sweeps" / "demo.toml").read_text())
    wanted = [
        (name, seed, ()) for group in plan["group"] for name in group["recipes"] for seed in range(group["seeds"])
    ]
    say = commands.console.print
    say(f"demo: {len(wanted)} runs into {root}/ (finished ones are left alone)", highlight=False)
    failed = commands.run_all(wanted, root, None, workers)
    trained = time.monotonic()
    say(str(tracking.sync(root)), highlight=False)
    planned = {name for name, _, _ in wanted}
    found = [v for v in check.judged(root, None, (), allow_dirty=True) if v.recipes and planned.issuperset(v.recipes)]
    check.show(found, commands.console, untried=False)
    code = verdict.exit_code(found)
    page = commands.show_leaderboard(root, None, None, overrides=False)
    for line in failed:
        say(f"failed: {line}", highlight=False)
    done = time.monotonic()
    say(f"{trained - begun:.0f} s of runs, {done - trained:.0f} s of tables. Look at:", highlight=False)
    say(f"  {page}  (open it in a browser)", highlight=False)
    say(f"  .venv/bin/mlflow ui --backend-store-uri {tracking.default_uri(root)}  (live curves)", highlight=False)
    say("  .venv/bin/harness list  (all recipes; `harness run RECIPE` trains one)", highlight=False)
    return 3 if failed else code
