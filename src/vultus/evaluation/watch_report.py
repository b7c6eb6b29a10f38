"""A report on who was seen when in a video: a page for people, a table and JSON for machines."""

from __future__ import annotations

import base64
import csv
import io
import json
import math
import tempfile
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from PIL import Image

from vultus.errors import InvalidInputError
from vultus.evaluation.page import render_page
from vultus.services.sources.visits import Visit
from vultus.utils.moments import format_moment

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

FIELDS = (
    "person_id",
    "external_id",
    "name",
    "verdict",
    "from",
    "to",
    "first_seen_at",
    "last_seen_at",
)
PICTURE_SIDE_PX = 160
PICTURE_ENLARGEMENT = 1.4
"""Side of a picture, in longer sides of the face's box: the head, and little of who stands beside it."""

TICK_STEPS_S = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600)
MAX_TICKS, TICK_LABEL_WIDTH = 7, 60

ROW_HEIGHT, LABEL_WIDTH, CHART_WIDTH = 26, 190, 1180
MIN_BAR_WIDTH = 3


@dataclass(frozen=True, slots=True)
class WatchReport:
    """Who was seen in a video.

    Attributes:
        video: Name of the file.
        collection: Name of the collection whose persons were looked for.
        begins_at: Moment from which the visits' times count.
        is_dated: Whether the video was begun at that moment; otherwise only places in the video are told.
        video_s: Length of the video, seconds.
        took_s: Time that watching it took, seconds.
        fps: Frames analysed per second of the video.
        visits: All of them, with cropped pictures.
    """

    video: str
    collection: str
    begins_at: datetime
    is_dated: bool
    video_s: float
    took_s: float
    fps: float
    visits: tuple[Visit, ...]


def prepare_folder(folder: Path) -> None:
    """Make the folder of a report, for its owner alone; one that exists keeps its permissions.

    Raises:
        InvalidInputError: It cannot be made, or nothing can be written into it.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InvalidInputError(f"--report: {folder} is no folder that can be written to: {error.strerror}.") from None


def write_watch_report(report: WatchReport, folder: Path) -> Path:
    """Write `report.html`, `report.json` and `visits.csv`, readable for their owner alone; return the page's path."""
    report = replace(report, visits=tuple(sorted(report.visits, key=lambda visit: visit.first_seen_at)))
    rows = [_describe_visit(report, visit) for visit in report.visits]
    table = io.StringIO()
    writer = csv.DictWriter(table, FIELDS)
    writer.writeheader()
    writer.writerows({name: _keep_from_formulas(value) for name, value in row.items()} for row in rows)
    document = {
        "video": report.video,
        "collection": report.collection,
        "begins_at": _format_time(report, report.begins_at),
        "video_s": round(report.video_s, 2),
        "frames_per_second": report.fps,
        "visits": rows,
    }
    page = folder / "report.html"
    for path, text in (
        (page, render_watch_page(report)),
        (folder / "report.json", json.dumps(document, indent=1, ensure_ascii=False) + "\n"),
        (folder / "visits.csv", table.getvalue()),
    ):
        path.unlink(missing_ok=True)
        path.touch(mode=0o600)
        path.write_text(text, encoding="utf-8")
    return page


def _describe_visit(report: WatchReport, visit: Visit) -> dict[str, Any]:
    person = visit.person
    return {
        "person_id": str(person.person_id) if person else None,
        "external_id": person and person.external_id,
        "name": person and person.name,
        "verdict": visit.verdict and visit.verdict.value,
        "from": format_position((visit.first_seen_at - report.begins_at).total_seconds()),
        "to": format_position((visit.last_seen_at - report.begins_at).total_seconds()),
        "first_seen_at": _format_time(report, visit.first_seen_at),
        "last_seen_at": _format_time(report, visit.last_seen_at),
    }


def _keep_from_formulas(value: str | None) -> str | None:
    """Return a cell that no spreadsheet takes for a formula: names are given by whoever enrols people."""
    return f"'{value}" if value and value[0] in "=+-@" else value


def _format_time(report: WatchReport, moment: datetime) -> str | None:
    return format_moment(moment, "milliseconds") if report.is_dated else None


