"""What `harness bench` prints."""

from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from harness.bench import Bench


def show(bench: Bench, console: Console) -> None:
    found = bench.to_data()
    title = (
        f"{found['recipe']}: {found['encoder']}, batch {found['batch']}, {found['views']} views, {found['precision']}; "
        f"{found['device']}, {found['threads']} threads; {found['rounds']} rounds of {found['steps_a_round']} steps"
    )
    console.print(title, highlight=False, soft_wrap=True)
    table = Table(box=box.SIMPLE_HEAD)
    for name, justify in (("", "left"), ("median", "right"), ("low", "right"), ("high", "right"), ("unit", "left")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    for row in rows(found):
        table.add_row(*row)
    console.print(table, highlight=False)


def rows(found: dict[str, Any]) -> list[tuple[str, str, str, str, str]]:
    """Name, median, low, high, unit."""
    start = found["startup_s"]
    rate = f"{found['tflops']:.3g} TFLOP/s (a large matrix product: {found['ceiling_tflops']:.3g})"
    shown = [
        _row("views", found["views_per_s"], "views/s"),
        _row("forward and backward", found["bare_images_per_s"], f"images/s, {rate}"),
        _row("full loop", found["full_images_per_s"], "images/s"),
        _row("loop efficiency", found["efficiency"], "full loop over forward and backward", ".3f"),
        _row("wait for views", found["data_wait"], "of a step", ".1%"),
        _once("optimiser and the rest", f"{found['rest']:.1%}", "of a step"),
        _once("memory", f"{found['memory_bytes'] / 2**20:,.0f}", "MiB at most"),
        _once(
            "start-up",
            f"{start['total']:.1f}",
            f"s: imports {start['imports']:.1f}, data {start['data']:.1f}, network {start['network']:.1f}, "
            f"first step {start['first_step']:.1f}",
        ),
        _once("features", _number(found["features_per_s"]), "images/s"),
    ]
    for row in found["evaluations"]:
        sizes = (
            f"s: {row['bank']:,} x {row['width']}, {row['queries']:,} queries, {row['classes']} classes, drawn features"
        )
        shown.append(_row(row["protocol"], row["seconds"], sizes, ".3g"))
    for name, theirs in found["against"].items():
        shown += [
            _row(f"{name}: forward and backward", theirs["bare_images_per_s"], "images/s"),
            _row(f"{name}: full loop", theirs["full_images_per_s"], f"images/s, {found['workers']} loader processes"),
            _row(f"{name}: loop efficiency", theirs["efficiency"], "", ".3f"),
            _row(f"full loop, ours over {name}", theirs["ratio"], "times", ".2f"),
        ]
    return shown


def _row(name: str, figure: dict[str, float], unit: str, form: str = "") -> tuple[str, str, str, str, str]:
    median, low, high = (
        format(figure[key], form) if form else _number(figure[key]) for key in ("median", "low", "high")
    )
    return name, median, low, high, unit


def _once(name: str, value: str, unit: str) -> tuple[str, str, str, str, str]:
    return name, value, "", "", unit


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
