"""The demonstration: the whole chain on embedded data, from `sweeps/demo.toml` to the leaderboard."""

import time
import tomllib
from pathlib import Path

from harness import commands, registry, tracking


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
    code = commands.show_verdicts(root, None, (), allow_dirty=True, untried=False, fail_on="differs,regressed")
    page = commands.show_leaderboard(root, None, None, overrides=False)
    for line in failed:
        say(f"failed: {line}", highlight=False)
    done = time.monotonic()
    say(f"{trained - begun:.0f} s of runs, {done - trained:.0f} s of tables. Look at:", highlight=False)
    say(f"  {page}  (open it in a browser)", highlight=False)
    say(f"  .venv/bin/mlflow ui --backend-store-uri {tracking.default_uri(root)}  (live curves)", highlight=False)
    say("  .venv/bin/harness list  (all recipes; `harness run RECIPE` trains one)", highlight=False)
    return 3 if failed else code
