"""The page of an identification report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vultus.evaluation.charts import Axis, ReferenceLine, Series, build_logarithmic_axis, render_chart
from vultus.evaluation.identification import TemplateFusion
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
from vultus.evaluation.pairs_page import render_score_histogram
from vultus.statistics.metrics import RESOLVED_ERRORS

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
    body = [
        render_tiles(_build_tiles(result)),
        render_chart_row(*_render_charts(result)),
        *_render_searches(report),
        *_render_one_to_one(report),
        *_render_decisions(result),
        render_section(
            "Photos without a face",
            f"{result.failed_to_enrol} photos to enrol and {result.failed_probes} probes show no face; "
            f"{result.unreachable} mate searches are for persons none of whose photos could be enrolled. Mate searches "
            f"of both kinds are misses. {evaluated.several_faces:,} photos show several faces: the one that is large "
            "and near the middle was taken.",
        ),
        render_failures(evaluated.failures),
        render_timing(evaluated.timing),
        render_evaluation_provenance(evaluated),
    ]
    return render_document(
        f"Identification on {evaluated.data}",
        f"{result.mate_searches:,} searches for {result.mate_persons:,} enrolled persons and "
        f"{result.stranger_searches:,} for strangers in a gallery of {result.enrolled_persons:,}, "
        f"pack {evaluated.provenance.pack}, {evaluated.provenance.created_at[:10]}",
        body,
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


def _render_searches(report: GalleryReport) -> list[str]:
    result = report.result
    closed_set = [
        (f"among the best {best}" if best > 1 else "first", format_share(rate))
        for best, rate in result.identified.items()
    ]
    open_set = [
        (
            format_scientific(point.target_fpir),
            format_cosine(point.threshold),
            format_share(point.fnir),
            format_small_rate(point.fpir),
            "yes" if point.resolved else f"no: {point.expected_errors:.2g} errors expected",
        )
        for point in result.points
    ]
    return [
        render_section(
            "Protocol",
            f"A share of {report.held_out:g} of the persons, drawn with seed {report.seed}, is not enrolled: their "
            f"photos are the searches for strangers. Of everybody else the first {report.enrol} photos by file name "
            "are enrolled and the others are searched. Who has no photo left to search is a distractor. A person's "
            f"similarity is {FUSION_DESCRIPTIONS[report.fusion]}.",
        ),
        render_table(
            ("", "persons", "photos"),
            [
                (
                    "gallery",
                    f"{result.enrolled_persons:,}, {result.distractors:,} distractors",
                    f"{result.templates:,}",
                ),
                ("searches for enrolled persons", f"{result.mate_persons:,}", f"{result.mate_searches:,}"),
                ("searches for strangers", f"{result.stranger_persons:,}", f"{result.stranger_searches:,}"),
            ],
        ),
        render_section("Closed set", "Is the right person among the best candidates, whatever their similarity?"),
        render_table(("rank of the mate", "share of searches"), closed_set),
        render_section(
            "Open set",
            "The lowest threshold at which no more than the target share of strangers gets a candidate. A search for "
            "an enrolled person is a miss unless that person is first and reaches the threshold.",
        ),
        render_table(("target FPIR", "threshold", "FNIR", "measured FPIR", "resolved"), open_set),
        f'<p class="note">A rate is resolved where it means at least {RESOLVED_ERRORS} false positives in this data. '
        "Intervals by the leave-one-person-out jackknife.</p>",
    ]


def _render_one_to_one(report: GalleryReport) -> list[str]:
    return [
        render_section(
            "One to one",
            "The same probes compared with one enrolled person each: those of enrolled persons with their own, those "
            f"of strangers with each person who has all {report.enrol} templates.",
        ),
        render_table(
            ("target FMR", "threshold", "true accept rate", "false match rate"),
            [
                (
                    format_scientific(point.target_fmr) if point.target_fmr else "default decision",
                    format_cosine(point.threshold),
                    format_share(point.tar),
                    f"{format_scientific(point.fmr)} of {point.impostor:,}",
                )
                for point in report.result.verification
            ],
        ),
    ]


def _render_decisions(result: GalleryResult) -> list[str]:
    rows = [
        (description, format_share(result.decisions_mate[kind]), format_share(result.decisions_stranger[kind]))
        for kind, description in OUTCOME_DESCRIPTIONS.items()
    ]
    return [
        render_section(
            "The default decision",
            f"What the pack answers without any setting: threshold {result.decision_threshold:.4f}, the pack's margin "
            "to the next person, and its quality rule for probes. Photos are enrolled whatever their quality.",
        ),
        render_table(("answer", "enrolled persons", "strangers"), rows),
    ]
