"""The page of a report on presentation attack detection."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from vultus.evaluation.charts import FULL_WIDTH, ReferenceLine, Series, build_logarithmic_axis, render_chart
from vultus.evaluation.liveness import LIVE
from vultus.evaluation.page import (
    format_interval,
    format_percent,
    render_page,
)
from vultus.evaluation.pairs_page import render_score_histogram

if TYPE_CHECKING:
    from vultus.evaluation.liveness import LivenessResult
    from vultus.evaluation.record import LivenessReport

MIN_RATE = 1e-3


def render_liveness_page(report: LivenessReport) -> str:
    """Return the HTML page of a report on presentation attack detection."""
    counted = ", ".join(f"{count:,} {kind}" for kind, count in report.photos.items())
    return render_page(
        "liveness.html",
        f"Presentation attack detection on {report.data}",
        f"{counted}, {report.network}, pack {report.provenance.pack}, {report.provenance.created_at[:10]}",
        _build_tiles(report.result),
        _render_charts(report.result),
        report=report,
        counted=counted,
        not_judged={LIVE: report.result.bpnrr, **report.result.apnrr},
        networks=[(f"SHA-256 of {name}", digest) for name, digest in report.networks.items()],
    )


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
