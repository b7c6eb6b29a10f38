"""Line charts and histograms as inline SVG: no script, no request, colours from the page's style sheet."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

CHART_HEIGHT = 400
MARGIN_LEFT, MARGIN_RIGHT, MARGIN_TOP, MARGIN_BOTTOM = 62, 18, 16, 50
NARROW_WIDTH, FULL_WIDTH = 560, 1180
"""Lengths of a horizontal axis in the drawing's units: two charts in a row, or one."""

SUPERSCRIPT_DIGITS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True, slots=True)
class Axis:
    """One direction of a chart.

    Attributes:
        label: What it shows.
        low: Value at its start; above 0 when logarithmic.
        high: Value at its end.
        is_logarithmic: Whether the scale is logarithmic.
        format_tick: How a tick's value is written on a linear axis.
        length: Of a horizontal axis: `NARROW_WIDTH` or `FULL_WIDTH`.
    """

    label: str
    low: float
    high: float
    is_logarithmic: bool = False
    format_tick: Callable[[float], str] = "{:g}".format
    length: int = NARROW_WIDTH

    def compute_position(self, value: float) -> float:
        """Return where a value lies, 0..1; values outside lie on the edge."""
        low, high, at = self.low, self.high, max(value, self.low)
        if self.is_logarithmic:
            low, high, at = math.log10(low), math.log10(high), math.log10(at)
        return min(1.0, max(0.0, (at - low) / (high - low))) if high > low else 0.5

    def list_ticks(self) -> list[tuple[float, str]]:
        """Return the ticks: (value, label), ascending."""
        if self.is_logarithmic:
            first, last = math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9)
            return [(10.0**power, format_power_of_ten(power)) for power in range(first, last + 1)]
        step = _find_tick_step((self.high - self.low) / 6)
        first = math.ceil(self.low / step - 1e-9)
        count = math.floor(self.high / step + 1e-9) - first + 1
        return [((first + at) * step, self.format_tick(round((first + at) * step, 10))) for at in range(count)]


@dataclass(frozen=True, slots=True)
class Series:
    """A line through points.

    Attributes:
        name: In the legend.
        points: (x, y), x ascending.
        color_class: Which of the style sheet's colours: `genuine`, `impostor` or `extra`.
        has_area: Whether the area below is tinted.
        highlights: (x, y, tooltip) of highlighted points.
    """

    name: str
    points: Sequence[tuple[float, float]]
    color_class: str
    has_area: bool = False
    highlights: Sequence[tuple[float, float, str]] = ()


@dataclass(frozen=True, slots=True)
class ReferenceLine:
    """A labelled vertical line."""

    x: float
    label: str


def build_logarithmic_axis(label: str, values: Sequence[float], *, lower_bound: float) -> Axis:
    """Return a logarithmic axis from the power of ten below the smallest positive value to 1.

    Args:
        label: What it shows.
        values: Rates, 0..1.
        lower_bound: Lowest start of the axis.
    """
    smallest = min((value for value in values if value > 0), default=1.0)
    return Axis(
        label, max(lower_bound, 10.0 ** math.floor(math.log10(min(smallest, 0.1)) + 1e-9)), 1, is_logarithmic=True
    )


def format_power_of_ten(power: int) -> str:
    """Format a power of ten with a superscript: 10⁻⁴; 1 for 10⁰."""
    return "1" if power == 0 else "10" + str(power).translate(SUPERSCRIPT_DIGITS)


def render_chart(
    title: str, x: Axis, y: Axis, series: Sequence[Series], reference_lines: Sequence[ReferenceLine] = ()
) -> str:
    """Return a figure with a legend above the drawing."""
    legend = "".join(f'<span class="key {line.color_class}">{escape(line.name)}</span>' for line in series)
    middle = (MARGIN_TOP + CHART_HEIGHT - MARGIN_BOTTOM) / 2
    width = ' class="wide"' if x.length == FULL_WIDTH else ""
    elements = [
        *(_render_x_tick(x, value, label) for value, label in x.list_ticks()),
        *(_render_y_tick(x, y, value, label) for value, label in y.list_ticks()),
        *(_render_series(x, y, line) for line in series),
        *(_render_reference_line(x, mark, row) for row, mark in enumerate(reference_lines)),
        f'<text class="label" x="{MARGIN_LEFT + x.length / 2:.0f}" y="{CHART_HEIGHT - 8}" text-anchor="middle">'
        f"{escape(x.label)}</text>",
        f'<text class="label" transform="translate(14 {middle:.0f}) rotate(-90)" '
        f'text-anchor="middle">{escape(y.label)}</text>',
    ]
    size = f"0 0 {MARGIN_LEFT + x.length + MARGIN_RIGHT} {CHART_HEIGHT}"
    return (
        f"<figure{width}><figcaption>{escape(title)}<small>{legend}</small></figcaption>"
        f'<svg viewBox="{size}" role="img" aria-label="{escape(title)}">{"".join(elements)}</svg></figure>'
    )


