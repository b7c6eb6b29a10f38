"""`vultus import`: one folder per person, resumable, with a report of what was rejected."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from vultus.cli.common import (
    COMMAND_LINE,
    CollectionOption,
    JsonOption,
    err,
    load_settings,
    out,
    print_json,
    print_table,
    read_photo,
    run_command,
)
from vultus.cli.people import Expires, Purpose, RecordedBy, convert_to_utc
from vultus.domain import Lane
from vultus.errors import NoPhotoAcceptedError, OverloadedError
from vultus.main import open_services
from vultus.services.enrolment.registration import RegistrationRequest, RegistrationResult
from vultus.services.people.consents import ConsentGrant

if TYPE_CHECKING:
    from vultus.services.wiring import Services
    from vultus.settings import Settings

PHOTO_SUFFIXES = {".jpg", ".jpeg", ".jpe", ".png", ".webp", ".mpo"}
REPORT_FILENAME = "vultus-import.jsonl"


@dataclass(frozen=True)
class ImportPlan:
    """What one import does."""

    root: Path
    collection: str
    consent: ConsentGrant
    largest_face: bool
    report: Path


class ImportReport:
    """One line per photo, written as soon as its outcome is known; an import resumes from it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.finished_photos = set(_read_finished_photos(path))
        self.outcomes: Counter[str] = Counter()

    def add_outcome(self, photo: str, outcome: str, **facts: Any) -> None:
        """Record the outcome of a photo."""
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({"photo": photo, "outcome": outcome, **facts}, ensure_ascii=False) + "\n")
        self.outcomes[outcome] += 1


def _read_finished_photos(path: Path) -> Iterator[str]:
    """Yield the photos of an earlier run; a last line cut off by a crash is ignored, its photo processed again."""
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(ValueError, KeyError):
                yield json.loads(line)["photo"]


def import_folder(
    folder: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="Holds one folder per person.")],
    purpose: Purpose,
    recorded_by: RecordedBy,
    expires: Expires = None,
    evidence: Annotated[str | None, typer.Option(help="Where the proofs of consent are kept.")] = None,
    collection: CollectionOption = "default",
    largest_face: Annotated[bool, typer.Option(help="Take the largest face where several are found.")] = False,
    report: Annotated[
        Path | None, typer.Option(help=f"Default: {REPORT_FILENAME} in the folder. Delete it to start over.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Register everybody in a folder: the name of a person's folder becomes external id and name.

    Interrupted imports resume. Every consent is recorded with the same purpose.
    """
    plan = ImportPlan(
        folder,
        collection,
        ConsentGrant(purpose, recorded_by, expires_at=convert_to_utc(expires), evidence_ref=evidence),
        largest_face,
        report or folder / REPORT_FILENAME,
    )
    log = ImportReport(plan.report)
    remaining = [
        (person, fresh)
        for person, photos in find_person_folders(folder)
        if (fresh := _find_remaining_photos(folder, photos, log))
    ]
    skipped = len(log.finished_photos)
    run_command(_import_persons(load_settings(), plan, remaining, log, show=not as_json), as_json=as_json)
    summary = {"photos": log.outcomes.total(), "skipped": skipped, **log.outcomes, "report": str(plan.report)}
    if as_json:
        print_json(summary)
        return
    print_table("Import", ("outcome", "photos"), sorted(log.outcomes.items()))
    out.print(f"{skipped} photos were done before. Every photo's outcome: {plan.report}", soft_wrap=True)


def find_person_folders(folder: Path) -> Iterator[tuple[str, list[Path]]]:
    """Yield each person's name and photos, sorted, so that a resumed import has the same order."""
    for entry in sorted(folder.iterdir()):
        if entry.is_dir():
            photos = sorted(path for path in entry.iterdir() if path.suffix.lower() in PHOTO_SUFFIXES)
            if photos:
                yield entry.name, photos


def _find_remaining_photos(root: Path, photos: list[Path], report: ImportReport) -> list[Path]:
    return [path for path in photos if path.relative_to(root).as_posix() not in report.finished_photos]


async def _import_persons(
    settings: Settings, plan: ImportPlan, remaining: list[tuple[str, list[Path]]], report: ImportReport, *, show: bool
) -> None:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, disable=not show) as progress:
        bar = progress.add_task("photos", total=sum(len(photos) for _, photos in remaining))
        remaining_persons = iter(remaining)

        async def process_persons(services: Services) -> None:
            for person, photos in remaining_persons:
                for start in range(0, len(photos), settings.photos.max_photos):
                    batch = photos[start : start + settings.photos.max_photos]
                    await _register_person(services, plan, person, batch, report)
                    progress.advance(bar, len(batch))

        # One person more than the networks process concurrently, so that they never wait for a transaction.
        async with open_services(settings) as services, asyncio.TaskGroup() as group:
            for _ in range(settings.inference.workers + 1):
                group.create_task(process_persons(services))


async def _register_person(
    services: Services, plan: ImportPlan, person: str, photos: list[Path], report: ImportReport
) -> None:
    names = [path.relative_to(plan.root).as_posix() for path in photos]
    try:
        contents = tuple(read_photo(path) for path in photos)
    except OSError as error:
        for name in names:
            report.add_outcome(name, "unreadable", detail=str(error.strerror))
        return
    request = RegistrationRequest(
        collection=plan.collection,
        photos=contents,
        external_id=person,
        name=person.replace("_", " "),
        consent=plan.consent,
        largest_face=plan.largest_face,
        lane=Lane.BATCH,
    )
    try:
        done = await _register_with_retry(services, request)
    except NoPhotoAcceptedError as error:
        for rejected in error.facts["rejected"]:
            facts = {key: fact for key, fact in rejected.items() if key not in {"photo", "filename", "reasons"}}
            report.add_outcome(names[rejected["photo"]], rejected["reasons"][0], **facts)
        return
    for face in done.accepted:
        report.add_outcome(names[face.photo], "enrolled", person_id=str(done.person.id), face_id=str(face.face.id))
    for photo in done.rejected:
        report.add_outcome(names[photo.photo], photo.reasons[0], detail=photo.detail, **photo.facts)


async def _register_with_retry(services: Services, request: RegistrationRequest) -> RegistrationResult:
    while True:
        try:
            return await services.registrar.register(COMMAND_LINE, request)
        except OverloadedError:
            await asyncio.sleep(0.2)
