"""A stream of frames: each is analysed, its faces are tracked, and tracks are named."""

from __future__ import annotations

import asyncio
import math
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from vultus.domain import (
    FrameResult,
    Lane,
    LivenessMode,
    Track,
    Want,
)
from vultus.domain.decision import find_quality_faults
from vultus.domain.sightings import Recognised, Spoof, Unknown
from vultus.errors import SearchLimitError
from vultus.services.live.identity import TrackIdentity, find_rivals
from vultus.services.live.tracker import (
    MAX_COAST_S,
    Detection,
    IouTracker,
    Trajectory,
    find_contacts,
)
from vultus.services.photo_analysis import Photo, PhotoAnalyzer
from vultus.services.recognition.verdicts import build_answer
from vultus.utils import metrics
from vultus.utils.ids import new_id

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from vultus.domain import (
        Analysis,
        Box,
        DescribedFace,
        Frame,
        Principal,
        Zone,
    )
    from vultus.domain.sightings import Sighting
    from vultus.services.live.attendance import Attendance
    from vultus.services.live.gallery import StreamGallery
    from vultus.services.live.sighting_log import SightingLog
    from vultus.services.live.tracker import Tracker
    from vultus.services.recognition.decision_log import DecisionLog


MIN_LIVENESS_SAMPLES = 5
LIVENESS_INTERVAL_S = 0.3
"""Frames of a track in which liveness is judged at once, and how often it is judged afterwards."""

MAX_SETBACK_S = 5.0
"""By how much frames may be older than the one before; a video that begins again is another one."""


DECISIONS = (Recognised, Unknown, Spoof)
"""Sightings that tell a decision about a face."""


class _Stopwatch:
    """Measures stages that follow each other."""

    def __init__(self) -> None:
        self.durations_ms: dict[str, float] = {}
        self._last = time.perf_counter()

    def end_stage(self, name: str) -> None:
        """Add the time since the stage before it ended."""
        now = time.perf_counter()
        self.durations_ms[name] = self.durations_ms.get(name, 0.0) + (now - self._last) * 1e3
        self._last = now


@dataclass(slots=True, eq=False)
class _Subject:
    """A track as the stream knows it."""

    trajectory: Trajectory
    identity: TrackIdentity
    first_at: float
    last_at: float


