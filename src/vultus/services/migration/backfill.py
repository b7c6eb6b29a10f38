"""Carries faces to another contract: from retained crops in the background, or from photos supplied again.

What is left to do follows from the rows alone: a face without a template of a contract and without a recorded failure.
A process that is killed at any moment leaves nothing half done, and the next one goes on.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

from vultus.errors import (
    CropKeyError,
    InvalidInputError,
    NotFoundError,
    OverloadedError,
    PackNotLoadedError,
    VultusError,
)
from vultus.services.collections import find_collection
from vultus.services.crop_vault import CropDamagedError, opened
from vultus.services.enrolment.photo_screening import NOT_THE_PHOTOS_FAULT
from vultus.services.migration.migration import under_way
from vultus.services.photo_analysis import Photo, pick_face, same_face
from vultus.utils.ids import new_id

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vultus.db.database import Database
    from vultus.domain import Collection, FloatArray, SealedCrop, Source
    from vultus.models.pipeline import FacePipeline
    from vultus.models.pipelines import Pipelines
    from vultus.models.workers.pool import AnalysisPool
    from vultus.services.crop_vault import CropKey, CropVault
    from vultus.services.photo_analysis import Images

log = logging.getLogger(__name__)

LEASE_S = 30.0
"""How long a collection waits for another worker when the one that carried its faces has died."""

BATCH = 200
PATIENCE_S = 2.0
"""Longest wait for an idle analysis thread; beyond it one face goes on among the requests."""


@dataclass(frozen=True, slots=True)
class Failed:
    """Why a face has no template: a stable word."""

    reason: str


class Carrier:
    """Describes retained crops by the network a collection moves to."""

    def __init__(self, database: Database, pool: AnalysisPool, pipelines: Pipelines, vault: CropVault) -> None:
        self._database = database
        self._pool = pool
        self._pipelines = pipelines
        self._vault = vault
        self._id = new_id()

    async def run(self) -> int:
        """Carry what is left in every collection; return how many faces were.

        What fails in one collection is logged and does not keep the others waiting.
        """
        async with self._database.work(read_only=True) as work:
            transitions = await work.transitions.all()
        carried, no_key = 0, None
        for collection_id in (transition.collection_id for transition in transitions):
            try:
                carried += await self.carry(collection_id)
            except CropKeyError as error:
                no_key = error
            except Exception as error:
                log.error("faces of collection %s are not carried", collection_id, exc_info=error)
        if no_key is not None:
            log.error("retained crops wait to be opened: %s", no_key.detail)
        return carried

    async def carry(self, collection_id: UUID) -> int:
        """Carry what is left in one collection, unless another worker does; return how many faces were.

        Raises:
            CropKeyError: There are crops to open, and the key's file is missing or unusable.
        """
        if not await self._lease(collection_id):
            return 0
        try:
            async with self._database.work(read_only=True) as work:
                home = await work.collections.get(collection_id)
                _, second = await under_way(work, home)
            return sum([await self._toward(home, contract_id) for contract_id in (second, home.contract_id)])
        except NotFoundError:  # finished or deleted meanwhile
            return 0
        finally:
            async with self._database.work() as work:
                await work.transitions.release(collection_id, self._id)

    async def _lease(self, collection_id: UUID) -> bool:
        async with self._database.work() as work:
            return await work.transitions.lease(collection_id, self._id, LEASE_S)

    async def _toward(self, home: Collection, contract_id: str) -> int:
        try:
            pipeline = self._pipelines.of(contract_id)
        except PackNotLoadedError as error:
            log.warning("faces are not carried: %s", error.detail)
            return 0
        async with self._database.work() as work:
            await work.lock_collection(home.id)
            await work.carrying.fail_without_crop(home.id, contract_id)
        carried, after = 0, None
        key: CropKey | None = None
        while await self._lease(home.id):
            async with self._database.work(read_only=True) as work:
                faces = await work.carrying.pending(home.id, contract_id, after, BATCH)
            for face_id in faces:
                key = key or await self._vault.opening()
                with contextlib.suppress(NotFoundError):  # the face is gone; a collection that is has no more faces
                    carried += await self._one(home.id, face_id, pipeline, key)
                after = face_id
            if len(faces) < BATCH:
                break
        return carried

    async def _one(self, collection_id: UUID, face_id: UUID, pipeline: FacePipeline, key: CropKey) -> bool:
        async with self._database.work(read_only=True) as work:
            stored = await work.crops.get(collection_id, face_id)
        try:
            outcome = await self._described(collection_id, face_id, stored, pipeline, key)
        except VultusError as error:
            if error.kind in NOT_THE_PHOTOS_FAULT:
                raise
            outcome = Failed("damaged")
        except Exception as error:  # noqa: BLE001  one face must not keep all others waiting
            # The message of the error may hold anything; its name does.
            log.error("face %s of collection %s: %s", face_id, collection_id, type(error).__name__)
            outcome = Failed("error")
        return await settle(self._database, collection_id, face_id, pipeline, outcome, worker=self._id)

    async def _described(
        self,
        collection_id: UUID,
        face_id: UUID,
        stored: SealedCrop | None,
        pipeline: FacePipeline,
        key: CropKey,
    ) -> FloatArray | Failed:
        if stored is None:
            return Failed("no_crop")
        try:
            crop = opened(key, stored, collection_id=collection_id, face_id=face_id)
            while True:
                await self._pool.room(PATIENCE_S)
                with contextlib.suppress(OverloadedError):
                    analysis = await self._pool.analyze(crop.jpeg, pipeline)
                    break
        except CropKeyError:
            return Failed("wrong_key")
        except CropDamagedError:
            return Failed("damaged")
        face = same_face(analysis.faces, crop.box)
        return Failed("no_face") if face is None else face.vector


async def settle(
    database: Database,
    collection_id: UUID,
    face_id: UUID,
    pipeline: FacePipeline,
    outcome: FloatArray | Failed,
    *,
    worker: UUID | None = None,
) -> bool:
    """Write what became of a face, if it still exists and its collection still wants the contract.

    Args:
        database: Where.
        collection_id: Of the face.
        face_id: Which face.
        pipeline: Described it.
        outcome: Its vector, or why there is none.
        worker: Whose lease goes on with this; nothing is written if it is another's by now.

    Returns:
        Whether the face has a new template.

    Raises:
        NotFoundError: The collection, the transition or, with a failure, the face is gone.
    """
    contract_id = pipeline.contract.id
    async with database.work() as work:
        await work.lock_collection(collection_id)
        home = await work.collections.get(collection_id)
        _, second = await under_way(work, home)
        if contract_id not in (home.contract_id, second):
            return False
        if worker is not None and not await work.transitions.lease(collection_id, worker, LEASE_S):
            return False
        if isinstance(outcome, Failed):
            await work.carrying.fail(collection_id, face_id, contract_id, outcome.reason)
            return False
        return await work.carrying.carry(collection_id, face_id, contract_id, outcome)


@dataclass(frozen=True, slots=True)
class Supplied:
    """What became of a photo that was supplied again.

    Attributes:
        photo: Which of the photos, from 0.
        outcome: `carried`, `already_carried`, `unknown` (no enrolled face came from these bytes), `no_face` (the
            network sees none where the other one saw it), or the code of what is wrong with the file.
        faces: Those that came from it.
    """

    photo: int
    filename: str | None
    outcome: str
    faces: tuple[UUID, ...]


class Supplier:
    """Carries faces from the photos they were enrolled from, known by their digest."""

    def __init__(self, database: Database, images: Images, pipelines: Pipelines, *, max_photos: int) -> None:
        self._database = database
        self._images = images
        self._pipelines = pipelines
        self._max_photos = max_photos

    async def supply(self, reference: str, photos: Sequence[Photo]) -> tuple[Supplied, ...]:
        """Describe photos again by the contract that faces from them lack; return an outcome a photo.

        Raises:
            NotFoundError: The collection does not exist, or is not changing its network.
            InvalidInputError: More photos than one request may hold.
            OverloadedError: The networks are busy; photos before this one were carried.
        """
        if len(photos) > self._max_photos:
            raise InvalidInputError(f"Send 1 to {self._max_photos} photos; {len(photos)} were sent.")
        digests = [hashlib.sha256(photo.content).hexdigest() for photo in photos]
        async with self._database.work(read_only=True) as work:
            home = await find_collection(work, reference)
            _, second = await under_way(work, home)
            known = await work.carrying.sources(home.id, digests)
        contracts = frozenset({home.contract_id, second})
        supplied = []
        for at, (photo, digest) in enumerate(zip(photos, digests, strict=True)):
            faces = [source for source in known if source.source_sha256 == digest]
            outcome = await self._outcome(home.id, photo, faces, contracts)
            supplied.append(Supplied(at, photo.filename, outcome, tuple(face.face_id for face in faces)))
        return tuple(supplied)

    async def _outcome(
        self, collection_id: UUID, photo: Photo, faces: Sequence[Source], contracts: frozenset[str]
    ) -> str:
        if not faces:
            return "unknown"
        lacking = [(face, missing) for face in faces for missing in contracts - face.contracts]
        carried = False
        for face, missing in lacking:
            (known,) = face.contracts & contracts
            try:
                outcome = await self._described(photo, known, missing)
            except VultusError as error:
                if error.kind in NOT_THE_PHOTOS_FAULT:
                    raise
                return error.code
            with contextlib.suppress(NotFoundError):
                pipeline = self._pipelines.of(missing)
                carried |= await settle(self._database, collection_id, face.face_id, pipeline, outcome)
            if isinstance(outcome, Failed):
                return outcome.reason
        return "carried" if carried else "already_carried"

    async def _described(self, photo: Photo, known: str, missing: str) -> FloatArray | Failed:
        """Describe by one contract the face that another one was enrolled by: the largest, or the only one."""
        first = await self._images.analyze(photo, self._pipelines.of(known), embed=False)
        box = pick_face(first, largest=True).face.box
        again = await self._images.analyze(photo, self._pipelines.of(missing))
        face = same_face(again.faces, box)
        return Failed("no_face") if face is None else face.vector
