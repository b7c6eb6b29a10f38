"""Import of a folder of people: every person under one consent, every photo with its outcome, resumable."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from vultus import __version__
from vultus.domain import Collection, Lane, Principal
from vultus.errors import (
    SERVER_FAULT_KINDS,
    DatabaseUnavailableError,
    ImageTooLargeError,
    InvalidInputError,
    NoPhotoAcceptedError,
    NotFoundError,
    OverloadedError,
    PersonMismatchError,
    VultusError,
    WorkerLostError,
)
from vultus.services.enrolment.folders import (
    FolderScan,
    LeftOutReason,
    PersonFolder,
    read_photo_inside,
    scan_people,
    stamp_photos,
)
from vultus.services.enrolment.import_report import FINAL_OUTCOMES, ImportReport
from vultus.services.enrolment.registration import RegistrationRequest, RegistrationResult
from vultus.services.people.consents import ConsentGrant, compute_consent_period
from vultus.services.photo_analysis import Photo

if TYPE_CHECKING:
    from uuid import UUID

    from vultus.services.collections import CollectionService
    from vultus.services.enrolment.registration import Registrar
    from vultus.settings import Settings

OVERLOAD_PAUSE_S = 0.2
DATABASE_PAUSES_S = (1.0, 2.0, 4.0, 8.0, 15.0)
"""Waits for a database that went away, before the import stops; run again, it goes on."""

UNWANTED = frozenset(
    {LeftOutReason.LINK, LeftOutReason.LOOSE, LeftOutReason.NAME, LeftOutReason.NESTED, LeftOutReason.UNREADABLE}
)
"""Reasons for which photos of people may be missing; what else is left out is no photo of anybody."""


@dataclass(frozen=True, slots=True)
class FolderImportRequest:
    """What one import does.

    Attributes:
        root: Holds one folder per person, whose name is external id and, with underscores as spaces, name.
        collection: Id or name.
        consent: What every person agreed to; recorded once a person.
        report: File with the outcome of every photo.
        largest_face: Take the largest face of a photo that shows several.
        retry: Try photos refused before again, even under the same rules.
    """

    root: Path
    collection: str
    consent: ConsentGrant
    report: Path
    largest_face: bool = False
    retry: bool = False


@dataclass(frozen=True, slots=True)
class ImportSummary:
    """What an import did, and what is left to do.

    Attributes:
        outcomes: Photos tried in this run, by outcome.
        skipped: Photos with an outcome of an earlier run.
        retried: Photos tried again that were refused before.
        refused_before: Photos refused before and not tried again.
        persons: People with a folder.
        persons_enrolled: Of these, those with an enrolled photo, of this run or before.
        left_out: Files and folders that were not imported, by reason.
        left_out_suffixes: Of those that are no photos, by suffix.
        examples: Of each reason, the first.
    """

    outcomes: dict[str, int]
    skipped: int
    retried: int
    refused_before: int
    refused: int
    persons: int
    persons_enrolled: int
    left_out: dict[str, int]
    left_out_suffixes: dict[str, int]
    examples: dict[str, str]

    @property
    def is_complete(self) -> bool:
        """Whether every photo of every person is enrolled."""
        return not (self.refused or self.refused_before or UNWANTED & self.left_out.keys())


@dataclass(slots=True)
class _Run:
    """The state of one import."""

    principal: Principal
    request: FolderImportRequest
    report: ImportReport
    on_photos: Callable[[int], None]
    enrolled: set[str] = field(default_factory=set)


class FolderImporter:
    """Registers everybody in a folder."""

    def __init__(self, registrar: Registrar, collections: CollectionService, settings: Settings) -> None:
        self._registrar = registrar
        self._collections = collections
        self._settings = settings

    async def import_people(
        self,
        principal: Principal,
        request: FolderImportRequest,
        scan: FolderScan,
        *,
        on_start: Callable[[int], None] = lambda _: None,
        on_photos: Callable[[int], None] = lambda _: None,
    ) -> ImportSummary:
        """Import the people of a folder; no photo, file or person that cannot be used stops the others.

        Args:
            principal: For the audit record.
            request: What to do.
            scan: Of the folder.
            on_start: Called with the number of photos to try.
            on_photos: Called with the number of photos that are done since the last call.

        Raises:
            NotFoundError: There is no such collection.
            InvalidInputError: The consent would have expired already.
            ConflictError: Another import writes the report.
            UnavailableError: The database is away, for longer than was waited.
            OSError: The report cannot be written.
        """
        collection, _, _ = await self._collections.get_collection_with_counts(principal, request.collection)
        compute_consent_period(collection, request.consent)
        rules = compute_rules_digest(collection, self._settings, largest_face=request.largest_face)
        terms = compute_terms_digest(collection, request.consent)
        photos = [photo for person in scan.persons for photo in person.photos]
        with ImportReport(
            request.report,
            collection_id=collection.id,
            stamps=await asyncio.to_thread(stamp_photos, request.root, photos),
            rules=rules,
            terms=terms,
            retry=request.retry,
        ) as report:
            for left_out in scan.left_out:
                report.add_left_out(left_out)
            run = _Run(principal, request, report, on_photos)
            run.enrolled |= {one.name for one in scan.persons if any(map(report.is_enrolled, one.photos))}
            due = [
                PersonFolder(one.name, tuple(filter(report.should_try, one.photos)))
                for one in scan.persons
                if any(map(report.should_try, one.photos))
            ]
            on_start(sum(len(one.photos) for one in due))
            await self._import_all(run, due)
            return _build_summary(scan, run)

    async def _import_all(self, run: _Run, due: list[PersonFolder]) -> None:
        waiting = iter(due)

        async def import_waiting() -> None:
            for person in waiting:
                await self._import_person(run, person)

        try:
            # One person more than the networks process concurrently, so that they never wait for a transaction.
            async with asyncio.TaskGroup() as group:
                for _ in range(self._settings.inference.workers + 1):
                    group.create_task(import_waiting())
        except BaseExceptionGroup as failed:
            raise failed.exceptions[0] from None

    async def _import_person(self, run: _Run, person: PersonFolder) -> None:
        """Import a person's photos, as many at a time as a registration takes, all under one consent."""
        consent_id = run.report.find_consent(person.name)
        size = self._settings.photos.max_photos
        for start in range(0, len(person.photos), size):
            paths = person.photos[start : start + size]
            photos = [photo for path in paths if (photo := await self._load_photo(run, path))]
            if photos:
                consent_id = await self._register_photos(run, person.name, photos, consent_id)
            run.on_photos(len(paths))

    async def _load_photo(self, run: _Run, path: str) -> Photo | None:
        """Return a photo whose file name is its path; None, and its outcome in the report, if it cannot be read."""
        limit = self._settings.photos.max_bytes
        try:
            return Photo(await asyncio.to_thread(read_photo_inside, run.request.root, path, max_bytes=limit), path)
        except OSError as error:
            run.report.add_outcome(path, "unreadable", detail=error.strerror or str(error))
        except ImageTooLargeError as error:
            run.report.add_outcome(path, error.code, detail=error.detail)
        return None

    async def _register_photos(
        self, run: _Run, person: str, photos: list[Photo], consent_id: UUID | None
    ) -> UUID | None:
        """Register photos of a person; return the consent that further ones of them go under."""
        request = RegistrationRequest(
            collection=run.request.collection,
            photos=tuple(photos),
            external_id=person,
            name=person.replace("_", " ").strip() or person,
            consent=run.request.consent if consent_id is None else None,
            consent_id=consent_id,
            largest_face=run.request.largest_face,
            lane=Lane.BATCH,
        )
        try:
            done = await self._register(run.principal, request)
        except NoPhotoAcceptedError as error:
            for rejected in error.facts["rejected"]:
                facts = {key: fact for key, fact in rejected.items() if key not in {"photo", "filename", "reasons"}}
                run.report.add_outcome(str(rejected["filename"]), rejected["reasons"][0], person=person, **facts)
                if rejected["reasons"][0] in FINAL_OUTCOMES:
                    run.enrolled.add(person)
            return consent_id
        except WorkerLostError as error:
            return await self._register_one_by_one(run, person, photos, consent_id, error)
        except NotFoundError:
            if consent_id is None:
                raise
            return await self._register_photos(run, person, photos, None)  # the consent has ended meanwhile
        except VultusError as error:
            if error.kind in SERVER_FAULT_KINDS:
                raise
            for photo in photos:
                run.report.add_outcome(str(photo.filename), error.code, person=person, detail=error.detail)
            return consent_id
        self._record_result(run, person, done)
        return done.consent.id

    async def _register_one_by_one(
        self, run: _Run, person: str, photos: list[Photo], consent_id: UUID | None, error: VultusError
    ) -> UUID | None:
        """Register the photos of a registration that broke off, so that only the one at fault is lost."""
        if len(photos) == 1:
            run.report.add_outcome(str(photos[0].filename), error.code, person=person, detail=error.detail)
            return consent_id
        for photo in photos:
            consent_id = await self._register_photos(run, person, [photo], consent_id)
        return consent_id

    async def _register(self, principal: Principal, request: RegistrationRequest) -> RegistrationResult:
        pauses = iter(DATABASE_PAUSES_S)
        while True:
            try:
                return await self._registrar.register(principal, request)
            except PersonMismatchError:
                if request.name is None:
                    raise
                request = replace(request, name=None)  # who has another name by now keeps it
            except OverloadedError:
                await asyncio.sleep(OVERLOAD_PAUSE_S)
            except DatabaseUnavailableError:
                if (pause := next(pauses, None)) is None:
                    raise
                await asyncio.sleep(pause)

    @staticmethod
    def _record_result(run: _Run, person: str, done: RegistrationResult) -> None:
        ids = {"person": person, "person_id": done.person.id, "consent_id": done.consent.id}
        for face in done.accepted:
            run.report.add_outcome(str(face.filename), "enrolled", **ids, face_id=face.face.id)
        for photo in done.rejected:
            facts = {"person": person, "detail": photo.detail, **photo.facts}
            run.report.add_outcome(str(photo.filename), photo.reasons[0], **facts)
        run.enrolled.add(person)


