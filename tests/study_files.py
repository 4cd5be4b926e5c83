"""A realistic study for tests of what reads one: VICReg's three coefficients on digits, trials, runs and finals."""

import json
from dataclasses import replace
from datetime import timedelta
from math import exp, log10
from pathlib import Path
from typing import Any

import numpy as np
from run_directories import START, evaluation, metric_line, write_run

from harness import registry
from harness.studies import optimise, selection, space
from harness.studies import study as studies
from harness.studies.study import Final, Study, Trial

RECIPE, NAME, PROTOCOL = "vicreg_digits_r10w16_e50", "vicreg_digits_coefficients", "knn_k20_t0.07"
EPOCHS, PER_EPOCH, EVERY = 50, 9, 2
BEST = {"invariance": 12.0, "variance": 30.0, "covariance": 2.0}  # where the smooth objective has its maximum
ATTEMPT = {"pruned": "cancelled", "failed": "crashed"}  # how the attempt of a trial without a record ends


def asked(**more: Any) -> Study:
    kept: dict[str, Any] = {
        "name": NAME, "recipe": RECIPE, "parameters": space.parameters(registry.recipe(RECIPE), ()),
        "objective": f"{PROTOCOL}/top1", "trials": 30, "every": EVERY,
    }  # fmt: skip
    return Study(**(kept | more))


def write_study(
    root: Path, study: Study | None = None, *, over: int = 30, finals: str = "over", gain: float = 2.0
) -> tuple[Study, list[Trial], Final | None]:
    """Its files and its runs. over: trials at an end; of more, two are under way.

    finals: "none", "running" (the last seed is missing) or "over". gain: points by which finalists beat the default.
    """
    study, noise = study or asked(), np.random.default_rng(7)
    studies.write(study, root)
    trials = [_trial(root, study, number, number < over, noise) for number in range(min(over + 2, study.trials))]
    for trial in trials:
        studies.write_trial(root, study.name, trial)
    return study, trials, None if finals == "none" else write_finals(root, study, trials, finals == "over", gain)


def _trial(root: Path, study: Study, number: int, over: bool, noise: np.random.Generator) -> Trial:
    """One trial with its run; settings beyond the study's first ones are drawn at random."""
    first = study.first()
    params = first[number] if number < len(first) else {p.name: _draw(p, noise) for p in study.parameters}
    steps, overrides = EPOCHS * PER_EPOCH, study.settings(params)
    trial = Trial(
        number=number, params=params, overrides=overrides, seed=study.seed, steps=steps,
        digest=registry.recipe(study.recipe, overrides).digest,
    )  # fmt: skip
    goal = 96.0 + float(noise.normal(0, 0.2))
    goal -= sum(3.0 * log10(params[name] / best) ** 2 for name, best in BEST.items() if name in params)
    outcome, epochs = _end(params, goal, number) if over else ("", 20)
    trial = replace(trial, step=epochs * PER_EPOCH, seconds=round(0.4 * epochs + 1, 1), outcome=outcome)
    status = outcome if outcome in ("complete", "collapsed", "diverged") else None
    at_end = goal if outcome != "collapsed" else 61.0
    path = write_run(
        root, study.recipe, study.seed, digest=trial.digest, overrides=overrides, epochs=EPOCHS, steps=trial.step,
        status=status, top1=at_end,
    )  # fmt: skip
    with open(path / "metrics.jsonl", "w") as file:
        for epoch in range(1, epochs + 1):
            line = metric_line(epoch * PER_EPOCH, steps) | {"epoch": epoch}
            if epoch % study.every == 0:
                held_out = at_end - 25.0 * exp(-epoch / 12) + float(noise.normal(0, 0.3))
                line["held_out"] = {study.objective: held_out if outcome != "diverged" or epoch < epochs else np.nan}
            file.write(json.dumps(line) + "\n")
    _keep_splits(path, ("held_out",))
    _attempt(path, trial.seconds, trial.step, ATTEMPT.get(outcome, outcome))
    why = {"collapsed": "embedding std 0.004", "diverged": "loss is nan", "failed": "out of memory"}.get(outcome, "")
    stop = f"pruned by {study.pruner} at epoch {epochs}" if outcome == "pruned" else ""
    return replace(trial, value=at_end if status in ("complete", "collapsed") else None, why=why or stop, stop=stop)


