"""The page of a verification report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vultus.evaluation import groups_page
from vultus.evaluation.charts import WIDE, Axis, Mark, Series, chart, decades, steps
from vultus.evaluation.page import (
    about,
    charts,
    cosine,
    failures,
    interval,
    page,
    percent,
    scientific,
    section,
    share,
    small_rate,
    table,
    tiles,
    timing,
)
from vultus.statistics.metrics import RESOLVED_ERRORS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vultus.evaluation.pairs import AllResult, Drawing, ListedResult, OperatingPoint
    from vultus.evaluation.record import PairsReport

DECISION_FMR = 1e-4
LEAST_FMR, LEAST_FNMR = 1e-7, 1e-4


def render(report: PairsReport) -> str:
    """Return the page."""
    on, everything, listed = report.evaluated, report.all, report.listed
    body = [
        tiles(_tiles(report)),
        charts(*_charts(everything, listed)),
        *(_listed(listed) if listed else ()),
        *_all(everything),
        *_calibration(everything),
        *groups_page.sections(report.groups),
        section(
            "Photos without a face",
            f"{on.without_face} of {on.photos:,} photos gave no embedding. {on.several_faces:,} photos show several "
            "faces: the one that is large and near the middle was taken (side times the square of 1 − d / D; d is the "
            "distance of the face's centre from the photo's centre, D that of a corner).",
        ),
        failures(on.failures),
        timing(on.timing),
        about(on),
    ]
    return page(
        f"Verification on {on.data}",
        f"{on.photos:,} photos of {on.persons:,} persons, pack {on.provenance.pack}, {on.provenance.created_at[:10]}",
        body,
    )


def _tiles(report: PairsReport) -> list[tuple[str, str, str]]:
    facts = []
    if report.listed:
        accuracy = report.listed.accuracy
        facts.append(
            (
                f"Accuracy, {accuracy.accuracy.count} folds",
                percent(accuracy.accuracy.value),
                f"standard error {accuracy.accuracy.standard_error * 100:.2f} · 95 %: {interval(accuracy.accuracy)}",
            )
        )
    for point in report.all.points:
        if point.resolved and point.tar and point.target_fmr in {1e-3, DECISION_FMR}:
            facts.append(
                (
                    f"TAR at FMR {scientific(point.target_fmr)}",
                    percent(point.tar.value),
                    f"all pairs · 95 %: {interval(point.tar)}",
                )
            )
    facts.append(("Equal error rate", percent(report.all.equal_error.rate), "all pairs"))
    found = 1 - report.evaluated.without_face / report.evaluated.photos
    facts.append(("Photos with a face", percent(found), f"{report.evaluated.without_face} without"))
    return facts


def _charts(everything: AllResult, listed: ListedResult | None) -> list[str]:
    drawings = [("all pairs", "genuine", everything.drawing)]
    if listed:
        drawings.append(("listed pairs", "extra", listed.drawing))
    points = [(rate, accepted) for _, _, drawing in drawings for _, rate, accepted in drawing.curve]
    rates = decades("false match rate", [rate for rate, _ in points], least=LEAST_FMR)
    floor = min(accepted for _, accepted in points)
    accepts = Axis("true accept rate", max(0.0, floor - 0.02), 1, write=lambda value: f"{value * 100:g} %")
    misses = decades("false non-match rate", [1 - accepted for _, accepted in points], least=LEAST_FNMR)
    roc = [
        Series(name, [(rate, accepted) for _, rate, accepted in drawing.curve if rate > 0], tone, dots=dots)
        for (name, tone, drawing), dots in zip(drawings, (_dots(everything.points), ()), strict=False)
    ]
    det = [
        Series(
            name,
            [(rate, 1 - accepted) for _, rate, accepted in drawing.curve if rate > 0 and accepted <= 1 - LEAST_FNMR],
            tone,
        )
        for name, tone, drawing in drawings
    ]
    return [
        chart("Receiver operating characteristic", rates, accepts, roc),
        chart("Detection error trade-off", rates, misses, det),
        scores_chart("Scores of all pairs", everything.drawing, _marks(everything), "one person", "different persons"),
    ]


def _dots(points: Sequence[OperatingPoint]) -> list[tuple[float, float, str]]:
    return [
        (
            point.fmr.value,
            point.tar.value,
            f"FMR {scientific(point.target_fmr)}: TAR {percent(point.tar.value)}, threshold {cosine(point.threshold)}",
        )
        for point in points
        if point.resolved and point.fmr and point.tar and point.fmr.value > 0
    ]


def _marks(everything: AllResult) -> list[Mark]:
    return [
        Mark(point.threshold, f"FMR {scientific(point.target_fmr)}")
        for point in everything.points
        if point.threshold is not None and point.resolved and point.target_fmr in {1e-2, DECISION_FMR}
    ]


def scores_chart(
    title: str, drawing: Drawing, marks: Sequence[Mark], genuine: str, impostor: str, score: str = "cosine similarity"
) -> str:
    """Return the histogram of genuine and impostor scores, each with an area of one."""
    low, high = drawing.edges[0], drawing.edges[-1]
    tallest = max(*drawing.genuine, *drawing.impostor)
    x = Axis(score, low, high, length=WIDE)
    y = Axis("share per bin", 0, tallest * 1.05, write=lambda value: f"{value * 100:g} %")
    series = [
        Series(impostor, steps(drawing.edges, drawing.impostor), "impostor", filled=True),
        Series(genuine, steps(drawing.edges, drawing.genuine), "genuine", filled=True),
    ]
    return chart(title, x, y, series, marks)


def _listed(listed: ListedResult) -> list[str]:
    accuracy = listed.accuracy
    rows = [
        ("mean of the folds", f"{percent(accuracy.accuracy.value)} ± {accuracy.accuracy.standard_error * 100:.2f}"),
        ("95 % interval (Student's t over folds)", f"{interval(accuracy.accuracy)} %"),
        (f"all {accuracy.pooled.trials:,} pairs together", share(accuracy.pooled)),
        ("thresholds", f"{min(accuracy.thresholds):.4f} to {max(accuracy.thresholds):.4f}"),
        ("area under the curve", f"{listed.auc:.5f}"),
        ("equal error rate", f"{percent(listed.equal_error.rate)} at {listed.equal_error.threshold:.4f}"),
    ]
    folds = [(str(at + 1), percent(value)) for at, value in enumerate(accuracy.folds)]
    return [
        section(
            "Listed pairs",
            "Each fold is judged with the threshold that decides most pairs of the other folds rightly. A pair with a "
            f"photo without a face is a wrong answer, whichever kind it is ({listed.not_compared} of "
            f"{listed.pairs:,}), and a rejection in the true accept rate.",
        ),
        table(("figure", "value"), rows),
        _points(listed.points),
        f"<details><summary>Every fold</summary>{table(('fold', 'accuracy'), folds)}</details>",
    ]


def _all(everything: AllResult) -> list[str]:
    rows = [
        ("pairs of one person", f"{everything.genuine:,}, of {everything.persons_with_pairs:,} persons"),
        ("of these without a face in a photo: rejected", f"{everything.genuine_not_compared:,}"),
        ("pairs of different persons", f"{everything.impostor:,}"),
        ("area under the curve", f"{everything.auc:.6f}"),
        ("equal error rate", f"{percent(everything.equal_error.rate)} at {everything.equal_error.threshold:.4f}"),
    ]
    closest = [(one, two, cosine(score)) for one, two, score in everything.closest]
    return [
        section(
            "All pairs",
            "Every photo is compared with every other. Pairs that share a person are not independent, so intervals "
            "come from leaving out one person at a time. The true accept rate counts pairs, so persons with many "
            "photos weigh most; the mean by person weighs everybody alike.",
        ),
        table(("figure", "value"), rows),
        _points(everything.points, by_person=True),
        "<details><summary>The most alike pairs of different persons: a data set's mistaken names show here</summary>"
        f"{table(('photo', 'photo', 'cosine'), closest)}</details>"
        if closest
        else "",
    ]


def _points(points: Sequence[OperatingPoint], *, by_person: bool = False) -> str:
    columns = ["wanted FMR", "threshold", "true accept rate", "reached FMR", "resolved"]
    if by_person:
        columns.insert(3, "mean by person")
    rows = []
    for point in points:
        resolved = "yes" if point.resolved else f"no: {point.expected_errors:.2g} errors expected"
        row = [
            scientific(point.target_fmr),
            cosine(point.threshold),
            share(point.tar),
            small_rate(point.fmr),
            resolved,
        ]
        if by_person:
            row.insert(3, share(point.tar_by_person))
        rows.append(row)
    return (
        table(columns, rows)
        + f'<p class="note">A rate is resolved where it means at least {RESOLVED_ERRORS} false matches in this data. '
        "Thresholds were chosen on the pairs they are reported for. 95 % intervals in small print.</p>"
    )


def _calibration(everything: AllResult) -> list[str]:
    if not everything.calibration:
        return []
    rows = [
        (scientific(check.stated_fmr), cosine(check.threshold), small_rate(check.fmr), share(check.tar))
        for check in everything.calibration
    ]
    return [
        section("The pack's thresholds on this data", "What the thresholds that decide by default do here."),
        table(("stated FMR", "threshold", "FMR here", "true accept rate here"), rows),
    ]
