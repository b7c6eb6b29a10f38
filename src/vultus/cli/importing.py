"""`vultus import`: one folder per person, resumable, with a report of what was not imported."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vultus.cli.common import (
    COMMAND_LINE,
    CollectionOption,
    Evidence,
    Expires,
    JsonOption,
    Purpose,
    RecordedBy,
    err,
    load_settings,
    open_progress_bar,
    out,
    print_json,
    print_table,
    run_command,
)
from vultus.cli.failures import EXIT_FOUND
from vultus.cli.opening import open_services
from vultus.errors import InvalidInputError
from vultus.main import open_weights_store
from vultus.services.enrolment.folder_import import FolderImporter, FolderImportRequest, ImportSummary, open_scan
from vultus.services.enrolment.folders import LeftOutReason
from vultus.services.people.consents import ConsentGrant

if TYPE_CHECKING:
    from vultus.services.enrolment.folders import FolderScan
    from vultus.settings import Settings

LEFT_OUT_WORDS = {
    LeftOutReason.LINK: "links that lead out of the folder, or to a folder",
    LeftOutReason.LOOSE: "photos that lie loose, in no person's folder",
    LeftOutReason.NAME: "folders whose name no person can have",
    LeftOutReason.NESTED: "photos in folders inside a person's folder",
    LeftOutReason.NOT_A_FILE: "pipes, sockets and devices",
    LeftOutReason.NOT_A_PHOTO: "files that are no photos",
    LeftOutReason.SYSTEM: "hidden and system files and folders",
    LeftOutReason.UNFINISHED: "unfinished downloads",
    LeftOutReason.UNREADABLE: "files and folders that cannot be read",
}
HINTS = {
    "several_faces": "--largest-face takes the largest face of a photo that shows several.",
    "enrolled_as_other_person": "The report names the other person whose face it is.",
    "unreadable": "What could not be read is tried again by the next run.",
    "unsupported_image": "The report names the formats that are not read: convert such photos to JPEG.",
}


def import_folder(
    folder: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="Holds one folder per person.")],
    purpose: Purpose,
    recorded_by: RecordedBy,
    expires: Expires = None,
    evidence: Evidence = None,
    collection: CollectionOption = "default",
    largest_face: Annotated[bool, typer.Option(help="Take the largest face where several are found.")] = False,
    retry: Annotated[
        bool, typer.Option("--retry", help="Try photos refused before again, even under the same rules.")
    ] = False,
    report: Annotated[
        Path | None, typer.Option(help="Default: in the data directory. Delete it to start over.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Register everybody in a folder of folders.

    The name of a person's folder becomes external id and, with underscores as spaces, name. Interrupted imports resume,
    and photos refused before under other rules are tried again. Every person's consent is recorded once, with the same
    purpose. Exit code 1: not every photo of every person is enrolled.
    """
    consent = ConsentGrant(purpose, recorded_by, expires_at=expires, evidence_ref=evidence)
    settings = load_settings()
    scan = open_scan(folder)
    if report and not report.parent.is_dir():
        raise InvalidInputError(f"--report {report}: there is no folder {report.parent}.")
    request = FolderImportRequest(
        folder, collection, consent, report or _choose_report_path(settings, folder, collection), largest_face, retry
    )
    done = run_command(_import_people(settings, request, scan, show=not as_json))
    if as_json:
        print_json(_describe_import(done, request))
    else:
        _show_import(done, request)
    if not done.is_complete:
        raise typer.Exit(EXIT_FOUND)


def _choose_report_path(settings: Settings, folder: Path, collection: str) -> Path:
    """Return where an import's report lies: in the data directory, one for each folder and collection."""
    open_weights_store(settings)  # makes the data directory, or says why it cannot
    imports = settings.data_dir / "imports"
    imports.mkdir(mode=0o700, exist_ok=True)
    whole = os.fsencode(folder.resolve()) + b"\0" + collection.encode("utf-8", "surrogateescape")
    name = "".join(char if char.isascii() and char.isalnum() else "-" for char in folder.resolve().name)[:40]
    return imports / f"{name}-{hashlib.sha256(whole).hexdigest()[:12]}.jsonl"


async def _import_people(
    settings: Settings, request: FolderImportRequest, scan: FolderScan, *, show: bool
) -> ImportSummary:
    async with open_services(settings) as services:
        importer = FolderImporter(services.registrar, services.collections, settings)
        with open_progress_bar(show=show) as progress:
            bar = progress.add_task("photos", total=None)
            set_total: Callable[[int], None] = lambda total: progress.update(bar, total=total)  # noqa: E731
            advance: Callable[[int], None] = lambda photos: progress.advance(bar, photos)  # noqa: E731
            return await importer.import_people(COMMAND_LINE, request, scan, on_start=set_total, on_photos=advance)


def _describe_import(done: ImportSummary, request: FolderImportRequest) -> dict[str, Any]:
    return {
        "persons": done.persons,
        "persons_enrolled": done.persons_enrolled,
        "photos": sum(done.outcomes.values()),
        "skipped": done.skipped,
        "retried": done.retried,
        "refused_before": done.refused_before,
        **done.outcomes,
        "left_out": done.left_out,
        "left_out_suffixes": done.left_out_suffixes,
        "report": request.report,
    }


def _show_import(done: ImportSummary, request: FolderImportRequest) -> None:
    if done.outcomes:
        print_table("Photos of this run", ("outcome", "photos"), sorted(done.outcomes.items()))
    without = done.persons - done.persons_enrolled
    out.print(f"Persons: {done.persons}; enrolled: {done.persons_enrolled}; without an enrolled photo: {without}.")
    out.print(f"Photos done before: {done.skipped}; refused before and tried again: {done.retried}.")
    for reason, number in sorted(done.left_out.items()):
        words = LEFT_OUT_WORDS[LeftOutReason(reason)]
        suffixes = f" ({', '.join(_format_suffixes(done))})" if reason == LeftOutReason.NOT_A_PHOTO else ""
        out.print(f"Left out: {words}{suffixes}: {number}, as {done.examples[reason]}")
    out.print(f"Every photo's outcome: {request.report}")
    for outcome, hint in HINTS.items():
        if outcome in done.outcomes:
            err.print(hint)
    if done.refused_before:
        err.print(
            f"Photos refused before under the same rules and not tried again: {done.refused_before}. "
            "Change the rules (--largest-face, the collection's policy), or try them again with --retry."
        )


def _format_suffixes(done: ImportSummary) -> list[str]:
    return [f"{number} {suffix or 'without a suffix'}" for suffix, number in done.left_out_suffixes.items()]
