"""Streams of drawn clips with the real networks and the real database: who is named, when, and that nobody is wrong."""

from __future__ import annotations

import statistics
from dataclasses import replace
from typing import TYPE_CHECKING
from uuid import UUID

import pytest
from tests.callers import CALLER
from tests.clips import CLIPS, Clip, portrait_of
from tests.tracking import score_tracks

from vultus.domain import StreamOrigin
from vultus.services.live.stream import LiveStream
from vultus.utils.ids import new_id

if TYPE_CHECKING:
    from tests.api.conftest import Api

    from vultus.domain import FrameResult


async def enrol_walkers(api: Api, clip: Clip) -> dict[UUID, int]:
    """Register everybody in a clip; return their faces' numbers by person."""
    people = {}
    for walker in clip.walkers:
        registered = await api.register(
            portrait_of(walker.face), external_id=f"walker{walker.face}", allow_lookalike="true"
        )
        people[UUID(registered["person"]["id"])] = walker.face
    return people


async def open_stream(api: Api) -> LiveStream:
    return await api.services.streams.open_stream(CALLER, reference="default", origin=StreamOrigin("session", new_id()))


async def play(stream: LiveStream, clip: Clip, fps: float) -> list[tuple[float, FrameResult]]:
    return [(at, await stream.process_frame(frame)) for at, frame in clip.list_frames(fps)]


@pytest.mark.parametrize(("name", "seconds", "fps"), [("two who cross", 3.0, 10), ("five who cross", 3.0, 8)])
async def test_people_who_cross_keep_their_tracks_and_are_never_named_wrongly(
    api: Api, name: str, seconds: float, fps: float
) -> None:
    clip = replace(CLIPS[name](), seconds=seconds)
    people = await enrol_walkers(api, clip)

    results = await play(await open_stream(api), clip, fps)

    score = score_tracks(clip, results, people)
    assert score.wrong_names == 0
    assert score.switches == 0
    assert score.named_after_s.keys() == set(people.values())
    assert statistics.median(score.named_after_s.values()) <= 0.5
    assert {track.verdict for track in results[0][1].tracks} == {None}, "one frame is not enough"
    assert len({track.id for _, result in results for track in result.tracks}) <= len(people) + 1
