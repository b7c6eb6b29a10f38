"""Parts of a report's page, and the formats of its figures."""

from __future__ import annotations

import math
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from vultus.evaluation.charts import format_power_of_ten

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vultus.evaluation.liveness import MeanRate
    from vultus.evaluation.provenance import Provenance
    from vultus.evaluation.record import EvaluationContext
    from vultus.evaluation.runner import PhotoFailure, Timing
    from vultus.statistics.intervals import Mean, Rate

NO_VALUE = "–"


class Markup(str):
    """Text that is HTML already and must not be escaped again."""

    __slots__ = ()


def render_document(title: str, lead: str, body: Sequence[str]) -> str:
    """Return a self-contained HTML document."""
    style = Path(__file__).with_name("report.css").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{style}</style></head><body><main>"
        f"<header><h1>{escape(title)}</h1><p>{escape(lead)}</p></header>\n"
        + "\n".join(body)
        + "\n</main></body></html>\n"
    )


def render_section(title: str, *notes: str) -> str:
    """Return a heading and its explanatory notes."""
    return f"<h2>{escape(title)}</h2>" + "".join(f'<p class="note">{escape(note)}</p>' for note in notes)


def render_tiles(facts: Sequence[tuple[str, str, str]]) -> str:
    """Return the headline figures: name, figure, small print, one line per part between dots."""
    parts = []
    for name, figure, small in facts:
        lines = "<br>".join(escape(line) for line in small.split(" · "))
        parts.append(
            f'<div class="tile"><span>{escape(name)}</span><b>{escape(figure)}</b><small>{lines}</small></div>'
        )
    return f'<div class="tiles">{"".join(parts)}</div>'


def render_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table; the first cell of a row is its heading."""
    heading = "".join(f"<th>{escape(column)}</th>" for column in columns)
    body = "".join(
        f"<tr><th>{_escape_cell(row[0])}</th>" + "".join(f"<td>{_escape_cell(cell)}</td>" for cell in row[1:]) + "</tr>"
        for row in rows
    )
    heading = f"<thead><tr>{heading}</tr></thead>" if any(columns) else ""
    return f'<div class="table"><table>{heading}<tbody>{body}</tbody></table></div>'


def render_chart_row(*figures: str) -> str:
    """Return charts side by side."""
    return f'<div class="charts">{"".join(figures)}</div>'


def _escape_cell(text: str) -> str:
    return text if isinstance(text, Markup) else escape(text)


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
    return Markup(f"{format_percent(value.value)} <small>{format_interval(value)}</small>")


def format_small_rate(value: Rate | None) -> str:
    """Format a small rate with its interval and its counts, for a cell."""
    if value is None:
        return NO_VALUE
    bounds = f"{format_scientific(value.low)}–{format_scientific(value.high)}"
    return Markup(f"{format_scientific(value.value)} <small>{bounds} · {value.hits:,} of {value.trials:,}</small>")


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


def render_failures(failed_photos: Sequence[PhotoFailure]) -> str:
    """Return the photos that could not be used, collapsed."""
    if not failed_photos:
        return "<p>Every photo could be used.</p>"
    rows = [(failure.photo, failure.code) for failure in failed_photos]
    photos = "1 photo" if len(failed_photos) == 1 else f"{len(failed_photos):,} photos"
    return f"<details><summary>{photos} by name</summary>{render_table(('photo', 'reason'), rows)}</details>"


def render_timing(measured: Timing) -> str:
    """Return the table of stage times and the throughput."""
    rows = [
        (stage.stage, f"{stage.mean_ms:.1f}", f"{stage.median_ms:.1f}", f"{stage.p95_ms:.1f}")
        for stage in measured.stages
    ]
    return render_section(
        "Time",
        f"Milliseconds a photo spent in each stage, with {measured.workers} photos at a time; "
        f"{measured.photos_per_s:.1f} photos per second in all, reading files included.",
    ) + render_table(("stage", "mean ms", "median ms", "95th percentile ms"), rows)


def render_evaluation_provenance(evaluated: EvaluationContext) -> str:
    """Return what is needed to reproduce the figures, and whose definitions they follow."""
    source = evaluated.provenance
    return render_provenance(
        source,
        f"{evaluated.data}: {evaluated.photos:,} photos of {evaluated.persons:,} persons",
        [("embedding space", Markup(f"<code>{escape(source.contract_id)}</code>"))],
        "Terms follow ISO/IEC 19795-1:2021 and NIST's Face Recognition Technology Evaluation. A comparison is accepted "
        "when its cosine reaches the threshold.",
    )


def render_provenance(provenance: Provenance, data: str, networks: Sequence[tuple[str, str]], terms: str) -> str:
    """Return how the figures were measured.

    Args:
        provenance: Program and machine.
        data: Description of the data set.
        networks: Names and values that describe what was measured, in addition to the pack.
        terms: Whose definitions the figures follow.
    """
    rows = [
        ("made", provenance.created_at),
        ("command", Markup(f"<code>{escape(provenance.command)}</code>")),
        ("data", data),
        ("program", f"Vultus {provenance.version}" + (f", commit {provenance.commit}" if provenance.commit else "")),
        ("pack", provenance.pack),
        *networks,
        ("machine", f"{provenance.cpu}, {provenance.cores} cores, {provenance.system}"),
    ]
    return render_section("How this was measured", f"{terms} Intervals are two-sided, 95 %.") + render_table(
        ("", ""), rows
    )
