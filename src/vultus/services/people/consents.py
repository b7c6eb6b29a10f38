"""Consents: recorded, extended, withdrawn. Withdrawal erases the faces under the consent."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from vultus.domain import Permission
from vultus.domain.events import ConsentChanged, ConsentRecorded, ConsentWithdrawn
from vultus.domain.texts import MAX_PURPOSE_LENGTH, require_moment, require_optional_text, require_text
from vultus.errors import InvalidInputError, NotFoundError
from vultus.services.people.erasure import ErasureResult, read_state, withdraw_consent

if TYPE_CHECKING:
    from uuid import UUID

    from vultus.db.database import Database, UnitOfWork
    from vultus.domain import Collection, Consent, IdempotencyContext, Person, PersonReference, Principal


@dataclass(frozen=True, slots=True)
class ConsentGrant:
    """A consent to be recorded; its texts are normalised, or refused, as it is built.

    Attributes:
        purpose: The purpose that the person agreed to.
        recorded_by: Who obtained the consent.
        granted_at: When it was given; by default now.
        expires_at: When it ends; None means on withdrawal, or when the collection's retention ends.
        evidence_ref: Reference to the proof, such as a document number.
    """

    purpose: str
    recorded_by: str
    granted_at: datetime | None = None
    expires_at: datetime | None = None
    evidence_ref: str | None = None

    def __post_init__(self) -> None:
        """Apply the rule for texts and moments.

        Raises:
            InvalidInputError: One of them cannot be kept.
        """
        purpose = require_text("The consent's purpose", self.purpose, max_length=MAX_PURPOSE_LENGTH, line_breaks=True)
        object.__setattr__(self, "purpose", purpose)
        object.__setattr__(self, "recorded_by", require_text("The consent's recorded_by", self.recorded_by))
        object.__setattr__(self, "evidence_ref", require_optional_text("The consent's evidence_ref", self.evidence_ref))
        require_moment("The consent's granted_at", self.granted_at)
        require_moment("The consent's expires_at", self.expires_at)


async def add_consent(work: UnitOfWork, collection: Collection, person_id: UUID, grant: ConsentGrant) -> Consent:
    """Record a consent; the collection's retention limits its duration.

    Raises:
        InvalidInputError: It has expired already, or was granted in the future.
    """
    return await work.consents.add_consent(
        collection.id,
        person_id,
        purpose=grant.purpose,
        recorded_by=grant.recorded_by,
        evidence_ref=grant.evidence_ref,
        **asdict(compute_consent_period(collection, grant)),
    )


@dataclass(frozen=True, slots=True)
class ConsentPeriod:
    """From when until when a consent holds, as `Consent` has it."""

    granted_at: datetime
    expires_at: datetime | None
    seen_at: datetime | None
    granted_until: datetime | None


def compute_consent_period(collection: Collection, grant: ConsentGrant) -> ConsentPeriod:
    """Return from when until when a new consent holds; whoever gives one counts as seen.

    Raises:
        InvalidInputError: It has expired already, or was granted in the future.
    """
    now = datetime.now(UTC)
    granted_at = grant.granted_at or now
    if granted_at > now + timedelta(minutes=5):  # clocks of two machines may differ
        raise InvalidInputError("The consent's granted_at lies in the future.")
    own_end = _compute_expiry(collection, grant.expires_at, granted_at, now)
    seen_at = None if collection.unseen_days is None else now
    return ConsentPeriod(granted_at, seen_at=seen_at, **_build_ends(collection, own_end, seen_at))


def _build_ends(collection: Collection, own_end: datetime | None, seen_at: datetime | None) -> dict[str, Any]:
    """Return the end of a consent, and its end but for the rule for persons who are not seen."""
    unseen_end = None if seen_at is None else collection.compute_unseen_end(seen_at)
    ends = [end for end in (own_end, unseen_end) if end is not None]
    return {"expires_at": min(ends, default=None), "granted_until": own_end}


async def get_live_consent(
    work: UnitOfWork, collection: Collection, person: Person | None, consent_id: UUID | None
) -> Consent:
    """Return a consent of the person that is neither withdrawn nor expired.

    Raises:
        NotFoundError: The person has no such live consent.
    """
    for consent in await work.consents.list_live_consents(collection.id, person.id) if person else ():
        if consent.id == consent_id:
            return consent
    raise NotFoundError("The person has no live consent with this id; record a new consent.")


def _compute_expiry(
    collection: Collection, requested: datetime | None, granted_at: datetime, now: datetime
) -> datetime | None:
    ends = [requested] if requested else []
    if collection.retention_days is not None:
        ends.append(granted_at + timedelta(days=collection.retention_days))
    expires_at = min(ends, default=None)
    if expires_at is not None and expires_at <= now:
        raise InvalidInputError(
            "The consent would have expired already: its expires_at, or its granted_at plus the collection's "
            "retention, lies in the past."
        )
    return expires_at


def _compare_consents(before: Consent, now: Consent) -> dict[str, Any]:
    """Return which values another consent has than before, for JSON."""
    old, new = before.build_proof(), now.build_proof()
    return {name: {"from": old[name], "to": new[name]} for name in sorted(new) if old[name] != new[name]}


class ConsentService:
    """Records, reads, changes and withdraws the consents of persons."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def record_consent(
        self,
        principal: Principal,
        reference: str,
        person: PersonReference,
        grant: ConsentGrant,
        *,
        idempotency: IdempotencyContext | None = None,
    ) -> Consent:
        """Record a further consent of a person."""
        async with self._database.transaction(idempotency=idempotency, writes_to=reference) as work:
            collection = await work.open(reference, principal, Permission.ENROL)
            person_id = (await work.persons.get_person(collection.id, person)).id
            consent = await add_consent(work, collection, person_id, grant)
            await work.record(
                principal,
                ConsentRecorded(
                    collection_id=collection.id,
                    person_id=person_id,
                    object_id=consent.id,
                    proof={"consent": consent.build_proof()},
                ),
            )
            await work.store_response(consent, person_id)
        return consent

    async def get_consent(
        self, principal: Principal, reference: str, person: PersonReference, consent_id: UUID
    ) -> Consent:
        """Return one consent of a person."""
        async with self._database.transaction(read_only=True) as work:
            collection = await work.open(reference, principal, Permission.READ)
            person_id = (await work.persons.get_person(collection.id, person)).id
            return await work.consents.get_consent(collection.id, person_id, consent_id)

    async def list_consents(
        self, principal: Principal, reference: str, person: PersonReference, *, after: UUID | None, limit: int
    ) -> tuple[Consent, ...]:
        """Return a person's consents in order of recording."""
        async with self._database.transaction(read_only=True) as work:
            collection = await work.open(reference, principal, Permission.READ)
            found = await work.persons.get_person(collection.id, person)
            return await work.consents.list_consents(collection.id, found.id, after=after, limit=limit)

    async def update_consent(
        self, principal: Principal, reference: str, person: PersonReference, consent_id: UUID, **changes: Any
    ) -> Consent:
        """Change a live consent's expiry or evidence; the faces under it follow its expiry.

        Raises:
            InvalidInputError: The new expiry lies in the past, or the consent is no longer live.
        """
        if "evidence_ref" in changes:
            changes["evidence_ref"] = require_optional_text("The consent's evidence_ref", changes["evidence_ref"])
        require_moment("The consent's expires_at", changes.get("expires_at"))
        async with self._database.transaction(writes_to=reference) as work:
            collection = await work.open(reference, principal, Permission.ENROL)
            person_id = await work.persons.resolve_person(collection.id, person)
            consent = await work.consents.get_consent(collection.id, person_id, consent_id)
            if consent not in await work.consents.list_live_consents(collection.id, person_id):
                raise InvalidInputError(
                    "A consent that was withdrawn or has expired cannot be changed; record a new one."
                )
            if "expires_at" in changes:
                now, asked = datetime.now(UTC), changes["expires_at"]
                own_end = _compute_expiry(collection, asked, consent.granted_at, now)
                changes["expires_at"] = own_end
                if consent.seen_at is not None:
                    changes |= _build_ends(collection, own_end, consent.seen_at)
            changed = await work.consents.update_consent(collection.id, consent_id, **changes)
            await work.record(
                principal,
                ConsentChanged(
                    collection_id=collection.id,
                    person_id=person_id,
                    object_id=consent_id,
                    fields=tuple(sorted(changes.keys() - {"granted_until"})),
                    proof={"changes": _compare_consents(consent, changed)},
                ),
            )
        return changed

    async def withdraw_consent(
        self, principal: Principal, reference: str, person: PersonReference, consent_id: UUID
    ) -> ErasureResult:
        """Withdraw a consent: erase the faces under it, and the person if no live consent remains."""
        async with self._database.transaction(writes_to=reference) as work:
            collection = await work.open(reference, principal, Permission.ERASE)
            person_id = await work.persons.resolve_person(collection.id, person)
            consent = await work.consents.get_consent(collection.id, person_id, consent_id)
            result = await withdraw_consent(work, consent, ConsentWithdrawn, principal=principal)
        return await read_state(self._database, result)
