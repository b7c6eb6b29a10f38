"""Faces, verdicts and candidates in responses."""

from __future__ import annotations

from typing import Self

from pydantic import Field

from vultus import domain
from vultus.schemas.base import (
    ApiModel,
    ConsentId,
    Cosine,
    Digest,
    FaceId,
    Measure,
    PersonId,
    Probability,
    Rate,
    RecordedAt,
    SpaceId,
)
from vultus.schemas.reasons import DecisionReason


class BoxOut(ApiModel):
    """Pixels of the upright photo; a box may reach past its edge."""

    left: Measure = Field(examples=[176.4])
    top: Measure = Field(examples=[62.1])
    right: Measure = Field(examples=[272.9])
    bottom: Measure = Field(examples=[188.6])


class PointOut(ApiModel):
    """Pixels of the upright photo; a point may lie past its edge."""

    x: Measure
    y: Measure


class LandmarksOut(ApiModel):
    """Five points; left and right are the image's, not the person's."""

    left_eye: PointOut = Field(examples=[{"x": 203.2, "y": 112.4}])
    right_eye: PointOut = Field(examples=[{"x": 247.6, "y": 111.8}])
    nose: PointOut = Field(examples=[{"x": 226.9, "y": 139.0}])
    left_mouth: PointOut = Field(examples=[{"x": 207.3, "y": 158.7}])
    right_mouth: PointOut = Field(examples=[{"x": 245.1, "y": 158.1}])


class QualityOut(ApiModel):
    """How usable the face is."""

    size_px: Measure = Field(description="Shorter side of the box, pixels of the original photo.", examples=[96.5])
    sharpness: Measure = Field(
        description="Variance of the Laplacian of the aligned crop; blurred faces are low.", examples=[412.7]
    )
    brightness: Measure = Field(description="Mean grey level of the aligned crop, 0 to 1.", examples=[0.54])
    yaw_deg: Measure = Field(description="Estimated turn to the side, degrees.", examples=[2.1])
    pitch_deg: Measure = Field(description="Estimated nod, degrees.", examples=[-3.4])
    roll_deg: Measure = Field(description="Tilt of the eyes' line, degrees, clockwise positive.", examples=[-0.8])
    network_score: Measure | None = Field(None, description="Of the quality network, 0 to 1; null without one.")
    face_score: Measure | None = Field(
        None, description="Probability of a human face, 0 to 1, by another network than the detector.", examples=[0.999]
    )


class LivenessOut(ApiModel):
    """Whether the face is a person's before the camera, or a picture of one."""

    score: Measure = Field(description="Probability of a live presentation, 0 to 1, estimated by the networks.")
    live: bool = Field(description="Whether the face passed; one that could not be judged did not.")
    reason: domain.LivenessReason


class DetectedFaceOut(ApiModel):
    """One face of a photo."""

    box: BoxOut
    landmarks: LandmarksOut
    score: Cosine = Field(description="The detector's confidence, 0 to 1.", examples=[0.9998])
    quality: QualityOut
    liveness: LivenessOut | None = Field(None, description="Null unless liveness was requested.")

    @classmethod
    def from_face(cls, face: domain.DescribedFace) -> Self:
        """Build the response from a domain value."""
        return cls(**build_face_fields(face))


def build_landmarks(landmarks: domain.FloatArray) -> LandmarksOut:
    """Return the five points of a (5, 2) array by name."""
    names = LandmarksOut.model_fields
    return LandmarksOut(
        **{name: PointOut(x=float(x), y=float(y)) for name, (x, y) in zip(names, landmarks, strict=True)}
    )


def build_face_fields(face: domain.DescribedFace) -> dict[str, object]:
    """Return the members that all responses about a face share."""
    box = face.face.box
    return {
        "box": BoxOut(left=box.left, top=box.top, right=box.right, bottom=box.bottom),
        "landmarks": build_landmarks(face.face.landmarks),
        "score": face.face.score,
        "quality": QualityOut.from_attributes(face.quality),
        "liveness": LivenessOut.from_attributes(face.liveness) if face.liveness else None,
    }


