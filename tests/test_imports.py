"""Who may import whom (DESIGN: methods -> harness.api, harness.nn; sweeps -> methods, harness; slurm -> harness)."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
OURS = {"harness", "methods", "sweeps", "slurm", "tests", "results"}


def imports(file: Path) -> set[str]:
    """Absolute names of our own modules that a file imports, wherever in the file."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            found |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in found if name.split(".")[0] in OURS}


def files(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def allowed(name: str, prefixes: tuple[str, ...]) -> bool:
    return any(name == prefix or name.startswith(prefix + ".") for prefix in prefixes)


@pytest.mark.parametrize(
    ("package", "prefixes"),
    [
        ("methods", ("harness.api", "harness.nn")),
        ("sweeps", ("methods", "harness", "sweeps")),
        ("slurm", ("harness", "slurm")),
        ("harness", ("harness",)),
    ],
)
def test_layers(package: str, prefixes: tuple[str, ...]) -> None:
    wrong = {
        f"{file.relative_to(ROOT)}: {name}"
        for file in files(package)
        for name in imports(file)
        if not allowed(name, prefixes) and name != "harness"
    }
    assert not wrong


def test_only_the_registry_imports_by_name() -> None:
    users = {
        str(file.relative_to(ROOT))
        for package in ("harness", "methods", "sweeps", "slurm")
        for file in files(package)
        if "importlib.import_module" in file.read_text() or "__import__" in file.read_text()
    }
    assert users == {"harness/registry.py"}


def test_results_hold_no_code() -> None:
    assert not list((ROOT / "results").rglob("*.py"))


def test_importing_harness_is_light() -> None:
    heavy = {"torch", "mlflow", "pandas", "timm", "datasets"}
    code = f"import harness, harness.cli, slurm.job, slurm.after, sys; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"


def test_no_other_distribution_owns_our_names() -> None:
    from harness.doctor import foreign_owners

    assert foreign_owners() == []


def test_torchvision_imports_after_somebody_asked_whether_it_is_there() -> None:
    """As `datasets` does; beside a CPU build of torch only our hook lets it import."""
    program = "import harness, importlib.util; importlib.util.find_spec('torchvision'); import torchvision"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60, cwd=ROOT)
