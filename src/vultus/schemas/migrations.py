"""Model migration of a collection: requests and responses."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Self

from pydantic import Field

from vultus.domain import UnmigratedPerson, Verdict
from vultus.schemas.base import (
    NEW_SPACE_ID,
    SPACE_ID,
    ApiModel,
    CollectionId,
    Cosine,
    FaceId,
    Measure,
    Name,
    NewSpaceId,
    Number,
    PersonId,
    RecordedAt,
    SpaceId,
)
from vultus.schemas.galleries import CollectionOut
from vultus.services.migration.backfill import ResubmissionOutcome
from vultus.services.migration.comparison import ComparisonReport
from vultus.services.migration.migration import CutoverResult, FinishedMigration, MigrationState


class TransitionIn(ApiModel):
    """Target of a migration."""

    pack: Name = Field(description="A loaded pack.", examples=["yunet+sface"])
    shadow_share: Number = Field(
        0.0, ge=0, le=1, description="Share of recognitions that both networks answer, to be compared."
    )


class SideOut(ApiModel):
    """Coverage of an embedding space; faces and persons whose consent has ended are not counted."""

    contract_id: SpaceId
    faces: int = Field(description="Faces with a template in it.", examples=[500])
    missing: int = Field(description="Faces without one.", examples=[0])
    pending: int = Field(description="Of the missing, those not yet tried.", examples=[0])
    failed: dict[str, int] = Field(
        description="Of the missing by reason: no_crop, no_face, wrong_key, damaged, error.", examples=[{}]
    )
    persons_missing: int = Field(
        description="Persons with faces, but none that a search of this space finds.", examples=[0]
    )


class TransitionOut(ApiModel):
    """Progress of a collection's migration."""

    collection_id: CollectionId
    target_contract_id: NewSpaceId = Field(description="Target embedding space, whichever is searched now.")
    begun_at: RecordedAt
    switched_at: datetime | None = Field(description="When the searched space changed last.")
    shadow_share: Measure = Field(examples=[0.05])
    active: SideOut = Field(description="The embedding space that is searched.")
    second: SideOut = Field(
        description="The other one, which enrolment writes too.",
        examples=[
            SideOut.build_example(
                contract_id=NEW_SPACE_ID, faces=497, missing=3, failed={"no_crop": 2, "no_face": 1}, persons_missing=1
            )
        ],
    )
    crops: int = Field(description="Faces with a retained crop.", examples=[498])

    @classmethod
    def from_domain(cls, state: MigrationState) -> Self:
        """Build the response from a service result."""
        return cls(
            collection_id=state.collection.id,
            target_contract_id=state.migration.target_space_id,
            begun_at=state.migration.begun_at,
            switched_at=state.migration.switched_at,
            shadow_share=state.migration.shadow_share,
            active=SideOut.from_attributes(state.active),
            second=SideOut.from_attributes(state.second),
            crops=state.crops,
        )


_MIGRATED = CollectionOut.build_example(contract_id=NEW_SPACE_ID, persons=None, faces=None)


class SwitchedOut(ApiModel):
    """What the switch changed."""

    previous_contract_id: SpaceId
    collection: CollectionOut = Field(
        description="As it is now: the other space, and the policy in its cosines.",
        examples=[_MIGRATED | {"second_contract_id": SPACE_ID}],
    )
    persons_left_behind: int = Field(description="Persons with faces, but none that is found now.", examples=[0])
    took_ms: Measure = Field(
        description="From the request to its last write, the wait for other writers included.", examples=[41.7]
    )

    @classmethod
    def from_domain(cls, done: CutoverResult) -> Self:
        """Build the response from a service result."""
        return cls(
            previous_contract_id=done.before.space_id,
            collection=CollectionOut.from_domain(done.collection),
            persons_left_behind=done.unmigrated_persons,
            took_ms=done.took_ms,
        )


class FinishedOut(ApiModel):
    """What the end of a migration removed."""

    collection: CollectionOut = Field(examples=[_MIGRATED])
    removed_contract_id: SpaceId
    templates: int = Field(description="Templates removed.", examples=[500])
    faces_lost: int = Field(description="Faces that had no other template, deleted with their crops.", examples=[0])
    persons_left_behind: int = Field(
        description="Persons who lost their last face; they stay as persons.", examples=[0]
    )

    @classmethod
    def from_domain(cls, done: FinishedMigration) -> Self:
        """Build the response from a service result."""
        return cls(
            collection=CollectionOut.from_domain(done.collection),
            removed_contract_id=done.removed_space_id,
            templates=done.templates,
            faces_lost=done.faces_lost,
            persons_left_behind=done.unmigrated_persons,
        )


