"""Galleries of synthetic vectors, stored as an import stores them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256
from typing import TYPE_CHECKING

import numpy as np

from vultus.domain import NewFace, Quality, Storage

if TYPE_CHECKING:
    from vultus.db.database import Database
    from vultus.domain import FloatArray

QUALITY = Quality(size_px=120, sharpness=50, brightness=0.5, yaw_deg=1, pitch_deg=-2, roll_deg=3)


def people(persons: int, faces: int = 2, noise: float = 0.25, seed: int = 7) -> FloatArray:
    """Return (persons, faces, 128) unit vectors in a cone as narrow as the built-in network's: cosines about 0.84."""
    random = np.random.default_rng(seed)
    centres = 2.3 * np.eye(128)[0] + random.normal(size=(persons, 1, 128)) / np.sqrt(128)
    vectors: FloatArray = centres + noise * random.normal(size=(persons, faces, 128)) / np.sqrt(128)
    vectors = vectors / np.linalg.norm(vectors, axis=2, keepdims=True)
    return vectors.astype(np.float32)


async def enrol(
    database: Database, vectors: FloatArray, *, space_id: str | None = None, name: str = "default"
) -> list[str]:
    """Store persons with templates as an import does and return their ids; every other one has `site` north."""
    ids = []
    async with database.transaction() as work:
        collection = await work.collections.get_collection_by_name(name)
        for at, person_vectors in enumerate(vectors):
            label = f"{space_id}-{at}"
            person = await work.persons.add_person(collection.id, label, label, {"site": ["north", "south"][at % 2]})
            ids.append(str(person.id))
            consent = await work.consents.add_consent(
                collection.id,
                person.id,
                purpose="tests",
                recorded_by="tests",
                evidence_ref=None,
                granted_at=datetime.now(UTC),
                expires_at=None,
            )
            await work.templates.add_templates(
                [
                    NewFace(
                        collection.id,
                        person.id,
                        consent.id,
                        None,
                        space_id or collection.space_id,
                        vector,
                        QUALITY,
                        0.9,
                        sha256(f"{label}-{number}".encode()).hexdigest(),
                    )
                    for number, vector in enumerate(person_vectors)
                ]
            )
    return ids


async def make_open(database: Database, name: str = "default") -> None:
    """Let an empty collection be open, which no request does: it was sealed when it was created."""
    async with database.transaction() as work:
        found = await work.collections.get_collection_by_name(name)
        await work.collections.update_collection(found.id, policy=replace(found.policy, storage=Storage.OPEN))
    database._seal.known.discard(found.id)
