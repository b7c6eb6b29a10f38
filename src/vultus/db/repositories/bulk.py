"""Thousands of persons at once: through COPY, under the same constraints, triggers and numbers as one at a time."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np
from sqlalchemy import ARRAY, Text, bindparam, func, select

from vultus.db.copying import Bytes, copy_in, level_rows, ragged_rows
from vultus.db.locks import lock_collection
from vultus.db.tables import PersonRow
from vultus.utils.ids import new_ids

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncSession

    from vultus.domain import CodeArray, FloatArray

_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_NEVER = (2**63 - 1).to_bytes(8, "big")
_UNKNOWN = ("size_px", "sharpness", "brightness", "yaw_deg", "pitch_deg", "roll_deg", "score")
"""What a photo tells of a face, and a vector does not: stored as 0."""


class Bulk:
    """Adds many rows of one collection. Ids travel as (n, 16) bytes."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def taken(self, collection_id: UUID, external_ids: Sequence[str]) -> set[str]:
        """Return which of some external ids a collection has."""
        query = select(PersonRow.external_id).where(
            PersonRow.collection_id == collection_id,
            PersonRow.external_id == func.any(bindparam("ids", list(external_ids), ARRAY(Text))),
        )
        return {found for found in await self._session.scalars(query) if found is not None}

    async def add_persons(self, collection_id: UUID, people: Sequence[tuple[str, str | None]]) -> Bytes:
        """Add a person for each external id and name; return their ids, in the same order.

        Raises:
            AlreadyExistsError: An external id is taken in the collection.
            NotFoundError: There is no such collection.
        """
        ids, home = new_ids(len(people)), collection_id.bytes
        rows = ragged_rows(
            (person_id.tobytes(), home, external_id.encode(), None if name is None else name.encode())
            for person_id, (external_id, name) in zip(ids, people, strict=True)
        )
        await copy_in(self._session, "persons", ("id", "collection_id", "external_id", "name"), rows)
        return ids

    async def add_consents(
        self,
        collection_id: UUID,
        persons: Bytes,
        *,
        purpose: str,
        recorded_by: str,
        evidence_ref: str | None,
        granted_at: datetime,
        expires_at: datetime | None,
    ) -> Bytes:
        """Record the same consent of each person; return the consents' ids.

        Raises:
            NotFoundError: The collection has no such person.
        """
        ids = new_ids(len(persons))
        columns: dict[str, Bytes | bytes | None] = {
            "id": ids,
            "collection_id": collection_id.bytes,
            "person_id": persons,
            "purpose": purpose.encode(),
            "recorded_by": recorded_by.encode(),
            "evidence_ref": None if evidence_ref is None else evidence_ref.encode(),
            "granted_at": _moment(granted_at),
            "expires_at": _moment(expires_at),
        }
        await copy_in(self._session, "consents", columns, level_rows(columns.values()))
        return ids

    async def add_faces(
        self,
        collection_id: UUID,
        contract_id: str,
        *,
        persons: Bytes,
        consents: Bytes,
        expires_at: datetime | None,
        vectors: FloatArray,
        sources: Bytes,
        codes: CodeArray | None = None,
    ) -> None:
        """Enrol a template a row, whose quality nobody knows.

        Args:
            collection_id: Where; held from here on.
            contract_id: Of the vectors.
            persons: Ids, one a row.
            consents: Ids of a live consent of each.
            expires_at: When these consents end.
            vectors: (n, d) float32, each row of length 1; stored as float16.
            sources: (n, 32) SHA-256 of what each vector came from.
            codes: (n, width) of the vectors, for an index; None leaves them to be made later.

        Raises:
            AlreadyExistsError: A source is already enrolled for its person.
            NotFoundError: A consent is not live, not the person's, or ends at another moment.
        """
        await lock_collection(self._session, collection_id)
        count, size = vectors.shape
        head = np.frombuffer(size.to_bytes(2, "big") + bytes(2), np.uint8)
        halves = np.ascontiguousarray(vectors, dtype=">f2").view(np.uint8)
        columns: dict[str, Bytes | bytes | None] = {
            "collection_id": collection_id.bytes,
            "id": new_ids(count),
            "person_id": persons,
            "consent_id": consents,
            "consent_expires_at": _moment(expires_at),
            "contract_id": contract_id.encode(),
            "embedding": np.concatenate([np.broadcast_to(head, (count, 4)), halves], axis=1),
            "source_sha256": sources,
            "code": codes,
            **dict.fromkeys(_UNKNOWN, bytes(4)),
        }
        await copy_in(self._session, "faces", columns, level_rows(columns.values()))


def _moment(at: datetime | None) -> bytes:
    """Return a `timestamptz` as it travels: microseconds since 2000, the greatest number for never."""
    if at is None:
        return _NEVER
    passed = at - _EPOCH
    return ((passed.days * 86_400 + passed.seconds) * 10**6 + passed.microseconds).to_bytes(8, "big", signed=True)