class CandidateOut(ApiModel):
    """A person with their similarity to the probe."""

    person_id: PersonId
    external_id: str | None = Field(examples=["E-1017"])
    name: str | None = Field(examples=["Ada"])
    face_id: FaceId = Field(description="The person's face that is closest to the probe.")
    similarity: Cosine = Field(examples=[0.9731])
    probability: Probability = Field(examples=[0.9999])


class DecisionOut(ApiModel):
    """A verdict with everything needed to understand it."""

    verdict: domain.Verdict = Field(examples=["match"])
    threshold: Cosine = Field(description="Cosine a candidate had to reach.", examples=[0.9412])
    false_match_rate: Rate = Field(
        description="Share of comparisons of two strangers that reach the threshold, at most, as far as measured; with "
        "a pack's own calibration, of two adults of one sex and age band.",
        examples=[0.0001],
    )
    worst_group_false_match_rate: Rate | None = Field(
        description="The same for the group of sex, age band and ancestry with the highest rate, never below the "
        "lowest rate measured; null if none was.",
        examples=[0.0009],
    )
    false_positive_identification_rate: Rate = Field(
        description="Chance that a stranger reaches the threshold in a gallery of this size: 1 − (1 − FMR)^N.",
        examples=[0.0488],
    )
    gallery_size: int = Field(description="Templates compared, N.", examples=[500])
    margin: Cosine | None = Field(
        description="Cosine ahead of the next person; null without one, and for keys without the permission `scores`.",
        examples=[0.0731],
    )
    band: domain.Band | None = Field(
        description="How clear a match is: `clear` from the pack's margin (`GET /v1/models`) above the threshold on, "
        "else `near_threshold`; null unless the verdict is `match`.",
        examples=["clear"],
    )
    reasons: list[DecisionReason] = Field(description="Stable reason codes.", examples=[["above_threshold"]])

    @classmethod
    def from_decision(cls, decision: domain.Decision) -> Self:
        """Build the response from a domain value."""
        return cls(
            verdict=decision.verdict,
            threshold=decision.threshold,
            false_match_rate=decision.fmr,
            worst_group_false_match_rate=decision.worst_group_fmr,
            false_positive_identification_rate=decision.fpir,
            gallery_size=decision.gallery_size,
            margin=decision.margin,
            band=decision.band,
            reasons=list(decision.reasons),
        )


class MatchedPersonOut(ApiModel):
    """The person that a verdict names."""

    id: PersonId
    external_id: str | None = Field(examples=["E-1017"])
    name: str | None = Field(examples=["Ada"])

    @classmethod
    def from_candidate(cls, person: domain.Candidate | None) -> Self | None:
        """Build the response from a domain value; None stays None."""
        if person is None:
            return None
        return cls(id=person.person_id, external_id=person.external_id, name=person.name)


class NamedDecisionOut(DecisionOut):
    """A verdict, and whom it names."""

    person: MatchedPersonOut | None = Field(
        description="Whom the verdict names; null unless it is `match`.", examples=[MatchedPersonOut.build_example()]
    )


class FaceOut(ApiModel):
    """An enrolled template of a person, without its vector."""

    id: FaceId
    person_id: PersonId
    consent_id: ConsentId
    contract_id: SpaceId = Field(
        description="Embedding space of the template described: the searched one, if the face has a template in it."
    )
    contracts: list[SpaceId] = Field(description="Embedding spaces it has templates in; two during a migration.")
    quality: QualityOut = Field(description="Measured when the photo was enrolled.")
    score: Cosine = Field(examples=[0.9998])
    source_sha256: Digest = Field(description="Digest of the photo it came from; the photo itself is not kept.")
    created_at: RecordedAt
