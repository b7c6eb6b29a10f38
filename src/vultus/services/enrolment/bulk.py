"""Bulk registration of persons from vectors that were computed elsewhere in the collection's embedding space."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vultus.domain import CodeArray, Collection, FloatArray, Permission, Principal, QuantizerParameters, Storage
from vultus.domain.events import VectorsRegistered
from vultus.domain.texts import MAX_NAME_LENGTH, normalize_text
from vultus.errors import (
    AlreadyExistsError,
    ConflictError,
    ConsentRequiredError,
    EmbeddingSpaceMismatchError,
    InvalidInputError,
)
from vultus.index.coding import CODE_BITS, Quantizer
from vultus.services.collections import check_same_space
from vultus.services.people.consents import ConsentGrant, compute_consent_period

if TYPE_CHECKING:
    from vultus.db.database import Database, UnitOfWork
    from vultus.domain import IdempotencyContext, SpaceRegistry

MAX_ROWS = 5_000
"""Persons per transaction, which blocks other writers of the collection for about a third of a second."""

MAX_REPORTED_ROWS = 10

MIN_VECTORS_FOR_CENTRE = 1_000
"""Vectors whose mean is accurate enough as a gallery's centre; with fewer, quantization waits for more faces."""


@dataclass(frozen=True, slots=True, eq=False)
class VectorBatch:
    """Persons to register, each with one vector; texts are normalised, or refused, as it is built.

    Attributes:
        collection: Id or name.
        space_id: Embedding space of the vectors; must be the collection's.
        external_ids: One per person, not yet used in the collection.
        names: Display names, one per person.
        vectors: (n, d) of any float type and any length but zero.
        consent: The consent that every person gave.
        skip_known: Skip persons whose external id the collection has, instead of rejecting the batch.
        first_row: Row of the file at which the batch begins, for row numbers in errors.
    """

    collection: str
    space_id: str
    external_ids: Sequence[str]
    names: Sequence[str | None]
    vectors: NDArray[Any]
    consent: ConsentGrant | None
    skip_known: bool = False
    first_row: int = 0

    def __post_init__(self) -> None:
        """Apply the rule for texts.

        Raises:
            InvalidInputError: An external id or a name cannot be kept; the detail names the row.
        """
        object.__setattr__(self, "external_ids", self._normalize_texts("external_ids", self.external_ids))
        object.__setattr__(self, "names", self._normalize_texts("names", self.names))

    def _normalize_texts(self, label: str, texts: Sequence[str | None]) -> list[str | None]:
        normal: list[str | None] = []
        for row, text in enumerate(texts, self.first_row):
            try:
                normal.append(None if text is None else normalize_text(text, max_length=MAX_NAME_LENGTH))
            except ValueError as error:
                raise InvalidInputError(f"{label}, row {row}, counted from 0: {error}.", rows=[row]) from None
        return normal


@dataclass(frozen=True, slots=True)
class ImportResult:
    """Result of a batch: persons registered, and persons skipped because the collection had them."""

    collection: Collection
    registered: int
    known: int


class BulkRegistrar:
    """Registers persons from vectors, without quality, liveness and lookalike checks, which need photos."""

    def __init__(self, database: Database, spaces: SpaceRegistry) -> None:
        self._database = database
        self._spaces = spaces

    async def register(
        self, principal: Principal, batch: VectorBatch, *, idempotency: IdempotencyContext | None = None
    ) -> ImportResult:
        """Register all persons of a batch, or none.

        Faces are not compared with each other or with enrolled ones: someone who is in the batch twice, or in the
        collection under another external id, becomes two persons.

        Args:
            batch: At most `MAX_ROWS` persons.
            principal: For the audit record, which states the number of persons.
            idempotency: Of an idempotent request.

        Raises:
            ConsentRequiredError: There is no consent.
            EmbeddingSpaceMismatchError: The vectors are in another embedding space, or have another dimension.
            InvalidInputError: A vector has no direction, or an external id repeats; the detail names the rows.
            AlreadyExistsError: The collection has a person with such an external id; the detail names the rows.
            ConflictError: The collection has an active migration.
        """
        if batch.consent is None:
            raise ConsentRequiredError("Registering vectors needs the persons' consent. Nothing was stored.")
        _check_batch(batch)
        async with self._database.transaction(read_only=True) as work:
            collection = await work.open(batch.collection, principal, Permission.ENROL)
        self._check_space(collection, batch)
        vectors, sources = await asyncio.to_thread(_prepare_vectors, batch)
        codes = await self._encode_vectors(collection, batch.space_id, vectors)
        async with self._database.transaction(idempotency=idempotency, writes_to=batch.collection) as work:
            collection = await work.open(str(collection.id), principal, Permission.ENROL)
            self._check_space(collection, batch)
            new_rows = await _find_new_rows(work, collection, batch)
            if len(new_rows):
                await _write_rows(work, collection, batch, batch.consent, new_rows, (vectors, sources, codes))
                count = len(new_rows)
                await work.record(principal, VectorsRegistered(collection_id=collection.id, persons=count, faces=count))
            result = ImportResult(collection, len(new_rows), len(vectors) - len(new_rows))
            await work.store_response(result)
        return result

    async def _encode_vectors(self, collection: Collection, space_id: str, vectors: FloatArray) -> CodeArray | None:
        """Return the codes of vectors; None if there is no quantizer yet and the vectors are too few for one.

        A sealed collection has neither.
        """
        if collection.policy.storage is Storage.SEALED:
            return None
        async with self._database.transaction() as work:
            parameters = await work.codes.find_quantizer(collection.id, space_id)
            if parameters is None and len(vectors) >= MIN_VECTORS_FOR_CENTRE:
                parameters = await work.codes.add_quantizer(
                    QuantizerParameters(collection.id, space_id, vectors.mean(axis=0), CODE_BITS)
                )
        if parameters is None:
            return None
        return await asyncio.to_thread(Quantizer(parameters.centre, parameters.bits).encode_vectors, vectors)

    def _check_space(self, collection: Collection, batch: VectorBatch) -> None:
        check_same_space(collection, batch.space_id)
        dimension = self._spaces.get_space(batch.space_id).dimension
        if batch.vectors.shape[1] != dimension:
            raise EmbeddingSpaceMismatchError(
                f"The vectors have {batch.vectors.shape[1]} numbers; contract '{batch.space_id}' has {dimension}."
            )
        if collection.second_space_id is not None:
            raise ConflictError(
                f"Collection '{collection.name}' is changing its network, and a vector cannot be carried over. Finish "
                "the transition first, then register vectors of the network that stays."
            )


