"""The order of verdicts, the effect of policies, and one face per person."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from uuid import UUID

import pytest

from vultus.domain import Calibration, Candidate, DecisionPolicy, Quality, QualityRule, Verdict
from vultus.domain.decision import (
    assign_persons_to_faces,
    compute_fpir,
    compute_lookalike_threshold,
    compute_threshold,
    decide_verdict,
    find_quality_faults,
)

RULE = QualityRule(
    min_score=0.9, min_size_px=40, min_sharpness=30, max_yaw_deg=45, max_pitch_deg=40, min_face_score=0.8
)
POLICY = DecisionPolicy(enrol=RULE, recognize=RULE, target_fmr=1e-4)
CALIBRATION = Calibration(((1e-2, 0.5), (1e-3, 0.6), (1e-4, 0.7), (1e-5, 0.8)), margin=0.05, source="made up")
SHARP = Quality(size_px=100, sharpness=300, brightness=0.5, yaw_deg=5, pitch_deg=-5, roll_deg=0)


def verdict(*similarities: float, faults: tuple[str, ...] = (), policy: DecisionPolicy = POLICY) -> Verdict:
    return decide_verdict(similarities, policy=policy, calibration=CALIBRATION, gallery_size=100, faults=faults).verdict


def candidate(person: int, similarity: float) -> Candidate:
    return Candidate(UUID(int=person), None, None, UUID(int=1000 + person), similarity)


@pytest.mark.parametrize(
    ("similarities", "expected"),
    [
        ((0.9, 0.4), Verdict.MATCH),
        ((0.9,), Verdict.MATCH),
        ((0.7, 0.5), Verdict.MATCH),
        ((0.699, 0.1), Verdict.NO_MATCH),
        ((0.9, 0.87), Verdict.AMBIGUOUS),
        ((), Verdict.NO_MATCH),
    ],
)
def test_threshold_comes_before_margin(similarities: tuple[float, ...], expected: Verdict) -> None:
    assert verdict(*similarities) is expected


def test_a_face_of_low_quality_is_never_matched() -> None:
    assert verdict(0.99, 0.1, faults=("too_blurred",)) is Verdict.LOW_QUALITY


def test_a_decision_reports_the_rates_of_its_threshold() -> None:
    decision = decide_verdict([0.9, 0.4], policy=POLICY, calibration=CALIBRATION, gallery_size=1000)

    assert decision.threshold == pytest.approx(0.7)
    assert decision.fmr == pytest.approx(1e-4)
    assert decision.fpir == pytest.approx(1 - (1 - 1e-4) ** 1000)
    assert decision.margin == pytest.approx(0.5)
    assert decision.reasons == ("above_threshold",)


def test_target_fpir_raises_the_threshold_with_the_gallery() -> None:
    policy = replace(POLICY, target_fmr=None, target_fpir=0.01)

    tiny, small, large = (compute_threshold(policy, CALIBRATION, size) for size in (1, 200, 1000))

    assert tiny.cosine == compute_threshold(policy, CALIBRATION, None).cosine  # never laxer than a comparison
    assert compute_fpir(small.fmr, 200) == pytest.approx(0.01)
    assert compute_fpir(large.fmr, 1000) == pytest.approx(0.01)
    assert large.cosine > small.cosine > tiny.cosine


def test_a_rate_beyond_the_measurement_is_not_invented() -> None:
    policy = replace(POLICY, target_fmr=None, target_fpir=0.01)

    decision = decide_verdict([0.9], policy=policy, calibration=CALIBRATION, gallery_size=1_000_000)

    assert decision.threshold == pytest.approx(0.8)
    assert decision.fmr == pytest.approx(1e-5)
    assert decision.fpir == pytest.approx(1.0, abs=1e-4)
    assert "threshold_beyond_measurement" in decision.reasons


def test_a_fixed_threshold_still_names_its_error_rate() -> None:
    fixed = compute_threshold(replace(POLICY, target_fmr=None, threshold=0.65), CALIBRATION, 10)

    assert fixed.cosine == 0.65
    assert 1e-4 < fixed.fmr < 1e-3


def test_an_empty_gallery_and_a_stranger_have_different_reasons() -> None:
    empty = decide_verdict([], policy=POLICY, calibration=CALIBRATION, gallery_size=0)
    stranger = decide_verdict([0.2], policy=POLICY, calibration=CALIBRATION, gallery_size=5)

    assert (empty.reasons, empty.fpir) == (("gallery_empty",), 0.0)
    assert stranger.reasons == ("below_threshold",)


def test_a_lookalike_must_pass_a_stricter_threshold_in_a_larger_gallery() -> None:
    assert compute_lookalike_threshold(POLICY, CALIBRATION, 1) == pytest.approx(0.7)
    assert compute_lookalike_threshold(POLICY, CALIBRATION, 10_000) == pytest.approx(0.8)


@pytest.mark.parametrize(
    ("quality", "score", "faults"),
    [
        (SHARP, 0.95, ()),
        (SHARP, 0.5, ("low_detection_score",)),
        (replace(SHARP, size_px=39), 0.95, ("too_small",)),
        (replace(SHARP, face_score=0.7), 0.95, ("not_a_face",)),
        (replace(SHARP, face_score=0.8), 0.95, ()),
        (replace(SHARP, sharpness=2), 0.95, ("too_blurred",)),
        (replace(SHARP, yaw_deg=-60), 0.95, ("extreme_pose",)),
        (replace(SHARP, pitch_deg=50, sharpness=1), 0.95, ("too_blurred", "extreme_pose")),
    ],
)
def test_every_fault_of_a_face_is_named(quality: Quality, score: float, faults: tuple[str, ...]) -> None:
    assert find_quality_faults(quality, score, RULE) == faults


def test_two_faces_never_share_a_person() -> None:
    ada_twice = [[candidate(1, 0.95), candidate(2, 0.9)], [candidate(1, 0.94), candidate(3, 0.3)]]

    first, second = assign_persons_to_faces(ada_twice, 0.7)

    # 0.9 + 0.94 exceeds 0.95 alone, so the first face is assigned its second candidate.
    assert [one.person_id.int for one in first] == [2]
    assert [one.person_id.int for one in second] == [1, 3]


def test_a_person_below_the_threshold_is_not_reassigned() -> None:
    lists = [[candidate(1, 0.6)], [candidate(1, 0.5)]]

    assert assign_persons_to_faces(lists, 0.7) == [tuple(faces) for faces in lists]


MATCHED = replace(
    CALIBRATION,
    anybody=((1e-2, 0.4), (1e-3, 0.5), (1e-4, 0.6), (1e-5, 0.7), (1e-6, 0.8)),
    worst_group=((1e-1, 0.5), (1e-2, 0.6), (1e-3, 0.7), (1e-4, 0.8)),
)
DEFAULT = replace(POLICY, target_fpir=1e-2)


@pytest.mark.parametrize(
    ("gallery_size", "cosine"),
    [
        (None, 0.7),  # a comparison: matched strangers
        (1, 0.7),  # a search is never laxer than a comparison
        (100, 0.7),
        (1_000, 0.7),  # FMR 1e-5 of anybody
        (10_000, 0.8),
    ],
)
def test_a_search_follows_the_rate_of_anybody_but_is_never_laxer_than_a_comparison(
    gallery_size: int | None, cosine: float
) -> None:
    found = compute_threshold(DEFAULT, MATCHED, gallery_size)

    assert found.cosine == pytest.approx(cosine, abs=1e-3)
    assert found.fmr == pytest.approx(CALIBRATION.get_fmr(cosine), rel=0.02)
    assert not found.beyond_measurement


def test_a_comparison_does_not_follow_the_target_of_searches() -> None:
    compared = decide_verdict([0.72], policy=DEFAULT, calibration=MATCHED, gallery_size=10_000, is_search=False)
    searched = decide_verdict([0.72], policy=DEFAULT, calibration=MATCHED, gallery_size=10_000)

    assert (compared.verdict, searched.verdict) == (Verdict.MATCH, Verdict.NO_MATCH)
    assert searched.fpir == pytest.approx(1e-2, rel=0.02)


def test_a_decision_names_the_rate_of_the_worst_group_where_it_was_measured() -> None:
    known = decide_verdict([0.9], policy=POLICY, calibration=MATCHED, gallery_size=1)
    unknown = decide_verdict([0.9], policy=POLICY, calibration=CALIBRATION, gallery_size=1)

    assert known.worst_group_fmr == pytest.approx(1e-3)
    assert unknown.worst_group_fmr is None


def test_a_stored_calibration_is_read_as_it_was_written() -> None:
    for calibration in (MATCHED, replace(CALIBRATION, logistic=(12.0, -6.5))):
        assert Calibration.from_document(json.loads(json.dumps(asdict(calibration)))) == calibration
    before = {"points": [[1e-2, 0.5]], "margin": 0.05, "source": "an earlier version"}
    assert Calibration.from_document(before).anybody_curve.points == ((1e-2, 0.5),)
