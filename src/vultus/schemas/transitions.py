"""A collection on its way to another network, on the wire."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Self
from uuid import UUID

from pydantic import Field

from vultus.domain import Verdict
from vultus.schemas.base import Cosine, Measure, Name, Number, Wire
from vultus.schemas.galleries import CollectionOut
from vultus.services.migration.backfill import Supplied
from vultus.services.migration.comparison import ComparisonReport
from vultus.services.migration.migration import Finished, Switched, TransitionState


class TransitionIn(Wire):
    """Where a collection shall go."""

    pack: Name = Field(description="A loaded pack.", examples=["yunet+sface"])
    shadow_share: Number = Field(
        0.0, ge=0, le=1, description="Share of recognitions that both networks answer, to be compared."
    )


class SideOut(Wire):
    """How complete a contract is; faces and persons whose consent has ended are not counted."""

    contract_id: str
    faces: int = Field(description="Faces with a template of it.")
    missing: int = Field(description="Faces without one.")
    pending: int = Field(description="Of the missing, those not yet tried.")
    failed: dict[str, int] = Field(description="Of the missing by reason: no_crop, no_face, wrong_key, damaged, error.")
    persons_missing: int = Field(description="Persons with faces, but none that a search of this contract finds.")


class TransitionOut(Wire):
    """How far a collection is on its way to another network."""

    collection_id: UUID
    target_contract_id: str = Field(description="Where it goes, whichever contract is searched now.")
    begun_at: datetime
    switched_at: datetime | None = Field(description="When the searched contract changed last.")
    shadow_share: Measure
    active: SideOut = Field(description="The contract that is searched.")
    second: SideOut = Field(description="The other one, that enrolment writes too.")
    crops: int = Field(description="Faces with a retained crop.")

    @classmethod
    def of(cls, state: TransitionState) -> Self:
        """Translate the service's value."""
        return cls(
            collection_id=state.collection.id,
            target_contract_id=state.transition.contract_id,
            begun_at=state.transition.begun_at,
            switched_at=state.transition.switched_at,
            shadow_share=state.transition.shadow_share,
            active=SideOut.like(state.active),
            second=SideOut.like(state.second),
            crops=state.crops,
        )


class SwitchedOut(Wire):
    """What the switch changed."""

    previous_contract_id: str
    collection: CollectionOut = Field(description="As it is now: the other contract, and the policy in its cosines.")
    persons_left_behind: int = Field(description="Persons with faces, but none that is found now.")
    took_ms: Measure = Field(description="From the request to the commit, the wait for other writers included.")

    @classmethod
    def of(cls, done: Switched) -> Self:
        """Translate the service's value."""
        return cls(
            previous_contract_id=done.before.contract_id,
            collection=CollectionOut.of(done.collection),
            persons_left_behind=done.left_behind,
            took_ms=done.took_ms,
        )


class FinishedOut(Wire):
    """What the end of a transition removed."""

    collection: CollectionOut
    removed_contract_id: str
    templates: int = Field(description="Templates removed.")
    faces_lost: int = Field(description="Faces that had no other template, gone with their crops.")
    persons_left_behind: int = Field(description="Persons who lost their last face; they stay as persons.")

    @classmethod
    def of(cls, done: Finished) -> Self:
        """Translate the service's value."""
        return cls(
            collection=CollectionOut.of(done.collection),
            removed_contract_id=done.removed_contract_id,
            templates=done.templates,
            faces_lost=done.faces_lost,
            persons_left_behind=done.left_behind,
        )


class LeftBehindOut(Wire):
    """A person no search finds under the contract."""

    person_id: UUID
    external_id: str | None
    name: str | None
    faces: int = Field(description="Faces they have under another contract.")
    reasons: list[str] = Field(description="Why these were not carried over; empty for those not yet tried.")


class SuppliedOut(Wire):
    """What became of a photo."""

    photo: int = Field(description="Which of the photos, from 0.")
    filename: str | None
    outcome: str = Field(
        description="carried, already_carried, unknown (no face came from these bytes), no_face, or a photo's error."
    )
    faces: list[UUID] = Field(description="Faces that came from these bytes.")


class SuppliesOut(Wire):
    """What became of every photo."""

    photos: list[SuppliedOut]

    @classmethod
    def of(cls, supplied: tuple[Supplied, ...]) -> Self:
        """Translate the service's values."""
        return cls(
            photos=[
                SuppliedOut(photo=one.photo, filename=one.filename, outcome=one.outcome, faces=list(one.faces))
                for one in supplied
            ]
        )


class OpinionOut(Wire):
    """What a contract says about a face."""

    verdict: Verdict
    person_id: UUID | None = Field(description="The closest person.")
    similarity: Cosine | None
    threshold: Cosine
    right: bool = Field(description="It named the face's own person or, if they have no other face, nobody.")


class DisagreementOut(Wire):
    """A face about which the contracts disagree."""

    face_id: UUID
    person_id: UUID
    kind: str = Field(description="other_person, or the two verdicts, the active contract's first.")
    active: OpinionOut
    second: OpinionOut


class ShadowDisagreementOut(Wire):
    """A recognition the contracts answered differently; ids and scores by contract, null where no face was seen."""

    at: datetime
    kind: str
    answers: dict[str, dict[str, Any] | None]


class ShadowOut(Wire):
    """Faces of recognitions answered by both contracts."""

    share: Measure
    compared: int
    agreed: int
    disagreements: list[ShadowDisagreementOut] = Field(description="The latest hundred, newest first.")


class ContractComparisonOut(Wire):
    """Enrolled faces, each searched for among all others under both contracts."""

    active_contract_id: str
    second_contract_id: str
    compared: int
    agreed: int
    kinds: dict[str, int] = Field(description="Disagreements by kind.")
    active_wrong: int = Field(description="Faces about which the searched contract is wrong.")
    second_wrong: int = Field(description="Faces about which the other contract is wrong.")
    disagreements: list[DisagreementOut]
    shadow: ShadowOut

    @classmethod
    def of(cls, report: ComparisonReport) -> Self:
        """Translate the service's value."""
        return cls.like(report)
