"""The records of a bundle, as docs/bundle.md describes them, and what they must be."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, Literal
from uuid import UUID

import msgspec
import numpy as np

from vultus.domain.metadata import require_metadata
from vultus.domain.texts import MAX_PURPOSE_LENGTH, require_moment, require_optional_text, require_text
from vultus.errors import InvalidInputError

if TYPE_CHECKING:
    from vultus.domain import FloatArray

KIND = "bundle"
"""Of the signed document."""

FORMAT_VERSION = 1
HEADER, PEOPLE, VECTORS, COUNTS = "bundle.json", "people.", "vectors.", "counts.json"
PERSONS_PER_PART = 256

LENGTH_TOLERANCE = 0.01
"""By which the length of a vector may differ from 1, for float16 rounds it."""

Digest = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
Measure = Annotated[float, msgspec.Meta(ge=-1e9, le=1e9)]
"""Columns of type `real` hold it."""

CLOCK_TOLERANCE = timedelta(minutes=5)
"""By which the clocks of two installations may differ."""


class BundledCollection(msgspec.Struct, frozen=True, kw_only=True):
    """The collection, without its persons."""

    id: UUID
    name: str
    policy: dict[str, Any]
    calibration: dict[str, Any] | None
    retention_days: Annotated[int, msgspec.Meta(ge=1, le=36_500)] | None
    search: Literal["auto", "exact"]
    unseen_days: Annotated[int, msgspec.Meta(ge=1, le=36_500)] | None = None


class BundledSpace(msgspec.Struct, frozen=True, kw_only=True):
    """The embedding space of its templates."""

    id: str
    network: str
    weights_sha256: str
    preprocessing: str
    dimension: Annotated[int, msgspec.Meta(ge=1, le=16_000)]


class BundleHeader(msgspec.Struct, frozen=True, kw_only=True):
    """What a bundle is: its first member."""

    format: Literal["vultus-bundle"]
    version: int
    made_at: datetime
    made_by: str
    collection: BundledCollection
    space: BundledSpace


class BundledConsent(msgspec.Struct, frozen=True, kw_only=True):
    """A consent that had neither ended nor been withdrawn; its end is its own, whenever the person was seen."""

    id: UUID
    purpose: str
    recorded_by: str
    evidence_ref: str | None
    granted_at: datetime
    expires_at: datetime | None
    seen_at: datetime | None = None

    def __post_init__(self) -> None:
        """Apply the rule for texts and moments."""
        purpose = require_text("A consent's purpose", self.purpose, max_length=MAX_PURPOSE_LENGTH, line_breaks=True)
        recorded_by = require_text("A consent's recorded_by", self.recorded_by)
        evidence = require_optional_text("A consent's evidence_ref", self.evidence_ref)
        _require_same((purpose, recorded_by, evidence), (self.purpose, self.recorded_by, self.evidence_ref))
        _require_past("A consent's granted_at", self.granted_at)
        require_moment("A consent's expires_at", self.expires_at)
        _require_past("A consent's seen_at", self.seen_at)


class BundledFace(msgspec.Struct, frozen=True, kw_only=True):
    """A face; its vector is a row of the member beside."""

    id: UUID
    consent_id: UUID
    created_at: datetime
    score: Measure
    size_px: Measure
    sharpness: Measure
    brightness: Measure
    yaw_deg: Measure
    pitch_deg: Measure
    roll_deg: Measure
    source_sha256: Digest

    def __post_init__(self) -> None:
        """Apply the rule for moments."""
        require_moment("A face's created_at", self.created_at)


class BundledPerson(msgspec.Struct, frozen=True, kw_only=True):
    """A person with consents and faces; every face rests on one of the consents."""

    id: UUID
    external_id: str | None
    name: str | None
    metadata: dict[str, Any]
    created_at: datetime
    consents: list[BundledConsent]
    faces: list[BundledFace]

    def __post_init__(self) -> None:
        """Apply the rule for texts, and check what the faces rest on."""
        external_id = require_optional_text("A person's external_id", self.external_id)
        name = require_optional_text("A person's name", self.name)
        metadata = require_metadata(self.metadata)
        _require_same((external_id, name, metadata), (self.external_id, self.name, self.metadata))
        require_moment("A person's created_at", self.created_at)
        if not {face.consent_id for face in self.faces} <= {consent.id for consent in self.consents}:
            raise ValueError("a face rests on no consent of its person")
        if len({face.source_sha256 for face in self.faces}) < len(self.faces):
            raise ValueError("a person has two faces of one source")


class BundleCounts(msgspec.Struct, frozen=True, kw_only=True):
    """How much a bundle holds: its last member."""

    persons: int
    consents: int
    faces: int


def _require_past(label: str, moment: datetime | None) -> None:
    require_moment(label, moment)
    if moment is not None and moment > datetime.now(UTC) + CLOCK_TOLERANCE:
        raise ValueError(f"{label} lies in the future")


def _require_same(kept: object, given: object) -> None:
    if kept != given:
        raise ValueError("a text is not as texts are kept: in Unicode's form NFC, without blanks at its ends")


def parse_header(content: bytes, name: str) -> BundleHeader:
    """Return the header of a bundle.

    Raises:
        InvalidInputError: It is none, or of a version that is not read.
    """
    try:
        header = msgspec.json.decode(content, type=BundleHeader)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise InvalidInputError(f"{name} is no bundle of a collection: {error}.") from None
    if header.version != FORMAT_VERSION:
        raise InvalidInputError(
            f"{name} is a bundle of format {header.version}; this version of Vultus reads {FORMAT_VERSION}."
        )
    return header


def parse_people(content: bytes, vectors: bytes, dimension: int, name: str) -> tuple[list[BundledPerson], FloatArray]:
    """Return the persons of a part, and (n, d) float32 the vectors of their faces in the same order.

    Raises:
        InvalidInputError: They are none; the detail says why, without what is in them.
    """
    try:
        people = msgspec.json.Decoder(BundledPerson).decode_lines(content)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise InvalidInputError(f"{name}: a person in it is none: {error}.") from None
    faces = sum(len(person.faces) for person in people)
    if len(vectors) != faces * dimension * 2:
        raise InvalidInputError(f"{name}: {faces} faces of {dimension} numbers have {len(vectors)} bytes of vectors.")
    found = np.frombuffer(vectors, "<f2").reshape(faces, dimension).astype(np.float32)
    lengths = np.linalg.norm(found, axis=1)
    if not np.all(np.abs(lengths - 1) <= LENGTH_TOLERANCE):  # so written that NaN fails
        raise InvalidInputError(f"{name}: a vector in it has not the length 1.")
    return people, found
