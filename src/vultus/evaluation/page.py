"""Pieces of a report's page, and how figures are written for people."""

from __future__ import annotations

import math
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from vultus.evaluation.charts import power_of_ten

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vultus.evaluation.liveness import MeanRate
    from vultus.evaluation.provenance import Provenance
    from vultus.evaluation.record import Evaluated
    from vultus.evaluation.runner import Failure, Timing
    from vultus.statistics.intervals import Mean, Rate

NONE = "–"


class Markup(str):
    """Text that is HTML already and must not be escaped again."""

    __slots__ = ()


def page(title: str, lead: str, body: Sequence[str]) -> str:
    """Return a whole document that needs nothing but itself."""
    style = Path(__file__).with_name("report.css").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{style}</style></head><body><main>"
        f"<header><h1>{escape(title)}</h1><p>{escape(lead)}</p></header>\n"
        + "\n".join(body)
        + "\n</main></body></html>\n"
    )


def section(title: str, *notes: str) -> str:
    """Return a heading and what to know about what follows."""
    return f"<h2>{escape(title)}</h2>" + "".join(f'<p class="note">{escape(note)}</p>' for note in notes)


def tiles(facts: Sequence[tuple[str, str, str]]) -> str:
    """Return the figures to see first: name, figure, small print with a line for each part between dots."""
    made = []
    for name, figure, small in facts:
        lines = "<br>".join(escape(line) for line in small.split(" · "))
        made.append(f'<div class="tile"><span>{escape(name)}</span><b>{escape(figure)}</b><small>{lines}</small></div>')
    return f'<div class="tiles">{"".join(made)}</div>'


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table; the first cell of a row is its heading."""
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    body = "".join(
        f"<tr><th>{_cell(row[0])}</th>" + "".join(f"<td>{_cell(cell)}</td>" for cell in row[1:]) + "</tr>"
        for row in rows
    )
    head = f"<thead><tr>{head}</tr></thead>" if any(columns) else ""
    return f'<div class="table"><table>{head}<tbody>{body}</tbody></table></div>'


def charts(*figures: str) -> str:
    """Return charts side by side."""
    return f'<div class="charts">{"".join(figures)}</div>'


def _cell(text: str) -> str:
    return text if isinstance(text, Markup) else escape(text)


def percent(value: float, digits: int = 2) -> str:
    """Write a share: 0.9918 as 99.18 %."""
    return f"{value * 100:.{digits}f} %"


def interval(value: Rate | Mean | MeanRate) -> str:
    """Write the interval of a share in percent, with enough digits for small ones."""
    digits = 2 if value.high >= 0.001 else 4
    # The interval of a mean by Student's t does not know that a share ends at 0 and 1.
    low, high = max(0.0, value.low), min(1.0, value.high)
    return f"{low * 100:.{digits}f}–{high * 100:.{digits}f}"


def share(value: Rate | Mean | MeanRate | None) -> str:
    """Write a share with its interval, for a cell."""
    if value is None:
        return NONE
    return Markup(f"{percent(value.value)} <small>{interval(value)}</small>")


def small_rate(value: Rate | None) -> str:
    """Write a rate over decades with its interval and its counts, for a cell."""
    if value is None:
        return NONE
    bounds = f"{scientific(value.low)}–{scientific(value.high)}"
    return Markup(f"{scientific(value.value)} <small>{bounds} · {value.hits:,} of {value.trials:,}</small>")


def scientific(value: float) -> str:
    """Write a rate: 0.0001 as 10⁻⁴, 0.00021 as 2.1·10⁻⁴."""
    if value <= 0:
        return "0"
    if value >= 1:
        return f"{value:g}"
    power = math.floor(math.log10(value) + 1e-9)
    factor = f"{value / 10.0**power:.1f}"
    if factor == "10.0":
        factor, power = "1.0", power + 1
    return power_of_ten(power) if factor == "1.0" else f"{factor}·{power_of_ten(power)}" if power else factor


def cosine(value: float | None) -> str:
    """Write a cosine."""
    return NONE if value is None else f"{value:.4f}"


def failures(found: Sequence[Failure]) -> str:
    """Return the photos that could not be used, folded up."""
    if not found:
        return "<p>Every photo could be used.</p>"
    rows = [(failure.photo, failure.code) for failure in found]
    photos = "1 photo" if len(found) == 1 else f"{len(found):,} photos"
    return f"<details><summary>{photos} by name</summary>{table(('photo', 'reason'), rows)}</details>"


def timing(taken: Timing) -> str:
    """Return how long describing took."""
    rows = [
        (stage.stage, f"{stage.mean_ms:.1f}", f"{stage.median_ms:.1f}", f"{stage.p95_ms:.1f}") for stage in taken.stages
    ]
    return section(
        "Time",
        f"Milliseconds a photo spent in each stage, with {taken.workers} photos at a time; "
        f"{taken.photos_per_s:.1f} photos per second in all, reading files included.",
    ) + table(("stage", "mean ms", "median ms", "95th percentile ms"), rows)


def about(on: Evaluated) -> str:
    """Return what is needed to make the figures again, and whose definitions they follow."""
    source = on.provenance
    return origin(
        source,
        f"{on.data}: {on.photos:,} photos of {on.persons:,} persons",
        [("contract", Markup(f"<code>{escape(source.contract_id)}</code>"))],
        "Terms follow ISO/IEC 19795-1:2021 and NIST's Face Recognition Technology Evaluation. A comparison is accepted "
        "when its cosine reaches the threshold.",
    )


def origin(source: Provenance, data: str, networks: Sequence[tuple[str, str]], terms: str) -> str:
    """Return how figures were made.

    Args:
        source: Program and machine.
        data: What was measured on, in words.
        networks: Names and words of what was measured, beside the pack.
        terms: Whose definitions the figures follow.
    """
    rows = [
        ("made", source.created_at),
        ("command", Markup(f"<code>{escape(source.command)}</code>")),
        ("data", data),
        ("program", f"Vultus {source.version}" + (f", commit {source.commit}" if source.commit else "")),
        ("pack", source.pack),
        *networks,
        ("machine", f"{source.cpu}, {source.cores} cores, {source.system}"),
    ]
    return section("How this was measured", f"{terms} Intervals are two-sided, 95 %.") + table(("", ""), rows)
