"""Templates and crops on their way into the database."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from vultus.domain.faces import FloatArray, Quality
from vultus.utils.ids import new_id


@dataclass(frozen=True, slots=True)
class SealedCrop:
    """A crop as it is stored.

    Attributes:
        key_id: Which key opens it.
        sealed: Ciphertext.
    """

    key_id: str
    sealed: bytes


@dataclass(frozen=True, slots=True)
class NewCrop(SealedCrop):
    """A crop to keep beside a face.

    Attributes:
        consent_expires_at: The consent's expiry; None for never. It must be the consent's own.
    """

    collection_id: UUID
    face_id: UUID
    person_id: UUID
    consent_id: UUID
    consent_expires_at: datetime | None


@dataclass(frozen=True, slots=True, eq=False)
class NewFace:
    """A template to enrol.

    Attributes:
        consent_expires_at: The consent's expiry; None for never. It must be the consent's own.
        vector: (d,) float32 of length 1; stored as float16.
        source_sha256: Digest of the photo's bytes, hexadecimal.
        code: Of the vector, for an index; None leaves it to be made later.
        id: Of the face; its templates of two contracts share it.
    """

    collection_id: UUID
    person_id: UUID
    consent_id: UUID
    consent_expires_at: datetime | None
    contract_id: str
    vector: FloatArray
    quality: Quality
    score: float
    source_sha256: str
    code: bytes | None = None
    id: UUID = field(default_factory=new_id)
