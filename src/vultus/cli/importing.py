"""`vultus import`: one folder per person, resumable, with a report of what was rejected."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
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
    from vultus.domain import Collection
    from vultus.services.wiring import Services
    from vultus.settings import InferenceSettings, Settings

PHOTO_SUFFIXES = {".jpg", ".jpeg", ".jpe", ".png", ".webp", ".mpo"}
REPORT_FILENAME = "vultus-import.jsonl"


FINAL_OUTCOMES = {"enrolled", "duplicate_photo"}
"""Outcomes of photos that are enrolled; any other one is a refusal, whose photo can be tried again."""

NOTHING_TRIED = 1
"""Exit code where photos were refused before and none was tried."""


@dataclass(frozen=True)
class ImportPlan:
    """What one import does."""

    root: Path
    collection: str
    consent: ConsentGrant
    largest_face: bool
    retry: bool
    report: Path


class ImportReport:
    """One line per photo, written as soon as its outcome is known; an import resumes from it.

    Attributes:
        outcomes: Of the photos of this run.
        retried: Photos of this run that were refused before.

    Args:
        path: Of the report.
        rules: Digest of the rules of this run.
        retry: Whether refused photos are tried again even under the same rules.
    """

    def __init__(self, path: Path, rules: str, *, retry: bool) -> None:
        self.outcomes: Counter[str] = Counter()
        self.retried = 0
        self._path = path
        self._rules = rules
        self._retry = retry
        self._earlier = dict(_read_earlier_outcomes(path))

    @property
    def skipped(self) -> int:
        """Photos with an outcome of an earlier run that were not tried again."""
        return len(self._earlier) - self.retried

    @property
    def refused_before(self) -> int:
        """Photos refused in an earlier run that were not tried again."""
        return sum(outcome not in FINAL_OUTCOMES for outcome, _ in self._earlier.values()) - self.retried

    def should_try(self, photo: str) -> bool:
        """Return whether a photo is new, or was refused and is to be tried again."""
        if photo not in self._earlier:
            return True
        outcome, rules = self._earlier[photo]
        return outcome not in FINAL_OUTCOMES and (self._retry or rules != self._rules)

    def add_outcome(self, photo: str, outcome: str, **facts: Any) -> None:
        """Record the outcome of a photo."""
        line = {"photo": photo, "outcome": outcome, **facts, "rules": self._rules}
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line, ensure_ascii=False) + "\n")
        self.outcomes[outcome] += 1
        self.retried += photo in self._earlier


def _read_earlier_outcomes(path: Path) -> Iterator[tuple[str, tuple[str, str | None]]]:
    """Yield photo, outcome and rules of earlier runs, the latest of a photo last.

    A last line cut off by a crash is ignored, its photo processed again.
    """
    if path.exists():
        for text in path.read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(ValueError, KeyError):
                line = json.loads(text)
                yield line["photo"], (line["outcome"], line.get("rules"))


def compute_rules_digest(collection: Collection, inference: InferenceSettings, *, largest_face: bool) -> str:
    """Return a digest of everything set by the user that decides whether a photo is refused."""
    rules = [
        str(collection.id),
        collection.space_id,
        asdict(collection.policy.enrol),
        collection.policy.liveness,
        inference.min_face_px,
        inference.max_side_px,
        largest_face,
    ]
    return hashlib.sha256(json.dumps(rules).encode()).hexdigest()[:12]


def import_folder(
    folder: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="Holds one folder per person.")],
    purpose: Purpose,
    recorded_by: RecordedBy,
    expires: Expires = None,
    evidence: Annotated[str | None, typer.Option(help="Where the proofs of consent are kept.")] = None,
    collection: CollectionOption = "default",
    largest_face: Annotated[bool, typer.Option(help="Take the largest face where several are found.")] = False,
    retry: Annotated[
        bool, typer.Option("--retry", help="Try photos refused before again, even under the same rules.")
    ] = False,
    report: Annotated[
        Path | None, typer.Option(help=f"Default: {REPORT_FILENAME} in the folder. Delete it to start over.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Register everybody in a folder: the name of a person's folder becomes external id and name.

    Interrupted imports resume, and photos refused before under other rules are tried again. Every consent is recorded
    with the same purpose.
    """
    plan = ImportPlan(
        folder,
        collection,
        ConsentGrant(purpose, recorded_by, expires_at=convert_to_utc(expires), evidence_ref=evidence),
        largest_face,
        retry,
        report or folder / REPORT_FILENAME,
    )
    log = run_command(_import_persons(load_settings(), plan, show=not as_json))
    counts = {"skipped": log.skipped, "retried": log.retried, "refused_before": log.refused_before}
    if as_json:
        print_json({"photos": log.outcomes.total(), **counts, **log.outcomes, "report": str(plan.report)})
    else:
        print_table("Import", ("outcome", "photos"), sorted(log.outcomes.items()))
        out.print(
            f"{log.skipped} photos were done before. {log.retried} refused before were tried again. "
            f"Every photo's outcome: {plan.report}",
            soft_wrap=True,
        )
        if log.refused_before:
            err.print(
                f"{log.refused_before} photos were refused before under the same rules and not tried again. "
                "Change the rules (--largest-face, the collection's policy), or try them again with --retry.",
                soft_wrap=True,
            )
    if log.refused_before and not log.outcomes:
        raise typer.Exit(NOTHING_TRIED)


def find_person_folders(folder: Path) -> Iterator[tuple[str, list[Path]]]:
    """Yield each person's name and photos, sorted, so that a resumed import has the same order."""
    for entry in sorted(folder.iterdir()):
        if entry.is_dir():
            photos = sorted(path for path in entry.iterdir() if path.suffix.lower() in PHOTO_SUFFIXES)
            if photos:
                yield entry.name, photos


async def _import_persons(settings: Settings, plan: ImportPlan, *, show: bool) -> ImportReport:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    async with open_services(settings) as services:
        collection, _, _ = await services.collections.get_collection_with_counts(COMMAND_LINE, plan.collection)
        rules = compute_rules_digest(collection, settings.inference, largest_face=plan.largest_face)
        report = ImportReport(plan.report, rules, retry=plan.retry)
        remaining = [
            (person, due)
            for person, photos in find_person_folders(plan.root)
            if (due := [path for path in photos if report.should_try(path.relative_to(plan.root).as_posix())])
        ]
        remaining_persons = iter(remaining)
        with Progress(*columns, console=err, disable=not show) as progress:
            bar = progress.add_task("photos", total=sum(len(photos) for _, photos in remaining))

            async def process_persons() -> None:
                for person, photos in remaining_persons:
                    for start in range(0, len(photos), settings.photos.max_photos):
                        batch = photos[start : start + settings.photos.max_photos]
                        await _register_person(services, plan, person, batch, report)
                        progress.advance(bar, len(batch))

            # One person more than the networks process concurrently, so that they never wait for a transaction.
            async with asyncio.TaskGroup() as group:
                for _ in range(settings.inference.workers + 1):
                    group.create_task(process_persons())
    return report


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
