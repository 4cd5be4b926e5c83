"""CONTRIBUTING's steps for a new method, taken literally in a fresh clone: three files, and nothing else."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FILES = ("methods/newcomer.py", "sweeps/newcomer.py", "results/claims/newcomer.toml")


def blocks() -> list[tuple[str, str]]:
    """(language, content) of the fenced blocks, in order."""
    return re.findall(r"^```(\w+)\n(.*?)^```$", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE | re.DOTALL)


def run(command: str, clone: Path) -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    variables = os.environ | {"PATH": path, "PYTHONPATH": str(clone), "HARNESS_RUNS": str(clone.parent / "runs")}
    done = subprocess.run(["bash", "-ec", command], cwd=clone, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stdout[-5000:]}\n{done.stderr[-2000:]}"
    return done.stdout


@pytest.mark.slow
def test_a_new_method_is_three_files(tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
    (first, start), (_, recipes), (_, claims), (last, use) = blocks()
    assert (first, last) == ("sh", "sh")
    run(start, clone)
    (clone / FILES[1]).write_text(recipes)
    (clone / FILES[2]).write_text(claims)
    status = subprocess.run(["git", "status", "--porcelain"], cwd=clone, capture_output=True, text=True, check=True)
    assert sorted(line.split()[1] for line in status.stdout.splitlines()) == sorted(FILES)
    said = run(use, clone)
    assert "newcomer" in said
    assert "newcomer_digits_r10w16_e50" in said
    held = int(re.findall(r"(\d+) passed", said)[-1])
    assert held >= 15
    assert "failed" not in said
    run("ruff check . && ruff format --check . && mypy methods/newcomer.py sweeps/newcomer.py", clone)
    names = run("pytest tests -k newcomer --collect-only -q", clone)
    for suite in ("test_methods", "test_world_size", "test_resume", "test_recipes", "test_golden"):
        assert f"tests/{suite}.py" in names