def ensure_people(scan: FolderScan, root: Path) -> None:
    """Return if a folder holds a person with a photo.

    Raises:
        InvalidInputError: It holds none; the detail says what it holds instead, and what to do.
    """
    if scan.persons:
        return
    counts = _count_reasons(scan)
    examples = _find_examples(scan)
    sentences = [f"No folder of a person with photos is in {root}."]
    if number := counts[LeftOutReason.LOOSE]:
        first = examples[LeftOutReason.LOOSE]
        sentences.append(f"{number} photos lie loose in it, as {first}: put each person's into a folder of their name.")
    if number := counts[LeftOutReason.NESTED]:
        first = examples[LeftOutReason.NESTED]
        parent = root / first.split("/")[0]
        sentences.append(f"{number} photos lie deeper, as {first}: name the folder of folders, perhaps {parent}.")
    if number := counts[LeftOutReason.UNREADABLE]:
        sentences.append(f"{number} cannot be read, as {examples[LeftOutReason.UNREADABLE]}.")
    if suffixes := _count_suffixes(scan):
        listed = ", ".join(f"{number} {suffix or 'without a suffix'}" for suffix, number in suffixes.items())
        sentences.append(f"Files that are no photos: {listed}.")
    if not scan.left_out and not scan.empty:
        sentences.append("It is empty.")
    left_out = {reason.value: number for reason, number in counts.items()}
    raise InvalidInputError(" ".join(sentences), left_out=left_out)


