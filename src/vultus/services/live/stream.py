"""A stream of frames: each is analysed, its faces are tracked, and tracks are named."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

import numpy as np

from vultus.db.database import Database
from vultus.domain import (
    Calibration,
    Collection,
    FrameResult,
    Lane,
    LivenessMode,
    LoadedSpace,
    Permission,
    SpaceRegistry,
    Track,
    TrackState,
    Want,
)
from vultus.domain.decision import compute_threshold, find_quality_faults
from vultus.domain.sightings import OriginKind
from vultus.services.collections import get_calibration
from vultus.services.limits import UsageLimiter
from vultus.services.live.identity import Claim, TrackIdentity, find_rivals, list_unsearched
from vultus.services.live.tracker import Detection, IouTracker, TrackerRules, Trajectory
from vultus.services.photo_analysis import Photo, PhotoAnalyzer
from vultus.services.search.request import build_query
from vultus.services.search.search import Searcher

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vultus.domain import (
        Analysis,
        Box,
        DescribedFace,
        Frame,
        Principal,
        Zone,
    )
    from vultus.services.live.tracker import Tracker

CHECK_INTERVAL_S = 0.5
"""Longest time for which a name is shown without looking whether its face is still enrolled."""

GATE_FMR = 1e-2
"""Two persons' faces pass a track's gate at this rate; those of one person nearly always."""

SEARCH_DEPTH = 2
"""Candidates of a search: a verdict needs the runner-up."""


@dataclass(frozen=True, slots=True)
class StreamOrigin:
    """Where frames come from: a browser's session or a camera.

    Attributes:
        id: Of the session or source.
    """

    kind: OriginKind
    id: UUID


@dataclass(frozen=True, slots=True)
class StreamResources:
    """What every stream uses."""

    database: Database
    analyzer: PhotoAnalyzer
    spaces: SpaceRegistry
    searcher: Searcher
    limiter: UsageLimiter


@dataclass(slots=True, eq=False)
class _Subject:
    """A track as the stream knows it."""

    trajectory: Trajectory
    identity: TrackIdentity
    first_seen_at: datetime
    last_seen_at: datetime


@dataclass(frozen=True, slots=True)
class _Rules:
    """What a collection prescribes, as of its last change."""

    collection: Collection
    space: LoadedSpace
    calibration: Calibration = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "calibration", get_calibration(self.collection, self.space))

    @property
    def margin(self) -> float:
        margin = self.collection.policy.margin
        return self.calibration.margin if margin is None else margin

    def build_tracker_rules(self) -> TrackerRules:
        policy = self.collection.policy
        gate = self.calibration.get_threshold(GATE_FMR)
        return TrackerRules(
            min_new_score=(policy.recognize.min_score + self.space.enrol_rule.min_score) / 2,
            gate=gate,
            same_person=max(gate, compute_threshold(policy, self.calibration, None).cosine),
            confirm_frames=policy.tracks.confirm_frames,
            max_lost_s=policy.tracks.absence_s,
        )


class StreamService:
    """Opens streams of frames in a collection."""

    def __init__(self, resources: StreamResources) -> None:
        self._resources = resources

    async def open_stream(
        self,
        principal: Principal,
        *,
        reference: str,
        origin: StreamOrigin,
        min_face_px: float | None = None,
        zones: tuple[Zone, ...] = (),
    ) -> LiveStream:
        """Return a stream whose faces are searched for in a collection.

        Args:
            principal: For whom; its key's limits hold, and what it may not see is left out.
            reference: Id or name of the collection.
            origin: Where the frames come from.
            min_face_px: Shorter side of the smallest face that counts, pixels; None for the collection's rules alone.
            zones: Where in the picture faces count; everywhere without one.

        Raises:
            ForbiddenError: The principal may not recognise people in live video.
            NotFoundError: There is no such collection.
            PackNotLoadedError: The collection's pack is not loaded.
        """
        async with self._resources.database.hot_queries() as work:
            collection = await work.open(reference, principal, Permission.LIVE)
        space = self._resources.spaces.get_space(collection.space_id)
        return LiveStream(
            self._resources,
            principal,
            origin,
            _Rules(collection, space),
            min_face_px=min_face_px,
            zones=zones,
        )


class LiveStream:
    """The frames of one camera or browser, one at a time, in order."""

    def __init__(
        self,
        resources: StreamResources,
        principal: Principal,
        origin: StreamOrigin,
        rules: _Rules,
        *,
        min_face_px: float | None = None,
        zones: tuple[Zone, ...] = (),
        tracker: Tracker | None = None,
    ) -> None:
        self._resources = resources
        self._principal = principal
        self._origin = origin
        self._rules = rules
        self._min_face_px = min_face_px
        self._zones = zones
        self._tracker: Tracker = tracker or IouTracker(rules.build_tracker_rules())
        self._subjects: dict[UUID, _Subject] = {}
        self._started_at: datetime | None = None
        self._now = 0.0
        self._checked_at = -math.inf
        self._last_number = 0

    async def process_frame(self, frame: Frame) -> FrameResult:
        """Return who is in a frame; one at a time.

        Raises:
            OverloadedError: The frame was dropped: a newer one took its place, or photos would have had to wait.
            SearchLimitError: The caller's key may not search for so many faces in this hour; the tracks go on.
            NotFoundError: The collection is gone.
            ImageError: The bytes are no usable image.
        """
        at = self._read_clock(frame)
        collection = self._rules.collection
        liveness = collection.policy.liveness is not LivenessMode.OFF
        want = Want(liveness=liveness, known_boxes=self._list_known_boxes(at), turned=False)
        analysis = await self._resources.analyzer.analyze_photo(
            Photo(frame.content), collection.space_id, want, Lane.LIVE, source=str(self._origin.id)
        )
        started = time.perf_counter()
        seen = self._follow_faces(analysis, frame, at)
        tracked = time.perf_counter()
        await self._check_gallery()
        await self._search_identities([one.identity for one in seen])
        searched = time.perf_counter()
        self._settle_names(seen, at)
        timings_ms = analysis.timings_ms | {
            "track": (tracked - started + time.perf_counter() - searched) * 1e3,
            "search": (searched - tracked) * 1e3,
        }
        tracks = tuple(self._build_track(one, at) for one in sorted(seen, key=lambda one: one.trajectory.box.left))
        return FrameResult(frame.sequence, analysis.width, analysis.height, tracks, timings_ms)

    async def end(self) -> None:
        """End the stream: whoever is there leaves."""
        self._subjects.clear()

    def _read_clock(self, frame: Frame) -> float:
        """Return when a frame was taken, in seconds since the first; never before the one before it."""
        if self._started_at is None:
            self._started_at = frame.captured_at
        self._now = max(self._now, (frame.captured_at - self._started_at).total_seconds())
        return self._now

    def _list_known_boxes(self, at: float) -> tuple[Box, ...]:
        """Return where faces are expected that need no embedding."""
        return tuple(
            one.trajectory.predict_box(at)
            for one in self._subjects.values()
            if one.trajectory.state is not TrackState.LOST and not one.identity.needs_embedding(at, is_doubted=False)
        )

    def _follow_faces(self, analysis: Analysis, frame: Frame, at: float) -> list[_Subject]:
        """Associate the faces that count with tracks, and return the tracks seen."""
        policy = self._rules.collection.policy
        faces = [face for face in analysis.faces if self._counts(face, analysis)]
        faults = [find_quality_faults(face.quality, face.face.score, policy.recognize) for face in faces]
        detections = [
            Detection(face.face.box, face.face.score, None if wrong or face.embedding is None else face.vector)
            for face, wrong in zip(faces, faults, strict=True)
        ]
        found = self._tracker.update(detections, at)
        seen = []
        for face, wrong, trajectory in zip(faces, faults, found, strict=True):
            if trajectory is None:
                continue
            subject = self._subjects.get(trajectory.id)
            if subject is None:
                identity = TrackIdentity(policy.tracks)
                subject = _Subject(trajectory, identity, frame.captured_at, frame.captured_at)
                self._subjects[trajectory.id] = subject
            subject.last_seen_at = frame.captured_at
            subject.identity.observe(face, wrong, at)
            trajectory.reference = subject.identity.mean.direction
            seen.append(subject)
        kept = {one.id for one in self._tracker.trajectories}
        self._subjects = {key: one for key, one in self._subjects.items() if key in kept}
        return seen

    def _counts(self, face: DescribedFace, analysis: Analysis) -> bool:
        """Return whether a face is large enough, and in a zone."""
        if self._min_face_px is not None and face.quality.size_px < self._min_face_px:
            return False
        x, y = face.face.box.centre
        return not self._zones or any(zone.contains(x / analysis.width, y / analysis.height) for zone in self._zones)

    async def _check_gallery(self) -> None:
        """Take back names whose faces are no longer enrolled, and follow changes of the collection."""
        now = time.monotonic()
        if now - self._checked_at < CHECK_INTERVAL_S:
            return
        named = [one.identity for one in self._subjects.values() if one.identity.result is not None]
        faces = {candidate.face_id for one in named for candidate in one.list_candidates()[:1]}
        collection = self._rules.collection
        async with self._resources.database.hot_queries() as work:
            state = await work.templates.get_gallery_state(collection.id, collection.space_id, faces)
        if state is None or state.changed_at != collection.updated_at:
            await self._reload_collection()
            return
        self._checked_at = now
        is_grown, self._last_number = state.last_number > self._last_number, state.last_number
        for one in named:
            candidates = one.list_candidates()
            if (candidates and not state.supports(candidates[0])) or (is_grown and not one.is_named):
                one.forget_result()

    async def _reload_collection(self) -> None:
        """Follow a change of the collection's policy or embedding space; every name is decided again."""
        before = self._rules
        async with self._resources.database.hot_queries() as work:
            collection = await work.open(str(before.collection.id), self._principal, Permission.LIVE)
        self._rules = _Rules(collection, self._resources.spaces.get_space(collection.space_id))
        if isinstance(self._tracker, IouTracker):
            self._tracker.rules = self._rules.build_tracker_rules()
        for one in self._subjects.values():
            one.identity.policy = collection.policy.tracks
            if collection.space_id != before.collection.space_id:
                one.identity.forget_vectors()
                one.trajectory.reference = None
            one.identity.forget_result()

    async def _search_identities(self, identities: Sequence[TrackIdentity]) -> None:
        """Search for the means that have changed, all at once."""
        rules = self._rules
        wanted = list_unsearched(identities)
        if not wanted:
            return
        await self._resources.limiter.charge_searches(self._principal, len(wanted))
        probes = np.stack([one.mean.direction for one in wanted if one.mean.direction is not None])
        query = build_query(rules.collection, rules.space, probes, SEARCH_DEPTH)
        results = await self._resources.searcher.search(query)
        for one, result in zip(wanted, results, strict=True):
            one.result = result

    def _settle_names(self, seen: Sequence[_Subject], at: float) -> None:
        """Decide what is told of each track, so that no person is on two."""
        policy, calibration = self._rules.collection.policy, self._rules.calibration
        claims: list[tuple[TrackIdentity, Claim | None]] = [
            (one.identity, one.identity.propose(policy, calibration, at)) for one in seen
        ]
        rivals = find_rivals(claims, self._rules.margin)
        for identity, claim in claims:
            identity.settle(claim, "person_on_another_track" if id(identity) in rivals else None, at)

    def _build_track(self, subject: _Subject, at: float) -> Track:
        identity, shown = subject.identity, subject.identity.shown
        face = identity.face
        if face is None:
            raise ValueError("the track was not seen")
        track = Track(
            id=subject.trajectory.id,
            box=face.face.box,
            landmarks=face.face.landmarks,
            state=subject.trajectory.state,
            verdict=shown.decision.verdict if shown else None,
            person=shown.person if shown else None,
            liveness=identity.median_liveness,
            identity_age_ms=None if math.isinf(identity.embedded_at) else (at - identity.embedded_at) * 1e3,
            first_seen_at=subject.first_seen_at,
            last_seen_at=subject.last_seen_at,
            decision=shown.decision if shown else None,
        )
        return track if self._principal.may_see_scores else track.hide_scores()
