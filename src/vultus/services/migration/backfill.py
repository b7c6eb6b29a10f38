"""Backfill of templates: from retained crops in the background, or from resubmitted photos.

Pending work is derived from the rows alone: a face without a template in an embedding space and without a recorded
failure. So a process can be killed at any moment, and the next one continues.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

from vultus.domain import DETECTION, Lane, Permission
from vultus.errors import (
    SERVER_FAULT_KINDS,
    InvalidInputError,
    KeyRingError,
    NotFoundError,
    PackNotLoadedError,
    VultusError,
)
from vultus.services.crop_vault import CropDamagedError, CropKeyGoneError
from vultus.services.jobs import PartialFailureError, record_progress
from vultus.services.migration.migration import get_active_migration
from vultus.services.photo_analysis import Photo, find_matching_face, pick_face
from vultus.utils.ids import new_id

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vultus.db.database import Database
    from vultus.domain import Collection, Crop, FaceSource, FloatArray, Principal, SpaceRegistry
    from vultus.services.crop_vault import CropVault
    from vultus.services.photo_analysis import AnalysisEngine, PhotoAnalyzer

log = logging.getLogger(__name__)

LEASE_S = 30.0
"""Time after which another worker can take over a collection whose worker has died."""

BATCH_SIZE = 200


@dataclass(frozen=True, slots=True)
class BackfillFailure:
    """Why a face has no template, as a stable code."""

    reason: str


class BackfillWorker:
    """Computes embeddings of retained crops in the target embedding space of a migration."""

    def __init__(self, database: Database, engine: AnalysisEngine, spaces: SpaceRegistry, vault: CropVault) -> None:
        self._database = database
        self._engine = engine
        self._spaces = spaces
        self._vault = vault
        self._id = new_id()

    async def run(self) -> int:
        """Backfill the pending faces of all collections; return the number of faces backfilled.

        Errors in one collection are logged and do not delay the others.

        Raises:
            PartialFailureError: Of some collections not all faces were backfilled.
        """
        async with self._database.transaction(read_only=True) as work:
            migrations = await work.migrations.list_migrations()
        backfilled, failed, no_key = 0, 0, None
        for collection_id in (migration.collection_id for migration in migrations):
            try:
                backfilled += await self.backfill_collection(collection_id)
            except KeyRingError as error:
                no_key = error
            except Exception as error:
                failed += 1
                log.error("faces of collection %s are not backfilled", collection_id, exc_info=error)
        if no_key is not None:
            log.error("retained crops cannot be opened: %s", no_key.detail)
        if failed or no_key is not None:
            raise PartialFailureError("faces were not backfilled")
        return backfilled

    async def backfill_collection(self, collection_id: UUID) -> int:
        """Backfill the pending faces of a collection unless another worker does; return the number backfilled.

        Both embedding spaces are completed: the second one for the cutover, the active one for a rollback.

        Raises:
            KeyRingError: There are crops to open, and the keys are missing or unusable.
        """
        if not await self._acquire_lease(collection_id):
            return 0
        try:
            async with self._database.transaction(read_only=True) as work:
                collection = await work.collections.get_collection(collection_id)
                _, second = await get_active_migration(work, collection)
            return sum([await self._backfill_space(collection, space_id) for space_id in (second, collection.space_id)])
        except NotFoundError:  # finished or deleted meanwhile
            return 0
        finally:
            async with self._database.transaction() as work:
                await work.migrations.release_lease(collection_id, self._id)

    async def _acquire_lease(self, collection_id: UUID) -> bool:
        async with self._database.transaction() as work:
            return await work.migrations.acquire_lease(collection_id, self._id, LEASE_S)

    async def _backfill_space(self, collection: Collection, space_id: str) -> int:
        try:
            self._spaces.get_space(space_id)
        except PackNotLoadedError as error:
            log.warning("faces are not backfilled: %s", error.detail)
            return 0
        async with self._database.transaction(writes_to=str(collection.id)) as work:
            await work.lock_collection(collection.id)
            await work.backfill.add_missing_crop_failures(collection.id, space_id)
        backfilled, after = 0, None
        while await self._acquire_lease(collection.id):
            async with self._database.transaction(read_only=True) as work:
                faces = await work.backfill.list_pending_faces(collection.id, space_id, after, BATCH_SIZE)
            for face_id in faces:
                with contextlib.suppress(
                    NotFoundError
                ):  # the face was deleted; of a deleted collection, no faces are listed
                    backfilled += await self._backfill_face(collection.id, face_id, space_id)
                record_progress()
                after = face_id
            if len(faces) < BATCH_SIZE:
                break
        return backfilled

    async def _backfill_face(self, collection_id: UUID, face_id: UUID, space_id: str) -> bool:
        try:
            outcome = await self._embed_crop(collection_id, face_id, space_id)
        except VultusError as error:
            if error.kind in SERVER_FAULT_KINDS:
                raise
            outcome = BackfillFailure("damaged")
        except Exception as error:  # noqa: BLE001  one face must not block all others
            # The error's message may contain personal data; its type is sufficient.
            log.error("face %s of collection %s: %s", face_id, collection_id, type(error).__name__)
            outcome = BackfillFailure("error")
        return await record_outcome(self._database, collection_id, face_id, space_id, outcome, worker=self._id)

    async def _embed_crop(self, collection_id: UUID, face_id: UUID, space_id: str) -> FloatArray | BackfillFailure:
        try:
            try:
                crop = await self._open_crop(collection_id, face_id)
            except CropKeyGoneError:  # perhaps the person got another key since the crop was read
                crop = await self._open_crop(collection_id, face_id)
        except CropKeyGoneError:
            return BackfillFailure("wrong_key")
        except CropDamagedError:
            return BackfillFailure("damaged")
        if crop is None:
            return BackfillFailure("no_crop")
        analysis = await self._engine.analyze_photo(crop.jpeg, space_id, lane=Lane.BATCH)
        face = find_matching_face(analysis.faces, crop.box)
        return BackfillFailure("no_face") if face is None else face.vector

    async def _open_crop(self, collection_id: UUID, face_id: UUID) -> Crop | None:
        async with self._database.transaction(read_only=True) as work:
            stored = await work.crops.find_crop(collection_id, face_id)
        return (
            None
            if stored is None
            else await self._vault.open_crop(stored, collection_id=collection_id, face_id=face_id)
        )


async def record_outcome(
    database: Database,
    collection_id: UUID,
    face_id: UUID,
    space_id: str,
    outcome: FloatArray | BackfillFailure,
    *,
    worker: UUID | None = None,
) -> bool:
    """Record the outcome of a face's backfill, if its collection still uses the embedding space.

    Args:
        database: The database to write to.
        collection_id: Id of the face's collection.
        face_id: Id of the face.
        space_id: The embedding space of the vector.
        outcome: Its vector, or why there is none.
        worker: The worker whose lease this renews; nothing is written if another worker holds the lease by now.

    Returns:
        Whether the face has a new template.

    Raises:
        NotFoundError: The collection, its migration or, with a failure, the face no longer exists.
    """
    async with database.transaction(writes_to=str(collection_id)) as work:
        await work.lock_collection(collection_id)
        collection = await work.collections.get_collection(collection_id)
        _, second = await get_active_migration(work, collection)
        if space_id not in (collection.space_id, second):
            return False
        if worker is not None and not await work.migrations.acquire_lease(collection_id, worker, LEASE_S):
            return False
        if isinstance(outcome, BackfillFailure):
            await work.backfill.add_failure(collection_id, face_id, space_id, outcome.reason)
            return False
        await work.backfill.delete_failure(collection_id, face_id, space_id)
        return await work.templates.add_second_template(collection_id, face_id, space_id, outcome)


@dataclass(frozen=True, slots=True)
class ResubmissionOutcome:
    """The outcome of a resubmitted photo.

    Attributes:
        photo: Position of the photo in the request, from 0.
        filename: The name it was sent with.
        outcome: `carried`, `already_carried`, `unknown` (no enrolled face came from these bytes), `no_face` (the
            other network detects none at the position of the enrolled one), or the error code of an unusable file.
        faces: Ids of the faces that were enrolled from it.
    """

    photo: int
    filename: str | None
    outcome: str
    faces: tuple[UUID, ...]


class PhotoResubmission:
    """Backfills faces from resubmitted photos, which are matched to faces by their digest."""

    def __init__(self, database: Database, analyzer: PhotoAnalyzer, *, max_photos: int) -> None:
        self._database = database
        self._analyzer = analyzer
        self._max_photos = max_photos

    async def submit(
        self, principal: Principal, reference: str, photos: Sequence[Photo]
    ) -> tuple[ResubmissionOutcome, ...]:
        """Embed photos in the embedding spaces that their faces lack; return one outcome per photo, in their order.

        Raises:
            NotFoundError: The collection does not exist or has no active migration.
            InvalidInputError: The request holds more photos than allowed.
            OverloadedError: The networks are busy; the faces of earlier photos were backfilled.
        """
        if len(photos) > self._max_photos:
            raise InvalidInputError(f"Send 1 to {self._max_photos} photos; {len(photos)} were sent.")
        digests = [hashlib.sha256(photo.content).hexdigest() for photo in photos]
        async with self._database.transaction(read_only=True) as work:
            collection = await work.open(reference, principal, Permission.CONFIGURE)
            _, second = await get_active_migration(work, collection)
            known = await work.backfill.list_face_sources(collection.id, digests)
        spaces = frozenset({collection.space_id, second})
        outcomes = []
        for index, (photo, digest) in enumerate(zip(photos, digests, strict=True)):
            faces = [source for source in known if source.source_sha256 == digest]
            outcome = await self._process_photo(collection.id, photo, faces, spaces)
            outcomes.append(ResubmissionOutcome(index, photo.filename, outcome, tuple(face.face_id for face in faces)))
        return tuple(outcomes)

    async def _process_photo(
        self, collection_id: UUID, photo: Photo, faces: Sequence[FaceSource], spaces: frozenset[str]
    ) -> str:
        if not faces:
            return "unknown"
        lacking = [(face, missing) for face in faces for missing in spaces - face.space_ids]
        backfilled = False
        for face, missing in lacking:
            (known,) = face.space_ids & spaces
            try:
                outcome = await self._embed_face(photo, known, missing)
            except VultusError as error:
                if error.kind in SERVER_FAULT_KINDS:
                    raise
                return error.code
            with contextlib.suppress(NotFoundError):
                backfilled |= await record_outcome(self._database, collection_id, face.face_id, missing, outcome)
            if isinstance(outcome, BackfillFailure):
                return outcome.reason
        return "carried" if backfilled else "already_carried"

    async def _embed_face(self, photo: Photo, known: str, missing: str) -> FloatArray | BackfillFailure:
        """Embed, in the space `missing`, the face that was enrolled in the space `known`: the largest or only one."""
        first = await self._analyzer.analyze_photo(photo, known, DETECTION)
        box = pick_face(first, largest=True).face.box
        again = await self._analyzer.analyze_photo(photo, missing)
        face = find_matching_face(again.faces, box)
        return BackfillFailure("no_face") if face is None else face.vector
