"""Reads a bundle into this installation: first the whole of it, for faults, then into the database."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from vultus.domain import Collection, Permission, SearchMode
from vultus.domain.bundle_events import BundleImported
from vultus.domain.events import CollectionCreated
from vultus.errors import (
    ConflictError,
    EmbeddingSpaceMismatchError,
    InvalidInputError,
    NotFoundError,
    SignatureInvalidError,
)
from vultus.sealing.signatures import encode_public_key
from vultus.services.bundles.arrivals import Arrivals, Endings, list_ids
from vultus.services.bundles.checks import Distinction, build_calibration, build_policy
from vultus.services.bundles.reading import BundleReading
from vultus.services.collections import require_name
from vultus.services.policies import build_collection_policy, check_liveness_policy

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from vultus.db.database import Database, UnitOfWork
    from vultus.domain import DecisionPolicy, FloatArray, Principal, SpaceRegistry, Storage
    from vultus.sealing.key_store import KeyStore
    from vultus.services.bundles.records import BundledPerson, BundleHeader

MAX_NAMED = 5
SIGNER_ADVICE = (
    "If another installation signed the bundle, say with which key (--signed-by KEY): 'vultus export-bundle' prints it "
    "over there. Have it by another way than the bundle."
)


@dataclass(slots=True)
class BundleReport:
    """What an import did.

    Attributes:
        collection: Into which it went.
        is_new: Whether the import created it.
        persons: Who were added.
        consents: With how many consents.
        faces: With how many faces.
        known: Persons who were there before, and were left as they were.
        erased: Persons who have been erased here, and were not brought back.
        lapsed: Persons whose consents have all ended.
        installation: Id of the installation that signed the bundle.
    """

    collection: Collection
    is_new: bool
    installation: UUID
    persons: int = 0
    consents: int = 0
    faces: int = 0
    known: int = 0
    erased: int = 0
    lapsed: int = 0


class BundleImporter:
    """Adds the persons of a bundle to a collection here.

    Args:
        database: Into which.
        spaces: Those whose vectors are known here.
        keys: Of this installation, whose own bundles need no other key.
        ledger: Of what has ended here.
        has_liveness: Whether a network is loaded that judges liveness.
    """

    def __init__(
        self, database: Database, spaces: SpaceRegistry, keys: KeyStore, ledger: Path, *, has_liveness: bool
    ) -> None:
        self._database = database
        self._spaces = spaces
        self._keys = keys
        self._ledger = ledger
        self._has_liveness = has_liveness

    async def import_bundle(
        self,
        principal: Principal,
        file: Path,
        *,
        identities: Sequence[Any] = (),
        signed_by: str | None = None,
        name: str | None = None,
        storage: Storage | None = None,
        progress: Callable[[int], None] = lambda _count: None,
    ) -> BundleReport:
        """Add the persons of a bundle who are not here, with the consents that have not ended and the faces on them.

        Ids are kept where they are free. Nobody who is here is changed. What is refused has changed nothing: the whole
        bundle is read and checked before the first person is added. Imported again, it goes on where it stopped.

        Args:
            principal: The caller.
            file: Of `BundleExporter`, or of whoever writes that format.
            identities: That may open it.
            signed_by: Public key of who signed it; None for this installation.
            name: Of the collection here, if it is to be another one; of no effect if the collection is here.
            storage: How templates lie in a collection that is created, if another way than in the bundle's.
            progress: Called with the number of bytes just read; all are read three times.

        Raises:
            InvalidInputError: It is no bundle, or is damaged.
            SignatureInvalidError: Another key signed it, or it was changed.
            PackNotLoadedError: No loaded pack makes vectors of its embedding space.
            EmbeddingSpaceMismatchError: Its vectors, or the collection here, are of another one.
            ConflictError: The collection was deleted here, is here and stored another way than asked for, or is
                migrating; or its name or an external id is taken.
        """
        principal.require(Permission.CONFIGURE)
        principal.require(Permission.ENROL)
        principal.require_all_collections("import one")
        endings = await asyncio.to_thread(Endings.read, self._ledger)
        reading = BundleReading(file, identities, signed_by or await self._find_own_key(), progress)
        try:
            target = await self._check(reading, endings, name)
        except SignatureInvalidError as error:
            raise error if signed_by else SignatureInvalidError(f"{error.detail} {SIGNER_ADVICE}") from None
        if is_new := target is None:
            target = await self._create_collection(principal, reading.require_header(), name, storage)
        elif storage not in (None, target.policy.storage):
            raise ConflictError(
                f"Collection '{target.name}' is here, and {target.policy.storage}. Nothing was imported: leave out "
                "--storage to add to it as it is."
            )
        report = BundleReport(target, is_new, reading.require_installation())
        async for people, vectors in reading.read_parts():
            await self._add_people(principal, report, endings, people, vectors)
        return report

    async def _find_own_key(self) -> str:
        if not self._keys.exists():
            raise InvalidInputError(SIGNER_ADVICE)
        keys = await asyncio.to_thread(self._keys.load)
        return encode_public_key(keys.signing_key.public_key())

    async def _check(self, reading: BundleReading, endings: Endings, name: str | None) -> Collection | None:
        """Read all of a bundle, and return the collection that it goes into; None if that is to be created."""
        target: Collection | None = None
        distinction, taken = None, list[str]()
        async for people, _ in reading.read_parts():
            header = reading.require_header()
            if distinction is None:
                target = await self._find_collection(header, endings, name)
                distinction = Distinction(reading.file, header.collection.id)
            distinction.add(people)
            taken += await self._find_taken(target, people)
        if distinction is None:
            target = await self._find_collection(reading.require_header(), endings, name)
        if taken and target is not None:
            named = ", ".join(f"'{one}'" for one in taken[:MAX_NAMED]) + (" and more" if len(taken) > MAX_NAMED else "")
            raise ConflictError(
                f"Collection '{target.name}' has other persons with the external ids {named}. Nothing was imported: "
                "change theirs, or erase them, first."
            )
        return target

    async def _find_collection(self, header: BundleHeader, endings: Endings, name: str | None) -> Collection | None:
        """Return the collection of a bundle that is here; None if it is not, and could be created."""
        space = self._spaces.get_space(header.space.id)
        if space.dimension != header.space.dimension:
            raise EmbeddingSpaceMismatchError(
                f"The bundle's vectors have {header.space.dimension} numbers; contract '{space.id}' has "
                f"{space.dimension}."
            )
        moved = header.collection
        if moved.id in endings.collections:
            raise ConflictError(f"Collection '{moved.name}' was deleted here, with everybody in it: nobody comes back.")
        check_liveness_policy(moved.policy, has_liveness=self._has_liveness)
        self._build_policy(header)
        build_calibration(moved)
        async with self._database.transaction(read_only=True) as work:
            try:
                found = await work.collections.get_collection(moved.id)
            except NotFoundError:
                found = None
            if found is None:
                await _require_free_name(work, require_name(name or moved.name))
        if found is not None and found.space_id != space.id:
            raise EmbeddingSpaceMismatchError(
                f"Collection '{found.name}' is here with vectors of contract '{found.space_id}'; the bundle's are of "
                f"'{space.id}'."
            )
        if found is not None and found.second_space_id is not None:
            raise ConflictError(f"Collection '{found.name}' is changing its network here; finish that first.")
        return found

    async def _find_taken(self, target: Collection | None, people: Sequence[BundledPerson]) -> list[str]:
        """Return external ids that other persons of a collection have."""
        if target is None:
            return []
        given = {person.external_id: person.id for person in people if person.external_id is not None}
        async with self._database.transaction(read_only=True) as work:
            found = await work.bulk.find_persons_by_external_id(target.id, list(given))
        return [one for one, person_id in found.items() if person_id not in list_ids(target.id, given[one])]

    def _build_policy(self, header: BundleHeader, storage: Storage | None = None) -> DecisionPolicy:
        default = build_collection_policy(self._spaces.get_space(header.space.id))
        return build_policy(header.collection, default, storage)

    async def _create_collection(
        self, principal: Principal, header: BundleHeader, name: str | None, storage: Storage | None
    ) -> Collection:
        moved, policy = header.collection, self._build_policy(header, storage)
        async with self._database.transaction() as work:
            made = await work.collections.add_collection(
                name or moved.name,
                header.space.id,
                policy,
                moved.retention_days,
                unseen_days=moved.unseen_days,
                collection_id=moved.id,
            )
            if (calibration := build_calibration(moved)) is not None:
                await work.collections.set_calibration(made.id, header.space.id, calibration)
            await work.collections.update_collection(made.id, search=SearchMode(moved.search))
            await work.record(principal, CollectionCreated(collection_id=made.id))
            return await work.collections.get_collection(made.id)

    async def _add_people(
        self,
        principal: Principal,
        report: BundleReport,
        endings: Endings,
        people: Sequence[BundledPerson],
        vectors: FloatArray,
    ) -> None:
        """Add those of some persons who are not here and may be."""
        async with self._database.transaction(writes_to=str(report.collection.id)) as work:
            collection = await work.open(str(report.collection.id), principal, Permission.ENROL)
            ids = [one for person in people for one in list_ids(collection.id, person.id)]
            # The ledger was read before the bundle: whoever was erased since then is in the database alone.
            endings = endings.add_erasures(await work.erasures.find_endings(ids))
            arrivals = Arrivals(collection, endings, datetime.now(UTC))
            homes = await work.bulk.find_collections_of(ids)
            consents = [consent.id for person in people for consent in person.consents]
            taken = await work.bulk.find_taken_consents(consents)
            faces = [face.id for person in people for face in person.faces]
            taken |= await work.bulk.find_taken_faces(collection.id, faces)
            first, known = 0, 0
            for person in people:
                rows = vectors[first : first + len(person.faces)]
                first += len(person.faces)
                if any(homes.get(one) == collection.id for one in list_ids(collection.id, person.id)):
                    known += 1
                else:
                    arrivals.take(person, rows, is_free=person.id not in homes, taken=taken)
            await work.bulk.add_moved(arrivals.persons, arrivals.consents)
            await work.templates.add_templates(arrivals.faces)
            counts = len(arrivals.persons), len(arrivals.consents), len(arrivals.faces)
            if counts[0]:
                event = BundleImported(
                    collection_id=collection.id,
                    persons=counts[0],
                    consents=counts[1],
                    faces=counts[2],
                    installation=report.installation,
                )
                await work.record(principal, event)
        report.persons += counts[0]
        report.consents += counts[1]
        report.faces += counts[2]
        report.known += known
        report.erased += arrivals.erased
        report.lapsed += arrivals.lapsed


async def _require_free_name(work: UnitOfWork, name: str) -> None:
    try:
        await work.collections.get_collection_by_name(name)
    except NotFoundError:
        return
    raise ConflictError(f"There is another collection named '{name}' here; name this one otherwise (--name).")
