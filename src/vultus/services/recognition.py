"""Who is in this photo? Searches a collection for every face and decides about each."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from vultus.domain import Analysis, Calibration, Candidate, Collection, Decision, DescribedFace, FloatArray
from vultus.errors import ContractMismatchError, InvalidInputError
from vultus.services.collections import calibration_of, check_contract, find_collection
from vultus.services.decision import assign_unique, decide, quality_faults, threshold_for

if TYPE_CHECKING:
    from vultus.db.database import Database
    from vultus.models.pipelines import Pipelines
    from vultus.services.images import Images, Photo


@dataclass(frozen=True, slots=True)
class NamedFace:
    """A face of a photo with its verdict and candidates, best first, one entry a person."""

    described: DescribedFace
    decision: Decision
    candidates: tuple[Candidate, ...]


@dataclass(frozen=True, slots=True)
class Recognition:
    """What was recognised in a photo, faces left to right."""

    collection: Collection
    analysis: Analysis
    faces: tuple[NamedFace, ...]


class Recognizer:
    """Search a collection for faces and vectors."""

    def __init__(self, database: Database, images: Images, pipelines: Pipelines) -> None:
        self._database = database
        self._images = images
        self._pipelines = pipelines

    async def recognize(
        self, photo: Photo, *, collection: str, limit: int, unique_per_image: bool = False
    ) -> Recognition:
        """Return every face of a photo with its verdict; a photo without a face gives an empty tuple.

        The networks run before the transaction opens: a pooled connection must never wait for them.
        """
        home = await self._collection(collection)
        pipeline = self._pipelines.of(home.contract_id)
        analysis = await self._images.analyze(photo, pipeline)
        if not analysis.faces:
            return Recognition(home, analysis, ())
        probes = np.stack([face.vector for face in analysis.faces])
        # The verdict needs the runner-up, and a unique assignment as many persons as there are faces.
        depth = max(limit, 2, len(analysis.faces) + 1 if unique_per_image else 0)
        async with self._database.work(read_only=True) as work:
            # Again in the transaction of the search: the collection may have been changed or dropped meanwhile.
            home = await work.collections.get(home.id)
            found = await work.faces.search(home.id, pipeline.contract.id, probes, depth, home.policy.fusion)
        calibration = calibration_of(home, pipeline)
        faults = [quality_faults(face.quality, face.face.score, home.policy.recognize) for face in analysis.faces]
        lists = [result.candidates for result in found]
        if unique_per_image:
            limit_cosine = threshold_for(home.policy, calibration, found[0].gallery_size).cosine
            # A face that cannot be trusted must not take a person from one that can.
            contenders = [() if fault else candidates for fault, candidates in zip(faults, lists, strict=True)]
            unique = assign_unique(contenders, limit_cosine)
            lists = [full if fault else mine for fault, full, mine in zip(faults, lists, unique, strict=True)]
        return Recognition(
            home,
            analysis,
            tuple(
                NamedFace(
                    face,
                    decide(
                        [candidate.similarity for candidate in candidates],
                        policy=home.policy,
                        calibration=calibration,
                        gallery_size=result.gallery_size,
                        faults=fault,
                    ),
                    _with_probability(candidates[:limit], calibration),
                )
                for face, fault, candidates, result in zip(analysis.faces, faults, lists, found, strict=True)
            ),
        )

    async def search(
        self, vector: FloatArray, *, contract_id: str, collection: str, limit: int
    ) -> tuple[Collection, Decision, tuple[Candidate, ...]]:
        """Return the persons closest to a vector made earlier by the same contract.

        Args:
            vector: (d,) finite, any length but zero; it is normalised.
            contract_id: Of the vector; must be the collection's.
            collection: Id or name.
            limit: Most candidates returned.
        """
        length = float(np.linalg.norm(vector.astype(np.float64)))
        if not np.isfinite(length) or length == 0:
            raise InvalidInputError("The vector has no direction: its length is zero or not finite.")
        async with self._database.work(read_only=True) as work:
            home = await find_collection(work, collection)
            check_contract(home, contract_id)
            pipeline = self._pipelines.of(contract_id)
            if vector.shape != (pipeline.contract.dimension,):
                raise ContractMismatchError(
                    f"The vector has {vector.size} numbers; contract '{contract_id}' has {pipeline.contract.dimension}."
                )
            probe = (vector.astype(np.float64) / length).astype(np.float32)
            (found,) = await work.faces.search(home.id, contract_id, probe[None, :], max(limit, 2), home.policy.fusion)
        calibration = calibration_of(home, pipeline)
        decision = decide(
            [candidate.similarity for candidate in found.candidates],
            policy=home.policy,
            calibration=calibration,
            gallery_size=found.gallery_size,
        )
        return home, decision, _with_probability(found.candidates[:limit], calibration)

    async def _collection(self, reference: str) -> Collection:
        async with self._database.work(read_only=True) as work:
            return await find_collection(work, reference)


def _with_probability(candidates: tuple[Candidate, ...], calibration: Calibration) -> tuple[Candidate, ...]:
    return tuple(replace(one, probability=calibration.probability(one.similarity)) for one in candidates)
