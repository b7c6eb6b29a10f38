"""Nothing can be enrolled under a consent that has ended, whoever asks the database."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sqlalchemy import text
from tests.db.conftest import QUALITY

from vultus.domain import NewFace
from vultus.errors import ConflictError, NotFoundError

if TYPE_CHECKING:
    from vultus.db.database import Database
    from vultus.domain import Collection, Consent, FloatArray

Enrol = Callable[..., Awaitable[Any]]
Towards = Callable[..., "FloatArray"]
PAST = datetime(2026, 1, 3, tzinfo=UTC)


@pytest.fixture
async def expired(database: Database, collection: Collection, enrol: Enrol, towards: Towards) -> Consent:
    """A consent that has expired and is not swept yet, with a face that was enrolled before."""
    async with database.transaction() as work:
        consent: Consent = (await enrol(work, collection, "ada", towards(0), expires_at=PAST)).consent
    return consent


async def test_no_face_is_enrolled_under_an_expired_consent(
    database: Database, collection: Collection, expired: Consent, towards: Towards
) -> None:
    face = NewFace(
        collection_id=collection.id,
        person_id=expired.person_id,
        consent_id=expired.id,
        consent_expires_at=expired.expires_at,
        space_id=collection.space_id,
        vector=towards(1),
        quality=QUALITY,
        score=0.75,
        source_sha256=bytes(32).hex(),
    )
    with pytest.raises(NotFoundError, match="has ended meanwhile"):
        async with database.transaction() as work:
            await work.templates.add_templates([face])


async def test_no_vector_is_imported_under_an_expired_consent(
    database: Database, collection: Collection, expired: Consent, towards: Towards
) -> None:
    ids = [np.frombuffer(one.bytes, np.uint8)[None] for one in (expired.person_id, expired.id)]
    with pytest.raises(NotFoundError, match="has ended meanwhile"):
        async with database.transaction() as work:
            await work.templates.import_templates(
                collection.id,
                collection.space_id,
                persons=ids[0],
                consents=ids[1],
                expires_at=PAST,
                vectors=towards(1)[None],
                sources=np.zeros((1, 32), np.uint8),
            )


@pytest.mark.parametrize("end", [datetime.now(UTC) + timedelta(days=1), None], ids=["a later end", "no end"])
async def test_an_expired_consent_does_not_begin_anew(
    database: Database, collection: Collection, expired: Consent, end: datetime | None
) -> None:
    with pytest.raises(ConflictError, match="final"):
        async with database.transaction() as work:
            await work.consents.update_consent(collection.id, expired.id, expires_at=end)


async def test_a_withdrawn_consent_does_not_begin_anew(
    database: Database, collection: Collection, enrol: Enrol
) -> None:
    async with database.transaction() as work:
        consent = (await enrol(work, collection, "ada")).consent
        await work.consents.withdraw_consent(collection.id, consent.id, datetime.now(UTC))
    with pytest.raises(ConflictError, match="final"):
        async with database.transaction() as work:
            await work._session.execute(text("UPDATE consents SET withdrawn_at = NULL"))


async def test_a_face_is_not_moved_to_an_expired_consent(
    database: Database, collection: Collection, expired: Consent
) -> None:
    async with database.transaction() as work:
        another = await work.consents.add_consent(
            collection.id,
            expired.person_id,
            purpose="another",
            recorded_by="reception",
            evidence_ref=None,
            granted_at=PAST,
            expires_at=PAST,
        )
    with pytest.raises(NotFoundError, match="has ended meanwhile"):
        async with database.transaction() as work:
            await work._session.execute(text("UPDATE faces SET consent_id = :id"), {"id": another.id})
