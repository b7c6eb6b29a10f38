"""`vultus watch`: who is seen in a video, in lines and as JSON."""

from __future__ import annotations

import asyncio
import base64
import csv
import io
import json
import re
from pathlib import Path
from uuid import UUID, uuid4

import numpy as np
import pytest
from PIL import Image
from tests.cli.test_commands import GRANT, Cli, cli
from tests.clips import ASTRONAUT, BEGIN, portrait_of, two_crossing
from tests.videos import write_clip

from vultus.cli.common import COMMAND_LINE, load_settings, open_progress_bar, run_command
from vultus.cli.watching import SightingPrinter, _parse_source
from vultus.domain import Box, Candidate, Frame, FrameResult, Track, TrackState, Verdict
from vultus.domain.sightings import Left
from vultus.domain.source_addresses import SourceAddress
from vultus.domain.sources import SourceProblem
from vultus.evaluation.watch_report import WatchReport, format_tick, list_ticks, write_watch_report
from vultus.main import open_services
from vultus.services.sources.visits import Visit, VisitRecorder

__all__ = ["cli"]

PROBLEMS = (SourceProblem.CLOSED, SourceProblem.REFUSED)


def set_keep_crops() -> None:
    async def change() -> None:
        async with open_services(load_settings()) as services:
            await services.collections.update_collection(COMMAND_LINE, "default", policy={"keep_crops": True})

    run_command(change())


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
    assert all(re.fullmatch(r"2026-01-05T09:00:0\d\.\d{3}Z", one["at"]) for one in sightings)
    assert all(0 <= one["position_s"] < 5 for one in sightings)


