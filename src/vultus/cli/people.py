"""`vultus register` and `vultus recognize`."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vultus.cli.common import CollectionOption, Json, load_settings, out, print_json, print_table, read_photo, run
from vultus.cli.drawing import draw
from vultus.domain import Actor, LivenessMode, Verdict
from vultus.main import open_services
from vultus.schemas.recognition import RecognitionOut, RegistrationOut
from vultus.services.enrolment.registration import Registered, RegistrationRequest
from vultus.services.people.consents import ConsentGrant

if TYPE_CHECKING:
    from vultus.services.recognition.verdicts import Recognition
    from vultus.settings import Settings

ACTOR = Actor("cli")
PhotoPath = Annotated[Path, typer.Argument(exists=True, dir_okay=False, readable=True, help="JPEG, PNG or WebP.")]
Purpose = Annotated[str, typer.Option(help="What the person agreed to.")]
RecordedBy = Annotated[str, typer.Option(help="Who took the agreement.")]
Expires = Annotated[
    datetime | None, typer.Option(formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"], help="UTC; left out: until withdrawn.")
]
LivenessOption = Annotated[
    LivenessMode | None, typer.Option(help="report: is the face live? required: refuse one that is not.")
]


def utc(moment: datetime | None) -> datetime | None:
    """Read a moment typed without a zone as UTC."""
    return moment.replace(tzinfo=UTC) if moment else None


def register(
    photos: Annotated[list[Path], typer.Argument(exists=True, dir_okay=False, help="Photos of one person.")],
    purpose: Purpose,
    recorded_by: RecordedBy,
    name: Annotated[str | None, typer.Option(help="For people to read.")] = None,
    external_id: Annotated[str | None, typer.Option(help="Your own id; finds the person or names a new one.")] = None,
    expires: Expires = None,
    evidence: Annotated[str | None, typer.Option(help="Where the proof of consent is kept.")] = None,
    collection: CollectionOption = "default",
    largest_face: Annotated[bool, typer.Option(help="Take the largest face where several are found.")] = False,
    allow_lookalike: Annotated[bool, typer.Option(help="Enrol even if another person looks the same.")] = False,
    liveness: LivenessOption = None,
    as_json: Json = False,
) -> None:
    """Register a person from photos, with their consent."""
    request = RegistrationRequest(
        collection=collection,
        photos=tuple(read_photo(path) for path in photos),
        name=name,
        external_id=external_id,
        consent=ConsentGrant(purpose, recorded_by, expires_at=utc(expires), evidence_ref=evidence),
        largest_face=largest_face,
        allow_lookalike=allow_lookalike,
        liveness=liveness,
    )

    async def work(settings: Settings) -> Registered:
        async with open_services(settings) as services:
            return await services.registrar.register(request, actor=ACTOR)

    done = run(work(load_settings()), as_json=as_json)
    if as_json:
        print_json(RegistrationOut.of(done).model_dump(mode="json"))
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
    as_json: Json = False,
) -> None:
    """Recognise the people in a photo."""

    async def work(settings: Settings) -> Recognition:
        async with open_services(settings) as services:
            return await services.recognizer.recognize(
                read_photo(photo), collection=collection, limit=limit, unique_per_image=unique, liveness=liveness
            )

    found = run(work(load_settings()), as_json=as_json)
    if drawing:
        draw(photo, found, drawing)
    if as_json:
        print_json(RecognitionOut.of(found).model_dump(mode="json"))
        return
    rows = []
    for at, face in enumerate(found.faces, 1):
        best = face.candidates[0] if face.candidates else None
        decision = face.decision
        who = (best.name or best.external_id or best.person_id) if best and decision.verdict is Verdict.MATCH else None
        closest = f"{best.similarity:.4f} ({best.name or best.external_id or best.person_id})" if best else None
        needed = f"{decision.threshold:.4f} (FMR {decision.fmr:.1g}, FPIR {decision.fpir:.1g})"
        rows.append((at, decision.verdict, who, closest, needed, ", ".join(decision.reasons)))
    title = f"{len(rows)} face{'' if len(rows) == 1 else 's'} in {photo.name}, left to right"
    print_table(title, ("face", "verdict", "person", "closest", "threshold", "because"), rows)
