"""Identity: the order of vectors does not matter, a name needs agreement, and nobody is on two tracks."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from vultus.domain import (
    Box,
    Calibration,
    Candidate,
    DecisionPolicy,
    DescribedFace,
    DetectedFace,
    Embedding,
    FloatArray,
    Liveness,
    LivenessMode,
    LivenessReason,
    Quality,
    QualityRule,
    SearchResult,
    TrackPolicy,
    Verdict,
)
from vultus.services.live.identity import TrackIdentity, VectorMean, compute_weight, find_rivals

RULE = QualityRule(0.5, 20, 1, 90, 90)
POLICY = DecisionPolicy(enrol=RULE, recognize=RULE, threshold=0.8, margin=0.05)
CALIBRATION = Calibration(((1e-2, 0.5), (1e-4, 0.8)), 0.05, "made up")
TRACKS = TrackPolicy(agreeing_frames=3, agreeing_s=0.2, max_embeddings=8)
QUALITY = Quality(100, 60, 0.5, 0, 0, 0)
AXES = np.eye(8, dtype=np.float32)
PEOPLE = [UUID(int=number) for number in range(1, 5)]


def face(vector: FloatArray | None, liveness: Liveness | None = None) -> DescribedFace:
    found = DetectedFace(Box(0, 0, 100, 100), np.zeros((5, 2), np.float32), 0.95)
    return DescribedFace(found, QUALITY, None if vector is None else Embedding(vector, "space"), liveness=liveness)


def search(mean: FloatArray) -> SearchResult:
    """Search a gallery of one person per axis."""
    order = np.argsort(-mean[: len(PEOPLE)])
    return SearchResult(
        tuple(Candidate(PEOPLE[at], None, None, PEOPLE[at], float(mean[at])) for at in order), len(PEOPLE)
    )


def step(identities: list[TrackIdentity], vectors: list[FloatArray | None], at: float) -> None:
    """Show one frame to some tracks, as a stream does."""
    for one, vector in zip(identities, vectors, strict=True):
        one.observe(face(vector), (), at, is_doubted=False, is_in_contact=False)
        direction = one.mean.direction
        if one.result is None and direction is not None:
            one.result = search(direction)
    claims = [(one, one.propose(POLICY, CALIBRATION, at)) for one in identities]
    rivals = find_rivals(claims, 0.05)
    for one, claim in claims:
        one.settle(claim, "person_on_another_track" if id(one) in rivals else None, at)


axes = st.integers(0, 5).map(lambda axis: AXES[axis])
blends = st.builds(
    lambda one, other, share: ((one + share * other) / np.linalg.norm(one + share * other)).astype(np.float32),
    axes,
    axes,
    st.sampled_from([0.0, 0.3, 0.9]),
)
weighted = st.lists(st.tuples(blends, st.floats(0.01, 1)), min_size=1, max_size=8)


@given(weighted, st.randoms(use_true_random=False))
def test_the_mean_does_not_depend_on_the_order(vectors: list[tuple[FloatArray, float]], chance: object) -> None:
    means = []
    for _ in range(2):
        mean = VectorMean()
        for vector, weight in vectors:
            mean.add(vector, weight)
        means.append(mean.direction)
        chance.shuffle(vectors)  # type: ignore[attr-defined]

    first, second = means
    assert first is not None
    assert second is not None
    np.testing.assert_allclose(first, second, atol=1e-6)
    assert abs(float(np.linalg.norm(first)) - 1) < 1e-5


@given(st.lists(st.lists(st.none() | blends, min_size=3, max_size=3), min_size=1, max_size=12))
def test_no_name_on_two_tracks_and_no_other_name_without_ambiguous(frames: list[list[FloatArray | None]]) -> None:
    identities = [TrackIdentity(TRACKS) for _ in range(3)]
    names: list[UUID | None] = [None] * 3
    was_ambiguous = [False] * 3
    for number, vectors in enumerate(frames):
        step(identities, vectors, number / 10)
        shown = [one.shown.person_id if one.shown else None for one in identities]
        named = [one for one in shown if one is not None]
        assert len(set(named)) == len(named)
        for at, one in enumerate(identities):
            if one.shown is not None and one.shown.decision.verdict is Verdict.AMBIGUOUS:
                was_ambiguous[at] = True
            if shown[at] is not None:
                assert one.mean.count >= TRACKS.agreeing_frames
                assert names[at] in {None, shown[at]} or was_ambiguous[at]
                names[at], was_ambiguous[at] = shown[at], False


def test_a_name_needs_frames_that_agree_and_are_far_enough_apart() -> None:
    one = TrackIdentity(TRACKS)
    verdicts = []
    for at in (0.0, 0.05, 0.1, 0.15, 0.2):
        step([one], [AXES[0]], at)
        verdicts.append(one.shown.decision.verdict if one.shown else None)

    assert verdicts == [None, None, None, None, Verdict.MATCH]


def test_the_more_similar_of_two_tracks_has_the_name_and_one_that_has_it_keeps_it() -> None:
    """Unless the other is more similar by the margin."""
    first, second = TrackIdentity(TRACKS), TrackIdentity(TRACKS)
    near = (AXES[0] + 0.4 * AXES[5]) / np.linalg.norm(AXES[0] + 0.4 * AXES[5])
    for at in range(3):
        step([first], [near], at / 10)
    assert first.shown is not None
    assert first.shown.person_id == PEOPLE[0]

    for at in range(3, 6):
        step([first, second], [None, AXES[0]], at / 10)

    assert second.shown is not None
    assert second.shown.person_id == PEOPLE[0]
    assert first.shown.decision.verdict is Verdict.AMBIGUOUS
    assert first.shown.decision.reasons == ("person_on_another_track",)


def test_a_name_that_is_taken_back_is_gone_at_once_and_needs_no_new_frames() -> None:
    one = TrackIdentity(TRACKS)
    for at in range(3):
        step([one], [AXES[0]], at / 10)
    one.forget_result()
    assert one.shown is None
    step([one], [None], 0.3)

    assert one.shown is not None


def test_no_face_is_embedded_more_often_than_the_policy_allows() -> None:
    one = TrackIdentity(TRACKS)
    embedded = 0
    for number in range(600):
        at = number / 10
        if number == 0 or one.needs_embedding(at, is_doubted=False, is_in_contact=False):
            embedded += 1
            step([one], [AXES[number % 5]], at)  # who never agrees with themselves
        else:
            step([one], [None], at)

    assert embedded == TRACKS.max_embeddings
    assert one.shown is not None


def test_a_named_face_is_embedded_again_only_when_it_is_seen_much_better() -> None:
    one = TrackIdentity(TRACKS)
    for at in range(3):
        step([one], [AXES[0]], at / 10)
    assert not one.needs_embedding(60, is_doubted=False, is_in_contact=False)
    assert one.needs_embedding(60, is_doubted=True, is_in_contact=False)

    one.face = replace(face(None), quality=replace(QUALITY, size_px=200))
    assert one.needs_embedding(60, is_doubted=False, is_in_contact=False) == (
        compute_weight(one.face.quality, 0.95) >= 1.25 * one.mean.best_weight
    )


def test_required_liveness_is_judged_over_the_track() -> None:
    required = replace(POLICY, liveness=LivenessMode.REQUIRED)
    one = TrackIdentity(TRACKS)
    live, spoof = Liveness(0.9, LivenessReason.LIVE), Liveness(0.2, LivenessReason.SPOOF)
    verdicts = []
    for number, liveness in enumerate([live, spoof, live, live, spoof, spoof, spoof, spoof]):
        one.observe(face(AXES[0], liveness), (), number / 10, is_doubted=False, is_in_contact=False)
        one.result = search(AXES[0])
        one.settle(one.propose(required, CALIBRATION, number / 10), None, number / 10)
        verdicts.append(one.shown.decision.verdict if one.shown else None)

    assert verdicts[:2] == [None, None]
    assert verdicts[2:5] == [Verdict.MATCH] * 3, "one frame in three is not the median"
    assert verdicts[-1] is Verdict.NOT_LIVE
    assert one.shown is not None
    assert one.shown.person is None
