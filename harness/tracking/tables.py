"""MLflow to tables: one row per run, as leaderboards and verdicts read them."""

from typing import TYPE_CHECKING

from harness.tracking import mirror
from harness.tracking.mirror import KEY
from harness.tracking.store import opened

if TYPE_CHECKING:
    import pandas

EMPTY = ("run", "recipe", "seed", "dataset", "status")
STUDY = "study/"  # before the name of a study, where a run has its directory


def table(uri: str, *, dataset: str | None = None, recipe: str | None = None) -> "pandas.DataFrame":
    """One row per run, in the order of their directories; empty if there is none.

    Columns: run, recipe, digest, seed, method, label, dataset, encoder, epochs, batch, status, reason, commit, dirty
    (True, False, or None outside git), fingerprint, overrides, ended, claim (ids, of a run without overrides); for a
    trial study and trial; every metric by its name, curves with their last value (`loss`, `terms/variance`,
    `diagnostics/teacher_entropy`), finals as `<split>/<protocol>/<metric>` and `cost/...`; `eval/<split>/<protocol>`
    (JSON: n, network, layer, units, settings); every setting as `params.<path>`, as text. A column in which none of
    these runs has a value is left out. Errors: those of `store.opened`.
    """
    import pandas

    with opened(uri, write=False) as client:
        rows = mirror.rows(client, uri)
    wanted = rows[f"tags.{KEY}"].notna() & ~rows[f"tags.{KEY}"].str.startswith(STUDY, na=False)
    for column, value in (("tags.dataset", dataset), ("tags.recipe", recipe)):
        if value is not None and column in rows:
            wanted &= rows[column] == value
    found = rows[wanted].dropna(axis="columns", how="all").rename(columns={f"tags.{KEY}": "run"})
    if found.empty:
        return pandas.DataFrame(columns=EMPTY)
    ours = ("tags.mlflow.", "tags.harness.", "metrics.system/")
    keep = [name for name in found if name == "run" or ("." in name and not name.startswith(ours))]
    found = found[keep].rename(columns=lambda name: name.removeprefix("metrics.").removeprefix("tags."))
    for name in ("seed", "epochs", "batch"):
        found[name] = found[name].astype(int)
    found["dirty"] = found["dirty"].map({"True": True, "False": False}).astype(object).where(found["dirty"] != "", None)
    return found.sort_values("run", ignore_index=True)