@pytest.mark.parametrize("keep_crops", [True, False])
async def test_a_report_says_who_was_seen_when(keep_crops: bool, cli: Cli) -> None:
    await cli("register", cli.photo("ada.jpg", portrait_of(ASTRONAUT)), "--name", "Ada <b>", *GRANT)
    if keep_crops:
        await asyncio.to_thread(set_keep_crops)
    video = await asyncio.to_thread(write_clip, cli.folder / "two.mp4", two_crossing(3))
    folder = cli.folder / "out"

    await cli("watch", str(video), "--report", str(folder))

    report = json.loads((folder / "report.json").read_text())
    assert sorted(str(visit["name"]) for visit in report["visits"]) == ["Ada <b>", "None"]
    with (folder / "visits.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["verdict"] for row in rows if row["name"]] == ["match"]
    assert all(row["from"].startswith("0:00:0") and row["from"] < row["to"] for row in rows)
    page = (folder / "report.html").read_text()
    assert "Ada &lt;b&gt;" in page
    pictures = re.findall(r"data:image/jpeg;base64,([^\"]+)", page)
    assert len(pictures) == (2 if keep_crops else 0)
    for picture in pictures:  # of the face, not the frame
        with Image.open(io.BytesIO(base64.b64decode(picture))) as opened:
            assert max(opened.size) <= 160
    assert (folder / "report.html").stat().st_mode & 0o777 == 0o600
    # Nobody said when it was begun.
    assert {row["first_seen_at"] + row["last_seen_at"] for row in rows} == {""}
    assert report["begins_at"] is None
    assert not re.search(r"20\d\d-\d\d-\d\d", page)


def look(track_id: UUID, person: Candidate | None, width: float, content: bytes) -> tuple[Frame, FrameResult]:
    """A frame that shows one face."""
    verdict = Verdict.MATCH if person else Verdict.NO_MATCH
    box, landmarks = Box(0, 0, width, width), np.zeros((5, 2), np.float32)
    track = Track(track_id, box, landmarks, TrackState.CONFIRMED, verdict, person, None, None, BEGIN, BEGIN, None)
    return Frame(content, 0, BEGIN), FrameResult(0, 640, 480, (track,), {})


def test_a_visit_is_of_the_tracks_that_its_end_names() -> None:
    ada = Candidate(uuid4(), None, "Ada", uuid4(), 0.9, None)
    broken, last, other = uuid4(), uuid4(), uuid4()
    recorder = VisitRecorder(keeps_pictures=True)
    recorder.record_frame(*look(other, ada, 90, b"somebody who was taken for Ada for a moment"))
    recorder.record_frame(*look(broken, None, 80, b"best"))
    recorder.record_frame(*look(last, ada, 40, b"last"))

    visit = recorder.take_visit(
        Left(
            collection_id=uuid4(),
            origin_kind="source",
            origin_id=uuid4(),
            person_id=ada.person_id,
            track_id=last,
            track_ids=(broken, last),
            since=BEGIN,
            at=BEGIN,
        )
    )

    assert (visit.person, visit.verdict, visit.picture) == (ada, Verdict.MATCH, b"best")
    assert list(recorder._tracks) == [other]


def test_no_name_is_a_formula_in_a_spreadsheet(tmp_path: Path) -> None:
    names = ("=HYPERLINK(1)", "+1", "-1", "@SUM(1)", "Ada", "Ada =1")
    visits = tuple(Visit(BEGIN, BEGIN, None, Candidate(uuid4(), None, name, uuid4(), 0.9, None)) for name in names)
    report = WatchReport("video.mp4", "default", BEGIN, False, 1.0, 1.0, 5, visits)

    write_watch_report(report, tmp_path)

    with (tmp_path / "visits.csv").open() as file:
        written = [row["name"] for row in csv.DictReader(file)]
    assert written == ["'=HYPERLINK(1)", "'+1", "'-1", "'@SUM(1)", "Ada", "Ada =1"]
    assert [one["name"] for one in json.loads((tmp_path / "report.json").read_text())["visits"]] == list(names)


async def test_times_are_told_where_the_beginning_is_known(cli: Cli) -> None:
    video = await asyncio.to_thread(write_clip, cli.folder / "two people.mp4", two_crossing(2))

    await cli("watch", str(video), "--report", str(cli.folder / "out"), "--begins-at", "2026-01-05T09:00:00Z")
    listed = await cli("watch", str(video), "--json")

    report = json.loads((cli.folder / "out" / "report.json").read_text())
    assert report["begins_at"] == "2026-01-05T09:00:00.000Z"
    assert all(re.fullmatch(r"2026-01-05T09:00:0\d\.\d{3}Z", visit["last_seen_at"]) for visit in report["visits"])
    assert "from 2026-01-05 09:00:00 UTC" in (cli.folder / "out" / "report.html").read_text()
    assert {json.loads(line)["at"] for line in listed.stdout.splitlines()} == {None}


async def test_a_folder_that_cannot_be_one_is_refused_before_the_video_is_opened(cli: Cli) -> None:
    (cli.folder / "text.mp4").write_bytes(b"no video" * 500)

    for place in ("text.mp4", "text.mp4/out"):
        refused = await cli.json("watch", str(cli.folder / "text.mp4"), "--report", str(cli.folder / place), code=2)

        assert "--report" in refused["error"]["detail"]


async def test_a_camera_is_told_when_it_comes_and_each_problem_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    printer = SightingPrinter(
        open_progress_bar(show=False), VisitRecorder(), None, "Watching door.", is_dated=False, as_json=True
    )

    for _ in range(2):
        await printer.handle_start()
        for problem in (SourceProblem.CLOSED, SourceProblem.REFUSED, SourceProblem.REFUSED, SourceProblem.REFUSED):
            await printer.handle_loss(problem)

    printed = capsys.readouterr()
    once = ["Watching door.", *(f"source: {one.description} It is tried again." for one in PROBLEMS)]
    assert printed.err.splitlines() == once * 2
    assert printed.out == ""


@pytest.mark.parametrize(
    ("length_s", "first", "last"),
    [
        (0.8, "0:00:00.2", "0:00:00.8"),
        (33, "0:00:05", "0:00:30"),
        (3600, "0:10:00", "1:00:00"),
        (1e5, "4:00:00", "24:00:00"),
    ],
)
def test_the_axis_has_round_ticks(length_s: float, first: str, last: str) -> None:
    shown = [format_tick(one) for one in list_ticks(length_s)]

    assert (shown[0], shown[1], shown[-1]) == ("0:00:00", first, last)
    assert len(shown) <= 8


def test_an_address_is_read_from_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("rtsp://admin:geheim@cam.lan/live\n"))

    assert _parse_source("-") == SourceAddress.from_text("rtsp://admin:geheim@cam.lan/live")


@pytest.mark.parametrize(("name", "content"), [("none.mp4", None), ("text.mp4", b"no video" * 500)])
async def test_what_is_no_video_ends_with_a_sentence(name: str, content: bytes | None, cli: Cli) -> None:
    if content:
        (cli.folder / name).write_bytes(content)

    refused = await cli.json("watch", str(cli.folder / name), code=2)

    assert refused["error"]["code"] == "invalid_input"
    assert "SOURCE" in refused["error"]["detail"]
