"""How MLflow copes with many runs: seconds and memory of sending them, and of reading them as a table.

    python tests/benchmarks/mlflow_runs.py 100 1000 10000
    python tests/benchmarks/mlflow_runs.py 1000 --mlflow http://127.0.0.1:5000     # another store than an SQLite file

Run directories are simulated: ten recipes on two data sets, 8 logged lines each, encoders of 1 MB (empty beyond the
first hundred). Every line of the table is a process of its own, with the import of MLflow in its seconds. The second
sync is the first to read what MLflow holds, and keeps it for those that follow.
"""

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from harness import tracking  # noqa: E402

STEPS = (
    "first sync", "second sync", "third sync", "first table", "second table", "sync after one new run",
    "table after one new run", "leaderboard of that table", "mlflow.search_runs",
)  # fmt: skip


def make(runs: Path, first: int, number: int) -> None:
    from run_directories import write_run

    stems = ("vicreg", "dino", "ssl_hsic", "simclr", "byol")
    for i in range(first, first + number):
        dataset = ("digits", "factors")[i % 2]
        path = write_run(runs, f"{stems[i // 2 % 5]}_{dataset}_r10_e60", i // 10, dataset=dataset, top1=90 + i % 7)
        (path / "encoder.safetensors").write_bytes(bytes(1_000_000) if i < 100 else b"")


def step(name: str, runs: Path, uri: str) -> str:
    """Do one of `STEPS`; a few words on the outcome."""
    if name == "leaderboard of that table":
        from harness import leaderboard

        frame = tracking.table(uri)
        begun = time.perf_counter()
        board = leaderboard.leaderboard(frame)
        return f"{len(board)} rows, {time.perf_counter() - begun:.2f} s of it after the table"
    if name == "mlflow.search_runs":
        import mlflow

        mlflow.set_tracking_uri(uri)
        found = mlflow.search_runs(search_all_experiments=True, max_results=100_000)
        return f"{len(found)} x {len(found.columns)}"
    if name in ("first table", "second table", "table after one new run"):
        frame = tracking.table(uri)
        return f"{len(frame)} x {len(frame.columns)}"
    return str(tracking.sync(runs, uri))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=int, nargs="*")
    parser.add_argument("--mlflow", help="tracking URI (else an SQLite file)")
    parser.add_argument("--step", nargs=3, metavar=("STEP", "RUNS", "URI"), help="one step (what the benchmark starts)")
    asked = parser.parse_args()
    if asked.step:
        begun = time.perf_counter()
        said = step(asked.step[0], Path(asked.step[1]), asked.step[2])
        seconds, used = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_SELF)
        cpu, memory = used.ru_utime + used.ru_stime, used.ru_maxrss / 1024
        print(f"{seconds:.1f} | {cpu:.1f} | {memory:.0f} | {said} |")  # noqa: T201
        return
    print("| runs | step | s | CPU s | peak MB | outcome |\n| --: | --- | --: | --: | --: | --- |")  # noqa: T201
    for number in asked.runs:
        folder = Path(tempfile.mkdtemp(prefix="hml-"))
        runs, uri = folder / "runs", asked.mlflow or tracking.default_uri(folder / "runs")
        os.environ["HARNESS_CACHE"] = str(folder / "cache")
        try:
            make(runs, 0, number)
            for name in STEPS:
                if name == "sync after one new run":
                    make(runs, number, 1)
                words = [sys.executable, "-W", "ignore", __file__, "--step", name, str(runs), uri]
                done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT)
                print(f"| {number} | {name} | {done.stdout.strip() or done.stderr[-300:]}", flush=True)  # noqa: T201
        finally:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
