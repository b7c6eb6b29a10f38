"""Answers about photos: register, recognize, detect, compare, verify, embeddings, search."""

from __future__ import annotations

from typing import Annotated, Self
from uuid import UUID

import numpy as np
from pydantic import Field

from vultus import domain
from vultus.schemas.base import Cosine, Name, Number, Probability, Whole, Wire
from vultus.schemas.faces import CandidateOut, DecisionOut, DetectedFaceOut, FaceOut, LivenessOut, face_fields
from vultus.schemas.galleries import ConsentOut, PersonOut
from vultus.services.enrolment.photo_screening import RejectedPhoto
from vultus.services.enrolment.registration import Registered
from vultus.services.recognition.verdicts import NamedFace, Recognition
from vultus.services.recognition.verification import Comparison, Verification

MAX_CANDIDATES = 50


class PhotoOut(Wire):
    """The photo as it was understood: pixels after EXIF turned it upright."""

    width: int
    height: int
    sha256: str = Field(description="Digest of the bytes sent.")


class DetectionOut(Wire):
    """Every face of a photo, left to right."""

    photo: PhotoOut
    faces: list[DetectedFaceOut]

    @classmethod
    def of(cls, analysis: domain.Analysis) -> Self:
        """Translate a domain value."""
        return cls(photo=PhotoOut.like(analysis), faces=[DetectedFaceOut.detected(face) for face in analysis.faces])


class RecognizedFaceOut(DetectedFaceOut, DecisionOut):
    """A face with its verdict and the closest enrolled persons."""

    candidates: list[CandidateOut] = Field(description="Best first, one entry a person, whatever the verdict.")

    @classmethod
    def named(cls, named: NamedFace) -> Self:
        """Translate the service's value."""
        return cls(
            **face_fields(named.described),
            **DecisionOut.decided(named.decision).model_dump(),
            candidates=[CandidateOut.like(candidate) for candidate in named.candidates],
        )


class RecognitionOut(Wire):
    """Every face of a photo, left to right; no face is an empty list."""

    collection_id: UUID
    contract_id: str
    photo: PhotoOut
    faces: list[RecognizedFaceOut]

    @classmethod
    def of(cls, recognition: Recognition) -> Self:
        """Translate the service's value."""
        return cls(
            collection_id=recognition.collection.id,
            contract_id=recognition.collection.contract_id,
            photo=PhotoOut.like(recognition.analysis),
            faces=[RecognizedFaceOut.named(face) for face in recognition.faces],
        )


class AcceptedOut(Wire):
    """A photo that was enrolled."""

    photo: int = Field(description="Which of the photos, from 0.")
    filename: str | None
    face: FaceOut
    liveness: LivenessOut | None = Field(None, description="Null unless liveness was asked for.")


class RejectedOut(Wire):
    """A photo that was not enrolled, and why."""

    photo: int = Field(description="Which of the photos, from 0.")
    filename: str | None
    reasons: list[str] = Field(description="Stable words.", examples=[["too_blurred"]])
    detail: str
    person_id: UUID | None = Field(None, description="Who has this face already.")
    similarity: Cosine | None = None
    threshold: Cosine | None = None
    faces: int | None = Field(None, description="How many faces were found, when several.")
    format: str | None = Field(None, description="What the file is, when its format is not read.")

    @classmethod
    def of(cls, rejected: RejectedPhoto) -> Self:
        """Translate the service's value."""
        return cls(
            photo=rejected.photo,
            filename=rejected.filename,
            reasons=list(rejected.reasons),
            detail=rejected.detail,
            **{name: fact for name, fact in rejected.facts.items() if name in cls.model_fields},
        )


class RegistrationOut(Wire):
    """The outcome of a registration."""

    collection_id: UUID
    person: PersonOut
    created: bool = Field(description="Whether the person is new.")
    consent: ConsentOut
    accepted: list[AcceptedOut]
    rejected: list[RejectedOut]

    @classmethod
    def of(cls, done: Registered) -> Self:
        """Translate the service's value."""
        return cls(
            collection_id=done.collection.id,
            person=PersonOut.like(done.person),
            created=done.created,
            consent=ConsentOut.like(done.consent),
            accepted=[
                AcceptedOut(
                    photo=face.photo,
                    filename=face.filename,
                    face=FaceOut.like(face.face),
                    liveness=LivenessOut.like(face.liveness) if face.liveness else None,
                )
                for face in done.accepted
            ],
            rejected=[RejectedOut.of(photo) for photo in done.rejected],
        )


class ComparisonOut(DecisionOut):
    """Whether two photos show the same person."""

    similarity: Cosine | None = Field(description="Null where liveness is required and a face is not live.")
    probability: Probability
    first: DetectedFaceOut
    second: DetectedFaceOut

    @classmethod
    def compared(cls, comparison: Comparison) -> Self:
        """Translate the service's value."""
        return cls(
            **DecisionOut.decided(comparison.decision).model_dump(),
            similarity=comparison.similarity,
            probability=comparison.probability,
            first=DetectedFaceOut.detected(comparison.first),
            second=DetectedFaceOut.detected(comparison.second),
        )


class VerificationOut(DecisionOut):
    """Whether a photo shows an enrolled person."""

    person_id: UUID
    similarity: Cosine | None = Field(description="Of the person's closest face; null when they have none.")
    probability: Probability
    face: DetectedFaceOut

    @classmethod
    def verified(cls, verification: Verification) -> Self:
        """Translate the service's value."""
        return cls(
            **DecisionOut.decided(verification.decision).model_dump(),
            person_id=verification.person.id,
            similarity=verification.similarity,
            probability=verification.probability,
            face=DetectedFaceOut.detected(verification.face),
        )


class EmbeddedFaceOut(DetectedFaceOut):
    """A face with its vector."""

    vector: list[float] = Field(description="Unit length, float32.")

    @classmethod
    def embedded(cls, face: domain.DescribedFace) -> Self:
        """Translate a domain value."""
        return cls(**face_fields(face), vector=face.vector.tolist())


class EmbeddingsOut(Wire):
    """The vectors of a photo's faces, left to right; nothing is stored."""

    contract_id: str = Field(description="Vectors of two contracts must not be compared.")
    dimension: int
    photo: PhotoOut
    faces: list[EmbeddedFaceOut]

    @classmethod
    def of(cls, analysis: domain.Analysis, contract: domain.Contract) -> Self:
        """Translate domain values."""
        return cls(
            contract_id=contract.id,
            dimension=contract.dimension,
            photo=PhotoOut.like(analysis),
            faces=[EmbeddedFaceOut.embedded(face) for face in analysis.faces],
        )


Vector = Annotated[list[Number], Field(min_length=1, max_length=4096)]


class SearchIn(Wire):
    """A vector made earlier by `/v1/embeddings`."""

    collection: Name = "default"
    contract_id: Name = Field(description="From the answer that held the vector.")
    vector: Vector
    limit: Whole = Field(5, ge=1, le=MAX_CANDIDATES)

    def probe(self) -> domain.FloatArray:
        """Return the vector as an array; numbers beyond float32 become infinite, which the service refuses."""
        with np.errstate(over="ignore"):
            return np.asarray(self.vector, dtype=np.float64).astype(np.float32)


class SearchOut(DecisionOut):
    """The closest persons to a vector."""

    collection_id: UUID
    candidates: list[CandidateOut]
