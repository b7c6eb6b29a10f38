"""Writes a collection to a bundle."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import asdict
from datetime import UTC, datetime
from hashlib import sha256
from typing import TYPE_CHECKING, TypeVar

import msgspec
import numpy as np

from vultus import __version__
from vultus.domain import Consent, Face, Permission, SearchMode
from vultus.domain.bundle_events import CollectionExported
from vultus.errors import ConflictError, KeyRingError
from vultus.sealing.signatures import sign_document
from vultus.services.bundles.records import (
    COUNTS,
    FORMAT_VERSION,
    HEADER,
    KIND,
    PEOPLE,
    PERSONS_PER_PART,
    VECTORS,
    BundleCounts,
    BundledCollection,
    BundledConsent,
    BundledFace,
    BundledPerson,
    BundledSpace,
    BundleHeader,
)
from vultus.utils.archives import create_archive

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path
    from uuid import UUID

    from vultus.db.database import Database
    from vultus.domain import Collection, LoadedSpace, Person, Principal, SpaceRegistry
    from vultus.sealing.key_store import KeyStore
    from vultus.utils.archives import ArchiveWriter

MAX_PART_BYTES = 32 * 2**20
"""Of persons and vectors together; a person with more has a part alone."""

Owned = TypeVar("Owned", Consent, Face)


class BundleExporter:
    """Writes collections to bundles, signed by the key of the installation.

    Args:
        database: Of the collections.
        spaces: With that of the collection.
        keys: Of the installation; made if there are none.
    """

    def __init__(self, database: Database, spaces: SpaceRegistry, keys: KeyStore) -> None:
        self._database = database
        self._spaces = spaces
        self._keys = keys

    async def export_collection(
        self,
        principal: Principal,
        reference: str,
        file: Path,
        *,
        recipients: Sequence[str],
        progress: Callable[[int, int], None] = lambda _done, _all: None,
    ) -> BundleCounts:
        """Write a collection: everybody with a live consent, and the templates that are searched.

        Each person is as of one moment, and who is erased meanwhile is in it or not.

        Args:
            principal: The caller.
            reference: Id or name of the collection.
            file: Must not exist.
            recipients: Who may open it; without any it is not encrypted.
            progress: Called with the number of persons written and of all.

        Raises:
            ForbiddenError: The caller may not read vectors.
            NotFoundError: There is no such collection.
            PackNotLoadedError: The pack of its embedding space is not loaded.
            AlreadyExistsError: The file exists.
            InvalidInputError: It cannot be written; nothing is left of it.
            ConflictError: Another network is searched meanwhile.
            KeyRingError: A template is sealed and cannot be opened, though its person was not erased.
        """
        principal.require(Permission.SCORES)
        if not self._keys.exists():
            await asyncio.to_thread(self._keys.create)
        keys = await asyncio.to_thread(self._keys.load)
        async with self._database.transaction(read_only=True) as work:
            collection = await work.open(reference, principal, Permission.READ)
            total, _ = await work.collections.count_persons_and_faces(collection.id)
        space = self._spaces.get_space(collection.space_id)
        with create_archive(file, recipients) as archive:
            archive.add_member(HEADER, msgspec.json.encode(_build_header(collection, space)))
            counts = await self._write_people(principal, collection, archive, lambda done: progress(done, total))
            archive.add_member(COUNTS, msgspec.json.encode(counts))
            async with self._database.transaction() as work:
                event = CollectionExported(collection_id=collection.id, persons=counts.persons, faces=counts.faces)
                await work.record(principal, event)
            archive.close(
                lambda digests: sign_document(
                    KIND,
                    {"digests_sha256": sha256(digests).hexdigest()},
                    installation_id=keys.installation_id,
                    signing_key=keys.signing_key,
                )
            )
        return counts

    async def _write_people(
        self, principal: Principal, collection: Collection, archive: ArchiveWriter, progress: Callable[[int], None]
    ) -> BundleCounts:
        persons = consents = faces = part = 0
        after: UUID | None = None
        while found := await self._read_page(principal, collection, after):
            for lines, vectors in _split_into_parts(found):
                await asyncio.to_thread(archive.add_member, f"{PEOPLE}{part:05}.jsonl", lines)
                await asyncio.to_thread(archive.add_member, f"{VECTORS}{part:05}.f16", vectors)
                part += 1
            persons += len(found)
            consents += sum(len(person.consents) for person, _ in found)
            faces += sum(len(person.faces) for person, _ in found)
            after = found[-1][0].id
            progress(persons)
        return BundleCounts(persons=persons, consents=consents, faces=faces)

    async def _read_page(
        self, principal: Principal, collection: Collection, after: UUID | None
    ) -> list[tuple[BundledPerson, list[bytes]]]:
        """Return the next persons, each with the vectors of their faces; nobody who has been erased meanwhile.

        A key that is destroyed between reading a template and opening it belongs to somebody who is erased: they are
        not there when the page is read again.
        """
        try:
            return await self._read_page_once(principal, collection, after)
        except KeyRingError:
            return await self._read_page_once(principal, collection, after)

    async def _read_page_once(
        self, principal: Principal, collection: Collection, after: UUID | None
    ) -> list[tuple[BundledPerson, list[bytes]]]:
        async with self._database.transaction(read_only=True) as work:
            now = await work.open(str(collection.id), principal, Permission.READ)
            if now.space_id != collection.space_id:
                raise ConflictError(f"Collection '{collection.name}' has changed its network meanwhile; begin anew.")
            page = await work.persons.list_persons(collection.id, after, PERSONS_PER_PART)
            ids = [person.id for person in page]
            consents = _group_by_person(await work.consents.list_live_consents_of(collection.id, ids))
            vectors = await work.templates.list_templates_of(collection.id, collection.space_id, ids)
            listed = await work.faces.list_faces_of(collection.id, ids, collection.space_id)
        faces = _group_by_person([face for face in listed if face.id in vectors])
        return [
            (
                _build_person(person, consents[person.id], faces[person.id]),
                [np.ascontiguousarray(vectors[face.id], dtype="<f2").tobytes() for face in faces[person.id]],
            )
            for person in page
        ]


def _split_into_parts(found: Sequence[tuple[BundledPerson, list[bytes]]]) -> Iterator[tuple[bytes, bytes]]:
    """Yield the lines and the vectors of some persons, as many as fit into a part at a time, and at least one."""
    lines, vectors = bytearray(), bytearray()
    for person, of_person in found:
        line, own = msgspec.json.encode(person) + b"\n", b"".join(of_person)
        if lines and len(lines) + len(line) + len(vectors) + len(own) > MAX_PART_BYTES:
            yield bytes(lines), bytes(vectors)
            lines, vectors = bytearray(), bytearray()
        lines += line
        vectors += own
    if lines:
        yield bytes(lines), bytes(vectors)


def _build_header(collection: Collection, space: LoadedSpace) -> BundleHeader:
    calibration = collection.calibrations.get(collection.space_id)
    policy = {name: value for name, value in asdict(collection.policy).items() if value is not None}
    return BundleHeader(
        format="vultus-bundle",
        version=FORMAT_VERSION,
        made_at=datetime.now(UTC),
        made_by=f"vultus {__version__}",
        collection=BundledCollection(
            id=collection.id,
            name=collection.name,
            policy=policy,
            calibration=None if calibration is None else asdict(calibration),
            retention_days=collection.retention_days,
            unseen_days=collection.unseen_days,
            search="exact" if collection.search is SearchMode.EXACT else "auto",
        ),
        space=BundledSpace(
            id=space.id,
            network=space.network,
            weights_sha256=space.weights_sha256,
            preprocessing=space.preprocessing,
            dimension=space.dimension,
        ),
    )


def _group_by_person(found: Sequence[Owned]) -> defaultdict[UUID, list[Owned]]:
    grouped: defaultdict[UUID, list[Owned]] = defaultdict(list)
    for one in found:
        grouped[one.person_id].append(one)
    return grouped


def _build_person(person: Person, consents: Sequence[Consent], faces: Sequence[Face]) -> BundledPerson:
    return BundledPerson(
        id=person.id,
        external_id=person.external_id,
        name=person.name,
        metadata=person.metadata,
        created_at=person.created_at,
        consents=[
            BundledConsent(
                id=one.id,
                purpose=one.purpose,
                recorded_by=one.recorded_by,
                evidence_ref=one.evidence_ref,
                granted_at=one.granted_at,
                expires_at=one.expires_at if one.seen_at is None else one.granted_until,
                seen_at=one.seen_at,
            )
            for one in consents
        ],
        faces=[
            BundledFace(
                id=face.id,
                consent_id=face.consent_id,
                created_at=face.created_at,
                score=face.score,
                size_px=face.quality.size_px,
                sharpness=face.quality.sharpness,
                brightness=face.quality.brightness,
                yaw_deg=face.quality.yaw_deg,
                pitch_deg=face.quality.pitch_deg,
                roll_deg=face.quality.roll_deg,
                source_sha256=face.source_sha256,
            )
            for face in faces
        ],
    )