class LeftBehindOut(ApiModel):
    """An unmigrated person: no search of the target space finds them."""

    person_id: PersonId
    external_id: str | None = Field(examples=["E-1017"])
    name: str | None = Field(examples=["Ada"])
    faces: int = Field(description="Faces they have in another space.", examples=[1])
    reasons: list[str] = Field(
        description="Why these could not be backfilled; empty for those not yet tried.", examples=[["no_crop"]]
    )

    @classmethod
    def from_domain(cls, person: UnmigratedPerson) -> Self:
        """Build the response from a domain value."""
        return cls(
            person_id=person.id,
            external_id=person.external_id,
            name=person.name,
            faces=person.faces,
            reasons=list(person.reasons),
        )


class SuppliedOut(ApiModel):
    """Outcome of a resubmitted photo."""

    photo: int = Field(description="Which of the photos, from 0.", examples=[0])
    filename: str | None = Field(examples=["ada-1.jpg"])
    outcome: str = Field(
        description="carried, already_carried, unknown (no face came from these bytes), no_face, or a photo's error.",
        examples=["carried"],
    )
    faces: list[FaceId] = Field(description="Faces that came from these bytes.")


class SuppliesOut(ApiModel):
    """Outcome of every resubmitted photo."""

    photos: list[SuppliedOut]

    @classmethod
    def from_domain(cls, supplied: tuple[ResubmissionOutcome, ...]) -> Self:
        """Build the response from service results."""
        return cls(
            photos=[
                SuppliedOut(photo=photo.photo, filename=photo.filename, outcome=photo.outcome, faces=list(photo.faces))
                for photo in supplied
            ]
        )


class OpinionOut(ApiModel):
    """Result of one embedding space for a face."""

    verdict: Verdict = Field(examples=["match"])
    person_id: PersonId | None = Field(description="The closest person.")
    similarity: Cosine | None = Field(examples=[0.9731])
    threshold: Cosine = Field(examples=[0.9435])
    right: bool = Field(
        description="It named the face's own person or, if they have no other face, nobody.", examples=[True]
    )


class DisagreementOut(ApiModel):
    """A face about which the embedding spaces disagree."""

    face_id: FaceId
    person_id: PersonId
    kind: str = Field(
        description="other_person, or the two verdicts, the active space's first.", examples=["match_no_match"]
    )
    active: OpinionOut
    second: OpinionOut = Field(
        examples=[OpinionOut.build_example(verdict="no_match", similarity=0.3312, threshold=0.3627, right=False)]
    )


class ShadowDisagreementOut(ApiModel):
    """A recognition with different results; ids and scores by embedding space, null where no face was found."""

    at: RecordedAt
    kind: str = Field(examples=["match_no_face"])
    answers: dict[str, dict[str, Any] | None] = Field(
        examples=[{SPACE_ID: {"verdict": "match", "similarity": 0.9601}, NEW_SPACE_ID: None}]
    )


class ShadowOut(ApiModel):
    """Faces of recognitions answered in both embedding spaces."""

    share: Measure = Field(examples=[0.05])
    compared: int = Field(examples=[812])
    agreed: int = Field(examples=[811])
    disagreements: list[ShadowDisagreementOut] = Field(description="The latest hundred, newest first.")


class ContractComparisonOut(ApiModel):
    """Enrolled faces, each searched for among all others in both embedding spaces."""

    active_contract_id: SpaceId
    second_contract_id: NewSpaceId
    compared: int = Field(examples=[200])
    agreed: int = Field(examples=[199])
    kinds: dict[str, int] = Field(description="Disagreements by kind.", examples=[{"match_no_match": 1}])
    active_wrong: int = Field(description="Faces about which the searched space is wrong.", examples=[0])
    second_wrong: int = Field(description="Faces about which the other space is wrong.", examples=[1])
    disagreements: list[DisagreementOut]
    shadow: ShadowOut

    @classmethod
    def from_domain(cls, report: ComparisonReport) -> Self:
        """Build the response from a service result."""
        return cls.from_attributes(report)
