"""What MLflow holds of ours, as one frame that is kept on the disk, so that only what has changed since is asked for.

Reading 10 000 runs through MLflow takes half a minute. Every run carries a metric with the time of its last sync
(`STAMP`), so a refresh asks for what is younger than the last look. What is kept is used only if it is of the same
experiments, if MLflow still has the youngest stamp it knows, and if it then has as many runs as MLflow, without those
that are deleted there; so a database that was made anew or put back is noticed, and all is read again. A run appears
once it is sent whole, since its stamp goes last. What others change in our runs by hand is seen when all is read again.
"""

import io
import os
import sys
import time
import warnings
from collections.abc import Iterable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import NotWritable
from harness.runs import write_atomically
from harness.tracking.store import experiments, sqlite_file

if TYPE_CHECKING:
    import pandas
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

KEY = "harness.run"  # tag: the run directory below the folder of runs, or the study
STAMP = "system/synced"  # metric, ms; MLflow's page has such names apart from what a run measured
STAMPED = f"metrics.`{STAMP}` > 0"
SCHEMA = 1  # of the file that is kept
SKEW_MS = 60_000  # by which clocks of machines that send and read may differ
PER_PAGE = 1000  # runs in one answer; more need more memory, and are no faster


def rows(client: "MlflowClient", uri: str) -> "pandas.DataFrame":
    """One row per run and study: run_id, experiment_id, status, artifact_uri, `tags.*`, `params.*` and `metrics.*`."""
    ids = {one.experiment_id: one.creation_time or 0 for one in experiments(client)}
    file, looked = _place(uri), now()
    kept = _load(file, ids)
    frame, changed = _refreshed(client, *kept, list(ids)) if kept else (None, True)
    if frame is None:
        frame = _frame(_search(client, list(ids), STAMPED))
        changed = as_many(client, list(ids), STAMPED, len(frame))  # else somebody sends at this moment
    if changed and len(frame):
        _save(file, frame, {"schema": SCHEMA, "experiments": ids, "looked": looked})
    return frame


def as_many(client: "MlflowClient", ids: list[str], matching: str, count: int) -> bool:
    """Whether that many runs match a filter, without reading them: there is a last one, and none after it."""
    from mlflow.utils.search_utils import SearchUtils

    if not ids:
        return count == 0
    token = SearchUtils.create_page_token(count - 1) if count > 1 else None
    return len(client.search_runs(ids, matching, max_results=2, page_token=token)) == min(count, 1)


def unstamped(client: "MlflowClient", ids: list[str]) -> "pandas.DataFrame":
    """The runs of a sync that died before it came to the stamp; as a rule there are none, but all are read."""
    frame = _frame(_search(client, ids, f"tags.`{KEY}` LIKE '%'"))
    return frame[frame[f"metrics.{STAMP}"].isna()] if f"metrics.{STAMP}" in frame else frame


def now() -> int:
    return int(time.time() * 1000)


# ------------------------------------------------------------------------------------------ from MLflow


def _refreshed(
    client: "MlflowClient", kept: "pandas.DataFrame", looked: int, ids: list[str]
) -> "tuple[pandas.DataFrame | None, bool]":
    """What was kept, brought up to date, and whether to keep it anew; None where it does not fit what MLflow has."""
    import pandas

    youngest = kept[f"metrics.{STAMP}"].max()
    since = min(youngest, looked - SKEW_MS)
    fresh = _frame(_search(client, ids, f"metrics.`{STAMP}` >= {since:.0f}"))
    if fresh.empty or fresh[f"metrics.{STAMP}"].max() < youngest:
        return None, True
    older = kept[~kept["run_id"].isin(fresh["run_id"])]
    frame = _in_order(pandas.concat([older, fresh], ignore_index=True))
    if as_many(client, ids, STAMPED, len(frame)):
        return frame, len(fresh) > 1
    gone = _frame(_search(client, ids, STAMPED, deleted=True))
    frame = _in_order(frame[~frame["run_id"].isin(gone["run_id"])])
    return (frame if as_many(client, ids, STAMPED, len(frame)) else None), True


def _search(
    client: "MlflowClient", ids: list[str], matching: str, *, deleted: bool = False
) -> "Iterator[pandas.DataFrame]":
    """A frame for each page of an answer: MLflow's own objects need ten times the memory."""
    import pandas
    from mlflow.entities import ViewType

    token, view = None, ViewType.DELETED_ONLY if deleted else ViewType.ACTIVE_ONLY
    while ids:
        page = client.search_runs(ids, matching, view, PER_PAGE, page_token=token)
        if page:
            yield pandas.DataFrame([_row(run) for run in page])
        if not (token := page.token):
            return


def _row(run: "Run") -> dict[str, Any]:
    info = run.info
    row = {name: getattr(info, name) for name in ("run_id", "experiment_id", "status", "artifact_uri")}
    for prefix, values in (("tags.", run.data.tags), ("params.", run.data.params)):
        row |= {prefix + name: value for name, value in values.items()}
    return row | {f"metrics.{name}": _value(value) for name, value in run.data.metrics.items()}


def _value(value: float) -> float:
    """A database has no infinity: MLflow stores the largest number instead."""
    return value if abs(value) < sys.float_info.max else value * 10


def _frame(pages: "Iterable[pandas.DataFrame]") -> "pandas.DataFrame":
    import pandas

    if not (found := list(pages)):
        return pandas.DataFrame({"run_id": [], f"tags.{KEY}": []}, dtype="str")
    whole = pandas.concat(found, ignore_index=True)
    return _in_order(whole.drop_duplicates("run_id"))  # pages move when somebody sends meanwhile


def _in_order(frame: "pandas.DataFrame") -> "pandas.DataFrame":
    """The same runs give the same frame, however it was put together."""
    return frame[sorted(frame)].sort_values("run_id", ignore_index=True)


# ------------------------------------------------------------------------------------------ on the disk


def _place(uri: str) -> Path:
    """Beside an SQLite file; for other stores under HARNESS_CACHE, else ~/.cache/ssl-harness."""
    if file := sqlite_file(uri):
        return file.with_name(f".{file.name}.rows.parquet")
    folder = Path(os.environ.get("HARNESS_CACHE") or Path.home() / ".cache" / "ssl-harness")
    return folder / f"mlflow-{sha256(uri.encode()).hexdigest()[:12]}.parquet"  # a URI may hold a password


def _load(file: Path, ids: dict[str, int]) -> "tuple[pandas.DataFrame, int] | None":
    """What was kept and when it was, if it is of experiments that are all still there; else None."""
    import pandas

    if not file.exists():
        return None
    try:
        frame = pandas.read_parquet(file)
        about, frame.attrs = frame.attrs, {}
        fits = about["schema"] == SCHEMA and about["experiments"].items() <= ids.items()
        return (frame, int(about["looked"])) if fits and len(frame) and f"metrics.{STAMP}" in frame else None
    except Exception:  # however the file is damaged, it is made again
        return None


def _save(file: Path, frame: "pandas.DataFrame", about: dict[str, Any]) -> None:
    buffer, frame.attrs = io.BytesIO(), about
    frame.to_parquet(buffer)
    frame.attrs = {}
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, buffer.getvalue())
    except (OSError, NotWritable) as error:
        warnings.warn(
            f"cannot keep what MLflow holds in {file.parent} ({error}): it is read as a whole every time; "
            "set HARNESS_CACHE to a folder that can be written",
            stacklevel=2,
        )
