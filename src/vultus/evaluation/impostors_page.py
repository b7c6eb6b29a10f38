"""The page of a report on matched impostors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vultus.evaluation.page import format_cosine, format_interval, format_scientific, render_page

if TYPE_CHECKING:
    from vultus.evaluation.record import ImpostorsReport


def render_impostors_page(report: ImpostorsReport) -> str:
    """Return the HTML page of a report on matched impostors."""
    evaluated = report.evaluated
    return render_page(
        "impostors.html",
        f"Matched impostors on {evaluated.data}",
        f"{report.result.adults:,} photos of adults, {report.result.pairs:,} pairs of one sex and age band, "
        f"pack {evaluated.provenance.pack}, {evaluated.provenance.created_at[:10]}",
        _build_tiles(report),
        [],
        report=report,
        stated={threshold: rate for rate, threshold in report.stated},
        targets={point.threshold: point for point in report.result.points},
    )


def _build_tiles(report: ImpostorsReport) -> list[tuple[str, str, str]]:
    """Return the rates at the pack's own thresholds; without them the thresholds of the resolved targets."""
    result = report.result
    tiles = []
    for stated, threshold in report.stated:
        rates = result.get_rates(threshold)
        worst = rates.worst_fmr
        worst_group = (
            f"worst: {format_scientific(worst.fmr.value)}, {rates.worst}" if worst else "no group large enough"
        )
        name = f"FMR at {format_cosine(threshold)}, stated {format_scientific(stated)}"
        tiles.append(
            (name, format_scientific(rates.fmr.value), f"95 %: {format_interval(rates.fmr)} % · {worst_group}")
        )
    return tiles or [
        (f"Threshold for FMR {format_scientific(point.target_fmr)}", format_cosine(point.threshold), "matched adults")
        for point in result.points
        if point.resolved
    ]
