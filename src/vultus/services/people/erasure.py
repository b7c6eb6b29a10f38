"""Erasure: deletes everything derived from a person, in all embedding spaces, in one transaction."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID

from vultus.domain import Permission, Principal
from vultus.domain.erasures import DestroyedCounts, ErasureState
from vultus.domain.events import (
    AuditTrimmed,
    ConsentExpired,
    ConsentWithdrawn,
    FaceDeleted,
    PersonErased,
)
from vultus.errors import NotFoundError, VultusError
from vultus.services.jobs import PartialFailureError, record_progress
from vultus.services.people.rekeying import spend_key_of_deleted

if TYPE_CHECKING:
    from vultus.db.database import Database, UnitOfWork
    from vultus.domain import Consent, PersonReference
    from vultus.settings import JobSettings

log = logging.getLogger(__name__)

SWEEP_BATCH_SIZE = 200
MAX_PERSON_CONSENTS = 10_000
MAX_PROOFS = 100
"""Consents whose proof the entry of an erasure keeps: the oldest."""

SWEEPER = Principal.from_process("sweep")


@dataclass(frozen=True, slots=True)
class ErasureResult:
    """Result of an erasure; `person_erased` is false if other live consents keep the person.

    Attributes:
        erasure_id: By which its state is followed.
        state: How far it is gone by now.
    """

    person_id: UUID
    person_erased: bool
    faces: int
    consents: int
    erasure_id: UUID
    state: ErasureState = ErasureState.UNFINDABLE


NOTHING = DestroyedCounts()


async def erase_person(
    work: UnitOfWork,
    collection_id: UUID,
    person_id: UUID,
    *,
    principal: Principal,
    before: DestroyedCounts = NOTHING,
    erasure_id: UUID | None = None,
) -> ErasureResult:
    """Delete a person with faces, consents and stored responses; the audit record keeps how many, and their proof.

    Args:
        work: The transaction.
        collection_id: Of the person.
        person_id: Who.
        principal: Who erases.
        before: What the same transaction destroyed of the person before.
        erasure_id: Of the erasure that is done again; the audit entry's unless given.

    Raises:
        NotFoundError: No such person.
    """
    crops = await work.crops.count_crops(collection_id, person_id=person_id)
    consents = await work.consents.list_consents(collection_id, person_id, after=None, limit=MAX_PROOFS)
    deleted = await work.persons.delete_person(collection_id, person_id)
    event = PersonErased(
        collection_id=collection_id,
        person_id=person_id,
        faces=deleted.faces,
        consents=deleted.consents,
        # Of others, their withdrawals have it.
        proof={"consents_ended": [one.build_proof() for one in consents if one.withdrawn_at is None]},
    )
    entry_id = await work.record(principal, event, receivers=deleted.receivers)
    destroyed = DestroyedCounts(
        persons=1, faces=before.faces + deleted.faces, consents=deleted.consents, crops=before.crops + crops
    )
    await work.erasures.add_erasure(erasure_id or entry_id, event, principal, destroyed)
    return ErasureResult(person_id, True, destroyed.faces, destroyed.consents, erasure_id or entry_id)


async def withdraw_consent(
    work: UnitOfWork,
    consent: Consent,
    kind: type[ConsentWithdrawn],
    *,
    principal: Principal,
    erasure_id: UUID | None = None,
) -> ErasureResult:
    """End a consent: delete its faces and, if it was the last live consent, the person.

    The audit record keeps the ids, the number of faces, when the consent was granted and ended, its purpose and proof.

    Args:
        work: The transaction.
        consent: Which.
        kind: Of the event that is recorded.
        principal: Who ends it.
        erasure_id: Of the erasure that is done again; the audit entry's unless given.
    """
    crops = await work.crops.count_crops(consent.collection_id, consent_id=consent.id)
    faces = await work.faces.delete_faces_by_consent(consent.collection_id, consent.id)
    now = datetime.now(UTC)
    await work.consents.withdraw_consent(consent.collection_id, consent.id, now)
    event = kind(
        collection_id=consent.collection_id,
        person_id=consent.person_id,
        object_id=consent.id,
        faces=faces,
        granted_at=consent.granted_at,
        ended_at=now,
        proof={"consent": consent.build_proof()},
    )
    entry_id = await work.record(principal, event)
    destroyed = DestroyedCounts(faces=faces, crops=crops)
    if await work.consents.list_live_consents(consent.collection_id, consent.person_id):
        await _spend_key(work, consent.collection_id, consent.person_id, principal)
        await work.erasures.add_erasure(erasure_id or entry_id, event, principal, destroyed)
        return ErasureResult(consent.person_id, False, faces, 0, erasure_id or entry_id)
    return await erase_person(work, consent.collection_id, consent.person_id, principal=principal, before=destroyed)


async def read_state(database: Database, result: ErasureResult) -> ErasureResult:
    """Return the result of an erasure that was committed with its state: by now its key may be destroyed."""
    async with database.transaction(read_only=True) as work:
        return replace(result, state=(await work.erasures.get_erasure(result.erasure_id)).state)


async def delete_face(
    work: UnitOfWork,
    collection_id: UUID,
    person_id: UUID,
    face_id: UUID,
    *,
    principal: Principal,
    erasure_id: UUID | None = None,
) -> None:
    """Delete a face in all embedding spaces; the person and their consents stay.

    Raises:
        NotFoundError: The person has no such face.
    """
    crops = await work.crops.count_crops(collection_id, face_id=face_id)
    await work.faces.delete_face(collection_id, person_id, face_id)
    await _spend_key(work, collection_id, person_id, principal)
    event = FaceDeleted(collection_id=collection_id, person_id=person_id, object_id=face_id)
    entry_id = await work.record(principal, event)
    await work.erasures.add_erasure(erasure_id or entry_id, event, principal, DestroyedCounts(faces=1, crops=crops))


async def _spend_key(work: UnitOfWork, collection_id: UUID, person_id: UUID, principal: Principal) -> None:
    """Spend a person's key after faces of theirs were deleted, and record which others went with it, if any."""
    for face_id in await spend_key_of_deleted(work, collection_id, person_id):
        event = FaceDeleted(collection_id=collection_id, person_id=person_id, object_id=face_id)
        entry_id = await work.record(principal, event)
        await work.erasures.add_erasure(entry_id, event, principal, DestroyedCounts(faces=1))


