"""`vultus register` and `vultus recognize`."""

from __future__ import annotations

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
    out,
    print_json,
    print_table,
    read_photo,
    run_command,
)
from vultus.cli.drawing import draw_recognition, ensure_drawable
from vultus.cli.failures import EXIT_FOUND, build_ending, use_option_words
from vultus.cli.opening import open_services
from vultus.domain import LivenessMode
from vultus.errors import SERVER_FAULT_KINDS, InvalidInputError, VultusError
from vultus.schemas.recognition import RecognitionOut, RegistrationOut
from vultus.services.enrolment.registration import RegistrationRequest, RegistrationResult
from vultus.services.people.consents import ConsentGrant

if TYPE_CHECKING:
    from vultus.domain import Liveness
    from vultus.services.photo_analysis import Photo
    from vultus.services.recognition.verdicts import Recognition
    from vultus.settings import Settings

PHOTO_HELP = "JPEG, PNG, WebP, HEIC or AVIF; - for standard input."
PhotoPath = Annotated[Path, typer.Argument(metavar="PHOTO", help=PHOTO_HELP)]
PhotoPaths = Annotated[list[Path], typer.Argument(metavar="PHOTO", help=PHOTO_HELP)]
LargestFace = Annotated[bool, typer.Option("--largest-face", help="Take the largest face where several are found.")]
LivenessOption = Annotated[
    LivenessMode | None, typer.Option(help="report: is the face live? required: refuse one that is not.")
]


def register(
    photos: PhotoPaths,
    purpose: Purpose,
    recorded_by: RecordedBy,
    name: Annotated[str | None, typer.Option(help="For people to read.")] = None,
    external_id: Annotated[str | None, typer.Option(help="Your own id; finds the person or names a new one.")] = None,
    expires: Expires = None,
    evidence: Evidence = None,
    collection: CollectionOption = "default",
    largest_face: LargestFace = False,
    allow_lookalike: Annotated[
        bool, typer.Option("--allow-lookalike", help="Enrol even if another person looks the same.")
    ] = False,
    liveness: LivenessOption = None,
    as_json: JsonOption = False,
) -> None:
    """Register a person from photos, with their consent."""
    settings = load_settings()
    request = RegistrationRequest(
        collection=collection,
        photos=tuple(read_photo(path, settings) for path in photos),
        name=name,
        external_id=external_id,
        consent=ConsentGrant(purpose, recorded_by, expires_at=expires, evidence_ref=evidence),
        largest_face=largest_face,
        allow_lookalike=allow_lookalike,
        liveness=liveness,
    )

    async def register_photos() -> RegistrationResult:
        async with open_services(settings) as services:
            return await services.registrar.register(COMMAND_LINE, request)

    done = run_command(register_photos())
    if as_json:
        print_json(RegistrationOut.from_domain(done).model_dump(mode="json"))
        return
    person = done.person
    out.print(f"{'Registered' if done.created else 'Added to'} {person.name or person.external_id} ({person.id})")
    rows: list[tuple[object, ...]] = [(face.filename, "enrolled", face.face.id) for face in done.accepted]
    rows += [(photo.filename, "rejected", use_option_words(photo.detail)) for photo in done.rejected]
    print_table("Photos", ("photo", "outcome", "face or reason"), rows)