def build_histogram_outline(edges: Sequence[float], shares: Sequence[float]) -> list[tuple[float, float]]:
    """Return the outline of a histogram: two points per bin."""
    bins = zip(edges, edges[1:], shares, strict=False)
    return [point for left, right, share in bins for point in ((left, share), (right, share))]


def _to_svg_x(x: Axis, value: float) -> float:
    return MARGIN_LEFT + x.compute_position(value) * x.length


def _to_svg_y(y: Axis, value: float) -> float:
    return CHART_HEIGHT - MARGIN_BOTTOM - y.compute_position(value) * (CHART_HEIGHT - MARGIN_TOP - MARGIN_BOTTOM)


def _render_x_tick(x: Axis, value: float, label: str) -> str:
    at = _to_svg_x(x, value)
    return (
        f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="{MARGIN_TOP}" y2="{CHART_HEIGHT - MARGIN_BOTTOM}"/>'
        f'<text class="tick" x="{at:.1f}" y="{CHART_HEIGHT - MARGIN_BOTTOM + 17}" text-anchor="middle">'
        f"{escape(label)}</text>"
    )


def _render_y_tick(x: Axis, y: Axis, value: float, label: str) -> str:
    at = _to_svg_y(y, value)
    return (
        f'<line class="grid" x1="{MARGIN_LEFT}" x2="{MARGIN_LEFT + x.length}" y1="{at:.1f}" y2="{at:.1f}"/>'
        f'<text class="tick" x="{MARGIN_LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{escape(label)}</text>'
    )


def _render_series(x: Axis, y: Axis, series: Series) -> str:
    places = [f"{_to_svg_x(x, at):.1f} {_to_svg_y(y, value):.1f}" for at, value in series.points]
    if not places:
        return ""
    path = "M" + "L".join(places)
    area = ""
    if series.has_area:
        floor = CHART_HEIGHT - MARGIN_BOTTOM
        first, last = (_to_svg_x(x, series.points[end][0]) for end in (0, -1))
        area = f'<path class="area {series.color_class}" d="{path}L{last:.1f} {floor}L{first:.1f} {floor}Z"/>'
    dots = "".join(
        f'<circle class="dot {series.color_class}" cx="{_to_svg_x(x, at):.1f}" cy="{_to_svg_y(y, value):.1f}" r="4">'
        f"<title>{escape(tooltip)}</title></circle>"
        for at, value, tooltip in series.highlights
    )
    return f'{area}<path class="line {series.color_class}" d="{path}"/>{dots}'


def _render_reference_line(x: Axis, reference_line: ReferenceLine, row: int) -> str:
    at = _to_svg_x(x, reference_line.x)
    left_side = at > MARGIN_LEFT + x.length / 2
    side, shift = ("end", -6) if left_side else ("start", 6)
    return (
        f'<line class="mark" x1="{at:.1f}" x2="{at:.1f}" y1="{MARGIN_TOP}" y2="{CHART_HEIGHT - MARGIN_BOTTOM}"/>'
        f'<text class="tick" x="{at + shift:.1f}" y="{MARGIN_TOP + 14 + 16 * row}" text-anchor="{side}">'
        f"{escape(reference_line.label)}</text>"
    )


def _find_tick_step(rough: float) -> float:
    """Return 1, 2, 2.5 or 5 times a power of ten, not below `rough`."""
    unit = 10.0 ** math.floor(math.log10(rough)) if rough > 0 else 1.0
    return next((unit * factor for factor in (1, 2, 2.5, 5) if unit * factor >= rough * (1 - 1e-9)), unit * 10)
