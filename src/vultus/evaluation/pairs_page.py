"""The page of a verification report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vultus.evaluation.charts import (
    FULL_WIDTH,
    Axis,
    ReferenceLine,
    Series,
    build_histogram_outline,
    build_logarithmic_axis,
    render_chart,
)
from vultus.evaluation.page import (
    format_cosine,
    format_interval,
    format_percent,
    format_scientific,
    render_page,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vultus.evaluation.pairs import AllPairsResult, ListedPairsResult, PlotData, VerificationPoint
    from vultus.evaluation.record import PairsReport

DECISION_FMR = 1e-4
MIN_FMR, MIN_FNMR = 1e-7, 1e-4


def render_pairs_page(report: PairsReport) -> str:
    """Return the HTML page of a verification report."""
    evaluated = report.evaluated
    return render_page(
        "pairs.html",
        f"Verification on {evaluated.data}",
        f"{evaluated.photos:,} photos of {evaluated.persons:,} persons, pack {evaluated.provenance.pack}, "
        f"{evaluated.provenance.created_at[:10]}",
        _build_tiles(report),
        _render_charts(report.all, report.listed),
        report=report,
    )


def _build_tiles(report: PairsReport) -> list[tuple[str, str, str]]:
    facts = []
    if report.listed:
        accuracy = report.listed.accuracy
        facts.append(
            (
                f"Accuracy, {accuracy.accuracy.count} folds",
                format_percent(accuracy.accuracy.value),
                f"standard error {accuracy.accuracy.standard_error * 100:.2f} · "
                f"95 %: {format_interval(accuracy.accuracy)}",
            )
        )
    for point in report.all.points:
        if point.resolved and point.tar and point.target_fmr in {1e-3, DECISION_FMR}:
            facts.append(
                (
                    f"TAR at FMR {format_scientific(point.target_fmr)}",
                    format_percent(point.tar.value),
                    f"all pairs · 95 %: {format_interval(point.tar)}",
                )
            )
    if report.all.equal_error:
        facts.append(("Equal error rate", format_percent(report.all.equal_error.rate), "all pairs"))
    else:
        facts += [
            (
                f"FMR at {format_cosine(check.threshold)}",
                format_scientific(check.fmr.value),
                f"stated: {format_scientific(check.stated_fmr)} · all pairs",
            )
            for check in report.all.calibration
            if check.stated_fmr == DECISION_FMR
        ]
    found = 1 - report.evaluated.without_face / report.evaluated.photos
    facts.append(("Photos with a face", format_percent(found), f"{report.evaluated.without_face} without"))
    return facts


def _render_charts(all_pairs: AllPairsResult, listed: ListedPairsResult | None) -> list[str]:
    scores = render_score_histogram(
        "Scores of all pairs",
        all_pairs.drawing,
        _list_reference_lines(all_pairs),
        "one person",
        "different persons",
    )
    drawings = [("all pairs", "genuine", all_pairs.drawing)] if all_pairs.genuine else []
    if listed:
        drawings.append(("listed pairs", "extra", listed.drawing))
    if not drawings:
        return [scores]
    points = [(rate, accepted) for _, _, drawing in drawings for _, rate, accepted in drawing.curve]
    rates = build_logarithmic_axis("false match rate", [rate for rate, _ in points], lower_bound=MIN_FMR)
    floor = min(accepted for _, accepted in points)
    accepts = Axis("true accept rate", max(0.0, floor - 0.02), 1, format_tick=lambda value: f"{value * 100:g} %")
    misses = build_logarithmic_axis(
        "false non-match rate", [1 - accepted for _, accepted in points], lower_bound=MIN_FNMR
    )
    roc = [
        Series(name, [(rate, accepted) for _, rate, accepted in drawing.curve if rate > 0], tone, highlights=dots)
        for (name, tone, drawing), dots in zip(drawings, (_list_highlights(all_pairs.points), ()), strict=False)
    ]
    det = [
        Series(
            name,
            [(rate, 1 - accepted) for _, rate, accepted in drawing.curve if rate > 0 and accepted <= 1 - MIN_FNMR],
            tone,
        )
        for name, tone, drawing in drawings
    ]
    return [
        render_chart("Receiver operating characteristic", rates, accepts, roc),
        render_chart("Detection error trade-off", rates, misses, det),
        scores,
    ]


def _list_highlights(points: Sequence[VerificationPoint]) -> list[tuple[float, float, str]]:
    return [
        (
            point.fmr.value,
            point.tar.value,
            f"FMR {format_scientific(point.target_fmr)}: TAR {format_percent(point.tar.value)}, "
            f"threshold {format_cosine(point.threshold)}",
        )
        for point in points
        if point.resolved and point.fmr and point.tar and point.fmr.value > 0
    ]


def _list_reference_lines(all_pairs: AllPairsResult) -> list[ReferenceLine]:
    return [
        ReferenceLine(point.threshold, f"FMR {format_scientific(point.target_fmr)}")
        for point in all_pairs.points
        if point.threshold is not None and point.resolved and point.target_fmr in {1e-2, DECISION_FMR}
    ]


def render_score_histogram(
    title: str,
    drawing: PlotData,
    reference_lines: Sequence[ReferenceLine],
    genuine_label: str,
    impostor_label: str,
    score_label: str = "cosine similarity",
) -> str:
    """Return the histogram of genuine and impostor scores, each with an area of one."""
    low, high = drawing.edges[0], drawing.edges[-1]
    tallest = max(*drawing.genuine, *drawing.impostor)
    x = Axis(score_label, low, high, length=FULL_WIDTH)
    y = Axis("share per bin", 0, tallest * 1.05, format_tick=lambda value: f"{value * 100:g} %")
    series = [
        Series(impostor_label, build_histogram_outline(drawing.edges, drawing.impostor), "impostor", has_area=True),
        Series(genuine_label, build_histogram_outline(drawing.edges, drawing.genuine), "genuine", has_area=True),
    ]
    return render_chart(title, x, y, series, reference_lines)