async def release_external_id(work: UnitOfWork, collection_id: UUID, external_id: str) -> None:
    """Erase the person who has an external id and no live consent any more, as the sweep would."""
    if (person_id := await work.persons.find_expired_person(collection_id, external_id)) is None:
        return
    for consent in await work.consents.list_consents(collection_id, person_id, after=None, limit=MAX_PERSON_CONSENTS):
        if consent.withdrawn_at is None:
            await withdraw_consent(work, consent, ConsentExpired, principal=SWEEPER)
            return  # the person went with it
    await erase_person(work, collection_id, person_id, principal=SWEEPER)


@dataclass(slots=True)
class _Sweep:
    """How many expired consents were ended and could not be, and those that still stand or that others ended."""

    ended: int = 0
    failed: int = 0
    left: set[UUID] = field(default_factory=set)


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
            result = await erase_person(work, collection.id, person_id, principal=principal)
        return await read_state(self._database, result)

    async def sweep_expired(self) -> int:
        """Erase what rests on expired consents and delete expired records; return the consents ended.

        Expired records are the answers of old idempotency keys, old events of the outbox, old decision records, old
        tombstones, and old entries of the audit record if it is not kept indefinitely.
        A search never returns an expired face, whether or not the sweep has run.

        Raises:
            PartialFailureError: Some consents could not be ended; all else is done.
        """
        sweep = _Sweep()
        while await self._end_batch(sweep):
            pass
        now, kept = datetime.now(UTC), self._settings
        await self._delete_old_events(now)
        await self._delete_old_decisions(now - timedelta(days=kept.decision_days))
        async with self._database.transaction() as work:
            await work.idempotency.delete_old_responses(now - timedelta(hours=kept.idempotency_hours))
            await work.codes.delete_old_tombstones(now - timedelta(hours=kept.outbox_hours))
            if kept.audit_days is not None:
                # By whole days: what was deleted is said in an entry, and there must not be one a minute.
                before = (now - timedelta(days=kept.audit_days)).replace(hour=0, minute=0, second=0, microsecond=0)
                if deleted := await work.audit.delete_old_entries(before):
                    await work.record(SWEEPER, AuditTrimmed(before=before, entries=deleted))
                await work.erasures.delete_old_erasures(now - timedelta(days=kept.audit_days))
        if sweep.failed:
            raise PartialFailureError(f"{sweep.failed} expired consents could not be ended")
        return sweep.ended

    async def end_expired(self) -> int:
        """Erase what rests on consents that expired longest ago, one batch; return the consents ended.

        None may end though some have expired: another sweep ended them, or this clock is behind the database's.
        """
        await self._end_batch(sweep := _Sweep())
        return sweep.ended

    async def _end_batch(self, sweep: _Sweep) -> bool:
        """End a batch of expired consents, without those that did not end before; return whether there was any."""
        async with self._database.transaction(read_only=True) as work:
            expired = await work.consents.list_expired_consents(SWEEP_BATCH_SIZE, sweep.left)
        for consent in expired:
            try:
                if await self._withdraw_if_expired(consent):
                    sweep.ended += 1
                    continue
            except VultusError as error:  # of this one only; the others are ended
                sweep.failed += 1
                log.error("the expired consent %s is not ended: %s", consent.id, error.detail)
            sweep.left.add(consent.id)
        return bool(expired)

    async def _delete_old_decisions(self, older_than: datetime) -> None:
        is_more = True
        while is_more:
            async with self._database.transaction() as work:
                is_more = await work.decisions.delete_old_decisions(older_than)
            record_progress()

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
