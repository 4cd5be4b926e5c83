"""The demonstration, end to end: killed half-way, started again, it goes on and ends with tables and verdicts."""

import json
import os
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

from harness import registry

ROOT = Path(__file__).resolve().parent.parent
PLAN = tomllib.loads((ROOT / "sweeps" / "demo.toml").read_text())


def test_the_plan_names_recipes_that_exist() -> None:
    for group in PLAN["group"]:
        assert group["seeds"] >= 1
        for name in group["recipes"]:
            assert registry.recipe(name).name == name


def test_the_plan_covers_the_core_methods() -> None:
    methods = {registry.recipe_names()[name] for group in PLAN["group"] for name in group["recipes"]}
    assert {"vicreg", "ssl_hsic", "dino", "adassl", "untrained"} <= methods


@pytest.mark.slow
def test_killed_half_way_and_started_again_it_goes_on(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "harness", "demo", "--runs", str(tmp_path)]
    wanted = sum(group["seeds"] * len(group["recipes"]) for group in PLAN["group"])
    process = subprocess.Popen(
        command, cwd=ROOT, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT
    )
    deadline = time.monotonic() + 300
    while len(list(tmp_path.glob("*/*/seed-*/record.json"))) < 5 and time.monotonic() < deadline:
        time.sleep(0.5)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    done = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/*/seed-*/record.json")}
    assert 5 <= len(done) < wanted
    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1500)
    assert again.returncode == 0, again.stdout[-3000:] + again.stderr[-3000:]
    records = list(tmp_path.glob("*/*/seed-*/record.json"))
    assert len(records) == wanted
    assert all(path.stat().st_mtime_ns == before for path, before in done.items()), "finished runs are left alone"
    assert "leaderboard.html" in again.stdout
    learned_beats_untrained(records)


def learned_beats_untrained(records: list[Path]) -> None:
    """Every method's every seed beats the untrained network's best seed, on one protocol per data set."""
    scores: dict[tuple[str, str, str], list[float]] = {}
    for path in records:
        record = json.loads(path.read_text())
        if record["epochs"] == 20:  # rows of Table 7, some of which collapse on purpose
            continue
        for row in record["evals"]:
            for metric in ("top1", "r2"):
                if row["split"] == "test" and metric in row["metrics"]:
                    key = (
                        record["dataset"],
                        f"{row['protocol']}/{metric}",
                        f"{record['label']} on {record['encoder']}",
                    )
                    scores.setdefault(key, []).append(row["metrics"][metric])
    for dataset, protocol in (("digits", "few_label_n5/top1"), ("factors", "factor_regression/r2")):
        rows = {label: values for (d, p, label), values in scores.items() if (d, p) == (dataset, protocol)}
        floor = max(next(values for label, values in rows.items() if label.startswith("Untrained on ResNet")))
        learned = {label: min(values) for label, values in rows.items() if not label.startswith("Untrained")}
        assert len(learned) >= 4
        assert {label: low for label, low in learned.items() if low <= floor} == {}