def compute_rules_digest(collection: Collection, settings: Settings, *, largest_face: bool) -> str:
    """Return a digest of everything but the photo that decides whether it is refused."""
    rules = [
        str(collection.id),
        collection.space_id,
        asdict(collection.policy),
        settings.photos.model_dump(),
        settings.inference.model_dump(include={"quality", "liveness", "min_face_px", "max_side_px"}),
        __version__,  # another one may read more formats
        largest_face,
    ]
    return hashlib.sha256(json.dumps(rules, default=str).encode()).hexdigest()[:12]


def compute_terms_digest(collection: Collection, consent: ConsentGrant) -> str:
    """Return a digest of what persons agree to by an import."""
    terms = [str(collection.id), *(str(value) for value in asdict(consent).values())]
    return hashlib.sha256(json.dumps(terms).encode()).hexdigest()[:12]


def _build_summary(scan: FolderScan, run: _Run) -> ImportSummary:
    report = run.report
    return ImportSummary(
        outcomes=dict(report.outcomes),
        skipped=report.skipped,
        retried=report.retried,
        refused_before=report.refused_before,
        refused=report.refused,
        persons=len(scan.persons) + len(scan.empty),
        persons_enrolled=len(run.enrolled),
        left_out={reason.value: number for reason, number in _count_reasons(scan).items()},
        left_out_suffixes=dict(_count_suffixes(scan)),
        examples={reason.value: path for reason, path in _find_examples(scan).items()},
    )


def _count_reasons(scan: FolderScan) -> Counter[LeftOutReason]:
    return Counter(one.reason for one in scan.left_out)


def _count_suffixes(scan: FolderScan) -> Counter[str]:
    names = [one.path.rpartition("/")[2] for one in scan.left_out if one.reason is LeftOutReason.NOT_A_PHOTO]
    return Counter(f".{name.rpartition('.')[2].lower()}" if "." in name else "" for name in names)


def _find_examples(scan: FolderScan) -> dict[LeftOutReason, str]:
    return {one.reason: one.path for one in reversed(scan.left_out)}


def open_scan(root: Path) -> FolderScan:
    """Look through a folder that holds people.

    Raises:
        InvalidInputError: It holds nobody with a photo.
        OSError: It cannot be read.
    """
    scan = scan_people(root)
    ensure_people(scan, root)
    return scan
