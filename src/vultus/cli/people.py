"""`vultus register` and `vultus recognize`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vultus.cli.common import (
    COMMAND_LINE,
    CollectionOption,
    Evidence,
    Expires,
    JsonOption,
    Purpose,
    RecordedBy,
    load_settings,
    out,
    print_json,
    print_table,
    read_photo,
    run_command,
)
from vultus.cli.drawing import draw_recognition
from vultus.domain import LivenessMode
from vultus.main import open_services
from vultus.schemas.recognition import RecognitionOut, RegistrationOut
from vultus.services.enrolment.registration import RegistrationRequest, RegistrationResult
from vultus.services.people.consents import ConsentGrant

if TYPE_CHECKING:
    from vultus.services.recognition.verdicts import Recognition
    from vultus.settings import Settings

PhotoPath = Annotated[
    Path, typer.Argument(exists=True, dir_okay=False, readable=True, help="JPEG, PNG, WebP, HEIC or AVIF.")
]
LivenessOption = Annotated[
    LivenessMode | None, typer.Option(help="report: is the face live? required: refuse one that is not.")
]


def register(
    photos: Annotated[list[Path], typer.Argument(exists=True, dir_okay=False, help="Photos of one person.")],
    purpose: Purpose,
    recorded_by: RecordedBy,
    name: Annotated[str | None, typer.Option(help="For people to read.")] = None,
    external_id: Annotated[str | None, typer.Option(help="Your own id; finds the person or names a new one.")] = None,
    expires: Expires = None,
    evidence: Evidence = None,
    collection: CollectionOption = "default",
    largest_face: Annotated[bool, typer.Option(help="Take the largest face where several are found.")] = False,
    allow_lookalike: Annotated[bool, typer.Option(help="Enrol even if another person looks the same.")] = False,
    liveness: LivenessOption = None,
    as_json: JsonOption = False,
) -> None:
    """Register a person from photos, with their consent."""
    request = RegistrationRequest(
        collection=collection,
        photos=tuple(read_photo(path) for path in photos),
        name=name,
        external_id=external_id,
        consent=ConsentGrant(purpose, recorded_by, expires_at=expires, evidence_ref=evidence),
        largest_face=largest_face,
        allow_lookalike=allow_lookalike,
        liveness=liveness,
    )

    async def register_photos(settings: Settings) -> RegistrationResult:
        async with open_services(settings) as services:
            return await services.registrar.register(COMMAND_LINE, request)

    done = run_command(register_photos(load_settings()))
    if as_json:
        print_json(RegistrationOut.from_domain(done).model_dump(mode="json"))
        return
    person = done.person
    out.print(f"{'Registered' if done.created else 'Added to'} {person.name or person.external_id} ({person.id})")
    rows: list[tuple[object, ...]] = [(face.filename, "enrolled", face.face.id) for face in done.accepted]
    rows += [(photo.filename, "rejected", photo.detail) for photo in done.rejected]
    print_table("Photos", ("photo", "outcome", "face or reason"), rows)


def recognize(
    photo: PhotoPath,
    collection: CollectionOption = "default",
    limit: Annotated[int, typer.Option(min=1, max=50, help="Candidates per face.")] = 5,
    unique: Annotated[bool, typer.Option(help="Give every person to at most one face.")] = False,
    liveness: LivenessOption = None,
    drawing: Annotated[Path | None, typer.Option("--draw", help="Write the photo with boxes and names as PNG.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Recognise the people in a photo."""

    async def recognize_photo(settings: Settings) -> Recognition:
        async with open_services(settings) as services:
            return await services.recognizer.recognize(
                COMMAND_LINE,
                read_photo(photo),
                reference=collection,
                limit=limit,
                unique_per_image=unique,
                liveness=liveness,
            )

    found = run_command(recognize_photo(load_settings()))
    if drawing:
        draw_recognition(photo, found, drawing)
    if as_json:
        print_json(RecognitionOut.from_domain(found).model_dump(mode="json"))
        return
    rows = []
    for number, face in enumerate(found.faces, 1):
        best, person, decision = face.best, face.person, face.decision
        who = (person.name or person.external_id or person.person_id) if person else None
        closest = f"{best.similarity:.4f} ({best.name or best.external_id or best.person_id})" if best else None
        needed = f"{decision.threshold:.4f} (FMR {decision.fmr:.1g}, FPIR {decision.fpir:.1g})"
        rows.append((number, decision.verdict, who, closest, needed, ", ".join(decision.reasons)))
    title = f"{len(rows)} face{'' if len(rows) == 1 else 's'} in {photo.name}, left to right"
    print_table(title, ("face", "verdict", "person", "closest", "threshold", "because"), rows)
