"""The page of an identification report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vultus.evaluation.charts import Axis, ReferenceLine, Series, build_logarithmic_axis, render_chart
from vultus.evaluation.identification import TemplateFusion
from vultus.evaluation.page import (
    format_interval,
    format_percent,
    format_scientific,
    render_page,
)
from vultus.evaluation.pairs_page import render_score_histogram

if TYPE_CHECKING:
    from vultus.evaluation.gallery import GalleryResult
    from vultus.evaluation.record import GalleryReport

MIN_RATE = 1e-4
FUSION_DESCRIPTIONS = {
    TemplateFusion.BEST: "that of the closest template",
    TemplateFusion.MEAN: "the cosine to the mean of the templates",
    TemplateFusion.QUALITY: "the cosine to the mean of the templates, weighted by quality",
}
OUTCOME_DESCRIPTIONS = {
    "correct_match": "match, the right person",
    "wrong_match": "match, a wrong person",
    "ambiguous": "ambiguous: two persons are too close",
    "no_match": "no match",
    "low_quality": "low quality: not decided",
    "no_face": "no face found",
}


def render_gallery_page(report: GalleryReport) -> str:
    """Return the HTML page of an identification report."""
    evaluated, result = report.evaluated, report.result
    return render_page(
        "gallery.html",
        f"Identification on {evaluated.data}",
        f"{result.mate_searches:,} searches for {result.mate_persons:,} enrolled persons and "
        f"{result.stranger_searches:,} for strangers in a gallery of {result.enrolled_persons:,}, "
        f"pack {evaluated.provenance.pack}, {evaluated.provenance.created_at[:10]}",
        _build_tiles(result),
        _render_charts(result),
        report=report,
        fusion=FUSION_DESCRIPTIONS[report.fusion],
        outcomes=OUTCOME_DESCRIPTIONS,
    )


def _build_tiles(result: GalleryResult) -> list[tuple[str, str, str]]:
    facts = [
        (
            "Right person first",
            format_percent(result.identified[1].value),
            f"rank 1 · 95 %: {format_interval(result.identified[1])}",
        ),
    ]
    for point in result.points:
        if point.fnir and point.target_fpir in {1e-1, 1e-2}:
            facts.append(
                (
                    f"Missed at FPIR {format_scientific(point.target_fpir)}",
                    format_percent(point.fnir.value),
                    f"FNIR · 95 %: {format_interval(point.fnir)}",
                )
            )
    wrong = result.decisions_stranger["wrong_match"]
    facts.append(("Strangers matched", format_percent(wrong.value), f"by default · 95 %: {format_interval(wrong)}"))
    return facts


def _render_charts(result: GalleryResult) -> list[str]:
    curve = [(rate, 1 - found) for _, rate, found in result.drawing.curve if rate > 0 and found < 1]
    floor = result.cmc[0]
    marks = [ReferenceLine(result.decision_threshold, "default decision")]
    return [
        render_chart(
            "Misses against false positives",
            build_logarithmic_axis(
                "false positive identification rate (FPIR)", [rate for rate, _ in curve], lower_bound=MIN_RATE
            ),
            build_logarithmic_axis(
                "false negative identification rate (FNIR)", [missed for _, missed in curve], lower_bound=MIN_RATE
            ),
            [Series("open set", curve, "genuine")],
        ),
        render_chart(
            "Cumulative match characteristic",
            Axis("rank", 1, len(result.cmc)),
            Axis("mates found", max(0.0, floor - 0.01), 1, format_tick=lambda value: f"{value * 100:g} %"),
            [Series("closed set", list(enumerate(result.cmc, 1)), "genuine")],
        ),
        render_score_histogram("Scores that decide", result.drawing, marks, "mate, when first", "best for a stranger"),
    ]
