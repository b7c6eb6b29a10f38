"""The page of an identification report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vultus.evaluation.charts import Axis, Mark, Series, chart, decades
from vultus.evaluation.identification import Fusion
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
from vultus.evaluation.pairs_page import scores_chart
from vultus.statistics.metrics import RESOLVED_ERRORS

if TYPE_CHECKING:
    from vultus.evaluation.gallery import GalleryResult
    from vultus.evaluation.record import GalleryReport

LEAST = 1e-4
SIMILARITIES = {
    Fusion.BEST: "that of the closest template",
    Fusion.MEAN: "the cosine to the mean of the templates",
    Fusion.QUALITY: "the cosine to the mean of the templates, weighted by quality",
}
ANSWERS = {
    "correct_match": "match, the right person",
    "wrong_match": "match, a wrong person",
    "ambiguous": "ambiguous: two persons are too close",
    "no_match": "no match",
    "low_quality": "low quality: not decided",
    "no_face": "no face found",
}


def render(report: GalleryReport) -> str:
    """Return the page."""
    on, result = report.evaluated, report.result
    body = [
        tiles(_tiles(result)),
        charts(*_charts(result)),
        *_searches(report),
        *_verification(report),
        *_decisions(result),
        section(
            "Photos without a face",
            f"{result.failed_to_enrol} photos to enrol and {result.failed_probes} probes show no face; "
            f"{result.unreachable} mate searches are for persons none of whose photos could be enrolled. Mate searches "
            f"of both kinds are misses. {on.several_faces:,} photos show several faces: the one that is large and near "
            "the middle was taken.",
        ),
        failures(on.failures),
        timing(on.timing),
        about(on),
    ]
    return page(
        f"Identification on {on.data}",
        f"{result.mate_searches:,} searches for {result.mate_persons:,} enrolled persons and "
        f"{result.stranger_searches:,} for strangers in a gallery of {result.enrolled_persons:,}, "
        f"pack {on.provenance.pack}, {on.provenance.created_at[:10]}",
        body,
    )


def _tiles(result: GalleryResult) -> list[tuple[str, str, str]]:
    facts = [
        ("Right person first", percent(result.identified[1].value), f"rank 1 · 95 %: {interval(result.identified[1])}"),
    ]
    for point in result.points:
        if point.fnir and point.target_fpir in {1e-1, 1e-2}:
            facts.append(
                (
                    f"Missed at FPIR {scientific(point.target_fpir)}",
                    percent(point.fnir.value),
                    f"FNIR · 95 %: {interval(point.fnir)}",
                )
            )
    wrong = result.decisions_stranger["wrong_match"]
    facts.append(("Strangers matched", percent(wrong.value), f"by default · 95 %: {interval(wrong)}"))
    return facts


def _charts(result: GalleryResult) -> list[str]:
    curve = [(rate, 1 - found) for _, rate, found in result.drawing.curve if rate > 0 and found < 1]
    floor = result.cmc[0]
    marks = [Mark(result.decision_threshold, "default decision")]
    return [
        chart(
            "Misses against false positives",
            decades("false positive identification rate (FPIR)", [rate for rate, _ in curve], least=LEAST),
            decades("false negative identification rate (FNIR)", [missed for _, missed in curve], least=LEAST),
            [Series("open set", curve, "genuine")],
        ),
        chart(
            "Cumulative match characteristic",
            Axis("rank", 1, len(result.cmc)),
            Axis("mates found", max(0.0, floor - 0.01), 1, write=lambda value: f"{value * 100:g} %"),
            [Series("closed set", list(enumerate(result.cmc, 1)), "genuine")],
        ),
        scores_chart("Scores that decide", result.drawing, marks, "mate, when first", "best for a stranger"),
    ]


def _searches(report: GalleryReport) -> list[str]:
    result = report.result
    closed = [
        (f"among the best {best}" if best > 1 else "first", share(rate)) for best, rate in result.identified.items()
    ]
    opened = [
        (
            scientific(point.target_fpir),
            cosine(point.threshold),
            share(point.fnir),
            small_rate(point.fpir),
            "yes" if point.resolved else f"no: {point.expected_errors:.2g} errors expected",
        )
        for point in result.points
    ]
    return [
        section(
            "Protocol",
            f"A share of {report.held_out:g} of the persons, drawn with seed {report.seed}, is not enrolled: their "
            f"photos are the searches for strangers. Of everybody else the first {report.enrol} photos by file name "
            "are enrolled and the others are searched. Who has no photo left to search is a distractor. A person's "
            f"similarity is {SIMILARITIES[report.fusion]}.",
        ),
        table(
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
        section("Closed set", "Is the right person among the best candidates, whatever their similarity?"),
        table(("place of the mate", "share of searches"), closed),
        section(
            "Open set",
            "The lowest threshold at which no more than the wanted share of strangers gets a candidate. A search for "
            "an enrolled person is a miss unless that person is first and reaches the threshold.",
        ),
        table(("wanted FPIR", "threshold", "FNIR", "reached FPIR", "resolved"), opened),
        f'<p class="note">A rate is resolved where it means at least {RESOLVED_ERRORS} false positives in this data. '
        "Intervals come from leaving out one person at a time.</p>",
    ]


def _verification(report: GalleryReport) -> list[str]:
    return [
        section(
            "One to one",
            "The same probes compared with one enrolled person each: those of enrolled persons with their own, those "
            f"of strangers with each person who has all {report.enrol} templates.",
        ),
        table(
            ("wanted FMR", "threshold", "true accept rate", "false match rate"),
            [
                (
                    scientific(point.target_fmr) if point.target_fmr else "default decision",
                    cosine(point.threshold),
                    share(point.tar),
                    f"{scientific(point.fmr)} of {point.impostor:,}",
                )
                for point in report.result.verification
            ],
        ),
    ]


def _decisions(result: GalleryResult) -> list[str]:
    rows = [
        (words, share(result.decisions_mate[answer]), share(result.decisions_stranger[answer]))
        for answer, words in ANSWERS.items()
    ]
    return [
        section(
            "The default decision",
            f"What the pack answers without any setting: threshold {result.decision_threshold:.4f}, the pack's margin "
            "to the next person, and its quality rule for probes. Photos are enrolled whatever their quality.",
        ),
        table(("answer", "enrolled persons", "strangers"), rows),
    ]
