"""`vultus watch`: one line per sighting of a camera or video, or a report on who was seen when."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vultus.cli.common import (
    COMMAND_LINE,
    CollectionOption,
    JsonOption,
    err,
    load_settings,
    open_progress_bar,
    out,
    parse_moment,
    run_command,
)
from vultus.cli.failures import EXIT_INTERRUPTED
from vultus.cli.opening import open_services
from vultus.domain import StreamOrigin
from vultus.domain.sightings import Left, Sighting, TrackSighting
from vultus.domain.source_addresses import AllowedSources, SourceAddress, SourceKind
from vultus.domain.sources import SourceProblem
from vultus.errors import InvalidInputError
from vultus.evaluation.watch_report import (
    WatchReport,
    count_things,
    crop_picture,
    format_position,
    prepare_folder,
    write_watch_report,
)
from vultus.services.live.stream import LiveStream
from vultus.services.sources.visits import Visit, VisitRecorder
from vultus.services.sources.watching import FrameRates, SourceWatch
from vultus.sources.pool import DecoderPool, SourceOpening
from vultus.utils.characters import escape_json
from vultus.utils.ids import new_id
from vultus.utils.moments import format_moment

if TYPE_CHECKING:
    from uuid import UUID

    from rich.progress import Progress, TaskID

    from vultus.domain import Frame, FrameResult, Principal
    from vultus.services.wiring import Services
    from vultus.settings import Settings
    from vultus.sources.messages import FrameTaken


def watch(
    source: Annotated[
        str,
        typer.Argument(metavar="SOURCE", help="URL or path of a camera or video; - to read it from standard input."),
    ],
    collection: CollectionOption = "default",
    fps: Annotated[
        float | None,
        typer.Option(
            min=0.1,
            max=60,
            metavar="N",
            help="Frames analysed per second of the video; left out: VULTUS_SOURCES__FPS, or 5.",
        ),
    ] = None,
    begins_at: Annotated[
        datetime | None,
        typer.Option(
            parser=parse_moment,
            metavar="MOMENT",
            help="When a video file was begun; left out: times count from its beginning.",
        ),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Folder for who was seen when in a video file: report.html, report.json, visits.csv."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Watch a camera or a video, and print one line per sighting."""
    settings = load_settings()
    address = _parse_source(source)
    if report and address.kind is not SourceKind.FILE:
        raise InvalidInputError("--report is of a video file: a camera has no end.")
    if begins_at and address.kind is not SourceKind.FILE:
        raise InvalidInputError("--begins-at is of a video file: a camera shows what is now.")
    if report:
        prepare_folder(report)
    fps = fps or settings.sources.fps
    try:
        run_command(_watch_source(settings, address, collection, fps, begins_at, report, as_json))
    except (KeyboardInterrupt, asyncio.CancelledError):  # the way to end it: nothing has failed
        raise typer.Exit(EXIT_INTERRUPTED) from None


def _parse_source(text: str) -> SourceAddress:
    """Return the address that was typed, or that standard input has; a path may be relative.

    Raises:
        InvalidInputError: It is none, or a file that does not exist.
    """
    if text == "-":  # no argument, which others can read
        text = sys.stdin.readline().strip()
    if "://" not in text:
        path = Path(text).expanduser().resolve()
        if not path.exists():
            raise InvalidInputError(f"SOURCE: there is no file {text}.")
        text = str(path)
    return SourceAddress.from_text(text)


async def _watch_source(
    settings: Settings,
    address: SourceAddress,
    collection: str,
    fps: float,
    begins_at: datetime | None,
    report: Path | None,
    as_json: bool,
) -> None:
    pool = DecoderPool()
    is_file = address.kind is SourceKind.FILE
    counts_from = (begins_at or datetime.now(UTC)) if is_file else None
    try:
        async with open_services(settings) as services:
            found, *_ = await services.collections.get_collection_with_counts(COMMAND_LINE, collection)
            opening = build_opening(settings, address, interval_s=1 / fps)
            started = time.monotonic()
            with open_progress_bar(show=is_file and not as_json) as bar:
                recorder = VisitRecorder(keeps_pictures=report is not None and found.policy.keep_crops)
                beginning = f"Watching {address.label} ({fps:g} frames a second)."
                printer = SightingPrinter(
                    bar, recorder, counts_from, beginning, is_dated=begins_at is not None, as_json=as_json
                )
                printer.keeps_visits = report is not None
                watch = build_watch(services, pool, opening, collection, printer, counts_from)
                try:
                    await watch.run()
                finally:
                    printer.print_waiting()  # who left because of Ctrl-C
            if report and counts_from:
                video_s = printer.video_s
                visits, took_s = tuple(printer.visits), time.monotonic() - started
                name = Path(address.location).name
                done = WatchReport(name, found.name, counts_from, begins_at is not None, video_s, took_s, fps, visits)
                page = write_watch_report(done, report)
                seen = count_things(len(visits), "visit")
                err.print(f"{seen} in {video_s:.0f} s of video, in {took_s:.0f} s. Report: {page}")
    finally:
        await pool.close()