def _check_batch(batch: VectorBatch) -> None:
    count = len(batch.external_ids)
    if not 1 <= count <= MAX_ROWS:
        raise InvalidInputError(f"Send 1 to {MAX_ROWS} rows; {count} were sent.")
    if batch.vectors.ndim != 2 or {count} != {len(batch.vectors), len(batch.names)}:
        raise InvalidInputError("Give one vector, one external id and one name a row.")
    _reject_rows(batch, find_repeated_rows(batch.external_ids), "the external id has come before", InvalidInputError)


def find_repeated_rows(external_ids: Sequence[str]) -> list[int]:
    """Return the rows, counted from 0, whose external id an earlier row has."""
    seen: set[str] = set()
    rows = []
    for row, external_id in enumerate(external_ids):
        if external_id in seen:
            rows.append(row)
        seen.add(external_id)
    return rows


def _prepare_vectors(batch: VectorBatch) -> tuple[FloatArray, NDArray[np.uint8]]:
    """Return the vectors as (n, d) float32 of length 1, and the (n, 32) SHA-256 digests of the given vectors."""
    given = np.ascontiguousarray(batch.vectors, dtype=np.float32)
    lengths = np.linalg.norm(given.astype(np.float64), axis=1)
    bad = np.flatnonzero(~np.isfinite(lengths) | (lengths == 0))
    _reject_rows(
        batch, bad.tolist(), "the vector has no direction: its length is zero or not finite", InvalidInputError
    )
    digests = b"".join(sha256(vector).digest() for vector in given.astype("<f4", copy=False))
    vectors = (given / lengths[:, None]).astype(np.float32)
    return vectors, np.frombuffer(digests, np.uint8).reshape(-1, 32)


async def _find_new_rows(work: UnitOfWork, collection: Collection, batch: VectorBatch) -> NDArray[np.intp]:
    """Return the rows whose external id the collection does not have."""
    taken = await work.bulk.find_taken_external_ids(collection.id, batch.external_ids)
    known = np.array([external_id in taken for external_id in batch.external_ids])
    if not batch.skip_known:
        detail = "a person with this external id exists in the collection"
        _reject_rows(batch, np.flatnonzero(known).tolist(), detail, AlreadyExistsError)
    return np.flatnonzero(~known)


async def _write_rows(
    work: UnitOfWork,
    collection: Collection,
    batch: VectorBatch,
    grant: ConsentGrant,
    rows: NDArray[np.intp],
    prepared: tuple[FloatArray, NDArray[np.uint8], CodeArray | None],
) -> None:
    vectors, sources, codes = prepared
    period = compute_consent_period(collection, grant)
    people = [(batch.external_ids[row], batch.names[row]) for row in rows]
    is_sealed = collection.policy.storage is Storage.SEALED
    persons = await work.bulk.add_persons(collection.id, people, with_keys=is_sealed)
    consents = await work.bulk.add_consents(
        collection.id,
        persons,
        purpose=grant.purpose,
        recorded_by=grant.recorded_by,
        evidence_ref=grant.evidence_ref,
        **asdict(period),
    )
    await work.templates.import_templates(
        collection.id,
        batch.space_id,
        persons=persons,
        consents=consents,
        expires_at=period.expires_at,
        vectors=vectors[rows],
        sources=sources[rows],
        codes=None if codes is None else codes[rows],
    )


def _reject_rows(
    batch: VectorBatch, rows: Sequence[int], detail: str, error: type[InvalidInputError | AlreadyExistsError]
) -> None:
    if rows:
        numbers = [batch.first_row + row for row in rows]
        listed_rows = ", ".join(map(str, numbers[:MAX_REPORTED_ROWS])) + (
            " and more" if len(rows) > MAX_REPORTED_ROWS else ""
        )
        raise error(
            f"Row {listed_rows}, counted from 0: {detail}. Nothing of this batch was stored.",
            rows=numbers[:MAX_REPORTED_ROWS],
        )