def recognize(
    photos: PhotoPaths,
    collection: CollectionOption = "default",
    limit: Annotated[int, typer.Option(min=0, max=50, help="Candidates per face, in JSON.")] = 5,
    unique: Annotated[bool, typer.Option("--unique", help="Give every person to at most one face.")] = False,
    liveness: LivenessOption = None,
    drawing: Annotated[
        Path | None, typer.Option("--draw", help="Write the photo with boxes and names: a .png, .jpg or .webp file.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Recognise the people in photos."""
    if drawing and len(photos) > 1:
        raise InvalidInputError("--draw takes one photo; recognise the others by themselves.")
    if drawing:
        ensure_drawable(drawing, photos[0])
    settings = load_settings()
    options = {"reference": collection, "limit": limit, "unique_per_image": unique, "liveness": liveness}

    if len(photos) == 1:
        photo = read_photo(photos[0], settings)
        recognition = run_command(_recognize_photo(settings, photo, options))
        if drawing:
            _draw_photo(photo, recognition, drawing, settings)
        found: list[tuple[str | None, Recognition | Exception]] = [(photo.filename, recognition)]
    else:
        found = run_command(_recognize_several(settings, photos, options))
    if as_json:
        described = [_describe_recognition(*one) for one in found]
        print_json(described if len(photos) > 1 else described[0])
    else:
        for name, outcome in found:
            _show_recognition(name, outcome)
    if any(isinstance(outcome, Exception) for _, outcome in found):
        raise typer.Exit(EXIT_FOUND)


async def _recognize_photo(settings: Settings, photo: Photo, options: dict[str, Any]) -> Recognition:
    async with open_services(settings) as services:
        return await services.recognizer.recognize(COMMAND_LINE, photo, **options)


async def _recognize_several(
    settings: Settings, paths: list[Path], options: dict[str, Any]
) -> list[tuple[str | None, Recognition | Exception]]:
    """Recognise photos; one that cannot be used does not stop the others."""
    found: list[tuple[str | None, Recognition | Exception]] = []
    async with open_services(settings) as services:
        for path in paths:
            try:
                photo = read_photo(path, settings)
                found.append((photo.filename, await services.recognizer.recognize(COMMAND_LINE, photo, **options)))
            except (VultusError, OSError) as error:
                if isinstance(error, VultusError) and error.kind in SERVER_FAULT_KINDS:
                    raise
                found.append((path.name, error))
    return found


def _draw_photo(photo: Photo, recognition: Recognition, drawing: Path, settings: Settings) -> None:
    for name in draw_recognition(photo.content, recognition, drawing, settings.photos):
        err.print(
            f"No font here has the letters of {name}: the face has its number alone. For Arabic, Indic and the like "
            "install FriBiDi (Debian: apt-get install libfribidi0)."
        )


def _describe_recognition(name: str | None, found: Recognition | Exception) -> dict[str, Any]:
    if isinstance(found, Exception):
        return {"file": name, "error": build_ending(found).describe()}
    return {"file": name, **RecognitionOut.from_domain(found).model_dump(mode="json")}


def _show_recognition(name: str | None, found: Recognition | Exception) -> None:
    if isinstance(found, Exception):
        ending = build_ending(found)
        err.print_labelled(str(name), "red", f" ({ending.code}): {ending.detail}")
        return
    rows = []
    is_checked = any(face.described.liveness for face in found.faces)
    for number, face in enumerate(found.faces, 1):
        best, person, decision = face.best, face.person, face.decision
        who = (person.name or person.external_id or person.person_id) if person else None
        closest = f"{best.similarity:.4f} ({best.name or best.external_id or best.person_id})" if best else None
        needed = f"{decision.threshold:.4f} (FMR {decision.fmr:.1g}, FPIR {decision.fpir:.1g})"
        live = [format_liveness(face.described.liveness)] if is_checked else []
        rows.append((number, decision.verdict, who, closest, needed, *live, ", ".join(decision.reasons)))
    title = f"{len(rows)} face{'' if len(rows) == 1 else 's'} in {name}, left to right"
    live_columns = ["live"] if is_checked else []
    print_table(title, ("face", "verdict", "person", "closest", "threshold", *live_columns, "because"), rows)


def format_liveness(liveness: Liveness | None) -> str:
    """Return whether a face is live, how likely, and why not."""
    if liveness is None:
        return ""
    verdict = "yes" if liveness.live else f"no, {liveness.reason.value.replace('_', ' ')}"
    return f"{verdict} ({liveness.score:.2f})"
