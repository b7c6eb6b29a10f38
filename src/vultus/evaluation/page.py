"""A report's page, rendered from a template, and the formats of its figures."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from vultus.evaluation.charts import format_power_of_ten
from vultus.statistics.groups import MIN_GROUP_PERSONS
from vultus.statistics.matched import MIN_GROUP_PAIRS
from vultus.statistics.metrics import RESOLVED_ERRORS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vultus.evaluation.liveness import MeanRate
    from vultus.statistics.intervals import Mean, Rate

NO_VALUE = "–"


def format_percent(value: float, digits: int = 2) -> str:
    """Format a share: 0.9918 as 99.18 %."""
    return f"{value * 100:.{digits}f} %"


def format_interval(value: Rate | Mean | MeanRate) -> str:
    """Format the interval of a share in percent, with more digits for small ones."""
    digits = 2 if value.high >= 0.001 else 4
    # The interval of a mean by Student's t may exceed the range of a share, 0 to 1.
    low, high = max(0.0, value.low), min(1.0, value.high)
    return f"{low * 100:.{digits}f}–{high * 100:.{digits}f}"


def format_share(value: Rate | Mean | MeanRate | None) -> str:
    """Format a share with its interval, for a cell."""
    if value is None:
        return NO_VALUE
    return Markup("{} <small>{}</small>").format(format_percent(value.value), format_interval(value))


def format_small_rate(value: Rate | None) -> str:
    """Format a small rate with its interval and its counts, for a cell."""
    if value is None:
        return NO_VALUE
    bounds = f"{format_scientific(value.low)}–{format_scientific(value.high)}"
    counts = f"{value.hits:,} of {value.trials:,}"
    return Markup("{} <small>{} · {}</small>").format(format_scientific(value.value), bounds, counts)


def format_scientific(value: float) -> str:
    """Format a rate: 0.0001 as 10⁻⁴, 0.00021 as 2.1·10⁻⁴."""
    if value <= 0:
        return "0"
    if value >= 1:
        return f"{value:g}"
    power = math.floor(math.log10(value) + 1e-9)
    factor = f"{value / 10.0**power:.1f}"
    if factor == "10.0":
        factor, power = "1.0", power + 1
    return (
        format_power_of_ten(power) if factor == "1.0" else f"{factor}·{format_power_of_ten(power)}" if power else factor
    )


def format_cosine(value: float | None) -> str:
    """Format a cosine."""
    return NO_VALUE if value is None else f"{value:.4f}"


TEMPLATES = Environment(
    loader=PackageLoader("vultus.evaluation"),
    autoescape=True,  # names of folders and photos are whatever their owner chose
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
TEMPLATES.filters |= {
    "cosine": format_cosine,
    "interval": format_interval,
    "number": "{:,}".format,
    "percent": format_percent,
    "scientific": format_scientific,
    "share": format_share,
    "small_rate": format_small_rate,
}
TEMPLATES.globals |= {
    "MIN_GROUP_PAIRS": MIN_GROUP_PAIRS,
    "MIN_GROUP_PERSONS": MIN_GROUP_PERSONS,
    "NO_VALUE": NO_VALUE,
    "RESOLVED_ERRORS": RESOLVED_ERRORS,
}


def render_page(
    template: str, title: str, lead: str, tiles: Sequence[tuple[str, str, str]], charts: Sequence[str], **values: Any
) -> str:
    """Return a self-contained HTML document.

    Args:
        template: Name of the sections' template.
        title: Of the page.
        lead: What the page is about, in a line.
        tiles: The headline figures: name, figure, small print, one line per part between dots.
        charts: SVG.
        **values: For the template.
    """
    return TEMPLATES.get_template(template).render(
        title=title,
        lead=lead,
        tiles=tiles,
        charts=charts,
        **values,
    )
