"""The page of a report on presentation attack detection."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from vultus.evaluation.charts import WIDE, Mark, Series, chart, decades
from vultus.evaluation.liveness import LIVE
from vultus.evaluation.page import (
    charts,
    failures,
    interval,
    origin,
    page,
    percent,
    section,
    share,
    table,
    tiles,
)
from vultus.evaluation.pairs_page import scores_chart

if TYPE_CHECKING:
    from vultus.evaluation.liveness import LivenessResult
    from vultus.evaluation.record import LivenessReport

LEAST = 1e-3


def render(report: LivenessReport) -> str:
    """Return the page."""
    result, source = report.result, report.provenance
    counted = ", ".join(f"{count:,} {kind}" for kind, count in report.photos.items())
    body = [
        tiles(_tiles(result)),
        charts(*_charts(result)),
        *_errors(result),
        *_silent(report),
        failures(report.failures),
        origin(
            source,
            f"{report.data}: {counted}",
            [(f"SHA-256 of {name}", digest) for name, digest in report.networks.items()],
            "Terms follow ISO/IEC 30107-3:2023; ACER, the mean of the worst APCER and the BPCER, is common in "
            f"publications but not in the standard. {report.photos_per_s:.1f} photos per second with {report.workers} "
            "at a time, reading files and finding faces included.",
        ),
    ]
    lead = f"{counted}, pack {source.pack}, {source.created_at[:10]}"
    return page(f"Presentation attack detection on {report.data}", lead, body)


def _tiles(result: LivenessResult) -> list[tuple[str, str, str]]:
    point = result.default
    worst = point.apcer[point.worst]
    return [
        ("Attacks that pass (APCER)", percent(worst.value), f"worst: {point.worst} · 95 %: {interval(worst)}"),
        ("Live faces refused (BPCER)", percent(point.bpcer.value), f"95 %: {interval(point.bpcer)}"),
        ("ACER", percent(point.acer.value), f"95 %: {interval(point.acer)}"),
        ("Equal error rate", percent(result.equal_error_rate), f"at score {result.equal_error.threshold:.4f}"),
        ("Live photos not judged", percent(result.bpnrr.value), f"95 %: {interval(result.bpnrr)}"),
    ]


def _charts(result: LivenessResult) -> list[str]:
    curve = [(rate, 1 - passed) for _, rate, passed in result.drawing.curve if rate > 0 and passed < 1]
    rates = decades("attacks that pass, all species together", [rate for rate, _ in curve], least=LEAST)
    refused = decades("live faces refused (BPCER)", [missed for _, missed in curve], least=LEAST)
    marks = [Mark(result.default.threshold, "in use"), Mark(result.equal_error.threshold, "equal error")]
    judged = Series("photos judged", curve, "genuine")
    return [
        chart("Detection error trade-off", replace(rates, length=WIDE), refused, [judged]),
        scores_chart("Scores", result.drawing, marks, "live", "attacks", "probability of a live presentation"),
    ]


def _errors(result: LivenessResult) -> list[str]:
    points = (result.default, result.equal_error)
    rows = [
        ("threshold", *(f"{point.threshold:.4f}" for point in points)),
        *(
            (f"APCER, {kind}", *(share(point.apcer[kind]) for point in points))
            for kind in sorted(result.default.apcer, key=lambda kind: -result.default.apcer[kind].value)
        ),
        ("BPCER", *(share(point.bpcer) for point in points)),
        ("ACER", *(share(point.acer) for point in points)),
    ]
    return [
        section(
            "Errors",
            "The second column's threshold was chosen on the photos it is reported for: expect more errors elsewhere. "
            "Each photo counts as independent: with several of one person or one sheet of paper the "
            "intervals are too narrow.",
        ),
        table(("", "threshold in use", "equal error"), rows),
    ]


def _silent(report: LivenessReport) -> list[str]:
    result = report.result
    rows = [
        (kind, f"{report.photos[kind]:,}", share(rate)) for kind, rate in ((LIVE, result.bpnrr), *result.apnrr.items())
    ]
    return [
        section(
            "Photos not judged",
            "Photos without a face, or whose face is too small or fills the photo, are in no error "
            "rate. A live face that is not judged is refused all the same, and an attack that is not judged does not "
            "pass.",
        ),
        table(("", "photos", "not judged (BPNRR, APNRR)"), rows),
    ]
