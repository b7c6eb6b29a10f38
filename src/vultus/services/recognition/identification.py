"""Who is in this photo? Searches a collection for every face and decides about each."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

import numpy as np

from vultus.domain import LivenessMode
from vultus.domain.decision import decide
from vultus.errors import ContractMismatchError, InvalidInputError, NotFoundError, SetupError
from vultus.services.collections import calibration_of, check_contract, check_searched, find_collection, under_contract
from vultus.services.recognition.verdicts import Recognition, name_faces, with_probability
from vultus.services.search.request import query_of
from vultus.utils import timing

if TYPE_CHECKING:
    from vultus.db.database import Database, Look
    from vultus.domain import Analysis, Candidate, Collection, Decision, FloatArray, SearchResult, Transition
    from vultus.models.pipeline import FacePipeline
    from vultus.models.pipelines import Pipelines
    from vultus.services.photo_analysis import Images, Photo
    from vultus.services.search.search import Searcher


REMEMBERED = 1024
"""Names and ids of collections."""


class RecognitionObserver(Protocol):
    """Is offered recognitions after they were made, for another network to answer too."""

    def offer(self, photo: Photo, recognition: Recognition, share: float) -> None:
        """Take a recognition, or leave it; returns immediately and never raises.

        Args:
            photo: What was recognised.
            recognition: The answer that was given.
            share: Probability with which it is to be taken, 0..1.
        """
        ...


class Recognizer:
    """Search a collection for faces and vectors.

    A collection is remembered as it was when it was last read. A photo is looked at on that trust, and the search
    itself says whether the collection still is the same: that spares a question before every photo.
    """

    def __init__(
        self,
        database: Database,
        images: Images,
        pipelines: Pipelines,
        searcher: Searcher,
        observer: RecognitionObserver,
    ) -> None:
        self._database = database
        self._images = images
        self._pipelines = pipelines
        self._searcher = searcher
        self._observer = observer
        self._remembered: dict[str, Collection] = {}

    async def recognize(
        self,
        photo: Photo,
        *,
        collection: str,
        limit: int,
        unique_per_image: bool = False,
        liveness: LivenessMode | None = None,
    ) -> Recognition:
        """Return every face of a photo with its verdict; a photo without a face gives an empty tuple.

        The networks run before the transaction opens: a pooled connection must never wait for them.

        Args:
            photo: Any number of people.
            collection: Id or name.
            limit: Candidates a face.
            unique_per_image: Give every person to at most one face.
            liveness: What is done about presentation attacks, beyond the collection's policy.
        """

        async def attempt(home: Collection) -> Recognition:
            mode = home.policy.liveness.at_least(liveness)
            analysis = await self._images.analyze(photo, self._pipelines.of(home.contract_id), liveness=mode)
            if not analysis.faces:  # nothing is searched that would say whether the collection still is the same
                now = await self._collection(collection)
                check_searched(home, now, mode)
                return Recognition(now, analysis, ())
            return await self._named(
                collection, home, photo, analysis, limit, liveness, unique_per_image=unique_per_image
            )

        known = self._remembered.pop(collection, None)
        if known is None:
            return await under_contract(await self._collection(collection), attempt)
        self._remembered[collection] = known  # last in line to be forgotten
        try:
            return await under_contract(known, attempt)
        except SetupError:  # it asks, or asked, for what is not here
            if (now := await self._collection(collection)) == known:
                raise
        return await under_contract(now, attempt)

    async def _named(
        self,
        reference: str,
        home: Collection,
        photo: Photo,
        analysis: Analysis,
        limit: int,
        liveness: LivenessMode | None,
        *,
        unique_per_image: bool,
    ) -> Recognition:
        """Search for the faces of a photo and decide about each."""
        mode = home.policy.liveness.at_least(liveness)
        pipeline = self._pipelines.of(home.contract_id)
        probes = np.stack([face.vector for face in analysis.faces])
        # The verdict needs the runner-up, and a unique assignment as many persons as there are faces.
        depth = max(limit, 2, len(analysis.faces) + 1 if unique_per_image else 0)
        now, found, transition = await self._found(reference, home, pipeline, probes, depth, mode)
        mode = now.policy.liveness.at_least(liveness)  # the policy may ask for less by now
        named = name_faces(now, pipeline, analysis, found, limit, unique_per_image=unique_per_image, liveness=mode)
        recognition = Recognition(now, analysis, named)
        # The other network is not asked about attacks: their comparison would say nothing about it.
        if transition is not None and mode is not LivenessMode.REQUIRED:
            self._observer.offer(photo, recognition, transition.shadow_share)
        return recognition

    async def _found(
        self,
        reference: str,
        home: Collection,
        pipeline: FacePipeline,
        probes: FloatArray,
        depth: int,
        mode: LivenessMode,
    ) -> tuple[Collection, tuple[SearchResult, ...], Transition | None]:
        """Return the collection as it is now, what a search of it found, and how it changes its network if it does.

        The collection may have been changed or dropped since it was remembered, and another one have its name.
        """
        query = query_of(home, pipeline, probes, depth)
        if home.second_contract_id is None and query.graph is None:
            # The search says whether the collection still is what it was: three messages fewer than a transaction.
            with suppress(NotFoundError):
                async with self._database.look() as work:
                    with timing.stage("search"):
                        found = await self._searcher.search(work, query)
                if found[0].changed_at == home.updated_at:
                    return home, found, None
        async with self._database.work(read_only=True) as work:
            now = await self._read(work, reference)
            check_searched(home, now, mode)
            with timing.stage("search"):
                found = await self._searcher.search(work, query_of(now, pipeline, probes, depth))
            return now, found, await work.transitions.get(now.id) if now.second_contract_id else None

    async def search(
        self, vector: FloatArray, *, contract_id: str, collection: str, limit: int
    ) -> tuple[Collection, Decision, tuple[Candidate, ...]]:
        """Return the persons closest to a vector made earlier by the same contract.

        Args:
            vector: (d,) finite, any length but zero; it is normalised.
            contract_id: Of the vector; must be the collection's.
            collection: Id or name.
            limit: Most candidates returned.

        Raises:
            InvalidInputError: The vector has no direction.
            ContractMismatchError: It is another network's than the collection's, or of another length.
            NotFoundError: There is no such collection.
            OverloadedError: The collection keeps changing.
        """
        length = float(np.linalg.norm(vector.astype(np.float64)))
        if not np.isfinite(length) or length == 0:
            raise InvalidInputError("The vector has no direction: its length is zero or not finite.")

        async def attempt(home: Collection) -> tuple[Collection, Decision, tuple[Candidate, ...]]:
            check_contract(home, contract_id)
            pipeline = self._pipelines.of(contract_id)
            if vector.shape != (pipeline.contract.dimension,):
                raise ContractMismatchError(
                    f"The vector has {vector.size} numbers; contract '{contract_id}' has {pipeline.contract.dimension}."
                )
            probes = (vector.astype(np.float64) / length).astype(np.float32)[None, :]
            # No policy asks for more than this, and a vector cannot be asked whether it lives.
            depth = max(limit, 2)
            now, (found,), _ = await self._found(collection, home, pipeline, probes, depth, LivenessMode.REQUIRED)
            calibration = calibration_of(now, pipeline)
            decision = decide(
                [candidate.similarity for candidate in found.candidates],
                policy=now.policy,
                calibration=calibration,
                gallery_size=found.gallery_size,
            )
            return now, decision, with_probability(found.candidates[:limit], calibration)

        return await under_contract(await self._collection(collection), attempt)

    async def _collection(self, reference: str) -> Collection:
        async with self._database.look() as work:
            return await self._read(work, reference)

    async def _read(self, work: Look, reference: str) -> Collection:
        """Return a collection as it is now, and remember it so; forget it if it is gone."""
        self._remembered.pop(reference, None)
        found = await find_collection(work, reference)
        if len(self._remembered) >= REMEMBERED:
            self._remembered.pop(next(iter(self._remembered)))
        self._remembered[reference] = found
        return found
