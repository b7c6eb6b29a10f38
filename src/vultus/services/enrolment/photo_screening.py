"""Screening of photos for enrolment: each photo of a registration is accepted, or rejected with reasons."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from vultus.domain import Analysis, DescribedFace, Lane, LivenessMode, LivenessReason, QualityRule, Want
from vultus.domain.decision import find_quality_faults
from vultus.errors import SERVER_FAULT_KINDS, LivenessNotLoadedError, VultusError
from vultus.services.photo_analysis import Photo, PhotoAnalyzer, find_attack, find_matching_face, pick_face

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vultus.domain import Quality

MAX_CONCURRENT_PHOTOS = 8
"""Photos of one registration queued concurrently."""

ATTACK_DETAILS: dict[str, str] = {
    LivenessReason.SPOOF: "the face looks like a picture of one; take the photo of the person",
    LivenessReason.FACE_TOO_SMALL: "the face is too small to say whether it is live",
    LivenessReason.CROP_PAST_PHOTO: "too little is seen around the face to say whether it is live; step back",
}


@dataclass(frozen=True, slots=True)
class AcceptedFace:
    """A face good enough to be enrolled, and the photo, counted from 0, it came from.

    Attributes:
        second: The same face as analyzed for a second embedding space; None without one, or if it was not detected.
    """

    photo: int
    filename: str | None
    sha256: str
    face: DescribedFace
    second: DescribedFace | None = None


@dataclass(frozen=True, slots=True)
class RejectedPhoto:
    """A rejected photo: stable reason codes, a sentence for people, and facts for programs."""

    photo: int
    filename: str | None
    reasons: tuple[str, ...]
    detail: str
    facts: dict[str, Any] = field(default_factory=dict)


async def screen_photos(
    analyzer: PhotoAnalyzer,
    photos: Sequence[Photo],
    space_id: str,
    *,
    rule: QualityRule,
    largest: bool,
    second_space_id: str | None = None,
    crops: bool = False,
    liveness: LivenessMode = LivenessMode.OFF,
    lane: Lane = Lane.INTERACTIVE,
) -> tuple[list[AcceptedFace], list[RejectedPhoto]]:
    """Analyze photos concurrently; return the accepted faces and the rejected photos, each in the order of the photos.

    Args:
        analyzer: Analyzes the photos.
        photos: The photos to screen.
        space_id: The active embedding space.
        rule: The quality rule that a face must meet.
        largest: Take the largest face of a photo that shows several.
        second_space_id: A second embedding space for accepted faces.
        crops: Whether to cut crops of the faces.
        liveness: Liveness mode; if required, attacks are rejected.
        lane: How urgent the analysis is.

    Raises:
        OverloadedError: The admission queue could not take all photos; none was screened.
    """
    # One registration must not fill the admission queue by itself, however short that is.
    want = Want(crops=crops, liveness=liveness is not LivenessMode.OFF)
    concurrency_limit = asyncio.Semaphore(MAX_CONCURRENT_PHOTOS)

    async def run_in_turn(index: int, photo: Photo) -> AcceptedFace | RejectedPhoto:
        async with concurrency_limit:
            return await screen_photo(index, photo)

    async def screen_photo(index: int, photo: Photo) -> AcceptedFace | RejectedPhoto:
        try:
            analysis: Analysis | VultusError = await analyzer.analyze_photo(photo, space_id, want, lane)
        except VultusError as error:
            if error.kind in SERVER_FAULT_KINDS or isinstance(error, LivenessNotLoadedError):
                raise
            analysis = error
        outcome = _apply_rules(index, photo.filename, analysis, rule, liveness, largest=largest)
        if second_space_id is None or isinstance(outcome, RejectedPhoto):
            return outcome
        again = await analyzer.analyze_photo(photo, second_space_id, lane=lane)
        return replace(outcome, second=find_matching_face(again.faces, outcome.face.face.box))

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(run_in_turn(index, photo)) for index, photo in enumerate(photos)]
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None
    outcomes = [task.result() for task in tasks]
    return (
        [outcome for outcome in outcomes if isinstance(outcome, AcceptedFace)],
        [outcome for outcome in outcomes if isinstance(outcome, RejectedPhoto)],
    )


def _apply_rules(
    index: int,
    filename: str | None,
    outcome: Analysis | VultusError,
    rule: QualityRule,
    liveness: LivenessMode,
    *,
    largest: bool,
) -> AcceptedFace | RejectedPhoto:
    try:
        if isinstance(outcome, VultusError):
            raise outcome
        face = pick_face(outcome, largest=largest)
    except VultusError as error:
        return RejectedPhoto(index, filename, (error.code,), error.detail, error.facts)
    if attack := find_attack(face, liveness):
        return RejectedPhoto(index, filename, ("not_live", attack), ATTACK_DETAILS[attack])
    if faults := find_quality_faults(face.quality, face.face.score, rule):
        detail = "; ".join(_format_fault(fault, face.quality, face.face.score, rule) for fault in faults)
        return RejectedPhoto(index, filename, faults, detail)
    return AcceptedFace(index, filename, outcome.sha256, face)


def _format_fault(fault: str, quality: Quality, score: float, rule: QualityRule) -> str:
    return {
        "not_a_face": "a second network does not see an uncovered human face; send a photo of a person's face",
        "low_detection_score": f"the detector is only {score:.2f} sure of the face; {rule.min_score:.2f} is needed",
        "too_small": f"the face is {quality.size_px:.0f} px wide; {rule.min_size_px:.0f} px are needed",
        "too_blurred": f"the face's sharpness is {quality.sharpness:.0f}; {rule.min_sharpness:.0f} is needed",
        "too_dark": f"the face's brightness is {quality.brightness:.2f}; {rule.min_brightness:.2f} is needed",
        "too_bright": f"the face's brightness is {quality.brightness:.2f}; {rule.max_brightness:.2f} is the most",
        "poor_for_network": (
            f"the quality network gives the face {quality.network_score or 0:.2f}; "
            f"{rule.min_network_score:.2f} is needed"
        ),
        "extreme_pose": (
            f"the face is turned {abs(quality.yaw_deg):.0f}° aside and {abs(quality.pitch_deg):.0f}° up or down; "
            f"{rule.max_yaw_deg:.0f}° and {rule.max_pitch_deg:.0f}° are the most"
        ),
    }[fault]
