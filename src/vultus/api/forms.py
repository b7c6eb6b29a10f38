"""Multipart forms: photos and the fields sent with them."""

from __future__ import annotations

from typing import Annotated, Any, Self
from uuid import UUID

from fastapi import UploadFile
from pydantic import BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

from vultus.api.strict_json import load_json
from vultus.domain import LivenessMode, PersonReference
from vultus.schemas.base import TIMESTAMP, ApiModel, Metadata, Name, Purpose, Reference, Timestamp
from vultus.schemas.recognition import MAX_CANDIDATES
from vultus.services.enrolment.registration import RegistrationRequest
from vultus.services.people.consents import ConsentGrant
from vultus.services.photo_analysis import Photo

_Upload = Annotated[UploadFile, WithJsonSchema({"type": "string", "format": "binary"})]
PhotoField = Annotated[_Upload, Field(description="JPEG, PNG, WebP, HEIC or AVIF; EXIF orientation is honoured.")]
CollectionField = Annotated[Name, Field(description="Id or name.")]
LargestField = Annotated[bool, Field(description="Take the largest face where several are found.")]
LivenessField = Annotated[
    LivenessMode | None,
    Field(description="`report` adds whether a face is live, `required` also refuses one that is not."),
]


def _load_metadata(text: Any) -> Any:
    if not isinstance(text, str):
        raise ValueError("must be a text that holds a JSON object")
    return load_json(text.encode("utf-8", "surrogatepass"))


MetadataField = Annotated[Metadata, BeforeValidator(_load_metadata), WithJsonSchema({"type": "string"})]


class _BaseForm(ApiModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)


class DetectForm(_BaseForm):
    """One photo."""

    photo: PhotoField


class EmbeddingsForm(DetectForm):
    """One photo, and the collection whose network turns it into vectors."""

    collection: CollectionField = "default"


class RecognizeForm(_BaseForm):
    """One photo and where to look."""

    photo: PhotoField
    collection: CollectionField = "default"
    limit: int = Field(
        0, ge=0, le=MAX_CANDIDATES, description="Candidates per face; more than 0 needs the permission `scores`."
    )
    unique_per_image: bool = Field(False, description="Give every person to at most one face of the photo.")
    liveness: LivenessField = None


class CompareForm(_BaseForm):
    """Two photos of one face each."""

    first: PhotoField
    second: PhotoField
    collection: Annotated[Name, Field(description="Whose policy decides.")] = "default"
    largest_face: LargestField = False
    liveness: LivenessField = None


class VerifyForm(_BaseForm):
    """One photo and the person it should show."""

    photo: PhotoField
    person_id: UUID | None = Field(None, description="Who it should show, or")
    external_id: Reference | None = Field(None, description="your own id of them.")
    collection: CollectionField = "default"
    largest_face: LargestField = False
    liveness: LivenessField = None

    @model_validator(mode="after")
    def validate_person_given(self) -> Self:
        """Require one of the two ids."""
        if self.person_id is None and self.external_id is None:
            raise ValueError("give person_id or external_id: whom the photo should show")
        return self

    @property
    def person(self) -> PersonReference:
        """The person it should show."""
        return self.person_id or self.external_id or ""


class SupplyForm(_BaseForm):
    """Photos that faces were enrolled from."""

    photo: list[_Upload] = Field(min_length=1, description="The same bytes as at enrolment; repeatable.")


class ConsentForm(_BaseForm):
    """The person's agreement: a new one, or the id of a live one."""

    consent_purpose: Purpose | None = Field(
        None, description="What the person agreed to.", examples=["Entry to building A"]
    )
    consent_recorded_by: Name | None = Field(
        None, description="Who took the agreement.", examples=["reception@example.org"]
    )
    consent_granted_at: Timestamp | None = Field(None, description="When; now unless given.", examples=[TIMESTAMP])
    consent_expires_at: Timestamp | None = Field(
        None, description="Until when; left out: until withdrawn.", examples=["2029-12-31T00:00:00Z"]
    )
    consent_evidence_ref: Reference | None = Field(
        None, description="Where the proof is kept.", examples=["form-2026-0117"]
    )
    consent_id: UUID | None = Field(None, description="A live consent the person gave before.")

    @model_validator(mode="after")
    def validate_single_consent(self) -> Self:
        """Reject details of a new consent next to the id of another: they would be ignored."""
        new_consent_fields = self.model_fields_set & {name for name in ConsentForm.model_fields if name != "consent_id"}
        if self.consent_id is not None and new_consent_fields:
            raise ValueError(
                f"give either consent_id or a new consent, not also {', '.join(sorted(new_consent_fields))}"
            )
        return self

    def to_consent_grant(self) -> ConsentGrant | None:
        """Return the new consent, or None when its two required parts are missing."""
        if self.consent_purpose is None or self.consent_recorded_by is None:
            return None
        return ConsentGrant(
            purpose=self.consent_purpose,
            recorded_by=self.consent_recorded_by,
            granted_at=self.consent_granted_at,
            expires_at=self.consent_expires_at,
            evidence_ref=self.consent_evidence_ref,
        )


class EnrolForm(ConsentForm):
    """Photos of a person who is known."""

    photo: list[_Upload] = Field(min_length=1, description="JPEG, PNG, WebP, HEIC or AVIF of one person; repeatable.")
    largest_face: LargestField = False
    allow_lookalike: bool = Field(False, description="Enrol even if another person of the collection looks the same.")
    liveness: LivenessField = None


class ScreenForm(_BaseForm):
    """Photos, and the collection whose rules they must meet."""

    photo: list[_Upload] = Field(min_length=1, description="JPEG, PNG, WebP, HEIC or AVIF; repeatable.")
    collection: CollectionField = "default"
    largest_face: LargestField = False
    liveness: LivenessField = None


class RegisterForm(EnrolForm):
    """Photos of a person, who they are, and their consent."""

    collection: CollectionField = "default"
    name: Name | None = Field(None, description="For people to read.", examples=["Ada"])
    external_id: Reference | None = Field(
        None, description="Your own id; finds the person or names a new one.", examples=["E-1017"]
    )
    person_id: UUID | None = Field(None, description="Add the photos to this person.")
    metadata: MetadataField | None = Field(
        None, description="A JSON object; replaces the person's.", examples=['{"floor": 2}']
    )


def build_registration_request(
    form: EnrolForm, photos: tuple[Photo, ...], *, collection: str, person: PersonReference | None = None
) -> RegistrationRequest:
    """Return the request a form describes."""
    register_form = form if isinstance(form, RegisterForm) else None
    return RegistrationRequest(
        collection=collection,
        photos=photos,
        person=person,
        external_id=register_form.external_id if register_form else None,
        name=register_form.name if register_form else None,
        metadata=register_form.metadata if register_form else None,
        consent=form.to_consent_grant(),
        consent_id=form.consent_id,
        largest_face=form.largest_face,
        allow_lookalike=form.allow_lookalike,
        liveness=form.liveness,
    )
