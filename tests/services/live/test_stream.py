"""Streams on a real database: names follow the gallery at once, and only what counts is tracked."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from tests.callers import CALLER
from tests.clips import BEGIN
from tests.db.test_engine import NumpyEngine

from vultus.domain import (
    Analysis,
    Box,
    DescribedFace,
    DetectedFace,
    Embedding,
    Frame,
    Permission,
    Principal,
    Quality,
    Role,
    StreamOrigin,
    Verdict,
    Want,
    Zone,
)
from vultus.errors import ForbiddenError, OverloadedError, SearchLimitError
from vultus.models.pipeline import list_unknown_faces
from vultus.services.access import AccessService
from vultus.services.limits import UsageLimiter
from vultus.services.live.service import StreamResources, StreamService
from vultus.services.people.erasure import Eraser
from vultus.services.people.last_seen import LastSeenLog
from vultus.services.people.persons import PersonService
from vultus.services.recognition.decision_log import DecisionLog
from vultus.services.search.recall_monitor import RecallMonitor
from vultus.services.search.search import Searcher
from vultus.settings import IndexSettings, JobSettings, LimitSettings
from vultus.utils import metrics
from vultus.utils.ids import new_id

if TYPE_CHECKING:
    from uuid import UUID

    from vultus.db.database import Database
    from vultus.domain import Collection, FloatArray, FrameResult, SpaceRegistry, Track
    from vultus.domain.sightings import Sighting
    from vultus.services.collections import CollectionService
    from vultus.services.live.stream import LiveStream

Enrol = Callable[..., Awaitable[Any]]
Towards = Callable[..., "FloatArray"]

SHARP = Quality(size_px=100, sharpness=5000, brightness=0.5, yaw_deg=0, pitch_deg=0, roll_deg=0)
LEFT, RIGHT = Box(0, 0, 100, 100), Box(300, 0, 400, 100)
Seen = tuple[Box, "FloatArray", Quality]


class Scene:
    """In place of the networks: what the next frame shows, and what was asked for."""

    def __init__(self) -> None:
        self.faces: list[Seen] = []
        self.wants: list[Want] = []
        self.embedded = 0
        self.error: Exception | None = None

    def show(self, *faces: tuple[Box, FloatArray], quality: Quality = SHARP) -> None:
        self.faces = [(box, vector, quality) for box, vector in faces]

    async def analyze_photo(self, _photo: Any, space_id: str, want: Want, *_: Any, **__: Any) -> Analysis:
        if self.error is not None:
            raise self.error
        self.wants.append(want)
        found = [DetectedFace(box, np.zeros((5, 2), np.float32), 0.99) for box, _, _ in self.faces]
        wanted = list_unknown_faces(found, want.known_boxes)
        self.embedded += len(wanted)
        faces = tuple(
            DescribedFace(one, quality, Embedding(vector, space_id) if at in wanted else None)
            for at, (one, (_, vector, quality)) in enumerate(zip(found, self.faces, strict=True))
        )
        return Analysis(400, 200, "", faces)


class MemoryLog:
    """In place of the outbox."""

    def __init__(self) -> None:
        self.sightings: list[Sighting] = []
        self.ids: list[UUID] = []

    async def record(self, _principal: Principal, sighting: Sighting, event_id: UUID) -> None:
        self.sightings.append(sighting)
        self.ids.append(event_id)


class Studio:
    """One collection, one camera, and what is in front of it."""

    def __init__(self, service: StreamService, scene: Scene, log: MemoryLog) -> None:
        self.service, self.scene, self.log = service, scene, log
        self.frames = 0
        self.stream: LiveStream

    async def open(self, principal: Principal = CALLER, **options: Any) -> None:
        origin = StreamOrigin("source", new_id())
        self.stream = await self.service.open_stream(principal, reference="home", origin=origin, **options)

    async def see(self, frames: int = 1, *, step_s: float = 0.1) -> tuple[Track, ...]:
        result: FrameResult
        for _ in range(frames):
            self.frames += 1
            taken = BEGIN + timedelta(seconds=self.frames * step_s)
            result = await self.stream.process_frame(Frame(b"", self.frames, taken))
        return result.tracks

    @property
    def actions(self) -> list[str]:
        return [one.action for one in self.log.sightings]


@pytest.fixture
async def studio(
    database: Database,
    collections: CollectionService,
    collection: Collection,
    spaces: SpaceRegistry,
    monkeypatch: pytest.MonkeyPatch,
) -> Studio:
    monkeypatch.setattr("vultus.services.live.gallery.CHECK_INTERVAL_S", 0.0)
    await collections.update_collection(CALLER, "home", policy={"threshold": 0.9, "margin": 0.01})
    nobody = NumpyEngine(np.empty(0, np.int64), np.empty((0, 0), np.float32), forgets_after=0)
    searcher = Searcher(database, nobody, RecallMonitor(0, 0), IndexSettings())
    scene, log = Scene(), MemoryLog()
    analyzer: Any = scene
    limiter = UsageLimiter(database, LimitSettings())
    decisions = DecisionLog(database, LastSeenLog(database))
    resources = StreamResources(database, analyzer, spaces, searcher, limiter, log, decisions)
    studio = Studio(StreamService(resources), scene, log)
    await studio.open()
    return studio


async def test_a_name_is_gone_in_the_frame_after_the_person_is_erased(
    studio: Studio, database: Database, collection: Collection, enrol: Enrol, towards: Towards
) -> None:
    async with database.transaction() as work:
        ada = await enrol(work, collection, "ada", towards(0))
    studio.scene.show((LEFT, towards(0)))
    counted = metrics.get_labelled(metrics.VERDICTS, "live", "match")
    before = counted._value.get()
    (track,) = await studio.see(5)
    assert track.person is not None
    assert track.person.person_id == ada.person.id
    assert counted._value.get() == before + 1, "once a verdict, not once a frame"

    await Eraser(database, JobSettings()).erase(CALLER, "home", ada.person.id)
    (track,) = await studio.see()

    assert track.person is None
    assert track.verdict is not Verdict.MATCH


async def test_somebody_who_is_erased_no_longer_keeps_a_name_from_another(
    studio: Studio, database: Database, collection: Collection, enrol: Enrol, towards: Towards
) -> None:
    async with database.transaction() as work:
        ada = await enrol(work, collection, "ada", towards(0))
        twin = await enrol(work, collection, "twin", towards(0, 0.1))
    studio.scene.show((LEFT, towards(0, 0.02)))
    (track,) = await studio.see(5)
    assert track.verdict is Verdict.AMBIGUOUS

    await Eraser(database, JobSettings()).erase(CALLER, "home", twin.person.id)
    (track,) = await studio.see()

    assert track.person is not None
    assert track.person.person_id == ada.person.id


async def test_a_new_name_of_the_person_is_followed(
    studio: Studio, database: Database, collection: Collection, enrol: Enrol, towards: Towards
) -> None:
    async with database.transaction() as work:
        ada = await enrol(work, collection, "ada", towards(0))
    studio.scene.show((LEFT, towards(0)))
    await studio.see(3)

    await PersonService(database).update_person(CALLER, "home", ada.person.id, name="Countess")
    (track,) = await studio.see(2)

    assert track.person is not None
    assert track.person.name == "Countess"


async def test_somebody_in_view_is_named_once_they_are_enrolled(
    studio: Studio, database: Database, collection: Collection, enrol: Enrol, towards: Towards
) -> None:
    studio.scene.show((LEFT, towards(0)))
    (track,) = await studio.see(40)
    assert track.verdict is Verdict.NO_MATCH
    async with database.transaction() as work:
        await enrol(work, collection, "ada", towards(0))
    (track,) = await studio.see()

    assert track.person is not None
    assert studio.actions == ["appeared", "unknown", "recognised"]


async def test_a_stricter_policy_holds_from_the_next_frame_on(
    studio: Studio,
    database: Database,
    collections: CollectionService,
    collection: Collection,
    enrol: Enrol,
    towards: Towards,
) -> None:
    async with database.transaction() as work:
        await enrol(work, collection, "ada", towards(0, 0.2))
    studio.scene.show((LEFT, towards(0)))
    (track,) = await studio.see(3)
    assert track.verdict is Verdict.MATCH

    await collections.update_collection(CALLER, "home", policy={"threshold": 0.99})
    (track,) = await studio.see()

    assert track.verdict is not Verdict.MATCH
    assert track.person is None


async def test_frames_and_times_until_a_name_are_the_policys(
    studio: Studio,
    database: Database,
    collections: CollectionService,
    collection: Collection,
    enrol: Enrol,
    towards: Towards,
) -> None:
    policy = {"tracks": {"agreeing_frames": 5, "agreeing_s": 0, "confirm_frames": 4}}
    await collections.update_collection(CALLER, "home", policy=policy)
    async with database.transaction() as work:
        await enrol(work, collection, "ada", towards(0))
    await studio.open()
    studio.scene.show((LEFT, towards(0)))

    assert [(await studio.see())[0].verdict for _ in range(5)] == [None] * 4 + [Verdict.MATCH]
    assert studio.actions == ["appeared", "recognised"]


async def test_why_somebody_is_named_is_recorded_under_the_id_of_the_event(
    studio: Studio,
    database: Database,
    collections: CollectionService,
    collection: Collection,
    enrol: Enrol,
    towards: Towards,
) -> None:
    await collections.update_collection(CALLER, "home", policy={"record_searches": "matches"})
    async with database.transaction() as work:
        ada = await enrol(work, collection, "ada", towards(0))
    await studio.open()
    studio.scene.show((LEFT, towards(0)))
    await studio.see(5)

    assert studio.actions == ["appeared", "recognised"]
    async with database.transaction(read_only=True) as work:
        record = await work.decisions.get_decision(studio.log.ids[1])
    assert (record.kind, record.person_id, record.consent_id) == ("live", ada.person.id, ada.consent.id)
    assert record.track_id == studio.log.sightings[1].track_id  # type: ignore[attr-defined]
    assert record.similarity == pytest.approx(1, abs=1e-3)


async def test_the_key_s_limit_refuses_searches_and_the_tracks_go_on(
    studio: Studio, database: Database, collection: Collection, enrol: Enrol, towards: Towards
) -> None:
    async with database.transaction() as work:
        await enrol(work, collection, "ada", towards(0))
    access = AccessService(database)
    key, _ = await access.create_key(CALLER, "camera", Role.MANAGE, searches_per_hour=2)
    await studio.open(Principal.from_key(key))
    studio.scene.show((LEFT, towards(0)))
    await studio.see(2)

    with pytest.raises(SearchLimitError):
        await studio.see()
    assert studio.actions == ["appeared"]
    studio.scene.show()
    await studio.see(step_s=10)
    assert studio.actions == ["appeared", "left"]


async def test_only_faces_in_a_zone_and_large_enough_are_tracked(studio: Studio, towards: Towards) -> None:
    right_half = Zone(((0.5, 0), (1, 0), (1, 1), (0.5, 1)))
    await studio.open(zones=(right_half,), min_face_px=80)
    studio.scene.show((LEFT, towards(0)), (RIGHT, towards(1)))
    assert [track.box for track in await studio.see(20)] == [RIGHT]
    assert studio.scene.embedded <= 7, "the face outside in the first frame only"

    studio.scene.show((RIGHT, towards(1)), quality=replace(SHARP, size_px=79))
    assert await studio.see() == ()


async def test_a_face_below_the_quality_rule_is_low_quality_and_costs_no_embedding(
    studio: Studio, database: Database, collection: Collection, enrol: Enrol, towards: Towards
) -> None:
    async with database.transaction() as work:
        await enrol(work, collection, "ada", towards(0))
    studio.scene.show((LEFT, towards(0)), quality=replace(SHARP, size_px=5))
    (track,) = await studio.see(10)

    assert track.verdict is Verdict.LOW_QUALITY
    assert track.decision is not None
    assert "too_small" in track.decision.reasons
    assert studio.scene.embedded == 1, "of the first frame, in which nothing was known of the face"


async def test_two_faces_alike_never_have_one_name(
    studio: Studio, database: Database, collection: Collection, enrol: Enrol, towards: Towards
) -> None:
    async with database.transaction() as work:
        await enrol(work, collection, "ada", towards(0))
    studio.scene.show((LEFT, towards(0)), (RIGHT, towards(0, 0.1)))
    for _ in range(6):
        tracks = await studio.see()
        assert sum(track.person is not None for track in tracks) <= 1

    assert [track.verdict for track in tracks] == [Verdict.MATCH, Verdict.AMBIGUOUS]
    assert studio.actions.count("recognised") == 1


async def test_a_face_that_may_be_another_s_and_may_not_be_embedded_begins_a_new_track(
    studio: Studio, database: Database, collection: Collection, enrol: Enrol, towards: Towards
) -> None:
    async with database.transaction() as work:
        await enrol(work, collection, "ada", towards(0))
    studio.scene.show((LEFT, towards(0)))
    await studio.see(3)
    ids = []
    for _ in range(12):  # away for half a second each time: whoever is back may be somebody else
        studio.scene.show()
        await studio.see(5)
        studio.scene.show((LEFT, towards(0)))
        (track,) = await studio.see(2)
        ids.append(track.id)
    (track,) = await studio.see(3)

    assert len(set(ids)) == 2
    assert studio.scene.embedded <= 2 * 8
    assert track.person is not None
    assert studio.actions == ["appeared", "recognised"]


async def test_one_frame_a_second_is_enough_for_a_track_and_a_name(
    studio: Studio, database: Database, collection: Collection, enrol: Enrol, towards: Towards
) -> None:
    async with database.transaction() as work:
        await enrol(work, collection, "ada", towards(0))
    studio.scene.show((LEFT, towards(0)))
    tracks = [(await studio.see(step_s=0.9))[0] for _ in range(20)]

    assert len({track.id for track in tracks}) == 1
    assert [track.verdict for track in tracks[2:]] == [Verdict.MATCH] * 18
    assert studio.scene.embedded == 3


async def test_scores_are_left_out_for_who_may_not_see_them(
    studio: Studio, database: Database, collection: Collection, enrol: Enrol, towards: Towards
) -> None:
    async with database.transaction() as work:
        await enrol(work, collection, "ada", towards(0))
        await enrol(work, collection, "bob", towards(1))
    await studio.open(Principal("camera", frozenset({Permission.LIVE})))
    studio.scene.show((LEFT, towards(0)))
    (track,) = await studio.see(3)

    assert track.decision is not None
    assert track.decision.verdict is Verdict.MATCH
    assert track.decision.margin is None


async def test_a_stream_needs_the_permission_for_live_video(studio: Studio) -> None:
    with pytest.raises(ForbiddenError, match="'live'"):
        await studio.open(Principal("door", frozenset({Permission.RECOGNIZE})))


async def test_a_face_of_a_single_frame_is_no_event(studio: Studio, towards: Towards) -> None:
    studio.scene.show((LEFT, towards(0)))
    await studio.see()
    studio.scene.show()
    await studio.see(2, step_s=10)
    await studio.stream.end()

    assert studio.actions == []


async def test_what_a_source_saw_is_forgotten_after_the_cooldown_and_kept_for_one_that_goes_on(
    studio: Studio, database: Database, collection: Collection, enrol: Enrol, towards: Towards
) -> None:
    """The clip is long past, so each person in it was seen longer ago than the cooldown."""
    async with database.transaction() as work:
        ada = await enrol(work, collection, "ada", towards(0))
    studio.scene.show((LEFT, towards(0)))
    await studio.see(5)
    (seen_at,) = (one.seen_at for one in studio.service._memories.values())
    assert list(seen_at) == [ada.person.id]
    streaming = studio.stream
    await studio.open()
    assert any(one.seen_at is seen_at for one in studio.service._memories.values()), "its stream still writes it"

    await streaming.end()
    del streaming
    await studio.open()
    assert [one.seen_at for one in studio.service._memories.values() if one.seen_at] == []


async def test_a_video_that_begins_again_is_another_walk(studio: Studio, towards: Towards) -> None:
    studio.scene.show((LEFT, towards(0)))
    (first,) = await studio.see(100)
    studio.frames = 0
    (second,) = await studio.see(2)

    assert first.id != second.id
    assert studio.actions == ["appeared", "unknown", "left", "appeared"]


async def test_a_dropped_frame_changes_nothing(studio: Studio, towards: Towards) -> None:
    studio.scene.show((LEFT, towards(0)))
    (before,) = await studio.see(2)
    studio.scene.error = OverloadedError("dropped")
    with pytest.raises(OverloadedError):
        await studio.see()
    studio.scene.error = None
    (after,) = await studio.see()

    assert before.id == after.id
    await studio.stream.end()
    assert studio.actions == ["appeared", "left"]
