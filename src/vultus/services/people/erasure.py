"""Erasure: deletes everything derived from a person, in all embedding spaces, in one transaction."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID

from vultus.domain import Permission, Principal
from vultus.domain.events import ConsentExpired, ConsentWithdrawn, PersonErased
from vultus.errors import NotFoundError
from vultus.services.jobs import record_progress

if TYPE_CHECKING:
    from vultus.db.database import Database, UnitOfWork
    from vultus.domain import Consent, PersonReference
    from vultus.settings import JobSettings

log = logging.getLogger(__name__)

SWEEP_BATCH_SIZE = 200
MAX_PERSON_CONSENTS = 10_000
SWEEPER = Principal.from_process("sweep")


@dataclass(frozen=True, slots=True)
class ErasureResult:
    """Result of an erasure; `person_erased` is false if other live consents keep the person."""

    person_id: UUID
    person_erased: bool
    faces: int
    consents: int


async def erase_person(
    work: UnitOfWork, collection_id: UUID, person_id: UUID, *, principal: Principal
) -> ErasureResult:
    """Delete a person with faces, consents and stored responses; the audit record keeps only ids and counts.

    Raises:
        NotFoundError: No such person.
    """
    deleted = await work.persons.delete_person(collection_id, person_id)
    await work.record(
        principal,
        PersonErased(collection_id=collection_id, person_id=person_id, faces=deleted.faces, consents=deleted.consents),
        receivers=deleted.receivers,
    )
    return ErasureResult(person_id, True, deleted.faces, deleted.consents)


async def withdraw_consent(
    work: UnitOfWork, consent: Consent, event: type[ConsentWithdrawn], *, principal: Principal
) -> ErasureResult:
    """End a consent: delete its faces and, if it was the last live consent, the person.

    The audit record keeps the ids, the number of faces, and when the consent was granted and ended.
    """
    faces = await work.faces.delete_faces_by_consent(consent.collection_id, consent.id)
    now = datetime.now(UTC)
    await work.consents.withdraw_consent(consent.collection_id, consent.id, now)
    await work.record(
        principal,
        event(
            collection_id=consent.collection_id,
            person_id=consent.person_id,
            object_id=consent.id,
            faces=faces,
            granted_at=consent.granted_at,
            ended_at=now,
        ),
    )
    if await work.consents.list_live_consents(consent.collection_id, consent.person_id):
        return ErasureResult(consent.person_id, False, faces, 0)
    rest = await erase_person(work, consent.collection_id, consent.person_id, principal=principal)
    return ErasureResult(consent.person_id, True, faces + rest.faces, rest.consents)


async def release_external_id(work: UnitOfWork, collection_id: UUID, external_id: str) -> None:
    """Erase the person who has an external id and no live consent any more, as the sweep would."""
    if (person_id := await work.persons.find_expired_person(collection_id, external_id)) is None:
        return
    for consent in await work.consents.list_consents(collection_id, person_id, after=None, limit=MAX_PERSON_CONSENTS):
        if consent.withdrawn_at is None:
            await withdraw_consent(work, consent, ConsentExpired, principal=SWEEPER)
            return  # the person went with it
    await erase_person(work, collection_id, person_id, principal=SWEEPER)


class Eraser:
    """Erases persons on request, and what rests on expired consents."""

    def __init__(self, database: Database, settings: JobSettings) -> None:
        self._database = database
        self._settings = settings

    async def erase(self, principal: Principal, reference: str, person: PersonReference) -> ErasureResult:
        """Delete a person and everything derived from them.

        Raises:
            NotFoundError: No such person in the collection.
        """
        async with self._database.transaction(writes_to=reference) as work:
            collection = await work.open(reference, principal, Permission.ERASE)
            person_id = await work.persons.resolve_person(collection.id, person)
            return await erase_person(work, collection.id, person_id, principal=principal)

    async def sweep_expired(self) -> int:
        """Erase what rests on expired consents and delete expired records; return the consents ended.

        Expired records are the answers of old idempotency keys, old events of the outbox, old tombstones, and old
        entries of the audit record if it is not kept indefinitely.
        A search never returns an expired face, whether or not the sweep has run.
        """
        ended = 0
        while True:
            async with self._database.transaction(read_only=True) as work:
                expired = await work.consents.list_expired_consents(SWEEP_BATCH_SIZE)
            ended_in_batch = sum([await self._withdraw_if_expired(consent) for consent in expired])
            ended += ended_in_batch
            # None ended: another sweep ended them, or this clock is behind the database's. The next sweep retries.
            if len(expired) < SWEEP_BATCH_SIZE or not ended_in_batch:
                break
        now, kept = datetime.now(UTC), self._settings
        await self._delete_old_events(now)
        async with self._database.transaction() as work:
            await work.idempotency.delete_old_responses(now - timedelta(hours=kept.idempotency_hours))
            await work.codes.delete_old_tombstones(now - timedelta(hours=kept.outbox_hours))
            if kept.audit_days is not None:
                await work.audit.delete_old_entries(now - timedelta(days=kept.audit_days))
        return ended

    async def _delete_old_events(self, now: datetime) -> None:
        older_than = now - timedelta(hours=self._settings.outbox_hours)
        sightings_older_than = now - timedelta(hours=min(self._settings.sighting_hours, self._settings.outbox_hours))
        undelivered, is_last = 0, False
        while not is_last:
            async with self._database.transaction() as work:
                deleted = await work.outbox.delete_old_events(older_than, sightings_older_than)
            undelivered, is_last = undelivered + deleted.undelivered, deleted.is_last
            record_progress()
        if undelivered:
            log.warning("events became too old before webhooks accepted them", extra={"count": undelivered})

    async def _withdraw_if_expired(self, consent: Consent) -> bool:
        """End an expired consent, unless it was extended, ended or deleted meanwhile; return whether it did."""
        async with self._database.transaction(writes_to=str(consent.collection_id)) as work:
            try:
                await work.open(str(consent.collection_id), SWEEPER, Permission.ERASE)
                current = await work.consents.get_consent(consent.collection_id, consent.person_id, consent.id)
            except NotFoundError:
                return False
            if current.withdrawn_at is not None or current.expires_at is None or current.expires_at > datetime.now(UTC):
                return False
            await withdraw_consent(work, current, ConsentExpired, principal=SWEEPER)
        record_progress()
        return True
