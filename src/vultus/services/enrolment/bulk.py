"""Registering thousands of persons from vectors made elsewhere by the collection's own network."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vultus.domain import Actor, CodeArray, Coding, Collection, FloatArray
from vultus.errors import (
    AlreadyExistsError,
    ConflictError,
    ConsentRequiredError,
    ContractMismatchError,
    InvalidInputError,
)
from vultus.index.coding import BITS, Coder
from vultus.services.collections import check_contract, find_collection
from vultus.services.people.consents import ConsentGrant, terms
from vultus.services.people.erasure import open_for_writing

if TYPE_CHECKING:
    from vultus.db.database import Database, Work
    from vultus.models.pipelines import Pipelines

MAX_ROWS = 5_000
"""Persons in one transaction: it keeps other writers of the collection waiting for a third of a second."""

TOLD_ROWS = 10

LEAST_FOR_CENTRE = 1_000
"""Vectors whose mean is a gallery's centre, near enough; with fewer it is left to when the gallery has grown."""


@dataclass(frozen=True, slots=True, eq=False)
class VectorBatch:
    """Persons to register, each with one vector.

    Attributes:
        collection: Id or name.
        contract_id: Of the vectors; must be the collection's.
        external_ids: One a person, of nobody in the collection.
        names: One a person, for people to read.
        vectors: (n, d) of any float type and any length but zero.
        consent: What every one of them agreed to.
        known_left_out: Leave out persons whose external id the collection has, instead of refusing the batch.
        first_row: Where the batch begins in a file, for the numbers of rows in errors.
    """

    collection: str
    contract_id: str
    external_ids: Sequence[str]
    names: Sequence[str | None]
    vectors: NDArray[Any]
    consent: ConsentGrant | None
    known_left_out: bool = False
    first_row: int = 0


@dataclass(frozen=True, slots=True)
class Imported:
    """What a batch came to: persons registered, and those left out because the collection had them."""

    collection: Collection
    registered: int
    known: int


class BulkRegistrar:
    """Registers persons from vectors: no photo, so no quality, no liveness and no check for lookalikes."""

    def __init__(self, database: Database, pipelines: Pipelines) -> None:
        self._database = database
        self._pipelines = pipelines

    async def register(self, batch: VectorBatch, *, actor: Actor) -> Imported:
        """Register all of a batch, or nobody.

        Nobody compares the faces with each other or with those enrolled: who is in the batch twice, or in the
        collection under another external id, becomes two persons.

        Args:
            batch: At most `MAX_ROWS` persons.
            actor: For the audit record, which tells how many there were.

        Raises:
            ConsentRequiredError: There is no consent.
            ContractMismatchError: The vectors are another network's, or of another length.
            InvalidInputError: A vector has no direction, or an external id comes twice; the detail names the rows.
            AlreadyExistsError: The collection has a person with such an external id; the detail names the rows.
            ConflictError: The collection is changing its network.
        """
        if batch.consent is None:
            raise ConsentRequiredError("Registering vectors needs the persons' consent. Nothing was stored.")
        _check(batch)
        async with self._database.work(read_only=True) as work:
            home = await find_collection(work, batch.collection)
        self._check_contract(home, batch)
        vectors, sources = await asyncio.to_thread(_prepare, batch)
        codes = await self._coded(home, batch.contract_id, vectors)
        async with self._database.work() as work:
            home = await open_for_writing(work, str(home.id))
            self._check_contract(home, batch)
            fresh = await _fresh(work, home, batch)
            if len(fresh):
                await _write(work, home, batch, batch.consent, fresh, (vectors, sources, codes))
                counts = {"persons": len(fresh), "faces": len(fresh)}
                await work.audit.add(actor, "vectors.registered", collection_id=home.id, detail=counts)
        return Imported(home, len(fresh), len(vectors) - len(fresh))

    async def _coded(self, home: Collection, contract_id: str, vectors: FloatArray) -> CodeArray | None:
        """Return the codes of vectors; None, to be made later, where it is not decided how and these are too few."""
        async with self._database.work() as work:
            coding = await work.codes.coding(home.id, contract_id)
            if coding is None and len(vectors) >= LEAST_FOR_CENTRE:
                coding = await work.codes.add_coding(Coding(home.id, contract_id, vectors.mean(axis=0), BITS))
        return None if coding is None else await asyncio.to_thread(Coder(coding.centre, coding.bits).encode, vectors)

    def _check_contract(self, home: Collection, batch: VectorBatch) -> None:
        check_contract(home, batch.contract_id)
        dimension = self._pipelines.of(batch.contract_id).contract.dimension
        if batch.vectors.shape[1] != dimension:
            raise ContractMismatchError(
                f"The vectors have {batch.vectors.shape[1]} numbers; contract '{batch.contract_id}' has {dimension}."
            )
        if home.second_contract_id is not None:
            raise ConflictError(
                f"Collection '{home.name}' is changing its network, and a vector cannot be carried over. Finish the "
                "transition first, then register vectors of the network that stays."
            )


