"""Which photos may be enrolled: every photo of a registration judged on its own, with reasons."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from vultus.domain import Analysis, DescribedFace, LivenessMode, LivenessReason, QualityRule
from vultus.domain.decision import quality_faults
from vultus.errors import ErrorKind, VultusError
from vultus.services.photo_analysis import Images, Photo, pick_face, rejected, same_face

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vultus.domain import Quality
    from vultus.models.pipeline import FacePipeline

SIDE_BY_SIDE = 8
"""Photos of one registration in the line at the same time."""

NOT_THE_PHOTOS_FAULT = {ErrorKind.OVERLOADED, ErrorKind.UNAVAILABLE, ErrorKind.SETUP}

ATTACKS: dict[str, str] = {
    LivenessReason.SPOOF: "the face looks like a picture of one; take the photo of the person",
    LivenessReason.FACE_TOO_SMALL: "the face is too small to say whether it is live",
    LivenessReason.CROP_PAST_PHOTO: "too little is seen around the face to say whether it is live; step back",
}


@dataclass(frozen=True, slots=True)
class JudgedFace:
    """A face good enough to be enrolled, and the photo, counted from 0, it came from.

    Attributes:
        second: The same face as the pipeline of a second contract describes it; None without one, or if it sees none.
    """

    photo: int
    filename: str | None
    sha256: str
    face: DescribedFace
    second: DescribedFace | None = None


@dataclass(frozen=True, slots=True)
class RejectedPhoto:
    """Why a photo was not enrolled: stable codes, a sentence for people, facts for machines."""

    photo: int
    filename: str | None
    reasons: tuple[str, ...]
    detail: str
    facts: dict[str, Any] = field(default_factory=dict)


async def judge_photos(
    images: Images,
    photos: Sequence[Photo],
    pipeline: FacePipeline,
    *,
    rule: QualityRule,
    largest: bool,
    second: FacePipeline | None = None,
    crops: bool = False,
    liveness: LivenessMode = LivenessMode.OFF,
) -> tuple[list[JudgedFace], list[RejectedPhoto]]:
    """Analyse photos side by side and keep those that show one face that reaches the rule.

    Args:
        images: Describes them.
        photos: To be judged.
        pipeline: Judges them.
        rule: What a face must reach.
        largest: Take the largest face of a photo that shows several.
        second: Another pipeline to describe accepted faces by too.
        crops: Whether faces are described with a crop.
        liveness: What is done about presentation attacks.

    Raises:
        OverloadedError: The networks could not take all photos; nothing was decided about any.
    """
    # One registration must not fill the line by itself, however short that is.
    turns = asyncio.Semaphore(SIDE_BY_SIDE)

    async def judge(at: int, photo: Photo) -> JudgedFace | RejectedPhoto:
        async with turns:
            return await judged(at, photo)

    async def judged(at: int, photo: Photo) -> JudgedFace | RejectedPhoto:
        try:
            analysis: Analysis | VultusError = await images.analyze(photo, pipeline, crops=crops, liveness=liveness)
        except VultusError as error:
            if error.kind in NOT_THE_PHOTOS_FAULT:
                raise
            analysis = error
        verdict = _judge(at, photo.filename, analysis, rule, liveness, largest=largest)
        if second is None or isinstance(verdict, RejectedPhoto):
            return verdict
        again = await images.analyze(photo, second)
        return replace(verdict, second=same_face(again.faces, verdict.face.face.box))

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(judge(at, photo)) for at, photo in enumerate(photos)]
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None
    verdicts = [task.result() for task in tasks]
    return (
        [verdict for verdict in verdicts if isinstance(verdict, JudgedFace)],
        [verdict for verdict in verdicts if isinstance(verdict, RejectedPhoto)],
    )


def _judge(
    at: int,
    filename: str | None,
    outcome: Analysis | VultusError,
    rule: QualityRule,
    liveness: LivenessMode,
    *,
    largest: bool,
) -> JudgedFace | RejectedPhoto:
    try:
        if isinstance(outcome, VultusError):
            raise outcome
        face = pick_face(outcome, largest=largest)
    except VultusError as error:
        return RejectedPhoto(at, filename, (error.code,), error.detail, error.facts)
    if attack := rejected(face, liveness):
        return RejectedPhoto(at, filename, ("not_live", attack), ATTACKS[attack])
    if faults := quality_faults(face.quality, face.face.score, rule):
        detail = "; ".join(_explain(fault, face.quality, face.face.score, rule) for fault in faults)
        return RejectedPhoto(at, filename, faults, detail)
    return JudgedFace(at, filename, outcome.sha256, face)


def _explain(fault: str, quality: Quality, score: float, rule: QualityRule) -> str:
    return {
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
