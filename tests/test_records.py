"""Promoted records: what may be promoted, that an edit is noticed, and what they say of new runs."""

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
from run_directories import FINGERPRINT, write_run
from test_leaderboard import frame

from harness import records, registry
from harness.errors import BadRecord
from harness.predictions import pack
from harness.records import Record
from harness.verdict import Current

RECIPE = registry.recipe("vicreg_digits_r10w16_e50")
CURRENT = {RECIPE.name: Current(RECIPE.digest, FINGERPRINT)}


def write(root: Path, values: Sequence[float], first: int = 0, **more: Any) -> None:
    for seed, top1 in enumerate(values, first):
        path = write_run(root, RECIPE.name, seed, digest=RECIPE.digest, top1=top1, **more)
        if more.get("status", "complete") is not None:
            record = json.loads((path / "record.json").read_text())
            (path / "record.json").write_text(json.dumps(record | {"network": "student", "px": 8}))


def promote(root: Path, folder: Path) -> Record:
    return records.promote(RECIPE, FINGERPRINT, root, folder)[1]


def test_all_finished_runs_are_promoted_raw_and_read_back(tmp_path: Path) -> None:
    write(tmp_path / "runs", [97.0, 97.3, 96.8])
    made = promote(tmp_path / "runs", tmp_path / "records")
    (loaded,) = records.load(tmp_path / "records")
    assert loaded == made
    assert [run["seed"] for run in loaded.runs] == [0, 1, 2]
    assert [run["evals"][1]["metrics"]["top1"] for run in loaded.runs] == [97.0, 97.3, 96.8]
    stored = json.loads((tmp_path / "records" / f"{RECIPE.name}.json").read_text())
    assert stored["resolved"]["budget"]["epochs"] == 50
    for name in ("digest", "code", "data", "packages", "device"):
        assert all(name in run for run in stored["runs"])
    rows, table = records.frame([loaded]), frame(tmp_path / "runs")
    shared = [name for name in rows if name in table]
    assert {"run", "recipe", "dirty", "fingerprint", "test/knn_k20_t0.07/top1", "status"} <= set(shared)
    assert {"loss", "embedding_std", "terms/variance"} <= set(rows)
    for name in shared:
        if not name.startswith("eval/"):
            assert list(rows[name]) == list(table[name]), name


def test_what_is_not_finite_is_null(tmp_path: Path) -> None:
    write(tmp_path / "runs", [97.0, 97.3])
    write(tmp_path / "runs", [0.0], first=2, status="diverged")
    path = tmp_path / "runs" / RECIPE.name / RECIPE.digest / "seed-2" / "record.json"
    record = json.loads(path.read_text())
    record["last"]["loss"] = float("nan")
    path.write_text(json.dumps(record))
    promote(tmp_path / "runs", tmp_path / "records")
    (loaded,) = records.load(tmp_path / "records")
    assert loaded.runs[2]["last"]["loss"] is None
    assert records.frame([loaded])["loss"].isna().tolist() == [False, False, True]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"status": None}, "is not finished; finish it with `harness run`, or move it away and say why"),
        ({"dirty": True}, "ran with uncommitted changes, so nobody else can repeat it; commit and run it again"),
        ({"fingerprint": "0" * 12}, f"ran other code (fingerprint {'0' * 12}) than the checkout has ({FINGERPRINT}); "
         "run it again"),
    ],
)  # fmt: skip
def test_a_run_that_nobody_could_repeat_stops_the_promotion(tmp_path: Path, more: Any, message: str) -> None:
    write(tmp_path, [97.0, 97.1])
    write(tmp_path, [97.2], first=2, **more)
    path = tmp_path / RECIPE.name / RECIPE.digest / "seed-2"
    with pytest.raises(BadRecord, match=f"^{re.escape(f'{path} {message}')}$"):
        promote(tmp_path, tmp_path / "records")
    assert not (tmp_path / "records").exists()


def test_one_seed_is_no_record(tmp_path: Path) -> None:
    write(tmp_path, [97.0])
    with pytest.raises(BadRecord, match=r"has 1 finished runs in .*, and a record needs 2 or more: one seed has no"):
        promote(tmp_path, tmp_path / "records")


def test_an_edited_or_damaged_record_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "runs", [97.0, 97.3])
    promote(tmp_path / "runs", tmp_path / "records")
    file = tmp_path / "records" / f"{RECIPE.name}.json"
    whole = file.read_text()
    again = f"restore it with `git checkout {file.name}`, or make it anew with `harness promote {RECIPE.name}`"
    stored = json.loads(whole)
    for content, reason in (
        (whole.replace("97.3", "98.3", 1), "it was edited by hand, its sha256 is of another content"),
        (json.dumps(stored | {"schema": 2}), "schema is 2, expected 1"),
        ("[]", "expected the fields digest, recipe, resolved, runs, schema, sha256"),
        (whole[:100], "Unterminated string"),
        (whole.replace("97.3", "NaN", 1), "Out of range float values are not JSON compliant"),
    ):
        file.write_text(content)
        with pytest.raises(BadRecord) as caught:
            records.load(tmp_path / "records")
        message = str(caught.value)
        assert message.startswith(f"{file} is not a record: {reason}"), message
        assert message.endswith(again)
        assert "\n" not in message
    file.rename(file.with_name("another.json"))
    file.with_name("another.json").write_text(whole)
    with pytest.raises(BadRecord, match=f"it is of the recipe '{RECIPE.name}'"):
        records.load(tmp_path / "records")


