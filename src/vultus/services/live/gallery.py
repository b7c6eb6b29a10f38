"""The collection behind a stream: searched for tracks' means, and watched for what takes a name back."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vultus.domain import DEFAULT_FMR, Collection, LoadedSpace, Permission, SpaceRegistry
from vultus.domain.decision import compute_threshold
from vultus.services.collections import get_calibration
from vultus.services.live.tracker import TrackerRules
from vultus.services.search.request import build_query

if TYPE_CHECKING:
    from collections.abc import Collection as Group
    from collections.abc import Sequence

    from vultus.db.database import Database
    from vultus.domain import Calibration, Candidate, DecisionPolicy, FloatArray, GalleryState, Principal, SearchResult
    from vultus.services.limits import UsageLimiter
    from vultus.services.search.search import Searcher

CHECK_INTERVAL_S = 0.5
"""Longest time for which a name is shown without looking whether its face is still enrolled."""

GATE_FMR = 1e-2
"""Two persons' faces pass a track's gate at this rate; those of one person nearly always."""

SEARCH_DEPTH = 2
"""Candidates of a search: a verdict needs the runner-up."""


@dataclass(frozen=True, slots=True)
class StreamRules:
    """What a collection prescribes, as of its last change."""

    collection: Collection
    space: LoadedSpace

    @property
    def policy(self) -> DecisionPolicy:
        """The collection's policy."""
        return self.collection.policy

    @property
    def calibration(self) -> Calibration:
        """That in effect for the collection."""
        return get_calibration(self.collection, self.space)

    @property
    def margin(self) -> float:
        """Cosine by which a person must lead another."""
        return self.calibration.margin if self.policy.margin is None else self.policy.margin

    def build_tracker_rules(self) -> TrackerRules:
        """Return the limits of a tracker of faces in the collection's embedding space."""
        gate = self.calibration.get_threshold(GATE_FMR)
        same_person = compute_threshold(self.policy, self.calibration, None).cosine
        return TrackerRules(
            min_new_score=(self.policy.recognize.min_score + self.space.enrol_rule.min_score) / 2,
            gate=gate,
            same_person=max(same_person, self.calibration.get_threshold(DEFAULT_FMR)),
            margin=self.margin,
            confirm_frames=self.policy.tracks.confirm_frames,
            max_lost_s=self.policy.tracks.absence_s,
        )


class StreamGallery:
    """A collection as one stream searches it.

    Args:
        database: Says whether a face is still enrolled.
        searcher: Searches.
        limiter: Counts the searches of the principal's key.
        spaces: Embedding spaces whose packs are loaded.
        principal: For whom.
        collection: As it was read.

    Raises:
        PackNotLoadedError: The collection's pack is not loaded.
    """

    def __init__(
        self,
        database: Database,
        searcher: Searcher,
        limiter: UsageLimiter,
        spaces: SpaceRegistry,
        principal: Principal,
        collection: Collection,
    ) -> None:
        self._database = database
        self._searcher = searcher
        self._limiter = limiter
        self._spaces = spaces
        self._principal = principal
        self._checked_at = float("-inf")
        self.rules = StreamRules(collection, spaces.get_space(collection.space_id))

    async def find_changes(self, candidates: Group[Candidate]) -> GalleryState | None:
        """Return what names depend on, or None if that was looked at just now; follows changes of the collection.

        Args:
            candidates: Persons, with their faces, that names rest on.

        Raises:
            NotFoundError: The collection is gone, or out of the principal's reach.
            PackNotLoadedError: It was migrated to a pack that is not loaded.
        """
        now = time.monotonic()
        if now - self._checked_at < CHECK_INTERVAL_S:
            return None
        before = self.rules.collection
        async with self._database.hot_queries() as work:
            state = await work.templates.get_gallery_state(before.id, before.space_id, candidates)
            if state.changed_at != before.updated_at:
                current = await work.open(str(before.id), self._principal, Permission.LIVE)
                self.rules = StreamRules(current, self._spaces.get_space(current.space_id))
        self._checked_at = now
        return state

    async def search_means(self, means: Sequence[FloatArray]) -> tuple[SearchResult, ...]:
        """Return the persons nearest to each mean, (d,) unit vectors.

        Raises:
            SearchLimitError: The principal's key may not search for so many in this hour.
        """
        await self._limiter.charge_searches(self._principal, len(means))
        query = build_query(self.rules.collection, self.rules.space, np.stack(means), SEARCH_DEPTH)
        return await self._searcher.search(query)