def build_opening(settings: Settings, address: SourceAddress, *, interval_s: float) -> SourceOpening:
    """Return how a source is opened by whoever typed its address: it, and nothing that it leads to elsewhere."""
    chosen = settings.sources
    return SourceOpening(
        address,
        AllowedSources.from_address(address),
        is_played=False,
        interval_s=interval_s,
        max_side_px=chosen.max_side_px,
        open_timeout_s=chosen.open_timeout_s,
        read_timeout_s=chosen.read_timeout_s,
        hardware=chosen.hardware,
    )


def build_watch(
    services: Services,
    pool: DecoderPool,
    opening: SourceOpening,
    collection: str,
    observer: SightingPrinter,
    begins_at: datetime | None,
) -> SourceWatch:
    """Return a watch whose frames are analysed in this process."""
    origin = StreamOrigin("source", new_id())

    async def open_stream(_scale: float) -> LiveStream:
        return await services.streams.open_stream(COMMAND_LINE, reference=collection, origin=origin, sightings=observer)

    rates = FrameRates(1 / opening.interval_s, 1 / opening.interval_s)
    return SourceWatch(pool.open_feed(opening), open_stream, rates, observer, begins_at=begins_at)


class SightingPrinter:
    """Prints a line per sighting, with the person's name.

    Attributes:
        visits: Those that are over, if they are kept.
        keeps_visits: Whether they are: a camera has no end of them.
        video_s: Length of a file, seconds, as far as it is known.

    Args:
        bar: Shows how far a file is.
        recorder: Knows whom tracks show.
        counts_from: Moment from which the times of a file count; None for what is seen now.
        beginning: Sentence for the first frame of a camera.
        is_dated: Whether a file was begun at that moment; otherwise only places in it are told.
        as_json: Whether lines are JSON.
    """

    def __init__(
        self,
        bar: Progress,
        recorder: VisitRecorder,
        counts_from: datetime | None,
        beginning: str,
        *,
        is_dated: bool,
        as_json: bool,
    ) -> None:
        self.visits: list[Visit] = []
        self.keeps_visits = False
        self._recorder = recorder
        self._bar = bar
        self._task: TaskID | None = None
        self.video_s = 0.0
        self._counts_from = counts_from
        self._beginning = beginning
        self._is_dated = is_dated
        self._problem: SourceProblem | None = None
        self._as_json = as_json
        self._waiting: list[Sighting] = []

    async def record(self, principal: Principal, sighting: Sighting, event_id: UUID) -> None:
        """Keep a sighting until it is known who it is about."""
        del principal, event_id
        self._waiting.append(sighting)

    async def handle_frame(self, taken: FrameTaken, frame: Frame, result: FrameResult) -> None:
        """Print what a frame showed."""
        self.video_s = taken.duration_s or taken.position_s
        if taken.duration_s:
            if self._task is None:
                self._task = self._bar.add_task("Watching", total=round(taken.duration_s))
            self._bar.update(self._task, completed=min(round(taken.position_s), round(taken.duration_s)))
        self._recorder.record_frame(frame, result)
        self.print_waiting()

    async def handle_start(self) -> None:
        """Say that there are frames, at first and again; a file's progress shows it."""
        self._problem = None
        if self._counts_from is None:
            err.print(self._beginning)

    async def handle_loss(self, problem: SourceProblem) -> None:
        """Say why there are no frames, once: not at every attempt.

        Raises:
            InvalidInputError: The source is a file, which will not come back.
        """
        self.print_waiting()
        if problem is SourceProblem.FINISHED:
            return
        if self._counts_from is not None:
            raise InvalidInputError(f"SOURCE: {problem.description}")
        if problem is self._problem:
            return
        self._problem = problem
        err.print_labelled("source", "yellow", f": {problem.description} It is tried again.")

    def print_waiting(self) -> None:
        """Print the sightings that were recorded since the last time."""
        for sighting in self._waiting:
            if isinstance(sighting, TrackSighting):
                self._print_sighting(sighting)
            if isinstance(sighting, Left):
                visit = self._recorder.take_visit(sighting)
                if self.keeps_visits:
                    crop_picture(visit)
                    self.visits.append(visit)
        self._waiting.clear()

    def _print_sighting(self, sighting: TrackSighting) -> None:
        person = self._recorder.find_person(sighting.person_id)
        name = person and (person.name or person.external_id)
        at = sighting.at
        position_s = None if self._counts_from is None else (at - self._counts_from).total_seconds()
        moment = format_moment(at, "milliseconds") if position_s is None or self._is_dated else None
        if self._as_json:
            line: dict[str, Any] = {
                "action": sighting.action,
                "at": moment,
                "position_s": None if position_s is None else round(position_s, 3),
                "track_id": str(sighting.track_id),
                "person_id": str(sighting.person_id) if sighting.person_id else None,
                "name": person and person.name,
                "external_id": person and person.external_id,
            }
            sys.stdout.write(escape_json(json.dumps(line, ensure_ascii=True)) + "\n")
            sys.stdout.flush()
            return
        when = format_moment(at, "seconds") if position_s is None else format_position(position_s)
        who = name or str(sighting.person_id or "")
        out.print(f"{when}  {sighting.action:<10}  {who}".rstrip(), soft_wrap=True)
