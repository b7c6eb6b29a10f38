"""Does the tracker confuse people who cross, and how does it compare with ByteTrack of the `trackers` library?

Clips are drawn (`tests/clips.py`) and analysed once by the built-in pack; then every tracker gets the same faces. Ours
runs as in the service, with embeddings for the faces that it asks for only. The library is compared where it can be
imported; its metadata ask for a second OpenCV, so it is installed without its dependencies:

    pip install --no-deps trackers==2.6.0 supervision==0.31.2 && pip install pydeprecate tqdm defusedxml matplotlib
"""

from __future__ import annotations

import asyncio
import statistics
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

import numpy as np
from tests.clips import CLIPS, Clip, portrait_of
from tests.tracking import TrackingScore, score_tracks

from benchmarks.record import format_milliseconds, render_table
from vultus.domain import (
    Analysis,
    Candidate,
    Collection,
    FloatArray,
    Frame,
    Permission,
    Principal,
    SearchResult,
    StreamOrigin,
)
from vultus.domain.decision import build_default_policy
from vultus.models.pipeline import FacePipeline, list_unknown_faces
from vultus.models.weights.store import WeightsStore
from vultus.services.live.attendance import Attendance
from vultus.services.live.gallery import StreamGallery, StreamRules
from vultus.services.live.stream import LiveStream
from vultus.services.people.last_seen import LastSeenLog
from vultus.services.recognition.decision_log import DecisionLog
from vultus.settings import Settings
from vultus.utils.ids import new_id

if TYPE_CHECKING:
    from collections.abc import Collection as Group
    from collections.abc import Sequence

    from benchmarks.record import Measurement
    from vultus.domain import GalleryState, Lane, Want
    from vultus.domain.sightings import Sighting
    from vultus.services.photo_analysis import Photo

SECONDS = 0.0
"""The clips have their lengths; nothing is repeated."""

OURS, LIBRARY = "Vultus", "ByteTrack"

PACES = (10.0, 20.0)
"""Processed frames a second."""


@dataclass(frozen=True)
class AnalysedClip:
    """A clip with every frame's faces, all embedded.

    Attributes:
        frames: Seconds, frame and analysis of each.
        people: Numbers of the faces by the person that they were enrolled as.
        vectors: (people, d) of the enrolled photos, in the order of the people.
    """

    name: str
    clip: Clip
    fps: float
    frames: list[tuple[float, Frame, Analysis]]
    people: dict[UUID, int]
    vectors: FloatArray


def analyse_clip(pipeline: FacePipeline, name: str, fps: float) -> AnalysedClip:
    """Draw a clip and find and embed the faces of all its frames; takes a second per second of the clip or longer."""
    clip = CLIPS[name]()
    frames = [(at, frame, pipeline.analyze_photo(frame.content)) for at, frame in clip.list_frames(fps)]
    faces = [walker.face for walker in clip.walkers]
    vectors = [pipeline.analyze_photo(portrait_of(face)).faces[0].vector for face in faces]
    return AnalysedClip(name, clip, fps, frames, {new_id(): face for face in faces}, np.stack(vectors))


class ReplayedAnalyzer:
    """In place of the networks: returns what they found, with the embeddings that are asked for."""

    def __init__(self, analysed: AnalysedClip) -> None:
        self._analyses = {frame.content: analysis for _, frame, analysis in analysed.frames}
        self.embeddings = 0

    async def analyze_photo(self, photo: Photo, _space_id: str, want: Want, _lane: Lane, *, source: str) -> Analysis:
        """Return the analysis of a frame."""
        found = self._analyses[photo.content]
        wanted = list_unknown_faces([one.face for one in found.faces], want.known_boxes)
        self.embeddings += len(wanted)
        faces = [one if at in wanted else replace(one, embedding=None) for at, one in enumerate(found.faces)]
        return replace(found, faces=tuple(faces), timings_ms={})


class ReplayedGallery:
    """In place of the database: compares means with the enrolled vectors."""

    def __init__(self, pipeline: FacePipeline, analysed: AnalysedClip) -> None:
        space = pipeline.describe_space()
        policy = build_default_policy(space.enrol_rule, space.recognize_rule, space.calibration)
        now = datetime(2026, 1, 5, tzinfo=UTC)
        self.rules = StreamRules(Collection(new_id(), "clips", space.id, policy, None, now, now), space)
        self._people = list(analysed.people)
        self._vectors = analysed.vectors

    async def find_changes(self, candidates: Group[Candidate]) -> GalleryState | None:
        """Return that nothing changed."""
        return None

    async def search_means(self, means: Sequence[FloatArray]) -> tuple[SearchResult, ...]:
        """Return everybody, nearest first."""
        results = []
        for mean in means:
            cosines = self._vectors @ mean
            order = np.argsort(-cosines)
            candidates = [Candidate(self._people[at], None, None, self._people[at], float(cosines[at])) for at in order]
            results.append(SearchResult(tuple(candidates), len(self._people)))
        return tuple(results)


class ForgetfulLog:
    """In place of the outbox: counts what is told."""

    def __init__(self) -> None:
        self.recorded: list[Sighting] = []

    async def record(self, _principal: Principal, sighting: Sighting, _event_id: UUID) -> None:
        """Remember a sighting."""
        self.recorded.append(sighting)