class LiveStream:
    """The frames of one camera or browser, one at a time, in order.

    Args:
        analyzer: Finds and embeds faces.
        gallery: Whom they are compared with.
        sightings: Receives what happens.
        attendance: Who is in view; it knows where the frames come from.
        principal: Who opened the stream.
        decisions: Receives why faces are named, or are nobody's.
        min_face_px: Shorter side of the smallest face that counts, pixels.
        zones: Where faces count.
        max_pixels: Of a frame, if that is less than a photo may have.
        tracker: Follows the faces; one of the collection's rules by default.
    """

    def __init__(
        self,
        analyzer: PhotoAnalyzer,
        gallery: StreamGallery,
        sightings: SightingLog,
        attendance: Attendance,
        principal: Principal,
        decisions: DecisionLog,
        *,
        min_face_px: float | None = None,
        zones: tuple[Zone, ...] = (),
        max_pixels: int | None = None,
        tracker: Tracker | None = None,
    ) -> None:
        self._analyzer = analyzer
        self._gallery = gallery
        self._sightings = sightings
        self._attendance = attendance
        self._principal = principal
        self._decisions = decisions
        self._min_face_px = min_face_px
        self._zones = zones
        self._max_pixels = max_pixels
        self._tracker: Tracker = tracker or IouTracker(gallery.rules.build_tracker_rules())
        self._subjects: dict[UUID, _Subject] = {}
        self._ignored: list[Box] = []
        self._turn = asyncio.Lock()
        self._has_begun = False
        self._started_at = datetime.now(UTC)
        self._now = 0.0
        self._liveness_at = -math.inf
        self._last_number = 0

    async def process_frame(self, frame: Frame) -> FrameResult:
        """Return who is in a frame; those after it wait.

        Raises:
            OverloadedError: The frame was dropped: a newer one took its place, or photos would have had to wait.
            SearchLimitError: The caller's key may not search for so many faces in this hour; the tracks go on.
            NotFoundError: The collection is gone.
            ImageError: The bytes are no usable image.
        """
        async with self._turn:
            at = await self._read_clock(frame)
            analysis = await self._analyze_frame(frame, at)
            clock = _Stopwatch()
            seen = self._follow_faces(analysis, at)
            clock.end_stage("track")
            await self._follow_gallery()
            refused = await self._search_subjects(seen)
            clock.end_stage("search")
            self._settle_names(seen, at)
            seen.sort(key=lambda one: one.trajectory.box.left)
            tracks = tuple(self._build_track(one, at) for one in seen)
            policy = self._gallery.rules.policy.tracks
            sightings = self._attendance.update(
                tracks, self._find_moment(at), policy, {**self._tracker.merged, **self._renew_exhausted(seen)}
            )
            clock.end_stage("track")
            await self._record_sightings(sightings, tracks)
            clock.end_stage("record")
            if refused is not None:
                raise refused
            if not self._principal.may_see_scores:
                tracks = tuple(one.hide_scores() for one in tracks)
            timings_ms = analysis.timings_ms | clock.durations_ms
            return FrameResult(frame.sequence, analysis.width, analysis.height, tracks, timings_ms)

    async def end(self) -> None:
        """End the stream: everybody who is there leaves."""
        async with self._turn:
            await self._clear()

    async def _clear(self) -> None:
        for one in list(self._tracker.trajectories):
            self._tracker.drop(one)
        self._subjects.clear()
        await self._record_sightings(self._attendance.end())

    async def _record_sightings(self, sightings: Sequence[Sighting], tracks: Sequence[Track] = ()) -> None:
        """Record what is told, and before it why somebody is named."""
        rules, known = self._gallery.rules, {track.id: track for track in tracks}
        for sighting in sightings:
            event_id = new_id()
            track = known.get(sighting.track_id) if isinstance(sighting, DECISIONS) else None
            if track is not None and track.decision is not None:
                answer = replace(
                    build_answer(track.decision, track.person, track.liveness),
                    id=event_id,
                    origin_id=sighting.origin_id,
                    track_id=track.id,
                )
                await self._decisions.record(self._principal, rules.collection, rules.space, "live", [answer])
            await self._sightings.record(self._principal, sighting, event_id)

    async def _read_clock(self, frame: Frame) -> float:
        """Return when a frame was taken, in seconds since the first; never before the one before it."""
        seconds = (frame.captured_at - self._started_at).total_seconds()
        if self._has_begun and seconds >= self._now - MAX_SETBACK_S:
            self._now = max(self._now, seconds)
        else:
            await self._clear()
            self._has_begun, self._started_at, self._now, self._liveness_at = True, frame.captured_at, 0.0, -math.inf
        return self._now

    def _find_moment(self, at: float) -> datetime:
        """Return a time of the frames' clock as they carry it."""
        return self._started_at + timedelta(seconds=at)

    async def _analyze_frame(self, frame: Frame, at: float) -> Analysis:
        """Return the faces of a frame, with the embeddings and the liveness that tracks need."""
        rules = self._gallery.rules
        has_liveness = rules.policy.liveness is not LivenessMode.OFF and (
            at - self._liveness_at >= LIVENESS_INTERVAL_S
            or any(len(one.identity.liveness) < MIN_LIVENESS_SAMPLES for one in self._subjects.values())
        )
        known = self._list_known_boxes(at)
        want = Want(liveness=has_liveness, known_boxes=known, turned=False, max_pixels=self._max_pixels)
        source = str(self._attendance.origin.id)
        analysis = await self._analyzer.analyze_photo(
            Photo(frame.content), rules.collection.space_id, want, Lane.LIVE, source=source
        )
        if has_liveness:
            self._liveness_at = at
        return analysis

    def _list_known_boxes(self, at: float) -> tuple[Box, ...]:
        """Return where faces are expected that need no embedding, those that do not count among them."""
        near = [
            one
            for one in self._subjects.values()
            if one.trajectory.is_followed(at)
            or (one.identity.is_exhausted and at - one.trajectory.last_at <= MAX_COAST_S)
        ]
        boxes = [one.trajectory.predict_box(at) for one in near]
        contacts = find_contacts(boxes)
        known = [
            box
            for position, (one, box) in enumerate(zip(near, boxes, strict=True))
            if not one.identity.needs_embedding(
                at, is_doubted=one.trajectory.is_doubted, is_in_contact=position in contacts
            )
        ]
        return (*known, *self._ignored)

    def _follow_faces(self, analysis: Analysis, at: float) -> list[_Subject]:
        """Associate the faces that count with tracks, and return the tracks seen."""
        policy = self._gallery.rules.policy
        faces = [face for face in analysis.faces if self._counts(face, analysis)]
        faults = [find_quality_faults(face.quality, face.face.score, policy.recognize) for face in faces]
        detections = [
            Detection(face.face.box, face.face.score, None if wrong or face.embedding is None else face.vector)
            for face, wrong in zip(faces, faults, strict=True)
        ]
        found = self._tracker.update(detections, at)
        followed = [face for face, trajectory in zip(faces, found, strict=True) if trajectory is not None]
        self._ignored = [face.face.box for face in analysis.faces if face not in followed]
        seen = []
        contacts = find_contacts([one.box for one in detections])
        for position, (face, wrong, trajectory) in enumerate(zip(faces, faults, found, strict=True)):
            if trajectory is None:
                continue
            subject = self._subjects.get(trajectory.id)
            if subject is None:
                identity = TrackIdentity(policy.tracks)
                subject = _Subject(trajectory, identity, at, at)
                self._subjects[trajectory.id] = subject
            subject.last_at = at
            subject.identity.observe(
                face, wrong, at, is_doubted=trajectory.is_doubted, is_in_contact=position in contacts
            )
            if subject.identity.has_clear_view:
                trajectory.reference = subject.identity.mean.direction
            seen.append(subject)
        for subject in self._subjects.values():  # none is recognised later without an embedding
            if subject.identity.is_exhausted and at - subject.last_at > MAX_COAST_S:
                self._tracker.drop(subject.trajectory)
        kept = {one.id for one in self._tracker.trajectories}
        self._subjects = {key: one for key, one in self._subjects.items() if key in kept}
        return seen

    def _counts(self, face: DescribedFace, analysis: Analysis) -> bool:
        """Return whether a face is large enough, and in a zone."""
        if self._min_face_px is not None and face.quality.size_px < self._min_face_px:
            return False
        x, y = face.face.box.centre
        return not self._zones or any(zone.contains(x / analysis.width, y / analysis.height) for zone in self._zones)

    async def _follow_gallery(self) -> None:
        """Take back names whose faces are no longer enrolled, and decide anew when the collection has changed."""
        before = self._gallery.rules.collection
        searched = [one.identity for one in self._subjects.values() if one.identity.result is not None]
        # The runner-up too: somebody who is erased must not keep a name from another.
        state = await self._gallery.find_changes([found for one in searched for found in one.list_candidates()])
        if state is None:
            return
        collection = self._gallery.rules.collection
        is_grown, self._last_number = state.last_number > self._last_number, state.last_number
        if collection != before:
            self._follow_rules(is_other_space=collection.space_id != before.space_id)
            return
        for one in searched:
            if not all(map(state.supports, one.list_candidates())) or (is_grown and not one.is_named):
                one.forget_result()

    def _follow_rules(self, *, is_other_space: bool) -> None:
        """Decide everything anew: the collection's policy has changed, or its embedding space."""
        rules = self._gallery.rules
        self._tracker.rules = rules.build_tracker_rules()
        for one in self._subjects.values():
            one.identity.policy = rules.policy.tracks
            if is_other_space:
                one.identity.forget_vectors()
                one.trajectory.reference = None
            one.identity.forget_result()

    async def _search_subjects(self, seen: Sequence[_Subject]) -> SearchLimitError | None:
        """Search for the means that have changed, all at once; return why not if the key may not."""
        means = {
            position: direction
            for position, one in enumerate(seen)
            if one.identity.result is None and (direction := one.identity.mean.direction) is not None
        }
        if not means:
            return None
        try:
            found = await self._gallery.search_means(list(means.values()))
        except SearchLimitError as error:
            return error
        for position, result in zip(means, found, strict=True):
            seen[position].identity.result = result
        return None

    def _renew_exhausted(self, seen: Sequence[_Subject]) -> dict[UUID, UUID]:
        """Begin new tracks where a face cannot be told from another any more; return their ids by the old ones.

        Such a face may be another person's, and may not be embedded again to find out.
        """
        renewed = {}
        for one in seen:
            if one.identity.is_exhausted and one.trajectory.is_doubted:
                old = one.trajectory.id
                one.trajectory.renew()
                renewed[old] = one.trajectory.id
                one.identity, one.first_at = TrackIdentity(one.identity.policy), one.last_at
                self._subjects[one.trajectory.id] = self._subjects.pop(old)
        return renewed

    def _settle_names(self, seen: Sequence[_Subject], at: float) -> None:
        """Decide what is told of each track, so that no person is on two."""
        rules = self._gallery.rules
        claims = [(one.identity, one.identity.propose(rules.policy, rules.calibration, at)) for one in seen]
        rivals = find_rivals(claims, rules.margin)
        for one, (identity, claim) in zip(seen, claims, strict=True):
            withheld = "person_on_another_track" if id(identity) in rivals else None
            before = identity.shown
            identity.settle(claim, "track_in_doubt" if one.trajectory.is_doubted else withheld, at)
            if identity.shown is not None and not identity.shown.is_same_as(before):
                metrics.get_labelled(metrics.VERDICTS, "live", identity.shown.decision.verdict.value).inc()

    def _build_track(self, subject: _Subject, at: float) -> Track:
        identity, shown = subject.identity, subject.identity.shown
        face = identity.face
        if face is None:
            raise ValueError("the track was not seen")
        return Track(
            id=subject.trajectory.id,
            box=face.face.box,
            landmarks=face.face.landmarks,
            state=subject.trajectory.state,
            verdict=shown.decision.verdict if shown else None,
            person=shown.person if shown else None,
            liveness=identity.median_liveness,
            identity_age_ms=None if math.isinf(identity.embedded_at) else (at - identity.embedded_at) * 1e3,
            first_seen_at=self._find_moment(subject.first_at),
            last_seen_at=self._find_moment(subject.last_at),
            decision=shown.decision if shown else None,
        )
