"""`vultus watch`: who is seen in a video, in lines and as JSON."""

from __future__ import annotations

import asyncio
import json

import pytest
from tests.cli.test_commands import GRANT, Cli, cli
from tests.clips import ASTRONAUT, portrait_of, two_crossing
from tests.videos import write_clip

__all__ = ["cli"]


async def test_a_video_is_told_as_one_line_per_sighting(cli: Cli) -> None:
    await cli("register", cli.photo("ada.jpg", portrait_of(ASTRONAUT)), "--name", "Ada", *GRANT)
    video = await asyncio.to_thread(write_clip, cli.folder / "two.mp4", two_crossing(3))

    shown = await cli("watch", str(video))
    listed = await cli("watch", str(video), "--json", "--begins-at", "2026-01-05T09:00:00Z")

    lines = [line.split() for line in shown.stdout.splitlines()]
    assert sorted(line[1:] for line in lines) == [
        *(["appeared"], ["appeared"], ["left"], ["left", "Ada"], ["recognised", "Ada"], ["unknown"])
    ]
    sightings = [json.loads(line) for line in listed.stdout.splitlines()]
    assert [(one["action"], one["name"]) for one in sightings if one["name"]] == [
        ("recognised", "Ada"),
        ("left", "Ada"),
    ]
    assert all(one["at"].startswith("2026-01-05T09:00:0") for one in sightings)


@pytest.mark.parametrize(("name", "content"), [("none.mp4", None), ("text.mp4", b"no video" * 500)])
async def test_what_is_no_video_ends_with_a_sentence(name: str, content: bytes | None, cli: Cli) -> None:
    if content:
        (cli.folder / name).write_bytes(content)

    refused = await cli.json("watch", str(cli.folder / name), code=2)

    assert refused["error"]["code"] == "invalid_input"
    assert "SOURCE" in refused["error"]["detail"]
