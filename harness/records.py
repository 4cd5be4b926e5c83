"""Records that we stand by: finished runs of a recipe, copied from the run directories to results/records.

results/records/<recipe>.json holds every finished run of the recipe's digest, raw and seed by seed, never a mean:

    {"schema": 1, "recipe", "digest", "resolved": {...}, "runs": [{"seed", "status", "evals", ...}, ...], "sha256"}

`sha256` is of everything else, so an edit by hand is noticed. What is not finite is null, as JSON has no NaN.

Records answer three questions. Claims are judged by them where this machine has no runs. New runs are held against
them: *regressed* if the promoted runs were significantly better in any score of the recipe, else *held*. All that are
compared at once share 5 % (one-sided tests; Bonferroni among the scores of a record, Holm among the records), so that
one false alarm in twenty checks stays one, however many records there are. And a record of other code or of another
digest than the checkout's is *stale* until the recipe is run again.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite, nan
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from harness import judging, leaderboard, predictions, verdict
from harness import statistics as stats
from harness.errors import BadRecord
from harness.runs import RunDirectory, writable, write_atomically
from harness.tracking.local import finals, numbers, of_record

if TYPE_CHECKING:
    import pandas

    from harness.recipe import Recipe
    from harness.verdict import Current, Verdict

SCHEMA = 1
FIELDS = {"schema", "recipe", "digest", "resolved", "runs", "sha256"}


@dataclass(frozen=True)
class Record:
    """The promoted runs of a recipe. runs: the content of their record.json, without the resolved recipe."""

    recipe: str
    digest: str
    runs: tuple[dict[str, Any], ...]

    @property
    def fingerprints(self) -> set[str]:
        return {str(run["code"]["fingerprint"]) for run in self.runs}


def promote(recipe: "Recipe", fingerprint: str, root: Path, folder: Path) -> tuple[Path, Record]:
    """Copy all finished runs of a recipe to its record, in place of the one before. Returns the file and its content.

    All seeds or none: whoever chooses among them chooses the result.
    Errors: BadRecord for runs that nobody else could repeat, or fewer than two; RunConflict, NotWritable.
    """
    runs = []
    for path in sorted((root / recipe.name / recipe.digest).glob("seed-*"), key=lambda p: int(p.name[5:])):
        run = RunDirectory(root, recipe, int(path.name[5:])).record()
        if run is None:
            raise BadRecord(f"{path} is not finished; finish it with `harness run`, or move it away and say why")
        code = run["code"]
        if code["commit"] is None or code["dirty"] is not False:
            what = "outside git" if code["commit"] is None else "with uncommitted changes"
            raise BadRecord(f"{path} ran {what}, so nobody else can repeat it; commit and run it again")
        if code["fingerprint"] != fingerprint:
            raise BadRecord(
                f"{path} ran other code (fingerprint {code['fingerprint']}) than the checkout has ({fingerprint}); "
                "run it again"
            )
        runs.append(_finite({name: value for name, value in run.items() if name != "resolved"}))
    if len(runs) < stats.MIN_SEEDS:
        raise BadRecord(
            f"recipe {recipe.name!r} has {len(runs)} finished runs in {root}, and a record needs {stats.MIN_SEEDS} "
            f"or more: one seed has no spread; `harness run {recipe.name} --seeds 3` makes them"
        )
    content = {
        "schema": SCHEMA,
        "recipe": recipe.name,
        "digest": recipe.digest,
        "resolved": recipe.resolved(),
        "runs": runs,
    }
    with writable(folder):
        folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{recipe.name}.json"
    write_atomically(
        file, (json.dumps(content | {"sha256": _sha256(content)}, indent=1, allow_nan=False) + "\n").encode()
    )
    return file, Record(recipe.name, recipe.digest, tuple(runs))


def load(folder: Path) -> list[Record]:
    """All records of a folder, by name. Errors: BadRecord, for one that was edited too."""
    return [_load(path) for path in sorted(folder.glob("*.json"))]


def _load(path: Path) -> Record:
    again = f"restore it with `git checkout {path.name}`, or make it anew with `harness promote {path.stem}`"
    try:
        content = json.loads(path.read_text())
        if not isinstance(content, dict) or set(content) != FIELDS:
            raise ValueError(f"expected the fields {', '.join(sorted(FIELDS))}")
        if content["schema"] != SCHEMA:
            raise ValueError(f"schema is {content['schema']!r}, expected {SCHEMA}")
        stated = content.pop("sha256")
        if stated != _sha256(content):
            raise ValueError("it was edited by hand, its sha256 is of another content")
        if content["recipe"] != path.stem:
            raise ValueError(f"it is of the recipe {content['recipe']!r}")
        for run in content["runs"]:
            run["seed"], run["status"], run["code"]["fingerprint"], run["evals"]
        return Record(content["recipe"], content["digest"], tuple(content["runs"]))
    except OSError as error:
        raise BadRecord(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise BadRecord(f"{path} is not a record: {reason}; {again}") from error


def _sha256(content: dict[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _finite(node: Any) -> Any:
    if isinstance(node, dict):
        return {name: _finite(value) for name, value in node.items()}
    if isinstance(node, list):
        return [_finite(item) for item in node]
    return None if isinstance(node, float) and not isfinite(node) else node


# ------------------------------------------------------------------------------------------ what they say


def by_key(records: Iterable[Record]) -> dict[str, dict[str, Any]]:
    """The promoted runs by their keys in a `tracking.table`."""
    return {f"{record.recipe}/{record.digest}/seed-{run['seed']}": run for record in records for run in record.runs}


def frame(records: Iterable[Record]) -> "pandas.DataFrame":
    """The promoted runs as rows of a `tracking.table`."""
    import pandas

    rows = [{"run": key} | _row(run) for key, run in by_key(records).items()]
    return pandas.DataFrame(rows, columns=None if rows else ["run", "recipe", "seed", "dataset", "status"])


def _row(run: dict[str, Any]) -> dict[str, Any]:
    row = {name: run[name] for name in ("recipe", "digest", "seed", "label", "dataset", "encoder", "epochs", "status")}
    row["overrides"] = " ".join(run["overrides"])
    evals = [  # null stands for what was not finite
        one | {"metrics": {name: nan if value is None else value for name, value in one["metrics"].items()}}
        for one in run["evals"]
    ]
    return numbers(run["last"] or {}) | finals(run | {"evals": evals}) | of_record(run) | row


def judge(
    records: Iterable[Record],
    runs: "pandas.DataFrame",
    current: "Mapping[str, Current]",
    *,
    allow_dirty: bool = False,
    root: Path | None = None,
) -> "list[Verdict]":
    """One verdict per record: held, regressed or stale.

    runs: `tracking.table`, of this machine's runs alone. root: of their directories, where they are at hand.
    """
    verdicts = [_judge(record, runs, current, allow_dirty, root) for record in records]
    compared = [v for v in verdicts if v.p is not None]
    adjusted = dict(zip((v.id for v in compared), stats.holm([v.p or 0.0 for v in compared]), strict=True))
    return [_decided(v, adjusted[v.id], len(compared)) if v.id in adjusted else v for v in verdicts]


def _decided(v: "Verdict", p: float, records: int) -> "Verdict":
    regressed = p < stats.ALPHA
    shared = f"one-sided, shared by {records} record{'s' if records != 1 else ''} and their scores"
    why = f"promoted runs {'were' if regressed else 'are not'} better, p = {p:.2g} ({shared}); {v.why}"
    return replace(v, word="regressed" if regressed else "held", p=p, why=why)


def _judge(
    record: Record, runs: "pandas.DataFrame", current: "Mapping[str, Current]", allow_dirty: bool, root: Path | None
) -> "Verdict":
    base: dict[str, Any] = {
        "id": f"record/{record.recipe}",
        "kind": "record",
        "scale": "paper",
        "printed": f"{len(record.runs)} promoted runs",
        "recipes": (record.recipe,),
    }
    now = current.get(record.recipe)
    again = f"`harness run {record.recipe}` and `harness promote {record.recipe}` make it anew"
    if now is None:
        return verdict.Verdict(**base, word="stale", why="its recipe is gone; remove it")
    if record.digest != now.digest:
        return verdict.Verdict(**base, word="stale", why=f"the recipe is another now (digest {now.digest}); {again}")
    same_code = record.fingerprints == {now.fingerprint}
    new = verdict.by_recipe(runs, current, allow_dirty).get(record.recipe)
    if same_code and new is not None:  # a run is not held against itself
        seeds = {run["seed"] for run in record.runs}
        new = new.only(~new.good["seed"].isin(seeds))
    if new is None or len(new.good) < stats.MIN_SEEDS:
        if same_code:
            return verdict.Verdict(**base, word="held", why="no code on its path has changed since")
        return verdict.Verdict(**base, word="stale", why=f"code on its path has changed since; {again}")
    return verdict.Verdict(
        **base, **_compare(record, new, root), n=(len(new.good), len(record.runs)), runs=tuple(new.good["run"])
    )


def _compare(record: Record, new: "verdict.Runs", root: Path | None) -> dict[str, Any]:
    """The score in which the promoted runs are ahead by most, and its p-value, shared by the scores."""
    before = verdict.Runs(frame([record]), {}, 0)
    scores = [name for name in sorted(before.good) if name.startswith("test/") and leaderboard.is_score(name)]
    pairs = {name: (before.measured(name), new.measured(name)) for name in scores}
    pairs = {name: pair for name, pair in pairs.items() if min(len(values) for values, _ in pair) >= stats.MIN_SEEDS}
    if not pairs:
        return {"word": "held", "why": "no score to compare"}
    p = {
        name: _p_better(old, fresh, leaderboard.details(before.good, name))
        for name, ((old, _), (fresh, _)) in pairs.items()
    }
    worst = min(p, key=lambda name: p[name])
    (old, old_keys), (fresh, keys) = pairs[worst]
    measure = worst.removeprefix("test/")
    found = {
        "word": "held",
        "ours": f"{measure} {judging.spell(fresh)}, promoted {judging.spell(old)}",
        "why": f"{measure} is the worst of {len(pairs)} scores",
        "effect": fmean(fresh) - fmean(old),
        "p": min(1.0, p[worst] * len(pairs)),
    }
    about = leaderboard.details(before.good, worst)
    if about.get("unit") == "percent":
        mine = predictions.reader(root, {})(keys, worst)
        theirs = predictions.reader(None, by_key([record]))(old_keys, worst)
        error, how = judging.images_error((fresh, mine), (old, theirs), about["n"])
        found |= {"sampling_error": error, "why": f"{found['why']}; sampling error of the test set {error:.2f}, {how}"}
    return found


def _p_better(old: Sequence[float], new: Sequence[float], about: Mapping[str, Any]) -> float:
    """One-sided p-value of mean(old) > mean(new), unequal spreads."""
    std_old, std_new = (stats.spread(stdev(values), judging.half_step(about)) for values in (old, new))
    return stats.p_value(fmean(old) - fmean(new), stats.two_means(std_old, len(old), std_new, len(new)))