def score_stream(pipeline: FacePipeline, analysed: AnalysedClip) -> Measurement:
    """Return what our tracks get wrong, and what they cost."""
    analyzer, gallery = ReplayedAnalyzer(analysed), ReplayedGallery(pipeline, analysed)
    principal = Principal("benchmark", frozenset(Permission))
    attendance = Attendance(gallery.rules.collection.id, StreamOrigin("session", new_id()))
    log = ForgetfulLog()
    decisions = DecisionLog(cast("Any", None), LastSeenLog(cast("Any", None)))
    stream = LiveStream(cast("Any", analyzer), cast("StreamGallery", gallery), log, attendance, principal, decisions)
    costs_ms: list[float] = []

    async def play() -> list[Any]:
        results = []
        for at, frame, _ in analysed.frames:
            started = time.perf_counter()
            result = await stream.process_frame(frame)
            costs_ms.append((time.perf_counter() - started) * 1e3)
            results.append((at, result))
        return results

    results = asyncio.run(play())
    score = score_tracks(analysed.clip, results, analysed.people)
    tracks = {track.id for _, result in results for track in result.tracks}
    return {
        "tracker": OURS,
        **describe_score(score),
        "wrong_names": score.wrong_names,
        "named_after_s": statistics.median(score.named_after_s.values()) if score.named_after_s else None,
        "named": len(score.named_after_s),
        "embeddings": analyzer.embeddings,
        "tracks": len(tracks),
        "ms": statistics.median(costs_ms),
    }


def score_library(analysed: AnalysedClip, *, activation: float) -> Measurement:
    """Return what ByteTrack of `trackers` gets wrong with the same faces."""
    import supervision  # noqa: PLC0415  where it is installed
    from trackers import ByteTrackTracker  # noqa: PLC0415

    tracker = ByteTrackTracker(
        lost_track_buffer=90,
        frame_rate=analysed.fps,
        track_activation_threshold=activation,
        high_conf_det_threshold=activation,
    )
    score = TrackingScore()
    costs_ms: list[float] = []
    for at, _, analysis in analysed.frames:
        faces = [one.face for one in analysis.faces]
        corners = np.array([(f.box.left, f.box.top, f.box.right, f.box.bottom) for f in faces]).reshape(-1, 4)
        detections = supervision.Detections(
            xyxy=corners, confidence=np.array([face.score for face in faces]), class_id=np.zeros(len(faces), int)
        )
        started = time.perf_counter()
        tracked = tracker.update(detections)
        costs_ms.append((time.perf_counter() - started) * 1e3)
        boxes = {tuple(box): faces[at_].box for at_, box in enumerate(corners.tolist())}
        tracks = [
            (int(track_id), boxes[tuple(box)])
            for box, track_id in zip(tracked.xyxy.tolist(), np.asarray(tracked.tracker_id).tolist(), strict=True)
            if track_id >= 0
        ]
        score.add_frame(analysed.clip, at, tracks)
    return {"tracker": LIBRARY, **describe_score(score), "ms": statistics.median(costs_ms)}


def describe_score(score: TrackingScore) -> Measurement:
    """Return the counts of a clip."""
    return {
        "heads": score.heads,
        "switches": score.switches,
        "misses": score.misses,
        "false_tracks": score.false_tracks,
    }


def measure(_seconds: float) -> list[Measurement]:
    """Return one line per clip, pace and tracker."""
    settings = Settings()
    pipeline = FacePipeline.load(settings.inference, settings.photos, WeightsStore(), pack="builtin")
    lines = []
    for name in CLIPS:
        for fps in PACES:
            print(f"tracking: {name} people at {fps:g} frames a second", flush=True)
            analysed = analyse_clip(pipeline, name, fps)
            setting = {"seconds": SECONDS, "clip": name, "fps": fps, "frames": len(analysed.frames)}
            lines.append(setting | score_stream(pipeline, analysed))
            if find_spec("trackers") is not None:
                lines.append(setting | score_library(analysed, activation=pipeline.recognize_rule.min_score))
    return lines


def render(lines: list[Measurement]) -> str:
    """Return one row per clip, pace and tracker, and whether the bars held."""
    rows = [
        (
            f"{line['clip']}, {line['fps']:g} a second",
            line["tracker"],
            line["heads"],
            line["switches"],
            line["misses"],
            line["false_tracks"],
            line.get("wrong_names", ""),
            f"{line['named_after_s']:.2f}" if "named_after_s" in line else "",
            line.get("embeddings", ""),
            format_milliseconds(line["ms"]),
        )
        for line in lines
    ]
    columns = ("clip", "tracker", "faces", "switches", "missed", "false", "wrong names", "named after s")
    own = {(line["clip"], line["fps"]): line for line in lines if line["tracker"] == OURS}
    other = {(line["clip"], line["fps"]): line for line in lines if line["tracker"] == LIBRARY}
    no_worse = all(own[setting]["switches"] <= line["switches"] for setting, line in other.items())
    right = all(line["wrong_names"] == 0 for line in own.values())
    totals = [sum(line["switches"] for line in group.values()) for group in (own, other)]
    compared = (
        f"no more switches than the library's in any clip {_format_bar(no_worse)} (in all {totals[0]} to {totals[1]})"
    )
    return (
        render_table((*columns, "embeddings", "ms a frame"), rows)
        + f"\n\nBars: 0 wrong names {_format_bar(right)}; {compared if other else 'the library was not installed'}."
    )


def _format_bar(is_held: bool) -> str:
    return "held" if is_held else "**not held**"
