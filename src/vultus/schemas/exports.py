"""What is held about a person, as they get it."""

from __future__ import annotations

from typing import Self

from pydantic import Field

from vultus.schemas.base import ApiModel, FaceId, SpaceId
from vultus.schemas.decisions import DecisionRecordOut
from vultus.schemas.events import EventOut
from vultus.schemas.faces import FaceOut
from vultus.schemas.galleries import ConsentOut, PersonOut
from vultus.schemas.system import AuditOut
from vultus.schemas.webhooks import WebhookId
from vultus.services.people.export import PersonExport


class TemplateOut(ApiModel):
    """A vector by which the person is found."""

    face_id: FaceId
    contract_id: SpaceId
    vector: list[float] = Field(description="Unit length.", examples=[[-0.0613, 0.0542, 0.0471]])


class ExportedFaceOut(FaceOut):
    """An enrolled face, and whether an encrypted crop of it is kept."""

    crop_kept: bool = Field(examples=[False])


class ReceiverOut(ApiModel):
    """A webhook that was sent something about a person."""

    id: WebhookId
    name: str = Field(examples=["door"])


class PersonExportOut(ApiModel):
    """Everything that is held about a person; no photo is."""

    collection: str = Field(examples=["default"])
    person: PersonOut
    consents: list[ConsentOut]
    faces: list[ExportedFaceOut]
    templates: list[TemplateOut] = Field(description="Empty unless the vectors were asked for.")
    audit: list[AuditOut] = Field(description="What was recorded about the person, oldest first.")
    decisions: list[DecisionRecordOut] = Field(
        description="Decision records that name the person, where the collection has them, oldest first."
    )
    sightings: list[EventOut] = Field(description="Where and when live video saw the person, as far as it is kept.")
    receivers: list[ReceiverOut] = Field(description="Webhooks that were sent something about the person.")

    @classmethod
    def from_domain(cls, export: PersonExport) -> Self:
        """Build the response from a service result."""
        return cls(
            collection=export.collection.name,
            person=PersonOut.from_attributes(export.person),
            consents=[ConsentOut.from_attributes(consent) for consent in export.consents],
            faces=[
                ExportedFaceOut(**FaceOut.from_attributes(face).model_dump(), crop_kept=face.id in export.crops)
                for face in export.faces
            ],
            templates=[
                TemplateOut(face_id=one.face_id, contract_id=one.space_id, vector=one.vector.tolist())
                for one in export.templates
            ],
            audit=[AuditOut.from_attributes(entry) for entry in export.audit],
            decisions=[DecisionRecordOut.from_domain(record) for record in export.decisions],
            sightings=[EventOut.from_domain(entry) for entry in export.sightings],
            receivers=[ReceiverOut(id=webhook_id, name=name) for webhook_id, name in export.receivers],
        )
