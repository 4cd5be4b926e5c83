"""Realistic run directories for tests of what reads them: tracking, tables, verdicts, the report."""

import json
import math
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

FINGERPRINT = "abcdef012345"
DIGEST = "0123456789ab"
START = datetime(2026, 3, 1, 12, tzinfo=UTC)


def resolved(recipe: str, dataset: str, encoder: str, epochs: int, overrides: list[str]) -> dict[str, Any]:
    view = {
        "px": 16, "role": "global", "source": 0, "count": 1, "scale": [0.3, 1.0], "ratio": [0.75, 1.333], "flip": 0.0,
        "jitter": [0.0, 0.0, 0.0, 0.0], "jitter_p": 0.0, "grey": 0.0, "blur": 0.0, "blur_sigma": [0.1, 2.0],
    }  # fmt: skip
    return {
        "method": {
            "name": recipe.split("_")[0],
            "widths": [256, 256],
            "invariance": 25.0,
            "variance": 25.0,
            "covariance": 1.0,
        },
        "data": {"name": dataset, "px": None, "pairs": "augmentation", "train_images": None},
        "views": [view, view | {"source": 1}],
        "encoder": {"name": encoder, "options": [], "label": encoder},
        "optimiser": {
            "name": "lars",
            "lr": 0.3,
            "lr_batch": 256,
            "momentum": 0.9,
            "weight_decay": 1e-4,
            "clip_tensor": None,
        },
        "budget": {"epochs": epochs, "batch": 128, "warmup": 5},
        "evals": [{"name": "knn", "k": 20, "temperature": 0.07}],
        "online_probe": False,
        "name": recipe,
        "overrides": overrides,
    }


def metric_line(step: int, steps: int, *, collapsed: bool = False) -> dict[str, Any]:
    """What the training loop logs: loss falls, std and rank rise, unless the run collapses."""
    left = math.exp(-3 * step / steps)
    return {
        "step": step,
        "epoch": 1 + step // 8,
        "time": (START + timedelta(seconds=step)).isoformat(timespec="seconds"),
        "loss": 12.0 + 20.0 * left if not collapsed else 25.0 * left,
        "terms": {"invariance": 0.1 + 0.2 * left, "variance": 0.3 * left, "covariance": 0.5},
        "coefficients": {"invariance": 25.0, "variance": 25.0, "covariance": 1.0},
        "lr": 0.15 * left,
        "embedding_std": 0.9 - 0.5 * left if not collapsed else 0.5 * left**4,
        "effective_rank": 40.0 - 30.0 * left if not collapsed else 1.0 + 9.0 * left**4,
        "images_per_s": 1000.0,
        "data_wait": 0.05,
        "diagnostics": {},
    }


def write_run(
    root: Path,
    recipe: str = "vicreg_digits_r10_e60",
    seed: int = 0,
    *,
    label: str = "VICReg",
    dataset: str = "digits",
    encoder: str = "r10",
    epochs: int = 60,
    top1: float = 97.0,
    status: str | None = "complete",
    digest: str = DIGEST,
    dirty: bool | None = False,
    fingerprint: str = FINGERPRINT,
    overrides: tuple[str, ...] = (),
    steps: int = 64,
    until: int | None = None,
    n: int = 360,
) -> Path:
    """One run directory. status None leaves it live, without a record, after `until` steps."""
    path = root / recipe / digest / f"seed-{seed}"
    path.mkdir(parents=True, exist_ok=True)
    recipe_data = resolved(recipe, dataset, encoder, epochs, list(overrides))
    (path / "recipe.json").write_text(json.dumps({"digest": digest, "seed": seed, "label": label, **recipe_data}))
    start = {"attempt": 1, "event": "start", "time": START.isoformat(), "step": 0, "host": "node1", "pid": 17}
    end = start | {"event": "end", "step": steps, "status": status, "reason": ""}
    (path / "attempts.jsonl").write_text("".join(json.dumps(x) + "\n" for x in ([start, end] if status else [start])))
    last = (until or steps) if epochs else 0
    lines = [metric_line(step, steps, collapsed=status == "collapsed") for step in range(8, last + 1, 8)]
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if status is None:
        return path
    few = max(10.0, top1 - 12.0)
    collapse = {"embedding_std": 0.5, "rankme": 30.0}
    record = {
        "schema": 1, "recipe": recipe, "digest": digest, "seed": seed, "overrides": list(overrides),
        "method": recipe.split("_")[0], "label": label, "dataset": dataset, "encoder": encoder, "epochs": epochs,
        "batch": 128, "steps": steps,
        "status": status, "reason": "" if status == "complete" else f"{status} at step {steps}",
        "code": {"commit": "f" * 40, "dirty": dirty, "fingerprint": fingerprint},
        "data": {"name": dataset, "revision": "r1"}, "packages": {"torch": "2.13.0"},
        "device": {"name": "cpu", "count": 1},
        "started": START.isoformat(), "ended": (START + timedelta(minutes=2)).isoformat(),
        "train_seconds": 90.0 + seed if epochs else 0.0, "images_per_s": 1000.0 if epochs else None,
        "last": lines[-1] if lines else None,
        "evals": [] if status == "diverged" else [
            evaluation("knn_k20_t0.07", split, n, {"top1": top1}, "percent") for split in ("held_out", "test")
        ] + [
            evaluation("few_label_n5", "test", n, {"top1": few, "top1_draw_std": 1.0}, "percent"),
            evaluation("collapse", "test", n, collapse, "fraction"),
        ],
        "resolved": recipe_data,
    }  # fmt: skip
    (path / "record.json").write_text(json.dumps(record))
    return path


def evaluation(protocol: str, split: str, n: int, metrics: dict[str, float], unit: str) -> dict[str, Any]:
    return {
        "protocol": protocol, "split": split, "network": "student", "layer": "backbone", "n": n, "metrics": metrics,
        "units": dict.fromkeys(metrics, unit), "settings": {"k": 20},
    }  # fmt: skip


def write_field(root: Path) -> None:
    """A small benchmark: four methods and two baselines on digits, one of them on factors, with two seeds each;
    a collapsed, a diverged, a live and an overridden run."""
    noise = np.random.default_rng(0)
    methods = {
        "vicreg": ("VICReg", 97.5),
        "dino": ("DINO", 95.1),
        "ssl_hsic": ("SSL-HSIC", 97.9),
        "simclr": ("SimCLR", 96.6),
    }
    for seed in (0, 1):
        for stem, (label, top1) in methods.items():
            write_run(root, f"{stem}_digits_r10_e60", seed, label=label, top1=top1 + noise.normal(0, 0.4))
        write_run(root, "untrained_digits_r10_e0", seed, label="Untrained", top1=91.0 + seed, epochs=0)
        write_run(root, "simclr_factors_r10_e60", seed, label="SimCLR", dataset="factors", top1=71.0 + seed)
        collapsed = {"status": "collapsed", "top1": 61.0 + seed, "label": "VICReg"}
        write_run(root, "vicreg_digits_r10_e60_l1_m0_n0", seed, **collapsed)  # type: ignore[arg-type]
    write_run(root, "untrained_digits_pixels_e0", 0, label="Untrained", encoder="pixels", top1=98.3, epochs=0)
    write_run(root, "vicreg_digits_r10_e60_l1_m10_n1", 0, status="diverged")
    write_run(root, "byol_digits_r10_e60", 0, label="BYOL", status=None, until=24)
    write_run(root, "dino_digits_r10_e60", 0, label="DINO", top1=99.9, digest="f" * 12, overrides=("optimiser.lr=9",))