def count_things(number: int, noun: str) -> str:
    """Return a number with its noun: 1 visit, 2 visits."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def format_position(seconds: float) -> str:
    """Format a place in a video: 0:01:05.2."""
    tenths = max(0, round(seconds * 10))
    return f"{tenths // 36000}:{tenths // 600 % 60:02}:{tenths // 10 % 60:02}.{tenths % 10}"


def render_watch_page(report: WatchReport) -> str:
    """Return the HTML page of a report on a video."""
    groups = _group_visits(report.visits)
    persons = len({visit.person.person_id for visit in report.visits if visit.person})
    begun = f"from {report.begins_at:%Y-%m-%d %H:%M:%S %Z}" if report.is_dated else ""
    unknown = sum(visit.person is None for visit in report.visits)
    tiles = [
        ("Recognised", count_things(persons, "person"), f"of the collection {report.collection}"),
        ("Seen", count_things(len(report.visits), "visit"), f"{unknown} without a name"),
        ("Video", format_position(report.video_s), begun),
        ("Watched in", format_position(report.took_s), f"{report.video_s / max(report.took_s, 1e-3):.1f}× real time"),
    ]
    return render_page(
        "visits.html",
        f"Who was seen in {report.video}",
        f"{report.fps:g} frames of each second were analysed.",
        tiles,
        [],
        has_pictures=any(visit.picture for visit in report.visits),
        timeline=_lay_out_timeline(report, groups),
        visits=[
            _describe_visit(report, visit) | {"who": _name_visit(visit), "picture": _render_picture(visit)}
            for visit in report.visits
        ],
    )


def _name_visit(visit: Visit) -> str:
    if visit.person is None:
        return "no name"
    return visit.person.name or visit.person.external_id or str(visit.person.person_id)


def _group_visits(visits: Sequence[Visit]) -> list[tuple[str, list[Visit]]]:
    """Return the visits of each person, in the order they were first seen, and those without a name as the last row."""
    groups: dict[object, list[Visit]] = {}
    for visit in visits:
        groups.setdefault(visit.person and visit.person.person_id, []).append(visit)
    unnamed = groups.pop(None, [])
    named = [(_name_visit(found[0]), found) for found in groups.values()]
    return [*named, *([("no name", unnamed)] if unnamed else [])]


def _lay_out_timeline(report: WatchReport, groups: list[tuple[str, list[Visit]]]) -> dict[str, Any]:
    """Return rows and ticks of the timeline, in units of the drawing."""
    length = max(report.video_s, 1e-3)
    width = CHART_WIDTH - LABEL_WIDTH - 20

    def place(seconds: float) -> float:
        return round(LABEL_WIDTH + width * min(1.0, max(0.0, seconds / length)), 1)

    rows = []
    for number, (label, visits) in enumerate(groups):
        bars = []
        for visit in visits:
            left = place((visit.first_seen_at - report.begins_at).total_seconds())
            right = place((visit.last_seen_at - report.begins_at).total_seconds())
            bars.append((left, max(MIN_BAR_WIDTH, round(right - left, 1)), visit.person is not None))
        rows.append({"label": label, "top": number * ROW_HEIGHT + 8, "bars": bars})
    ticks = [(place(at), format_tick(at)) for at in list_ticks(length)]
    return {
        "rows": rows,
        "ticks": ticks,
        "width": CHART_WIDTH,
        "end": CHART_WIDTH - TICK_LABEL_WIDTH,
        "height": len(rows) * ROW_HEIGHT + 40,
    }


def list_ticks(length_s: float) -> list[float]:
    """Return round places of a video, from its beginning."""
    hours = 3600 * math.ceil(length_s / MAX_TICKS / 3600)
    step = next((step for step in TICK_STEPS_S if length_s <= MAX_TICKS * step), hours)
    return [number * step for number in range(int(length_s / step + 1e-9) + 1)]


def format_tick(seconds: float) -> str:
    """Format a round place in a video: 0:01:05, tenths only where there are any."""
    return format_position(seconds).removesuffix(".0")


def crop_picture(visit: Visit) -> None:
    """Leave of a visit's frame what the report shows: as many frames as there are visits would fill the memory."""
    if not visit.picture or visit.box is None:
        return
    (x, y), half = visit.box.centre, PICTURE_ENLARGEMENT * max(visit.box.width, visit.box.height) / 2
    with Image.open(io.BytesIO(visit.picture)) as frame:
        cut = frame.crop((round(x - half), round(y - half), round(x + half), round(y + half)))
        cut.thumbnail((PICTURE_SIDE_PX, PICTURE_SIDE_PX))
        encoded = io.BytesIO()
        cut.save(encoded, "JPEG", quality=88)
    visit.picture, visit.box = encoded.getvalue(), None


def _render_picture(visit: Visit) -> str | None:
    """Return the face of a visit as the address of an image that is in it."""
    return "data:image/jpeg;base64," + base64.b64encode(visit.picture).decode() if visit.picture else None
