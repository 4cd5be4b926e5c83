"""Plots as inline SVG in the page's own colours, for light and dark."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from html import escape
from math import ceil, floor, log10
from typing import Literal, TypeAlias

COLOURS = 8
Place: TypeAlias = Callable[[float], float]


@dataclass(frozen=True)
class Series:
    """Points (x, y, half-length of a vertical bar) of one thing. number: place in the legend, sets the look."""

    name: str
    number: int
    points: tuple[tuple[float, float, float], ...] = ()

    def at(self, points: Iterable[tuple[float, float, float]]) -> "Series":
        return replace(self, points=tuple(points))

    @property
    def colour(self) -> str:
        return f"var(--c{self.number % COLOURS})"

    @property
    def dash(self) -> str:
        return ("", "5 3", "2 2", "8 2 2 2")[self.number // COLOURS % 4]


def legend(looks: Iterable[Series]) -> str:
    parts = []
    for one in looks:
        look = f'stroke="{one.colour}" stroke-width="2.5" stroke-dasharray="{one.dash}"'
        line = f'<line x1="0" x2="22" y1="5" y2="5" {look}/>'
        parts.append(f'<span><svg width="22" height="10" style="display:inline">{line}</svg> {escape(one.name)}</span>')
    return f"<div class=legend>{''.join(parts)}</div>"


def plot(
    title: str,
    x_label: str,
    series: Sequence[Series],
    *,
    lines: Sequence[Series] = (),
    draw: Literal["curves", "marks", "dots"] = "curves",
    log: bool = False,
    width: int = 350,
    height: int = 220,
) -> str:
    """Curves, points with bars (marks), or many points in few bytes (dots), which have no bars.

    lines: series whose y is drawn across the whole width. log: of x, which is above 0.
    """
    left, right, top, bottom = 46, 10, 8, 34
    spots = [point for one in series for point in one.points]
    heights = [(y, bar) for _, y, bar in spots] + [(y, 0.0) for one in lines for _, y, _ in one.points]
    if not heights:
        return ""
    xs = powers([x for x, _, _ in spots]) if log else ticks([0.0, *(x for x, _, _ in spots)])
    ys = ticks([y - bar for y, bar in heights] + [y + bar for y, bar in heights])
    place_x = _scale(xs, left, width - right, log10 if log else float)
    place_y = _scale(ys, height - bottom, top)
    parts = []
    for y in ys:
        parts.append(
            f'<line class="grid" x1="{left}" x2="{width - right}" y1="{place_y(y):.1f}" y2="{place_y(y):.1f}"/>'
        )
        parts.append(f'<text x="{left - 5}" y="{place_y(y) + 4:.1f}" text-anchor="end">{_short(y)}</text>')
    for x in xs:
        parts.append(f'<text x="{place_x(x):.1f}" y="{height - bottom + 14}" text-anchor="middle">{_short(x)}</text>')
    parts.append(
        f'<text x="{(left + width - right) / 2}" y="{height - 4}" text-anchor="middle">{escape(x_label)}</text>'
    )
    for one in lines:
        y = place_y(one.points[0][1])
        look = f'stroke="{one.colour}" stroke-dasharray="6 4" stroke-width="1.5"'
        parts.append(f'<line x1="{left}" x2="{width - right}" y1="{y:.1f}" y2="{y:.1f}" {look}>{_tip(one)}</line>')
    shape = {"curves": _curve, "marks": _marks, "dots": _dots}[draw]
    parts += [shape(one, place_x, place_y) for one in series if one.points]
    svg = f'<svg width="{width}" height="{height}" viewBox="0 0 {width} {height}" role="img" '
    svg += f'aria-label="{escape(title)}">{"".join(parts)}</svg>'
    return f"<figure><figcaption>{escape(title)}</figcaption>{svg}</figure>"


def _curve(one: Series, place_x: Place, place_y: Place) -> str:
    path = " ".join(f"{place_x(x):.0f},{place_y(y):.1f}" for x, y, _ in one.points)
    look = f'stroke="{one.colour}" stroke-dasharray="{one.dash}"'
    return f'<polyline class="line" points="{path}" {look}>{_tip(one)}</polyline>'


def _marks(one: Series, place_x: Place, place_y: Place) -> str:
    fill = one.colour if one.number < COLOURS else "var(--page)"
    look = f'stroke="{one.colour}" stroke-width="1.6"'
    parts = []
    for x, y, bar in one.points:
        at = f"{place_x(x):.1f}"
        parts.append(f'<line x1="{at}" x2="{at}" y1="{place_y(y - bar):.1f}" y2="{place_y(y + bar):.1f}" {look}/>')
        parts.append(f'<circle cx="{at}" cy="{place_y(y):.1f}" r="4" fill="{fill}" {look}>{_tip(one)}</circle>')
    return "".join(parts)


def _dots(one: Series, place_x: Place, place_y: Place) -> str:
    """Round ends of lines without length."""
    path = "".join(f"M{place_x(x):.0f} {place_y(y):.0f}h0" for x, y, _ in one.points)
    return f'<path class="dots" d="{path}" stroke="{one.colour}">{_tip(one)}</path>'


def _tip(one: Series) -> str:
    return f"<title>{escape(one.name)}</title>"


def _scale(marks: Sequence[float], start: float, end: float, by: Place = float) -> Place:
    low, span = by(marks[0]), by(marks[-1]) - by(marks[0])
    return lambda value: start + (by(value) - low) / span * (end - start)


def ticks(values: Sequence[float], wanted: int = 5) -> list[float]:
    """Round numbers that span the values: steps of 1, 2 or 5 times a power of ten."""
    low, high = min(values), max(values)
    if high - low < 1e-9 * max(1.0, abs(high)):
        pad = 0.1 * abs(low) if abs(low) > 1e-9 else 1.0
        low, high = low - pad, high + pad
    raw = (high - low) / wanted
    power = 10.0 ** floor(log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)
    first, last = floor(low / step + 1e-9), -floor(-high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def powers(values: Sequence[float]) -> list[float]:
    """Powers of ten that span values above 0."""
    low, high = floor(log10(min(values)) + 1e-9), ceil(log10(max(values)) - 1e-9)
    return [10.0**power for power in range(low, max(high, low + 1) + 1)]


def _short(value: float) -> str:
    """A number on an axis, in few letters."""
    size = abs(value)
    if size >= 1e6 or 0 < size < 1e-3:
        return f"{value:.0e}".replace("e+0", "e").replace("e-0", "e-").replace("e+", "e")
    return f"{value / 1000:g}k" if size >= 1e4 else f"{value:g}"
