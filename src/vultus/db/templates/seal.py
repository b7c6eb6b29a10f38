"""Seals templates by the keys of their persons, and opens them: in memory alone, for as long as they are compared."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from vultus.db.repositories.person_keys import build_no_custody_error
from vultus.domain import FloatArray
from vultus.sealing.envelopes import SealBrokenError, build_template_context, open_value, read_slot, seal_value

if TYPE_CHECKING:
    from collections.abc import Mapping
    from uuid import UUID

    from vultus.sealing.custody import Custody
    from vultus.sealing.person_keys import PersonKey

STORED = np.dtype("<f2")
"""What is sealed: the vector's numbers as float16."""

FEW_TEMPLATES = 500
"""Templates that are opened without a thread, in about two milliseconds."""


class TemplateRow(NamedTuple):
    """A template as it lies in the database: either its (d,) float32 vector, or that sealed."""

    number: int
    person_id: UUID
    face_id: UUID
    vector: FloatArray | None
    sealed: bytes | None


@dataclass(frozen=True, slots=True, eq=False)
class OpenedTemplates:
    """Templates that were opened.

    Attributes:
        rows: Those that opened.
        vectors: Theirs, (n, d) float32.
        unreadable: Those whose key was destroyed, or that were changed or moved.
    """

    rows: Sequence[TemplateRow]
    vectors: FloatArray
    unreadable: Sequence[TemplateRow] = ()


class TemplateSeal:
    """Seals and opens templates.

    Attributes:
        custody: Where the keys lie; None in a database that was opened without them.
        known: Collections that are known to be sealed: none is ever opened again.
    """

    def __init__(self) -> None:
        self.custody: Custody | None = None
        self.known: set[UUID] = set()

    async def open(self, collection_id: UUID, space_id: str, rows: Sequence[TemplateRow]) -> OpenedTemplates:
        """Return the vectors of templates of a collection in an embedding space.

        Many are opened in a thread, and so are those whose keys cannot be had without waiting.

        Raises:
            KeyRingError: The keys cannot be used.
        """
        sealed = [row for row in rows if row.sealed is not None]
        if not sealed:
            return OpenedTemplates(rows, _stack([row.vector for row in rows if row.vector is not None]))
        if self.custody is None:
            raise build_no_custody_error()
        file, references = self.custody.person_keys, [(_read_slot(row), row.person_id) for row in sealed]
        if len(rows) <= FEW_TEMPLATES and (keys := file.peek_keys(references)) is not None:
            return self._open(collection_id, space_id, rows, keys)
        return await asyncio.to_thread(lambda: self._open(collection_id, space_id, rows, file.find_keys(references)))

    def _open(
        self, collection_id: UUID, space_id: str, rows: Sequence[TemplateRow], keys: Sequence[bytes | None]
    ) -> OpenedTemplates:
        sealed = [row for row in rows if row.sealed is not None]
        opened, vectors, unreadable = [], [], []
        for row in rows:
            if row.vector is not None:
                opened.append(row)
                vectors.append(row.vector)
        for row, key in zip(sealed, keys, strict=True):
            vector = None if key is None else _open_row(row, key, collection_id, space_id)
            if vector is None:
                unreadable.append(row)
            else:
                opened.append(row)
                vectors.append(vector)
        return OpenedTemplates(opened, _stack(vectors), unreadable)


def seal_vectors(
    collection_id: UUID,
    space_id: str,
    faces: Sequence[tuple[UUID, UUID]],
    vectors: FloatArray,
    keys: Mapping[UUID, PersonKey],
) -> list[bytes]:
    """Return what is stored of templates in a sealed collection, all of one length.

    Args:
        collection_id: The collection.
        space_id: Embedding space of the vectors.
        faces: Person and face of each.
        vectors: (n, d) float32, each row of length 1.
        keys: By person.
    """
    sealed = []
    for (person_id, face_id), vector in zip(faces, np.asarray(vectors, STORED), strict=True):
        slot, key = keys[person_id]
        context = build_template_context(collection_id, person_id, face_id, space_id)
        sealed.append(seal_value(vector.tobytes(), key=key, slot=slot, context=context))
    return sealed


def _read_slot(row: TemplateRow) -> int:
    try:
        return read_slot(row.sealed or b"")
    except SealBrokenError:
        return 0  # whose key does not open it


def _open_row(row: TemplateRow, key: bytes, collection_id: UUID, space_id: str) -> FloatArray | None:
    context = build_template_context(collection_id, row.person_id, row.face_id, space_id)
    try:
        return np.frombuffer(open_value(row.sealed or b"", key=key, context=context), STORED)
    except SealBrokenError:
        return None


def _stack(vectors: Sequence[FloatArray]) -> FloatArray:
    if not vectors:
        return np.empty((0, 0), np.float32)
    return np.stack(vectors).astype(np.float32)
