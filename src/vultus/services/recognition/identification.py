"""Identification: searches a collection for every face of a photo, or for a vector, and decides about each."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

import numpy as np

from vultus.domain import DETECTION, LivenessMode, Permission, Verdict, Want
from vultus.domain.decision import decide_verdict
from vultus.errors import EmbeddingSpaceMismatchError, ForbiddenError, InvalidInputError, NotFoundError, SetupError
from vultus.services.collections import (
    MAX_ATTEMPTS,
    CollectionChangedError,
    check_same_space,
    ensure_same_search_space,
    get_calibration,
    retry_if_collection_changed,
)
from vultus.services.recognition.verdicts import (
    Recognition,
    VectorSearch,
    add_probabilities,
    build_answer,
    decide_faces,
)
from vultus.services.search.request import build_query
from vultus.utils import metrics, timing

if TYPE_CHECKING:
    from vultus.db.database import Database, HotQueries
    from vultus.domain import (
        Analysis,
        Collection,
        FloatArray,
        LoadedSpace,
        Migration,
        Principal,
        SearchResult,
        SpaceRegistry,
    )
    from vultus.services.limits import UsageLimiter
    from vultus.services.photo_analysis import Photo, PhotoAnalyzer
    from vultus.services.recognition.decision_log import DecisionLog
    from vultus.services.search.search import Searcher


MAX_CACHED_COLLECTIONS = 1024
"""Names and ids under which collections are cached."""


class RecognitionObserver(Protocol):
    """Receives finished recognitions, to repeat them in another embedding space."""

    def offer_recognition(self, photo: Photo, recognition: Recognition, share: float) -> None:
        """Accept or drop a recognition; return immediately and never raise.

        Args:
            photo: The photo.
            recognition: The result that was returned.
            share: Probability of accepting it, 0..1.
        """
        ...


class Recognizer:
    """Searches a collection for faces and vectors.

    Collections are cached as last read. A photo is analyzed on the assumption that the cached state is current, and the
    search returns when the collection last changed: this saves a query before every photo.
    """

    def __init__(
        self,
        database: Database,
        analyzer: PhotoAnalyzer,
        spaces: SpaceRegistry,
        searcher: Searcher,
        observer: RecognitionObserver,
        limiter: UsageLimiter,
        decisions: DecisionLog,
    ) -> None:
        self._database = database
        self._analyzer = analyzer
        self._spaces = spaces
        self._searcher = searcher
        self._observer = observer
        self._limiter = limiter
        self._decisions = decisions
        self._cache: dict[str, Collection] = {}

    async def recognize(
        self,
        principal: Principal,
        photo: Photo,
        *,
        reference: str,
        limit: int,
        unique_per_image: bool = False,
        liveness: LivenessMode | None = None,
    ) -> Recognition:
        """Return every face of a photo with its verdict; a photo without a face gives an empty tuple.

        The networks run before the transaction opens, because a pooled connection must never wait for them.

        Args:
            principal: The caller.
            photo: A photo of any number of people.
            reference: Id or name of the collection.
            limit: Maximum number of candidates per face; 0 for none.
            unique_per_image: Assign every person to at most one face.
            liveness: Liveness mode, if stricter than the collection's policy.

        Raises:
            ForbiddenError: The caller may not recognise, or asks for candidates and may not see scores.
            SearchLimitError: The caller's key may not search for so many faces in this hour.
        """

        async def run_attempt(collection: Collection) -> Recognition:
            mode = collection.policy.liveness.get_stricter_mode(liveness)
            analysis = await self._analyzer.analyze_photo(
                photo, collection.space_id, Want(liveness=mode is not LivenessMode.OFF)
            )
            if not analysis.faces:  # no search, which would show whether the collection has changed
                current = await self._get_collection(principal, reference)
                ensure_same_search_space(collection, current, mode)
                return Recognition(current, analysis, ())
            return await self._recognize_faces(
                principal, reference, collection, photo, analysis, limit, liveness, unique_per_image=unique_per_image
            )

        principal.require(Permission.RECOGNIZE)
        _require_scores(principal, limit)
        self._limiter.ensure_searches_left(principal)
        cached = self._cache.pop(reference, None)
        if cached is None or not principal.can_reach(cached.id):
            return await retry_if_collection_changed(await self._get_collection(principal, reference), run_attempt)
        self._cache[reference] = cached  # now the last to be evicted
        try:
            return await retry_if_collection_changed(cached, run_attempt)
        except SetupError:  # the cached state may require a pack that the current one does not
            if (current := await self._get_collection(principal, reference)) == cached:
                raise
        return await retry_if_collection_changed(current, run_attempt)

    async def _recognize_faces(
        self,
        principal: Principal,
        reference: str,
        collection: Collection,
        photo: Photo,
        analysis: Analysis,
        limit: int,
        liveness: LivenessMode | None,
        *,
        unique_per_image: bool,
    ) -> Recognition:
        """Search for the faces of a photo and decide about each."""
        await self._limiter.charge_searches(principal, len(analysis.faces))
        mode = collection.policy.liveness.get_stricter_mode(liveness)
        space = self._spaces.get_space(collection.space_id)
        probes = np.stack([face.vector for face in analysis.faces])
        # The verdict needs the runner-up, and a unique assignment as many persons as there are faces.
        depth = max(limit, 2, len(analysis.faces) + 1 if unique_per_image else 0)
        current, found, migration = await self._search_collection(
            principal, reference, collection, space, probes, depth, mode
        )
        mode = current.policy.liveness.get_stricter_mode(liveness)  # the policy may require less by now
        named = decide_faces(current, space, analysis, found, limit, unique_per_image=unique_per_image, liveness=mode)
        for face in named:
            metrics.get_labelled(metrics.VERDICTS, "recognize", face.decision.verdict.value).inc()
        await self._decisions.record(principal, current, space, "recognize", [face.build_answer() for face in named])
        recognition = Recognition(current, analysis, named)
        # The second network does not check liveness, so a comparison under required liveness would be meaningless.
        if migration is not None and mode is not LivenessMode.REQUIRED:
            self._observer.offer_recognition(photo, recognition, migration.shadow_share)
        return recognition if principal.may_see_scores else recognition.hide_scores()

    async def _search_collection(
        self,
        principal: Principal,
        reference: str,
        collection: Collection,
        space: LoadedSpace,
        probes: FloatArray,
        depth: int,
        mode: LivenessMode,
    ) -> tuple[Collection, tuple[SearchResult, ...], Migration | None]:
        """Return the current collection, one result per probe in probe order, and the active migration if any.

        Since it was cached, the collection may have been changed, or deleted and its name given to another one: the
        results show when it was last changed, which saves a query before them, and a transaction around both.

        Raises:
            CollectionChangedError: The photo must be analyzed again, or the collection keeps changing.
        """
        for _ in range(MAX_ATTEMPTS):
            with suppress(NotFoundError):
                with timing.measure_stage("search"):
                    found = await self._searcher.search(build_query(collection, space, probes, depth))
                if found[0].changed_at == collection.updated_at:
                    return collection, found, await self._find_migration(collection)
            current = await self._get_collection(principal, reference)
            ensure_same_search_space(collection, current, mode)
            collection = current
        raise CollectionChangedError(collection)

    async def _find_migration(self, collection: Collection) -> Migration | None:
        if collection.second_space_id is None:
            return None
        async with self._database.transaction(read_only=True) as work:
            return await work.migrations.find_migration(collection.id)

    async def detect_faces(self, principal: Principal, photo: Photo) -> Analysis:
        """Return every face of a photo, without vectors, as the default pack detects them."""
        principal.require(Permission.RECOGNIZE)
        return await self._analyzer.analyze_photo(photo, self._spaces.default.id, DETECTION)

    async def embed_faces(self, principal: Principal, photo: Photo, space_id: str) -> Analysis:
        """Return every face of a photo with its vector, which is biometric data."""
        principal.require(Permission.READ)
        return await self._analyzer.analyze_photo(photo, space_id)

    async def search(
        self, principal: Principal, vector: FloatArray, *, space_id: str, reference: str, limit: int
    ) -> VectorSearch:
        """Return the decision about a vector, the person it names, and those nearest to it in its embedding space.

        Args:
            principal: The caller.
            vector: (d,) finite, any length but zero; it is normalised.
            space_id: Embedding space of the vector; must be the collection's.
            reference: Id or name of the collection.
            limit: Maximum number of candidates returned; 0 for none.

        Raises:
            ForbiddenError: The caller may not search, or asks for candidates and may not see scores.
            SearchLimitError: The caller's key may not search any more in this hour.
            InvalidInputError: The vector has no direction.
            EmbeddingSpaceMismatchError: It is in another embedding space, or has another dimension.
            NotFoundError: There is no such collection.
            OverloadedError: The collection keeps changing.
        """
        principal.require(Permission.SEARCH)
        _require_scores(principal, limit)
        length = float(np.linalg.norm(vector.astype(np.float64)))
        if not np.isfinite(length) or length == 0:
            raise InvalidInputError("The vector has no direction: its length is zero or not finite.")

        async def run_attempt(collection: Collection) -> VectorSearch:
            check_same_space(collection, space_id)
            space = self._spaces.get_space(space_id)
            if vector.shape != (space.dimension,):
                raise EmbeddingSpaceMismatchError(
                    f"The vector has {vector.size} numbers; contract '{space_id}' has {space.dimension}."
                )
            probes = (vector.astype(np.float64) / length).astype(np.float32)[None, :]
            await self._limiter.charge_searches(principal, 1)
            # No policy requires more candidates. Liveness cannot be checked, so that no stricter mode causes a retry.
            depth = max(limit, 2)
            current, (found,), _ = await self._search_collection(
                principal, reference, collection, space, probes, depth, LivenessMode.REQUIRED
            )
            calibration = get_calibration(current, space)
            decision = decide_verdict(
                [candidate.similarity for candidate in found.candidates],
                policy=current.policy,
                calibration=calibration,
                gallery_size=found.gallery_size,
            )
            metrics.get_labelled(metrics.VERDICTS, "search", decision.verdict.value).inc()
            person = found.candidates[0] if decision.verdict is Verdict.MATCH else None
            await self._decisions.record(principal, current, space, "search", [build_answer(decision, person)])
            return VectorSearch(
                current,
                decision if principal.may_see_scores else decision.hide_scores(),
                person,
                add_probabilities(found.candidates[:limit], calibration) if limit else None,
            )

        return await retry_if_collection_changed(await self._get_collection(principal, reference), run_attempt)

    async def _get_collection(self, principal: Principal, reference: str) -> Collection:
        async with self._database.hot_queries() as work:
            return await self._load_collection(work, principal, reference)

    async def _load_collection(self, work: HotQueries, principal: Principal, reference: str) -> Collection:
        """Read and cache a collection; if it no longer exists, remove it from the cache."""
        try:
            found = await work.open(reference, principal, Permission.RECOGNIZE)
        except NotFoundError:
            if principal.collections is None:  # for all principals, not only for this one
                self._cache.pop(reference, None)
            raise
        self._cache.pop(reference, None)
        if len(self._cache) >= MAX_CACHED_COLLECTIONS:
            self._cache.pop(next(iter(self._cache)))
        self._cache[reference] = found
        return found


def _require_scores(principal: Principal, limit: int) -> None:
    """Return unless candidates are asked for by a principal that may not see scores.

    Raises:
        ForbiddenError: They are; to leave them out would look as if there were none.
    """
    if limit and not principal.may_see_scores:
        raise ForbiddenError(
            "Candidates come with scores, which need a key with the permission 'scores'; leave limit out, or send 0.",
            needed=Permission.SCORES.value,
        )
