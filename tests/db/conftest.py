"""Helpers that fill a database."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from itertools import count
from typing import TYPE_CHECKING

import numpy as np
import pytest

from vultus.domain import (
    Collection,
    Consent,
    DecisionPolicy,
    Face,
    FloatArray,
    NewFace,
    Person,
    Quality,
    QualityRule,
    Storage,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from vultus.db.database import Database, UnitOfWork

RULE = QualityRule(min_score=0.9, min_size_px=40, min_sharpness=10, max_yaw_deg=30, max_pitch_deg=25)
QUALITY = Quality(size_px=120, sharpness=50, brightness=0.5, yaw_deg=1, pitch_deg=-2, roll_deg=3)
_photos = count()


@dataclass(frozen=True)
class Enrolled:
    """A person with a consent and faces."""

    person: Person
    consent: Consent
    faces: tuple[Face, ...]


@pytest.fixture(scope="session")
def policy() -> DecisionPolicy:
    """Of open collections: SQL compares their templates, and everything with them."""
    return DecisionPolicy(enrol=RULE, recognize=RULE, target_fmr=1e-4, storage=Storage.OPEN)


@pytest.fixture(scope="session")
def towards() -> Callable[..., FloatArray]:
    """Make unit vectors that point along an axis, tilted by an angle towards the last one."""

    def make(axis: int, tilt: float = 0.0, size: int = 8) -> FloatArray:
        vector = np.zeros(size, np.float32)
        vector[axis], vector[-1] = np.cos(tilt), np.sin(tilt)
        return vector

    return make


@pytest.fixture(scope="session")
def enrol() -> Callable[..., Awaitable[Enrolled]]:
    """Add a person with one consent and one face per vector."""

    async def add(
        work: UnitOfWork,
        collection: Collection,
        name: str,
        *vectors: FloatArray,
        expires_at: datetime | None = None,
        space_id: str | None = None,
    ) -> Enrolled:
        is_over = expires_at is not None and expires_at <= datetime.now(UTC)
        person = await work.persons.add_person(collection.id, name, name.title(), {})
        consent = await work.consents.add_consent(
            collection.id,
            person.id,
            purpose="entry",
            recorded_by="reception",
            evidence_ref=None,
            granted_at=datetime(2026, 1, 2, tzinfo=UTC),
            expires_at=None if is_over else expires_at,
        )
        faces = await work.templates.add_templates(
            [
                NewFace(
                    collection_id=collection.id,
                    person_id=person.id,
                    consent_id=consent.id,
                    consent_expires_at=consent.expires_at,
                    space_id=space_id or collection.space_id,
                    vector=vector,
                    quality=QUALITY,
                    score=0.75,
                    source_sha256=sha256(str(next(_photos)).encode()).hexdigest(),
                )
                for vector in vectors
            ]
        )
        if is_over:  # it ended after the faces were enrolled
            consent = await work.consents.update_consent(collection.id, consent.id, expires_at=expires_at)
        return Enrolled(person, consent, faces)

    return add


@pytest.fixture
async def collection(database: Database, policy: DecisionPolicy) -> Collection:
    """A collection."""
    async with database.transaction() as work:
        return await work.collections.add_collection("home", "contract", policy)
