"""Responses about photos: register, recognize, detect, compare, verify, embeddings, search."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Self
from uuid import UUID

import numpy as np
from pydantic import Field

from vultus import domain
from vultus.schemas.base import (
    SPACE_ID,
    ApiModel,
    CollectionId,
    Cosine,
    Digest,
    Measure,
    Name,
    Number,
    Probability,
    SpaceId,
    WholeNumber,
)
from vultus.schemas.faces import (
    CandidateOut,
    DecisionOut,
    DetectedFaceOut,
    FaceOut,
    LivenessOut,
    MatchedPersonOut,
    NamedDecisionOut,
    build_face_fields,
)
from vultus.schemas.galleries import ConsentOut, PersonOut
from vultus.schemas.reasons import RejectionReason
from vultus.services.enrolment.photo_screening import AcceptedFace, RejectedPhoto
from vultus.services.enrolment.registration import RegistrationResult
from vultus.services.recognition.verdicts import Recognition, RecognizedFace, VectorSearch
from vultus.services.recognition.verification import PhotoComparison, Verification

MAX_CANDIDATES = 50


class PhotoOut(ApiModel):
    """Size of the upright photo, after its EXIF orientation was applied, and digest of its bytes."""

    width: int = Field(examples=[512])
    height: int = Field(examples=[512])
    sha256: Digest = Field(description="Digest of the bytes sent.")
    faces_left_out: int = Field(
        description="Smaller faces beyond the server's limit of faces in a photo; nothing is said about them.",
        examples=[0],
    )
    smallest_face_px: Measure = Field(
        description="Width of the smallest face that was looked for, pixels of the original photo: a smaller one may "
        "be there. It grows with the photo.",
        examples=[24],
    )


class DetectionOut(ApiModel):
    """Every face of a photo, left to right."""

    photo: PhotoOut
    faces: list[DetectedFaceOut]

    @classmethod
    def from_domain(cls, analysis: domain.Analysis) -> Self:
        """Build the response from a domain value."""
        return cls(
            photo=PhotoOut.from_attributes(analysis), faces=[DetectedFaceOut.from_face(face) for face in analysis.faces]
        )


class RecognizedFaceOut(DetectedFaceOut, NamedDecisionOut):
    """A face with its verdict, and the person it names."""

    candidates: list[CandidateOut] | None = Field(
        None,
        description="The closest persons, best first, one entry per person, whatever the verdict; null unless `limit` "
        "asks for them, which needs the permission `scores`.",
    )

    @classmethod
    def from_domain(cls, recognized_face: RecognizedFace) -> Self:
        """Build the response from a service result."""
        return cls(
            **build_face_fields(recognized_face.described),
            **DecisionOut.from_decision(recognized_face.decision).model_dump(),
            person=MatchedPersonOut.from_candidate(recognized_face.person),
            candidates=None
            if recognized_face.candidates is None
            else [CandidateOut.from_attributes(candidate) for candidate in recognized_face.candidates],
        )


class RecognitionOut(ApiModel):
    """Every face of a photo, left to right; no face is an empty list."""

    collection_id: CollectionId
    contract_id: SpaceId
    photo: PhotoOut
    faces: list[RecognizedFaceOut]

    @classmethod
    def from_domain(cls, recognition: Recognition) -> Self:
        """Build the response from a service result."""
        return cls(
            collection_id=recognition.collection.id,
            contract_id=recognition.collection.space_id,
            photo=PhotoOut.from_attributes(recognition.analysis),
            faces=[RecognizedFaceOut.from_domain(face) for face in recognition.faces],
        )


class AcceptedOut(ApiModel):
    """A photo that was enrolled."""

    photo: int = Field(description="Which of the photos, from 0.", examples=[0])
    filename: str | None = Field(examples=["ada-1.jpg"])
    face: FaceOut
    liveness: LivenessOut | None = Field(None, description="Null unless liveness was requested.")


class RejectedOut(ApiModel):
    """A photo that was not enrolled, and why."""

    photo: int = Field(description="Which of the photos, from 0.", examples=[1])
    filename: str | None = Field(examples=["ada-2.jpg"])
    reasons: list[RejectionReason] = Field(description="Stable reason codes.", examples=[["too_blurred"]])
    detail: str = Field(examples=["the face's sharpness is 11; 30 is needed"])
    person_id: UUID | None = Field(None, description="Who has this face already.")
    similarity: Cosine | None = None
    threshold: Cosine | None = None
    faces: int | None = Field(None, description="How many faces were found, when several.")
    format: str | None = Field(None, description="What the file is, when its format is not read.")

    @classmethod
    def from_domain(cls, rejected: RejectedPhoto) -> Self:
        """Build the response from a service result."""
        return cls(
            photo=rejected.photo,
            filename=rejected.filename,
            reasons=list(rejected.reasons),
            detail=rejected.detail,
            **{name: fact for name, fact in rejected.facts.items() if name in cls.model_fields},
        )


class ScreenedOut(ApiModel):
    """A photo that could be enrolled."""

    photo: int = Field(description="Which of the photos, from 0.", examples=[0])
    filename: str | None = Field(examples=["ada-1.jpg"])
    face: DetectedFaceOut


class ScreeningOut(ApiModel):
    """Which photos could be enrolled, and why the others could not."""

    accepted: list[ScreenedOut]
    rejected: list[RejectedOut]

    @classmethod
    def from_domain(cls, accepted: Sequence[AcceptedFace], rejected: Sequence[RejectedPhoto]) -> Self:
        """Build the response from what the screening found."""
        return cls(
            accepted=[
                ScreenedOut(photo=face.photo, filename=face.filename, face=DetectedFaceOut.from_face(face.face))
                for face in accepted
            ],
            rejected=[RejectedOut.from_domain(photo) for photo in rejected],
        )


class RegistrationOut(ApiModel):
    """The outcome of a registration."""

    collection_id: CollectionId
    person: PersonOut
    created: bool = Field(description="Whether the person is new.", examples=[True])
    consent: ConsentOut
    accepted: list[AcceptedOut]
    rejected: list[RejectedOut]

    @classmethod
    def from_domain(cls, done: RegistrationResult) -> Self:
        """Build the response from a service result."""
        return cls(
            collection_id=done.collection.id,
            person=PersonOut.from_attributes(done.person),
            created=done.created,
            consent=ConsentOut.from_attributes(done.consent),
            accepted=[
                AcceptedOut(
                    photo=face.photo,
                    filename=face.filename,
                    face=FaceOut.from_attributes(face.face),
                    liveness=LivenessOut.from_attributes(face.liveness) if face.liveness else None,
                )
                for face in done.accepted
            ],
            rejected=[RejectedOut.from_domain(photo) for photo in done.rejected],
        )


class ComparisonOut(DecisionOut):
    """Whether two photos show the same person."""

    similarity: Cosine | None = Field(
        description="Null where liveness is required and a face is not live, and without the permission `scores`.",
        examples=[0.9731],
    )
    probability: Probability = Field(examples=[0.9999])
    first: DetectedFaceOut
    second: DetectedFaceOut

    @classmethod
    def from_domain(cls, comparison: PhotoComparison) -> Self:
        """Build the response from a service result."""
        return cls(
            **DecisionOut.from_decision(comparison.decision).model_dump(),
            similarity=comparison.similarity,
            probability=comparison.probability,
            first=DetectedFaceOut.from_face(comparison.first),
            second=DetectedFaceOut.from_face(comparison.second),
        )


class VerificationOut(NamedDecisionOut):
    """Whether a photo shows an enrolled person."""

    similarity: Cosine | None = Field(
        description="Of the person's closest face; null when they have none, and without the permission `scores`.",
        examples=[0.9731],
    )
    probability: Probability = Field(examples=[0.9999])
    face: DetectedFaceOut

    @classmethod
    def from_domain(cls, verification: Verification) -> Self:
        """Build the response from a service result."""
        return cls(
            **DecisionOut.from_decision(verification.decision).model_dump(),
            person=MatchedPersonOut.from_attributes(verification.person)
            if verification.decision.verdict is domain.Verdict.MATCH
            else None,
            similarity=verification.similarity,
            probability=verification.probability,
            face=DetectedFaceOut.from_face(verification.face),
        )


class EmbeddedFaceOut(DetectedFaceOut):
    """A face with its vector."""

    vector: list[float] = Field(description="Unit length, float32.", examples=[[-0.0613, 0.0542, 0.0471]])

    @classmethod
    def from_face(cls, face: domain.DescribedFace) -> Self:
        """Build the response from a domain value."""
        return cls(**build_face_fields(face), vector=face.vector.tolist())


class EmbeddingsOut(ApiModel):
    """The vectors of a photo's faces, left to right; nothing is stored."""

    contract_id: SpaceId = Field(description="Embedding space; vectors of two spaces must not be compared.")
    dimension: int = Field(examples=[128])
    photo: PhotoOut
    faces: list[EmbeddedFaceOut]

    @classmethod
    def from_domain(cls, analysis: domain.Analysis, space: domain.EmbeddingSpace) -> Self:
        """Build the response from domain values."""
        return cls(
            contract_id=space.id,
            dimension=space.dimension,
            photo=PhotoOut.from_attributes(analysis),
            faces=[EmbeddedFaceOut.from_face(face) for face in analysis.faces],
        )


