"""Is this machine fit for a run? One line per finding; exit code 1 if something needed is missing."""

import importlib.metadata
import importlib.util
import os
import shutil
from collections.abc import Callable
from pathlib import Path

OURS = ("harness", "methods", "sweeps", "slurm")
ROOT = Path(__file__).resolve().parent.parent


def foreign_owners() -> list[str]:
    """Our top-level names are common words; another distribution that installs one of them would shadow ours."""
    problems = []
    owners = importlib.metadata.packages_distributions()
    for name in OURS:
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None or ROOT not in Path(spec.origin).parents:
            problems.append(
                f"{name!r} resolves to {spec.origin if spec else None}, not to this checkout; run from {ROOT}"
            )
        for owner in set(owners.get(name, ())) - {"ssl-harness"}:
            problems.append(f"another distribution also installs a top-level {name!r}: pip uninstall {owner}")
    return problems


def main(root: Path, data_root: Path | None) -> int:
    """Print the findings. Returns the exit code."""
    checks: dict[str, Callable[[], str]] = {
        "names": _names,
        "torch": _torch,
        "timm": _timm,
        "runs": lambda: _runs(root),
        "commit": _commit,
        "data": lambda: _data(data_root),
        "slurm": _slurm,
    }
    failed = False
    for name, check in checks.items():
        try:
            print(f"ok    {name:7} {check()}")  # noqa: T201
        except Exception as error:  # a doctor reports every illness it meets
            failed = True
            print(f"WRONG {name:7} {error}")  # noqa: T201
    return int(failed)


def _names() -> str:
    if problems := foreign_owners():
        raise RuntimeError("; ".join(problems))
    return "harness, methods, sweeps and slurm are this checkout's"


def _torch() -> str:
    import torch

    device = f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}" if torch.cuda.is_available() else "no GPU"
    return f"{torch.__version__}, {device}, {os.cpu_count()} CPUs"


def _timm() -> str:
    import timm
    import torchvision

    return f"{timm.__version__}, torchvision {torchvision.__version__}"


def _runs(root: Path) -> str:
    from harness.runs import writable, write_atomically

    with writable(root):
        root.mkdir(parents=True, exist_ok=True)
    write_atomically(root / ".doctor", b"")
    (root / ".doctor").unlink()
    return f"{root} is writable, {shutil.disk_usage(root).free / 1e9:.0f} GB free"


def _commit() -> str:
    from harness import provenance

    git = provenance.git()
    if git["commit"] is None:
        return "not a git checkout: runs cannot say which code made them"
    return git["commit"][:12] + (
        ", with uncommitted changes (such runs are barred from verdicts)" if git["dirty"] else ""
    )


def _data(data_root: Path | None) -> str:
    from harness import data

    return data.whereabouts(data_root)


def _slurm() -> str:
    return (
        f"sbatch at {where}"
        if (where := shutil.which("sbatch"))
        else "no sbatch here: runs are launched on this machine"
    )
