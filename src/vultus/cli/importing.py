"""`vultus import`: a folder a person, resumable, with a report of what was rejected."""

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

from vultus.cli.common import CollectionOption, Json, err, load_settings, out, print_json, print_table, read_photo, run
from vultus.cli.people import ACTOR, Expires, Purpose, RecordedBy, utc
from vultus.errors import NoPhotoAcceptedError, OverloadedError
from vultus.main import open_services
from vultus.services.enrolment.registration import Registered, RegistrationRequest
from vultus.services.people.consents import ConsentGrant

if TYPE_CHECKING:
    from vultus.services.wiring import Services
    from vultus.settings import Settings

SUFFIXES = {".jpg", ".jpeg", ".jpe", ".png", ".webp", ".mpo"}
REPORT = "vultus-import.jsonl"


@dataclass(frozen=True)
class Plan:
    """What one import does."""

    root: Path
    collection: str
    consent: ConsentGrant
    largest_face: bool
    report: Path


class Report:
    """One line a photo, written as soon as its outcome is known; reading it back is how an import resumes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.seen = set(_done_before(path))
        self.outcomes: Counter[str] = Counter()

    def add(self, photo: str, outcome: str, **facts: Any) -> None:
        """Record what became of a photo."""
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({"photo": photo, "outcome": outcome, **facts}, ensure_ascii=False) + "\n")
        self.outcomes[outcome] += 1


def _done_before(path: Path) -> Iterator[str]:
    """Yield the photos of an earlier run; a last line cut off by a crash is ignored and its photo done again."""
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(ValueError, KeyError):
                yield json.loads(line)["photo"]


def import_folder(
    folder: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="Holds one folder a person.")],
    purpose: Purpose,
    recorded_by: RecordedBy,
    expires: Expires = None,
    evidence: Annotated[str | None, typer.Option(help="Where the proofs of consent are kept.")] = None,
    collection: CollectionOption = "default",
    largest_face: Annotated[bool, typer.Option(help="Take the largest face where several are found.")] = False,
    report: Annotated[
        Path | None, typer.Option(help=f"Default: {REPORT} in the folder. Delete it to start over.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Register everybody in a folder: the name of a person's folder becomes external id and name.

    Interrupted imports go on where they stopped. Every consent is recorded with the same purpose.
    """
    plan = Plan(
        folder,
        collection,
        ConsentGrant(purpose, recorded_by, expires_at=utc(expires), evidence_ref=evidence),
        largest_face,
        report or folder / REPORT,
    )
    log = Report(plan.report)
    todo = [(person, fresh) for person, photos in people(folder) if (fresh := _fresh(folder, photos, log))]
    skipped = len(log.seen)
    run(_import(load_settings(), plan, todo, log, show=not as_json), as_json=as_json)
    summary = {"photos": log.outcomes.total(), "skipped": skipped, **log.outcomes, "report": str(plan.report)}
    if as_json:
        print_json(summary)
        return
    print_table("Import", ("outcome", "photos"), sorted(log.outcomes.items()))
    out.print(f"{skipped} photos were done before. Every photo's outcome: {plan.report}", soft_wrap=True)


def people(folder: Path) -> Iterator[tuple[str, list[Path]]]:
    """Yield each person's name and photos, sorted, so that a resumed import meets the same order."""
    for entry in sorted(folder.iterdir()):
        if entry.is_dir():
            photos = sorted(path for path in entry.iterdir() if path.suffix.lower() in SUFFIXES)
            if photos:
                yield entry.name, photos


def _fresh(root: Path, photos: list[Path], report: Report) -> list[Path]:
    return [path for path in photos if path.relative_to(root).as_posix() not in report.seen]


async def _import(
    settings: Settings, plan: Plan, todo: list[tuple[str, list[Path]]], report: Report, *, show: bool
) -> None:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, disable=not show) as progress:
        bar = progress.add_task("photos", total=sum(len(photos) for _, photos in todo))
        waiting = iter(todo)

        async def worker(services: Services) -> None:
            for person, photos in waiting:
                for start in range(0, len(photos), settings.photos.max_photos):
                    batch = photos[start : start + settings.photos.max_photos]
                    await _register(services, plan, person, batch, report)
                    progress.advance(bar, len(batch))

        # One person more than the networks take at once, so that they never wait for a transaction.
        async with open_services(settings) as services, asyncio.TaskGroup() as group:
            for _ in range(settings.inference.workers + 1):
                group.create_task(worker(services))


async def _register(services: Services, plan: Plan, person: str, photos: list[Path], report: Report) -> None:
    names = [path.relative_to(plan.root).as_posix() for path in photos]
    try:
        contents = tuple(read_photo(path) for path in photos)
    except OSError as error:
        for name in names:
            report.add(name, "unreadable", detail=str(error.strerror))
        return
    request = RegistrationRequest(
        collection=plan.collection,
        photos=contents,
        external_id=person,
        name=person.replace("_", " "),
        consent=plan.consent,
        largest_face=plan.largest_face,
    )
    try:
        done = await _patiently(services, request)
    except NoPhotoAcceptedError as error:
        for rejected in error.facts["rejected"]:
            facts = {key: fact for key, fact in rejected.items() if key not in {"photo", "filename", "reasons"}}
            report.add(names[rejected["photo"]], rejected["reasons"][0], **facts)
        return
    for face in done.accepted:
        report.add(names[face.photo], "enrolled", person_id=str(done.person.id), face_id=str(face.face.id))
    for photo in done.rejected:
        report.add(names[photo.photo], photo.reasons[0], detail=photo.detail, **photo.facts)


async def _patiently(services: Services, request: RegistrationRequest) -> Registered:
    while True:
        try:
            return await services.registrar.register(request, actor=ACTOR)
        except OverloadedError:
            await asyncio.sleep(0.2)
