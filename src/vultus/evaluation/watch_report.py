"""A report on who was seen when in a video: a page for people, a table and JSON for machines."""

from __future__ import annotations

import base64
import csv
import io
import json
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from PIL import Image

from vultus.evaluation.page import render_page
from vultus.services.sources.visits import Visit

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

ROW_HEIGHT, LABEL_WIDTH, CHART_WIDTH = 26, 190, 1180
MIN_BAR_WIDTH = 3


@dataclass(frozen=True, slots=True)
class WatchReport:
    """Who was seen in a video.

    Attributes:
        video: Name of the file.
        collection: Name of the collection whose persons were looked for.
        begins_at: When the video was begun.
        video_s: Length of the video, seconds.
        took_s: Time that watching it took, seconds.
        fps: Frames analysed per second of the video.
        visits: All of them.
    """

    video: str
    collection: str
    begins_at: datetime
    video_s: float
    took_s: float
    fps: float
    visits: tuple[Visit, ...]


def write_watch_report(report: WatchReport, folder: Path) -> Path:
    """Write `report.html`, `report.json` and `visits.csv`, readable for their owner alone; return the page's path."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    report = replace(report, visits=tuple(sorted(report.visits, key=lambda visit: visit.first_seen_at)))
    rows = [_describe_visit(report, visit) for visit in report.visits]
    table = io.StringIO()
    writer = csv.DictWriter(table, FIELDS)
    writer.writeheader()
    writer.writerows(rows)
    document = {
        "video": report.video,
        "collection": report.collection,
        "begins_at": report.begins_at.isoformat(),
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
        "first_seen_at": visit.first_seen_at.isoformat(),
        "last_seen_at": visit.last_seen_at.isoformat(),
    }


def format_position(seconds: float) -> str:
    """Format a place in a video: 0:01:05.2."""
    tenths = max(0, round(seconds * 10))
    return f"{tenths // 36000}:{tenths // 600 % 60:02}:{tenths // 10 % 60:02}.{tenths % 10}"


def render_watch_page(report: WatchReport) -> str:
    """Return the HTML page of a report on a video."""
    groups = _group_visits(report.visits)
    persons = len({visit.person.person_id for visit in report.visits if visit.person})
    unknown = sum(visit.person is None for visit in report.visits)
    tiles = [
        ("Persons recognised", str(persons), f"of the collection {report.collection}"),
        ("Visits", str(len(report.visits)), f"{unknown} without a name"),
        ("Video", format_position(report.video_s), f"from {report.begins_at:%Y-%m-%d %H:%M:%S %Z}"),
        ("Watched in", format_position(report.took_s), f"{report.video_s / max(report.took_s, 1e-3):.1f}× real time"),
    ]
    return render_page(
        "visits.html",
        f"Who was seen in {report.video}",
        f"{report.fps:g} frames of each second were analysed.",
        tiles,
        [],
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
    ticks = [(place(length * at / 6), format_position(length * at / 6)) for at in range(7)]
    return {"rows": rows, "ticks": ticks, "width": CHART_WIDTH, "height": len(rows) * ROW_HEIGHT + 40}


def _render_picture(visit: Visit) -> str | None:
    """Return the face of a visit as the address of an image that is in it."""
    if not visit.picture or visit.box is None:
        return None
    (x, y), half = visit.box.centre, PICTURE_ENLARGEMENT * max(visit.box.width, visit.box.height) / 2
    with Image.open(io.BytesIO(visit.picture)) as frame:
        cut = frame.crop((round(x - half), round(y - half), round(x + half), round(y + half)))
        cut.thumbnail((PICTURE_SIDE_PX, PICTURE_SIDE_PX))
        encoded = io.BytesIO()
        cut.save(encoded, "JPEG", quality=88)
    return "data:image/jpeg;base64," + base64.b64encode(encoded.getvalue()).decode()
