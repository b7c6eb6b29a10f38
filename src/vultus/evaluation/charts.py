"""Line charts and histograms as inline SVG: no script, no request, colours from the page's style sheet."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

HEIGHT = 400
LEFT, RIGHT, TOP, BOTTOM = 62, 18, 16, 50
NARROW, WIDE = 560, 1180
"""Lengths of a horizontal axis in the drawing's units: two charts in a row, or one."""

SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True, slots=True)
class Axis:
    """One direction of a chart.

    Attributes:
        label: What it shows.
        low: Value at its start; above 0 when logarithmic.
        high: Value at its end.
        log: Whether equal steps mean equal ratios.
        write: How a tick's value is written on a linear axis.
        length: Of a horizontal axis: `NARROW` or `WIDE`.
    """

    label: str
    low: float
    high: float
    log: bool = False
    write: Callable[[float], str] = "{:g}".format
    length: int = NARROW

    def place(self, value: float) -> float:
        """Return where a value lies, 0..1; values outside lie on the edge."""
        low, high, at = self.low, self.high, max(value, self.low)
        if self.log:
            low, high, at = math.log10(low), math.log10(high), math.log10(at)
        return min(1.0, max(0.0, (at - low) / (high - low))) if high > low else 0.5

    def ticks(self) -> list[tuple[float, str]]:
        """Return values worth a line, and how they are written."""
        if self.log:
            first, last = math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9)
            return [(10.0**power, power_of_ten(power)) for power in range(first, last + 1)]
        step = _round_step((self.high - self.low) / 6)
        first = math.ceil(self.low / step - 1e-9)
        count = math.floor(self.high / step + 1e-9) - first + 1
        return [((first + at) * step, self.write(round((first + at) * step, 10))) for at in range(count)]


@dataclass(frozen=True, slots=True)
class Series:
    """A line through points.

    Attributes:
        name: In the legend.
        points: (x, y), x rising.
        tone: Which of the style sheet's colours: `genuine`, `impostor` or `extra`.
        filled: Whether the area below is tinted.
        dots: (x, y, words shown when pointed at) of points to stress.
    """

    name: str
    points: Sequence[tuple[float, float]]
    tone: str
    filled: bool = False
    dots: Sequence[tuple[float, float, str]] = ()


@dataclass(frozen=True, slots=True)
class Mark:
    """A vertical line with words beside it."""

    x: float
    words: str


def decades(label: str, values: Sequence[float], *, least: float) -> Axis:
    """Return a logarithmic axis from the power of ten below the smallest positive value to 1.

    Args:
        label: What it shows.
        values: Rates, 0..1.
        least: Where the axis starts at the lowest.
    """
    smallest = min((value for value in values if value > 0), default=1.0)
    return Axis(label, max(least, 10.0 ** math.floor(math.log10(min(smallest, 0.1)) + 1e-9)), 1, log=True)


def power_of_ten(power: int) -> str:
    """Write a power of ten as people do: 10⁻⁴, and 1 for 10⁰."""
    return "1" if power == 0 else "10" + str(power).translate(SUPERSCRIPTS)


def chart(title: str, x: Axis, y: Axis, series: Sequence[Series], marks: Sequence[Mark] = ()) -> str:
    """Return a figure with a legend above the drawing."""
    legend = "".join(f'<span class="key {one.tone}">{escape(one.name)}</span>' for one in series)
    width = ' class="wide"' if x.length == WIDE else ""
    drawn = [
        *(_tick_across(x, value, words) for value, words in x.ticks()),
        *(_tick_up(x, y, value, words) for value, words in y.ticks()),
        *(_line(x, y, one) for one in series),
        *(_mark(x, mark, row) for row, mark in enumerate(marks)),
        f'<text class="label" x="{LEFT + x.length / 2:.0f}" y="{HEIGHT - 8}" text-anchor="middle">'
        f"{escape(x.label)}</text>",
        f'<text class="label" transform="translate(14 {(TOP + HEIGHT - BOTTOM) / 2:.0f}) rotate(-90)" '
        f'text-anchor="middle">{escape(y.label)}</text>',
    ]
    size = f"0 0 {LEFT + x.length + RIGHT} {HEIGHT}"
    return (
        f"<figure{width}><figcaption>{escape(title)}<small>{legend}</small></figcaption>"
        f'<svg viewBox="{size}" role="img" aria-label="{escape(title)}">{"".join(drawn)}</svg></figure>'
    )


def steps(edges: Sequence[float], shares: Sequence[float]) -> list[tuple[float, float]]:
    """Return the outline of a histogram: two points a bin."""
    sides = zip(edges, edges[1:], shares, strict=False)
    return [point for left, right, share in sides for point in ((left, share), (right, share))]


def _across(x: Axis, value: float) -> float:
    return LEFT + x.place(value) * x.length


def _up(y: Axis, value: float) -> float:
    return HEIGHT - BOTTOM - y.place(value) * (HEIGHT - TOP - BOTTOM)


def _tick_across(x: Axis, value: float, words: str) -> str:
    at = _across(x, value)
    return (
        f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>'
        f'<text class="tick" x="{at:.1f}" y="{HEIGHT - BOTTOM + 17}" text-anchor="middle">{escape(words)}</text>'
    )


def _tick_up(x: Axis, y: Axis, value: float, words: str) -> str:
    at = _up(y, value)
    return (
        f'<line class="grid" x1="{LEFT}" x2="{LEFT + x.length}" y1="{at:.1f}" y2="{at:.1f}"/>'
        f'<text class="tick" x="{LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{escape(words)}</text>'
    )


def _line(x: Axis, y: Axis, series: Series) -> str:
    places = [f"{_across(x, at):.1f} {_up(y, value):.1f}" for at, value in series.points]
    if not places:
        return ""
    path = "M" + "L".join(places)
    area = ""
    if series.filled:
        floor = HEIGHT - BOTTOM
        first, last = (_across(x, series.points[end][0]) for end in (0, -1))
        area = f'<path class="area {series.tone}" d="{path}L{last:.1f} {floor}L{first:.1f} {floor}Z"/>'
    dots = "".join(
        f'<circle class="dot {series.tone}" cx="{_across(x, at):.1f}" cy="{_up(y, value):.1f}" r="4">'
        f"<title>{escape(words)}</title></circle>"
        for at, value, words in series.dots
    )
    return f'{area}<path class="line {series.tone}" d="{path}"/>{dots}'


def _mark(x: Axis, mark: Mark, row: int) -> str:
    at = _across(x, mark.x)
    left_side = at > LEFT + x.length / 2
    side, shift = ("end", -6) if left_side else ("start", 6)
    return (
        f'<line class="mark" x1="{at:.1f}" x2="{at:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>'
        f'<text class="tick" x="{at + shift:.1f}" y="{TOP + 14 + 16 * row}" text-anchor="{side}">'
        f"{escape(mark.words)}</text>"
    )


def _round_step(rough: float) -> float:
    """Return 1, 2, 2.5 or 5 times a power of ten, not below `rough`."""
    unit = 10.0 ** math.floor(math.log10(rough)) if rough > 0 else 1.0
    return next((unit * factor for factor in (1, 2, 2.5, 5) if unit * factor >= rough * (1 - 1e-9)), unit * 10)
