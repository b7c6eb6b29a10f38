"""`vultus verify` and `vultus compare`: one face against one person, or against another face."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from vultus.cli.common import (
    COMMAND_LINE,
    CollectionOption,
    JsonOption,
    PersonArgument,
    load_settings,
    parse_person,
    print_json,
    print_table,
    read_photo,
    run_command,
)
from vultus.cli.failures import EXIT_FOUND
from vultus.cli.opening import open_services
from vultus.cli.people import LargestFace, LivenessOption, PhotoPath, format_liveness
from vultus.domain import Verdict
from vultus.schemas.recognition import ComparisonOut, VerificationOut

if TYPE_CHECKING:
    from vultus.domain import Decision, DescribedFace
    from vultus.services.recognition.verification import PhotoComparison, Verification


def verify(
    person: PersonArgument,
    photo: PhotoPath,
    collection: CollectionOption = "default",
    largest_face: LargestFace = False,
    liveness: LivenessOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say whether a photo shows a person; exit code 1 if not."""
    settings = load_settings()
    shown = read_photo(photo, settings)

    async def verify_photo() -> Verification:
        async with open_services(settings) as services:
            return await services.verifier.verify(
                COMMAND_LINE,
                shown,
                reference=collection,
                person=parse_person(person),
                largest=largest_face,
                liveness=liveness,
            )

    found = run_command(verify_photo())
    if as_json:
        print_json(VerificationOut.from_domain(found).model_dump(mode="json"))
    else:
        who = found.person.name or found.person.external_id or str(found.person.id)
        _show_decision(f"{shown.filename} and {who}", found.decision, found.similarity, found.face)
    _exit_unless_match(found.decision)


def compare(
    first: PhotoPath,
    second: PhotoPath,
    collection: CollectionOption = "default",
    largest_face: LargestFace = False,
    liveness: LivenessOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say whether two photos show one person; exit code 1 if not."""
    settings = load_settings()
    photos = read_photo(first, settings), read_photo(second, settings)

    async def compare_photos() -> PhotoComparison:
        async with open_services(settings) as services:
            return await services.verifier.compare(
                COMMAND_LINE, *photos, reference=collection, largest=largest_face, liveness=liveness
            )

    found = run_command(compare_photos())
    if as_json:
        print_json(ComparisonOut.from_domain(found).model_dump(mode="json"))
    else:
        title = f"{photos[0].filename} and {photos[1].filename}"
        _show_decision(title, found.decision, found.similarity, found.first, found.second)
    _exit_unless_match(found.decision)


def _show_decision(title: str, decision: Decision, similarity: float | None, *faces: DescribedFace) -> None:
    needed = f"{decision.threshold:.4f} (FMR {decision.fmr:.1g})"
    live = [", ".join(format_liveness(face.liveness) for face in faces)] if any(face.liveness for face in faces) else []
    columns = ("verdict", "cosine", "threshold", *(["live"] if live else []), "because")
    cosine = None if similarity is None else f"{similarity:.4f}"
    print_table(title, columns, [(decision.verdict, cosine, needed, *live, ", ".join(decision.reasons))])


def _exit_unless_match(decision: Decision) -> None:
    if decision.verdict is not Verdict.MATCH:
        raise typer.Exit(EXIT_FOUND)