def _check(batch: VectorBatch) -> None:
    count = len(batch.external_ids)
    if not 1 <= count <= MAX_ROWS:
        raise InvalidInputError(f"Send 1 to {MAX_ROWS} rows; {count} were sent.")
    if batch.vectors.ndim != 2 or {count} != {len(batch.vectors), len(batch.names)}:
        raise InvalidInputError("Give one vector, one external id and one name a row.")
    _refuse(batch, repeated(batch.external_ids), "the external id has come before", InvalidInputError)


def repeated(external_ids: Sequence[str]) -> list[int]:
    """Return the rows, from 0, whose external id an earlier row has."""
    seen: set[str] = set()
    rows = []
    for row, told in enumerate(external_ids):
        if told in seen:
            rows.append(row)
        seen.add(told)
    return rows


def _prepare(batch: VectorBatch) -> tuple[FloatArray, NDArray[np.uint8]]:
    """Return the vectors at length 1, and the digest of each as it was given, as float32."""
    given = np.ascontiguousarray(batch.vectors, dtype=np.float32)
    lengths = np.linalg.norm(given.astype(np.float64), axis=1)
    bad = np.flatnonzero(~np.isfinite(lengths) | (lengths == 0))
    _refuse(batch, bad.tolist(), "the vector has no direction: its length is zero or not finite", InvalidInputError)
    digests = b"".join(sha256(vector).digest() for vector in given.astype("<f4", copy=False))
    vectors = (given / lengths[:, None]).astype(np.float32)
    return vectors, np.frombuffer(digests, np.uint8).reshape(-1, 32)


async def _fresh(work: Work, home: Collection, batch: VectorBatch) -> NDArray[np.intp]:
    """Return the rows whose external id the collection does not have."""
    taken = await work.bulk.taken(home.id, batch.external_ids)
    known = np.array([told in taken for told in batch.external_ids])
    if not batch.known_left_out:
        detail = "a person with this external id exists in the collection"
        _refuse(batch, np.flatnonzero(known).tolist(), detail, AlreadyExistsError)
    return np.flatnonzero(~known)


async def _write(
    work: Work,
    home: Collection,
    batch: VectorBatch,
    grant: ConsentGrant,
    rows: NDArray[np.intp],
    made: tuple[FloatArray, NDArray[np.uint8], CodeArray | None],
) -> None:
    vectors, sources, codes = made
    granted_at, expires_at = terms(home, grant)
    persons = await work.bulk.add_persons(home.id, [(batch.external_ids[row], batch.names[row]) for row in rows])
    consents = await work.bulk.add_consents(
        home.id,
        persons,
        purpose=grant.purpose,
        recorded_by=grant.recorded_by,
        evidence_ref=grant.evidence_ref,
        granted_at=granted_at,
        expires_at=expires_at,
    )
    await work.bulk.add_faces(
        home.id,
        batch.contract_id,
        persons=persons,
        consents=consents,
        expires_at=expires_at,
        vectors=vectors[rows],
        sources=sources[rows],
        codes=None if codes is None else codes[rows],
    )


def _refuse(
    batch: VectorBatch, rows: Sequence[int], detail: str, error: type[InvalidInputError | AlreadyExistsError]
) -> None:
    if rows:
        numbers = [batch.first_row + row for row in rows]
        named = ", ".join(map(str, numbers[:TOLD_ROWS])) + (" and more" if len(rows) > TOLD_ROWS else "")
        raise error(
            f"Row {named}, counted from 0: {detail}. Nothing of this batch was stored.", rows=numbers[:TOLD_ROWS]
        )
