"""The page of a verification report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vultus.evaluation import groups_page
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
    format_share,
    format_small_rate,
    render_chart_row,
    render_document,
    render_evaluation_provenance,
    render_failures,
    render_section,
    render_table,
    render_tiles,
    render_timing,
)
from vultus.statistics.metrics import RESOLVED_ERRORS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vultus.evaluation.pairs import AllPairsResult, ListedPairsResult, PlotData, VerificationPoint
    from vultus.evaluation.record import PairsReport

DECISION_FMR = 1e-4
MIN_FMR, MIN_FNMR = 1e-7, 1e-4


def render_pairs_page(report: PairsReport) -> str:
    """Return the HTML page of a verification report."""
    evaluated, all_pairs, listed = report.evaluated, report.all, report.listed
    body = [
        render_tiles(_build_tiles(report)),
        render_chart_row(*_render_charts(all_pairs, listed)),
        *(_render_listed_pairs(listed) if listed else ()),
        *_render_all_pairs(all_pairs),
        *_render_calibration(all_pairs),
        *groups_page.render_group_sections(report.groups),
        render_section(
            "Photos without a face",
            f"{evaluated.without_face} of {evaluated.photos:,} photos gave no embedding. "
            f"{evaluated.several_faces:,} photos show several faces: the one that is large and near the middle was "
            "taken (side times the square of 1 − d / D; d is the distance of the face's centre from the photo's "
            "centre, D that of a corner).",
        ),
        render_failures(evaluated.failures),
        render_timing(evaluated.timing),
        render_evaluation_provenance(evaluated),
    ]
    return render_document(
        f"Verification on {evaluated.data}",
        f"{evaluated.photos:,} photos of {evaluated.persons:,} persons, pack {evaluated.provenance.pack}, "
        f"{evaluated.provenance.created_at[:10]}",
        body,
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
    facts.append(("Equal error rate", format_percent(report.all.equal_error.rate), "all pairs"))
    found = 1 - report.evaluated.without_face / report.evaluated.photos
    facts.append(("Photos with a face", format_percent(found), f"{report.evaluated.without_face} without"))
    return facts


def _render_charts(all_pairs: AllPairsResult, listed: ListedPairsResult | None) -> list[str]:
    drawings = [("all pairs", "genuine", all_pairs.drawing)]
    if listed:
        drawings.append(("listed pairs", "extra", listed.drawing))
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
        render_score_histogram(
            "Scores of all pairs",
            all_pairs.drawing,
            _list_reference_lines(all_pairs),
            "one person",
            "different persons",
        ),
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


def _render_listed_pairs(listed: ListedPairsResult) -> list[str]:
    accuracy = listed.accuracy
    rows = [
        (
            "mean of the folds",
            f"{format_percent(accuracy.accuracy.value)} ± {accuracy.accuracy.standard_error * 100:.2f}",
        ),
        ("95 % interval (Student's t over folds)", f"{format_interval(accuracy.accuracy)} %"),
        (f"all {accuracy.pooled.trials:,} pairs together", format_share(accuracy.pooled)),
        ("thresholds", f"{min(accuracy.thresholds):.4f} to {max(accuracy.thresholds):.4f}"),
        ("area under the curve", f"{listed.auc:.5f}"),
        ("equal error rate", f"{format_percent(listed.equal_error.rate)} at {listed.equal_error.threshold:.4f}"),
    ]
    folds = [(str(at + 1), format_percent(value)) for at, value in enumerate(accuracy.folds)]
    return [
        render_section(
            "Listed pairs",
            "Each fold is evaluated at the threshold that classifies most pairs of the other folds correctly. A pair "
            f"with a photo without a face is a wrong answer, whichever kind it is ({listed.not_compared} of "
            f"{listed.pairs:,}), and a rejection in the true accept rate.",
        ),
        render_table(("figure", "value"), rows),
        _render_points(listed.points),
        f"<details><summary>Every fold</summary>{render_table(('fold', 'accuracy'), folds)}</details>",
    ]


def _render_all_pairs(all_pairs: AllPairsResult) -> list[str]:
    rows = [
        ("pairs of one person", f"{all_pairs.genuine:,}, of {all_pairs.persons_with_pairs:,} persons"),
        ("of these without a face in a photo: rejected", f"{all_pairs.genuine_not_compared:,}"),
        ("pairs of different persons", f"{all_pairs.impostor:,}"),
        ("area under the curve", f"{all_pairs.auc:.6f}"),
        ("equal error rate", f"{format_percent(all_pairs.equal_error.rate)} at {all_pairs.equal_error.threshold:.4f}"),
    ]
    closest = [(first, second, format_cosine(score)) for first, second, score in all_pairs.closest]
    return [
        render_section(
            "All pairs",
            "Every photo is compared with every other. Pairs that share a person are not independent, so intervals "
            "are by the leave-one-person-out jackknife. The true accept rate counts pairs, so persons with many "
            "photos weigh most; the mean by person weights persons equally.",
        ),
        render_table(("figure", "value"), rows),
        _render_points(all_pairs.points, by_person=True),
        "<details><summary>The most alike pairs of different persons: a data set's mistaken names show here</summary>"
        f"{render_table(('photo', 'photo', 'cosine'), closest)}</details>"
        if closest
        else "",
    ]


def _render_points(points: Sequence[VerificationPoint], *, by_person: bool = False) -> str:
    columns = ["target FMR", "threshold", "true accept rate", "measured FMR", "resolved"]
    if by_person:
        columns.insert(3, "mean by person")
    rows = []
    for point in points:
        resolved = "yes" if point.resolved else f"no: {point.expected_errors:.2g} errors expected"
        row = [
            format_scientific(point.target_fmr),
            format_cosine(point.threshold),
            format_share(point.tar),
            format_small_rate(point.fmr),
            resolved,
        ]
        if by_person:
            row.insert(3, format_share(point.tar_by_person))
        rows.append(row)
    return (
        render_table(columns, rows)
        + f'<p class="note">A rate is resolved where it means at least {RESOLVED_ERRORS} false matches in this data. '
        "Thresholds were chosen on the pairs they are reported for. 95 % intervals in small print.</p>"
    )


def _render_calibration(all_pairs: AllPairsResult) -> list[str]:
    if not all_pairs.calibration:
        return []
    rows = [
        (
            format_scientific(check.stated_fmr),
            format_cosine(check.threshold),
            format_small_rate(check.fmr),
            format_share(check.tar),
        )
        for check in all_pairs.calibration
    ]
    return [
        render_section("The pack's thresholds on this data", "What the thresholds that decide by default do here."),
        render_table(("stated FMR", "threshold", "FMR here", "true accept rate here"), rows),
    ]
