"""The page of a report on presentation attack detection."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from vultus.evaluation.charts import FULL_WIDTH, ReferenceLine, Series, build_logarithmic_axis, render_chart
from vultus.evaluation.liveness import LIVE
from vultus.evaluation.page import (
    format_interval,
    format_percent,
    format_share,
    render_chart_row,
    render_document,
    render_failures,
    render_provenance,
    render_section,
    render_table,
    render_tiles,
)
from vultus.evaluation.pairs_page import render_score_histogram

if TYPE_CHECKING:
    from vultus.evaluation.liveness import LivenessResult
    from vultus.evaluation.record import LivenessReport

MIN_RATE = 1e-3


def render_liveness_page(report: LivenessReport) -> str:
    """Return the HTML page of a report on presentation attack detection."""
    result, source = report.result, report.provenance
    counted = ", ".join(f"{count:,} {kind}" for kind, count in report.photos.items())
    body = [
        render_tiles(_build_tiles(result)),
        render_chart_row(*_render_charts(result)),
        *_render_errors(result),
        *_render_non_responses(report),
        render_failures(report.failures),
        render_provenance(
            source,
            f"{report.data}: {counted}",
            [(f"SHA-256 of {name}", digest) for name, digest in report.networks.items()],
            "Terms follow ISO/IEC 30107-3:2023; ACER, the mean of the worst APCER and the BPCER, is common in "
            f"publications but not in the standard. {report.photos_per_s:.1f} photos per second with {report.workers} "
            "at a time, reading files and finding faces included.",
        ),
    ]
    lead = f"{counted}, pack {source.pack}, {source.created_at[:10]}"
    return render_document(f"Presentation attack detection on {report.data}", lead, body)


def _build_tiles(result: LivenessResult) -> list[tuple[str, str, str]]:
    point = result.default
    worst = point.apcer[point.worst]
    return [
        (
            "Attacks that pass (APCER)",
            format_percent(worst.value),
            f"worst: {point.worst} · 95 %: {format_interval(worst)}",
        ),
        ("Live faces refused (BPCER)", format_percent(point.bpcer.value), f"95 %: {format_interval(point.bpcer)}"),
        ("ACER", format_percent(point.acer.value), f"95 %: {format_interval(point.acer)}"),
        ("Equal error rate", format_percent(result.equal_error_rate), f"at score {result.equal_error.threshold:.4f}"),
        ("Live photos not judged", format_percent(result.bpnrr.value), f"95 %: {format_interval(result.bpnrr)}"),
    ]


def _render_charts(result: LivenessResult) -> list[str]:
    curve = [(rate, 1 - passed) for _, rate, passed in result.drawing.curve if rate > 0 and passed < 1]
    rates = build_logarithmic_axis(
        "attacks that pass, all species together", [rate for rate, _ in curve], lower_bound=MIN_RATE
    )
    refused = build_logarithmic_axis(
        "live faces refused (BPCER)", [missed for _, missed in curve], lower_bound=MIN_RATE
    )
    marks = [
        ReferenceLine(result.default.threshold, "in use"),
        ReferenceLine(result.equal_error.threshold, "equal error"),
    ]
    det_curve = Series("photos judged", curve, "genuine")
    return [
        render_chart("Detection error trade-off", replace(rates, length=FULL_WIDTH), refused, [det_curve]),
        render_score_histogram(
            "Scores", result.drawing, marks, "live", "attacks", "probability of a live presentation"
        ),
    ]


def _render_errors(result: LivenessResult) -> list[str]:
    points = (result.default, result.equal_error)
    rows = [
        ("threshold", *(f"{point.threshold:.4f}" for point in points)),
        *(
            (f"APCER, {kind}", *(format_share(point.apcer[kind]) for point in points))
            for kind in sorted(result.default.apcer, key=lambda kind: -result.default.apcer[kind].value)
        ),
        ("BPCER", *(format_share(point.bpcer) for point in points)),
        ("ACER", *(format_share(point.acer) for point in points)),
    ]
    return [
        render_section(
            "Errors",
            "The second column's threshold was chosen on the photos it is reported for: expect more errors elsewhere. "
            "Each photo counts as independent: with several of one person or one sheet of paper the "
            "intervals are too narrow.",
        ),
        render_table(("", "threshold in use", "equal error"), rows),
    ]


def _render_non_responses(report: LivenessReport) -> list[str]:
    result = report.result
    rows = [
        (kind, f"{report.photos[kind]:,}", format_share(rate))
        for kind, rate in ((LIVE, result.bpnrr), *result.apnrr.items())
    ]
    return [
        render_section(
            "Photos not judged",
            "Photos without a face, or whose face is too small or fills the photo, are in no error "
            "rate. A live face that is not judged is refused all the same, and an attack that is not judged does not "
            "pass.",
        ),
        render_table(("", "photos", "not judged (BPNRR, APNRR)"), rows),
    ]