Vector = Annotated[list[Number], Field(min_length=1, max_length=4096)]


class SearchIn(ApiModel):
    """A vector made earlier by `/v1/embeddings`."""

    collection: Name = "default"
    contract_id: Name = Field(description="From the response that held the vector.", examples=[SPACE_ID])
    vector: Vector = Field(examples=[[0.088388] * 128])
    limit: WholeNumber = Field(
        5, ge=0, le=MAX_CANDIDATES, description="Candidates; more than 0 needs the permission `scores`."
    )

    def to_probe(self) -> domain.FloatArray:
        """Return the vector as an array; numbers beyond float32 become infinite, which the service refuses."""
        with np.errstate(over="ignore"):
            return np.asarray(self.vector, dtype=np.float64).astype(np.float32)


class SearchOut(NamedDecisionOut):
    """The closest persons to a vector."""

    collection_id: CollectionId
    candidates: list[CandidateOut] | None = Field(
        None, description="The closest persons, best first; null if `limit` is 0, which it is without `scores`."
    )

    @classmethod
    def from_domain(cls, search: VectorSearch) -> Self:
        """Build the response from a service result."""
        return cls(
            **DecisionOut.from_decision(search.decision).model_dump(),
            person=MatchedPersonOut.from_candidate(search.person),
            collection_id=search.collection.id,
            candidates=None
            if search.candidates is None
            else [CandidateOut.from_attributes(candidate) for candidate in search.candidates],
        )