def _draw(p: space.Parameter, noise: np.random.Generator) -> Any:
    if p.choices:
        return p.choices[noise.integers(len(p.choices))]
    share = noise.random()
    value = p.low * (p.high / p.low) ** share if p.log else p.low + (p.high - p.low) * share
    return round(value) if p.whole else float(value)


def _end(params: dict[str, Any], goal: float, number: int) -> tuple[str, int]:
    """Outcome and epochs: too little variance collapses, what is far from the best is pruned."""
    if number in (13, 22):
        return ("failed", 3) if number == 13 else ("diverged", 6)
    if params.get("variance", 25.0) < 1.6:
        return "collapsed", 14
    if goal < 94.4:
        return "pruned", 8 if goal < 93.5 else 16
    return "complete", EPOCHS


def write_finals(root: Path, study: Study, trials: list[Trial], over: bool = True, gain: float = 2.0) -> Final:
    final = Final(finalists=selection.finalists(study, trials), seeds=tuple(range(study.seeds_final)))
    noise, last = np.random.default_rng(11), (len(final.finalists) - 1, final.seeds[-1])
    for i, one in enumerate(final.finalists):
        for seed in final.seeds:
            if over or (i, seed) != last:
                path = write_run(
                    root, study.recipe, seed, digest=one.digest, overrides=one.overrides, epochs=EPOCHS,
                    steps=EPOCHS * PER_EPOCH, top1=94.0 + gain * (i > 0) + 0.1 * i + float(noise.normal(0, 0.3)),
                )  # fmt: skip
                _keep_splits(path, ("held_out",))
                _attempt(path, 21.0, EPOCHS * PER_EPOCH, "complete")
    if over:
        final = replace(final, winner=selection.winner(selection.compare_runs(study, root, final)))
        for digest in {final.finalists[i].digest for i in (0, final.winner or 0)}:
            for seed in final.seeds:
                _add_test(root / study.recipe / digest / f"seed-{seed}")
    studies.write_final(root, study.name, final)
    return final


def _attempt(path: Path, seconds: float, step: int, status: str) -> None:
    """The only attempt of a run; with status "" it has no end yet."""
    start = {"attempt": 1, "event": "start", "time": START.isoformat(), "step": 0, "steps": EPOCHS * PER_EPOCH}
    end = start | {"event": "end", "time": (START + timedelta(seconds=seconds)).isoformat(), "step": step}
    lines = [start, end | {"status": status, "reason": ""}] if status else [start]
    (path / "attempts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def _keep_splits(path: Path, splits: tuple[str, ...]) -> None:
    if (file := path / "record.json").exists():
        record = json.loads(file.read_text())
        record["evals"] = [row for row in record["evals"] if row["split"] in splits]
        file.write_text(json.dumps(record))


def _add_test(path: Path) -> None:
    record = json.loads((path / "record.json").read_text())
    value = record["evals"][0]["metrics"]["top1"] - 0.5
    record["evals"].append(evaluation(PROTOCOL, "test", 360, {"top1": value}, "percent"))
    (path / "record.json").write_text(json.dumps(record))


def assert_storage_follows_files(study: Study, root: Path) -> None:
    """Optuna's storage holds the trials of the files, each once, with the same contents, and no others."""
    trials = studies.read_trials(root, study.name)
    stored = optimise.Optimiser(study, root).optuna.get_trials()
    assert [one.number for one in stored] == [trial.number for trial in trials]
    for trial, theirs in zip(trials, stored, strict=True):
        ours = optimise.frozen(study, trial, studies.curve(study, root, trial))
        assert (theirs.state, theirs.params, theirs.value) == (ours.state, ours.params, ours.value), trial
        assert theirs.intermediate_values == ours.intermediate_values, trial
