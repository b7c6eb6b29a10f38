"""New templates and crops to store."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from vultus.domain.faces import FloatArray, Quality
from vultus.utils.ids import new_id


@dataclass(frozen=True, slots=True)
class SealedCrop:
    """An encrypted crop.

    Attributes:
        person_id: Whose key sealed it.
        sealed: Ciphertext.
        key_id: Id of the key of all crops, if version 0.1 sealed it and no start has done so anew.
    """

    person_id: UUID
    sealed: bytes
    key_id: str | None = field(default=None, kw_only=True)


@dataclass(frozen=True, slots=True)
class NewCrop(SealedCrop):
    """A crop of a face to store.

    Attributes:
        consent_expires_at: Expiry, equal to the consent's; None for no end.
    """

    collection_id: UUID
    face_id: UUID
    consent_id: UUID
    consent_expires_at: datetime | None


@dataclass(frozen=True, slots=True, eq=False)
class NewFace:
    """A template to enrol.

    Attributes:
        consent_expires_at: Expiry, equal to the consent's; None for no end.
        vector: (d,) float32 of length 1; stored as float16.
        source_sha256: Digest of the photo's bytes, hexadecimal.
        code: Code of the vector, for an index; None leaves it to be computed later.
        id: Id of the face, shared by its templates in two embedding spaces.
        created_at: When it was enrolled, in another installation; None for now.
    """

    collection_id: UUID
    person_id: UUID
    consent_id: UUID
    consent_expires_at: datetime | None
    space_id: str
    vector: FloatArray
    quality: Quality
    score: float
    source_sha256: str
    code: bytes | None = None
    id: UUID = field(default_factory=new_id)
    created_at: datetime | None = None
