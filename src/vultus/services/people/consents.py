"""Consents: recorded, extended, withdrawn. Withdrawing erases what rested on the consent."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from vultus.errors import InvalidInputError, NotFoundError
from vultus.services.collections import find_collection
from vultus.services.people.erasure import Erased, open_for_writing, withdraw

if TYPE_CHECKING:
    from uuid import UUID

    from vultus.db.database import Database, Work
    from vultus.domain import Actor, Collection, Consent, Person


@dataclass(frozen=True, slots=True)
class ConsentGrant:
    """A person's agreement as it was recorded.

    Attributes:
        purpose: What the person agreed to.
        recorded_by: Who took the agreement.
        granted_at: When; now unless given.
        expires_at: Until when; None until withdrawn, or as long as the collection's retention rule allows.
        evidence_ref: Where the proof is kept, such as a document's number.
    """

    purpose: str
    recorded_by: str
    granted_at: datetime | None = None
    expires_at: datetime | None = None
    evidence_ref: str | None = None


async def add_consent(work: Work, home: Collection, person_id: UUID, grant: ConsentGrant) -> Consent:
    """Record a consent; the collection's retention rule shortens one that would last longer.

    Raises:
        InvalidInputError: It has expired already, or was granted in the future.
    """
    granted_at, expires_at = terms(home, grant)
    return await work.consents.add(
        home.id,
        person_id,
        purpose=grant.purpose,
        recorded_by=grant.recorded_by,
        evidence_ref=grant.evidence_ref,
        granted_at=granted_at,
        expires_at=expires_at,
    )


def terms(home: Collection, grant: ConsentGrant) -> tuple[datetime, datetime | None]:
    """Return when a consent was granted and when it ends; see `add_consent`."""
    now = datetime.now(UTC)
    granted_at = grant.granted_at or now
    if granted_at > now + timedelta(minutes=5):  # clocks of two machines may differ a little
        raise InvalidInputError("The consent's granted_at lies in the future.")
    return granted_at, _expiry(home, grant.expires_at, granted_at, now)


async def live_consent(work: Work, home: Collection, person: Person | None, consent_id: UUID | None) -> Consent:
    """Return a consent of the person that is neither withdrawn nor expired.

    Raises:
        NotFoundError: The person has no such live consent.
    """
    for consent in await work.consents.live_for(home.id, person.id) if person else ():
        if consent.id == consent_id:
            return consent
    raise NotFoundError("The person has no live consent with this id; record a new consent.")


def _expiry(home: Collection, wanted: datetime | None, granted_at: datetime, now: datetime) -> datetime | None:
    ends = [wanted] if wanted else []
    if home.retention_days is not None:
        ends.append(granted_at + timedelta(days=home.retention_days))
    expires_at = min(ends, default=None)
    if expires_at is not None and expires_at <= now:
        raise InvalidInputError(
            "The consent would have expired already: its expires_at, or its granted_at plus the collection's "
            "retention, lies in the past."
        )
    return expires_at


class Consents:
    """The consents of a person."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def record(self, collection: str, person_id: UUID, grant: ConsentGrant, *, actor: Actor) -> Consent:
        """Record a further consent of a person."""
        async with self._database.work() as work:
            home = await open_for_writing(work, collection)
            await work.persons.get(home.id, person_id)
            consent = await add_consent(work, home, person_id, grant)
            await work.audit.add(
                actor, "consent.recorded", collection_id=home.id, person_id=person_id, object_id=consent.id
            )
        return consent

    async def get(self, collection: str, person_id: UUID, consent_id: UUID) -> Consent:
        """Return one consent of a person."""
        async with self._database.work(read_only=True) as work:
            home = await find_collection(work, collection)
            return await work.consents.get(home.id, person_id, consent_id)

    async def page(self, collection: str, person_id: UUID, *, after: UUID | None, limit: int) -> tuple[Consent, ...]:
        """Return a person's consents in order of recording."""
        async with self._database.work(read_only=True) as work:
            home = await find_collection(work, collection)
            await work.persons.get(home.id, person_id)
            return await work.consents.page(home.id, person_id, after=after, limit=limit)

    async def change(
        self, collection: str, person_id: UUID, consent_id: UUID, *, actor: Actor, **changes: Any
    ) -> Consent:
        """Change a live consent's expiry or evidence; the faces under it follow its expiry.

        Raises:
            InvalidInputError: The new expiry lies in the past, or the consent is no longer live.
        """
        async with self._database.work() as work:
            home = await open_for_writing(work, collection)
            consent = await work.consents.get(home.id, person_id, consent_id)
            if consent not in await work.consents.live_for(home.id, person_id):
                raise InvalidInputError(
                    "A consent that was withdrawn or has expired cannot be changed; record a new one."
                )
            if "expires_at" in changes:
                changes["expires_at"] = _expiry(home, changes["expires_at"], consent.granted_at, datetime.now(UTC))
            changed = await work.consents.change(home.id, consent_id, **changes)
            await work.audit.add(
                actor,
                "consent.changed",
                collection_id=home.id,
                person_id=person_id,
                object_id=consent_id,
                detail={"fields": sorted(changes)},
            )
        return changed

    async def withdraw(self, collection: str, person_id: UUID, consent_id: UUID, *, actor: Actor) -> Erased:
        """Withdraw a consent: erase the faces under it, and the person when no live consent remains."""
        async with self._database.work() as work:
            home = await open_for_writing(work, collection)
            consent = await work.consents.get(home.id, person_id, consent_id)
            return await withdraw(work, consent, "consent.withdrawn", actor=actor)
