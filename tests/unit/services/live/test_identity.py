"""What is known of a track's face."""

from __future__ import annotations

import pytest

from vultus.domain import Liveness, LivenessReason, TrackPolicy
from vultus.services.live.identity import TrackIdentity

LIVE, SPOOF, SMALL = LivenessReason.LIVE, LivenessReason.SPOOF, LivenessReason.FACE_TOO_SMALL


@pytest.mark.parametrize(
    ("reasons", "expected"),
    [
        ([LIVE, SPOOF, LIVE], LIVE),
        ([SPOOF, LIVE, SPOOF], SPOOF),
        ([LIVE], LIVE),
        ([SMALL, SMALL, LIVE], SMALL),  # one lucky frame does not speak for a track
        ([SMALL, LIVE, LIVE, SMALL, LIVE], LIVE),
    ],
)
def test_liveness_is_that_of_the_median_frame_once_enough_could_be_judged(
    reasons: list[LivenessReason], expected: LivenessReason
) -> None:
    scores = {LIVE: 0.9, SPOOF: 0.1, SMALL: 0.5}
    identity = TrackIdentity(TrackPolicy(agreeing_frames=3), liveness=[Liveness(scores[one], one) for one in reasons])

    assert identity.median_liveness is not None
    assert identity.median_liveness.reason is expected