def judge(root: Path, made: Record, **current: str) -> tuple[str, str]:
    now = {RECIPE.name: Current(**({"digest": RECIPE.digest, "fingerprint": FINGERPRINT} | current))}
    (found,) = records.judge([made], frame(root), now)
    return found.word, found.why


def test_new_runs_are_held_against_it(tmp_path: Path) -> None:
    write(tmp_path / "old", [97.0, 97.3, 97.1])
    made = promote(tmp_path / "old", tmp_path / "records")
    new = {"fingerprint": "1" * 12}
    write(tmp_path / "same", [97.1, 97.2, 97.0], **new)
    word, why = judge(tmp_path / "same", made, **new)
    assert word == "held"
    assert "promoted runs are not better" in why
    write(tmp_path / "worse", [92.0, 92.4, 92.1], **new)
    word, why = judge(tmp_path / "worse", made, **new)
    assert word == "regressed"
    assert "promoted runs were better, p = " in why
    assert "shared by 1 record and their scores" in why
    assert "is the worst of 2 scores" in why  # knn and few_label; collapse's numbers are no scores
    write(tmp_path / "better", [99.0, 99.4, 99.1], **new)
    assert judge(tmp_path / "better", made, **new)[0] == "held"


def test_the_test_set_is_stated_beside_the_seeds_image_by_image_where_the_predictions_were_kept(tmp_path: Path) -> None:
    def keep(root: Path, rate: float) -> list[np.ndarray]:
        bits = []
        for path in sorted(root.glob("*/*/*/record.json")):
            record = json.loads(path.read_text())
            bits.append(np.random.default_rng(len(bits)).random(360) < rate)
            record["evals"][2]["correct"] = {"top1": pack(bits[-1])}
            path.write_text(json.dumps(record))
        return bits

    write(tmp_path / "old", [97.0, 97.3])
    old = keep(tmp_path / "old", 0.85)
    made = promote(tmp_path / "old", tmp_path / "records")
    new = {"fingerprint": "1" * 12}
    write(tmp_path / "new", [92.0, 92.4], **new)  # the same seeds and keys as the promoted ones
    now = {RECIPE.name: Current(RECIPE.digest, new["fingerprint"])}

    def judged() -> str:
        (found,) = records.judge([made], frame(tmp_path / "new"), now, root=tmp_path / "new")
        assert "few_label_n5/top1 is the worst of 2 scores; " in found.why
        return found.why.rpartition("; ")[2]

    alone = sqrt(sum(100**2 * p * (1 - p) / 360 for p in (0.8515, 0.802)))
    assert judged() == f"sampling error of the test set {alone:.2f}, not paired"
    fresh = keep(tmp_path / "new", 0.80)
    paired = 100 * float(np.std(np.mean(old, axis=0) - np.mean(fresh, axis=0), ddof=1)) / sqrt(360)
    assert judged() == f"sampling error of the test set {paired:.2f}, paired by image"


def test_records_that_are_compared_at_once_share_the_level(tmp_path: Path) -> None:
    write(tmp_path / "old", [97.0, 97.3, 97.1])
    made = promote(tmp_path / "old", tmp_path / "records")
    new = {"fingerprint": "1" * 12}
    write(tmp_path / "new", [95.7, 96.2, 95.9], **new)
    now = {RECIPE.name: Current(RECIPE.digest, **new)}
    (alone,) = records.judge([made], frame(tmp_path / "new"), now)
    assert alone.word == "regressed"
    several = [made, *(replace(made, recipe=f"another_{i}", digest=RECIPE.digest) for i in range(20))]
    runs = pandas.concat([frame(tmp_path / "new").assign(recipe=one.recipe) for one in several])
    found = records.judge(several, runs, {one.recipe: now[RECIPE.name] for one in several})
    assert {v.word for v in found} == {"held"}
    assert found[0].p == pytest.approx(min(1.0, 21 * (alone.p or 0)))


def test_it_goes_stale_by_itself(tmp_path: Path) -> None:
    write(tmp_path / "runs", [97.0, 97.3])
    made = promote(tmp_path / "runs", tmp_path / "records")
    assert judge(tmp_path / "runs", made) == ("held", "no code on its path has changed since")
    again = f"`harness run {RECIPE.name}` and `harness promote {RECIPE.name}` make it anew"
    other = {"fingerprint": "1" * 12}
    assert judge(tmp_path / "runs", made, **other) == ("stale", f"code on its path has changed since; {again}")
    write(tmp_path / "one", [97.0], **other)
    assert judge(tmp_path / "one", made, **other)[0] == "stale"  # one new seed decides nothing
    word, why = judge(tmp_path / "runs", made, digest="2" * 12)
    assert (word, why) == ("stale", f"the recipe is another now (digest {'2' * 12}); {again}")
    (found,) = records.judge([made], frame(tmp_path / "runs"), {})
    assert (found.word, found.why) == ("stale", "its recipe is gone; remove it")


def test_a_run_is_not_held_against_itself(tmp_path: Path) -> None:
    write(tmp_path, [97.0, 97.3])
    made = promote(tmp_path, tmp_path / "records")
    write(tmp_path, [92.0, 92.4, 92.1], first=2)
    (found,) = records.judge([made], frame(tmp_path), CURRENT)
    assert (found.word, found.n) == ("regressed", (3, 2))


def test_the_committed_records_are_whole() -> None:
    found = records.load(registry.ROOT / "results" / "records")
    assert found
    for record in found:
        assert record.recipe in registry.recipe_names()
        assert len(record.runs) >= 2
        assert all(run["code"]["dirty"] is False and not run["overrides"] for run in record.runs)
