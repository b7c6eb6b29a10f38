"""Erasure: everything derived from a person goes, in one transaction, whatever network made it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID

from vultus.domain import Actor
from vultus.errors import NotFoundError
from vultus.services.collections import find_collection

if TYPE_CHECKING:
    from vultus.db.database import Database, Work
    from vultus.domain import Collection, Consent

SWEEP_BATCH = 200


@dataclass(frozen=True, slots=True)
class Erased:
    """What an erasure removed; `person_erased` is false when other live consents keep the person."""

    person_id: UUID
    person_erased: bool
    faces: int
    consents: int


async def open_for_writing(work: Work, reference: str) -> Collection:
    """Return the collection with that id or name, held until the transaction ends.

    Whatever adds or ends consents, faces or persons takes turns a collection: two withdrawals must not each see the
    other's consent as the live one that keeps the person.

    Raises:
        NotFoundError: There is none.
    """
    home = await find_collection(work, reference)
    await work.lock_collection(home.id)
    return await work.collections.get(home.id)


async def erase_person(work: Work, collection_id: UUID, person_id: UUID, action: str, *, actor: Actor) -> Erased:
    """Remove a person with faces, consents and stored answers; the audit keeps ids and counts only.

    Raises:
        NotFoundError: No such person.
    """
    gone = await work.persons.delete(collection_id, person_id)
    await work.audit.add(
        actor,
        action,
        collection_id=collection_id,
        person_id=person_id,
        detail={"faces": gone.faces, "consents": gone.consents},
    )
    return Erased(person_id, True, gone.faces, gone.consents)


async def withdraw(work: Work, consent: Consent, action: str, *, actor: Actor) -> Erased:
    """End a consent: its faces go, and with the last live consent the person.

    The audit record keeps that there was a consent, its purpose's length of life, and when it ended.
    """
    faces = await work.faces.delete_by_consent(consent.collection_id, consent.id)
    now = datetime.now(UTC)
    await work.consents.mark_withdrawn(consent.collection_id, consent.id, now)
    await work.audit.add(
        actor,
        action,
        collection_id=consent.collection_id,
        person_id=consent.person_id,
        object_id=consent.id,
        detail={"faces": faces, "granted_at": consent.granted_at.isoformat(), "ended_at": now.isoformat()},
    )
    if await work.consents.live_for(consent.collection_id, consent.person_id):
        return Erased(consent.person_id, False, faces, 0)
    rest = await erase_person(work, consent.collection_id, consent.person_id, "person.erased", actor=actor)
    return Erased(consent.person_id, True, faces + rest.faces, rest.consents)


class Eraser:
    """Erases on request and sweeps what has expired."""

    def __init__(self, database: Database, *, idempotency_hours: float) -> None:
        self._database = database
        self._idempotency_hours = idempotency_hours

    async def erase(self, collection: str, person_id: UUID, *, actor: Actor) -> Erased:
        """Remove a person and everything derived from them.

        Raises:
            NotFoundError: No such person in the collection.
        """
        async with self._database.work() as work:
            home = await open_for_writing(work, collection)
            return await erase_person(work, home.id, person_id, "person.erased", actor=actor)

    async def sweep(self) -> int:
        """Erase what rests on expired consents and forget old idempotency keys; return the consents ended.

        A search never returns an expired face whether or not the sweep has come by.
        """
        ended = 0
        while True:
            async with self._database.work(read_only=True) as work:
                expired = await work.consents.expired(SWEEP_BATCH)
            now = sum([await self._end(consent) for consent in expired])
            ended += now
            # None ended: another sweep took them, or this machine's clock is behind the database's. Next time, then.
            if len(expired) < SWEEP_BATCH or not now:
                break
        async with self._database.work() as work:
            await work.idempotency.purge(datetime.now(UTC) - timedelta(hours=self._idempotency_hours))
        return ended

    async def _end(self, consent: Consent) -> bool:
        """End an expired consent unless, meanwhile, it was extended or is gone."""
        async with self._database.work() as work:
            try:
                await open_for_writing(work, str(consent.collection_id))
                now = await work.consents.get(consent.collection_id, consent.person_id, consent.id)
            except NotFoundError:
                return False
            if now.withdrawn_at is not None or now.expires_at is None or now.expires_at > datetime.now(UTC):
                return False
            await withdraw(work, now, "consent.expired", actor=Actor("sweep"))
        return True
