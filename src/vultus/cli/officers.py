"""`vultus persons`, `vultus consents` and `vultus sweep`: what a data protection officer needs."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar
from uuid import UUID

import typer

from vultus.cli.common import (
    COMMAND_LINE,
    CollectionOption,
    JsonOption,
    PersonArgument,
    err,
    load_settings,
    out,
    parse_person,
    print_json,
    print_table,
    run_command,
)
from vultus.domain import AuditEntry, Consent, Person
from vultus.domain.decision_records import DecisionRecord
from vultus.errors import InvalidInputError
from vultus.main import open_database
from vultus.schemas.export_page import render_export
from vultus.schemas.exports import PersonExportOut
from vultus.schemas.galleries import ConsentOut, ErasedOut, PersonOut
from vultus.services.people.consents import ConsentService
from vultus.services.people.erasure import Eraser, ErasureResult
from vultus.services.people.export import PersonExport, PersonExporter
from vultus.services.people.persons import PersonService

if TYPE_CHECKING:
    from vultus.db.database import Database
    from vultus.settings import Settings

PAGE = 500

persons = typer.Typer(no_args_is_help=True)
consents = typer.Typer(no_args_is_help=True)

YesOption = Annotated[bool, typer.Option("--yes", help="Do it without asking.")]
LimitOption = Annotated[int, typer.Option(min=1, help="Most entries.")]
AfterOption = Annotated[UUID | None, typer.Option(metavar="ID", help="Only those after this id.")]
Item = TypeVar("Item", Person, Consent, AuditEntry, DecisionRecord)
Result = TypeVar("Result")


@asynccontextmanager
async def _open_eraser(settings: Settings) -> AsyncIterator[Eraser]:
    async with open_database(settings) as database:
        yield Eraser(database, settings.jobs)


@persons.command("list")
def list_persons(
    collection: CollectionOption = "default",
    external_id: Annotated[str | None, typer.Option(help="Only the person with your id.")] = None,
    limit: LimitOption = 100,
    after: AfterOption = None,
    as_json: JsonOption = False,
) -> None:
    """List persons, the oldest first."""

    async def fetch_persons(database: Database) -> tuple[Person, ...]:
        service = PersonService(database)
        return await fetch_pages(
            lambda last, size: service.list_persons(
                COMMAND_LINE, collection, after=last, limit=size, external_id=external_id
            ),
            after,
            limit,
        )

    found = run_with_database(fetch_persons)
    if as_json:
        print_json([PersonOut.from_attributes(person).model_dump(mode="json") for person in found])
        return
    rows = [(person.id, person.external_id, person.name, person.created_at) for person in found]
    print_table("Persons", ("id", "external id", "name", "created"), rows)
    _say_more(found, limit)


@persons.command("show")
def show_person(person: PersonArgument, collection: CollectionOption = "default", as_json: JsonOption = False) -> None:
    """Show a person with their consents and faces."""
    found = run_with_database(lambda database: _fetch_export(database, collection, person, vectors=False))
    if as_json:
        print_json(PersonExportOut.from_domain(found).model_dump(mode="json", exclude={"templates", "audit"}))
        return
    one = found.person
    values = {
        "id": one.id,
        "external id": one.external_id,
        "name": one.name,
        "created": one.created_at,
        "changed": one.updated_at,
        **one.metadata,
    }
    print_table("Person", ("what", "value"), list(values.items()))
    _show_consents(found.consents)
    rows = [
        (face.id, face.consent_id, face.created_at, "yes" if face.id in found.crops else "no") for face in found.faces
    ]
    print_table("Faces", ("id", "consent", "enrolled", "crop kept"), rows)


@persons.command("export")
def export_person(
    person: PersonArgument,
    collection: CollectionOption = "default",
    target: Annotated[Path | None, typer.Option("--out", help="A new file, mode 0600; else standard output.")] = None,
    vectors: Annotated[bool, typer.Option("--vectors", help="The templates too, which are biometric data.")] = False,
    html: Annotated[bool, typer.Option("--html", help="A page for people, that can be printed.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write everything held about a person, as JSON or as a page."""
    if html and as_json:
        raise InvalidInputError("Give either --html or --json.")
    found = run_with_database(lambda database: _fetch_export(database, collection, person, vectors=vectors))
    document = PersonExportOut.from_domain(found)
    if target is None and not html:
        print_json(document.model_dump(mode="json"))
        return
    text = render_export(document) if html else document.model_dump_json(indent=2) + "\n"
    if target is None:
        sys.stdout.write(text)
        return
    target.touch(mode=0o600, exist_ok=False)
    target.write_text(text, encoding="utf-8")
    err.print(f"Written: {target}")


@persons.command("erase")
def erase_person(
    person: PersonArgument,
    collection: CollectionOption = "default",
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Erase a person with faces and consents."""
    confirm_change(f"Erase {person} from collection {collection}, with all faces and consents?", yes=yes)

    async def erase(settings: Settings) -> ErasureResult:
        async with _open_eraser(settings) as eraser:
            return await eraser.erase(COMMAND_LINE, collection, parse_person(person))

    _show_erasure(run_command(erase(load_settings())), as_json=as_json)


@consents.command("list")
def list_consents(
    person: PersonArgument, collection: CollectionOption = "default", as_json: JsonOption = False
) -> None:
    """List a person's consents, withdrawn ones too."""

    async def fetch_consents(database: Database) -> tuple[Consent, ...]:
        service, who = ConsentService(database), parse_person(person)
        return await fetch_pages(
            lambda last, size: service.list_consents(COMMAND_LINE, collection, who, after=last, limit=size), None, None
        )

    found = run_with_database(fetch_consents)
    if as_json:
        print_json([ConsentOut.from_attributes(consent).model_dump(mode="json") for consent in found])
    else:
        _show_consents(found)


@consents.command("withdraw")
def withdraw_consent(
    person: PersonArgument,
    consent_id: Annotated[UUID, typer.Argument(help="From `vultus consents list`.")],
    collection: CollectionOption = "default",
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Withdraw a consent, and erase what rests on it."""
    confirm_change("Withdraw the consent and erase its faces, with the last live consent the person?", yes=yes)

    async def withdraw(database: Database) -> ErasureResult:
        service = ConsentService(database)
        return await service.withdraw_consent(COMMAND_LINE, collection, parse_person(person), consent_id)

    _show_erasure(run_with_database(withdraw), as_json=as_json)


def sweep_expired(as_json: JsonOption = False) -> None:
    """Erase what rests on expired consents."""

    async def sweep(settings: Settings) -> int:
        async with _open_eraser(settings) as eraser:
            return await eraser.sweep_expired()

    ended = run_command(sweep(load_settings()))
    if as_json:
        print_json({"consents_ended": ended})
    else:
        out.print(f"Consents that had expired and were ended, with what rested on them: {ended}.")


def run_with_database(action: Callable[[Database], Awaitable[Result]]) -> Result:
    """Run an action on the database of the settings."""

    async def call_with_database() -> Result:
        async with open_database(load_settings()) as database:
            return await action(database)

    return run_command(call_with_database())


async def _fetch_export(database: Database, collection: str, person: str, *, vectors: bool) -> PersonExport:
    exporter = PersonExporter(database)
    return await exporter.export_person(COMMAND_LINE, collection, parse_person(person), vectors=vectors)


async def fetch_pages(
    fetch_page: Callable[[UUID | None, int], Awaitable[tuple[Item, ...]]], after: UUID | None, limit: int | None
) -> tuple[Item, ...]:
    """Return entries of all pages, at most `limit`."""
    found: list[Item] = []
    while limit is None or len(found) < limit:
        size = PAGE if limit is None else min(PAGE, limit - len(found))
        page = await fetch_page(found[-1].id if found else after, size)
        found += page
        if len(page) < size:
            break
    return tuple(found)


def confirm_change(question: str, *, yes: bool) -> None:
    """Ask on a terminal; elsewhere `--yes` is needed.

    Raises:
        InvalidInputError: There is nobody to ask.
        typer.Abort: The answer is no.
    """
    if yes:
        return
    if sys.stdin is None or not sys.stdin.isatty():
        raise InvalidInputError("Nothing was done: this cannot be undone. Add --yes.")
    err.print(question)
    typer.confirm("Go on?", abort=True, err=True)


def _say_more(found: tuple[Person, ...], limit: int) -> None:
    if len(found) == limit:
        err.print(f"There may be more: --after {found[-1].id}, or a higher --limit.")


def _show_consents(found: tuple[Consent, ...]) -> None:
    columns = ("id", "purpose", "recorded by", "evidence", "granted", "ends", "withdrawn")
    rows = [
        (one.id, one.purpose, one.recorded_by, one.evidence_ref, one.granted_at, one.expires_at, one.withdrawn_at)
        for one in found
    ]
    print_table("Consents", columns, rows)


def _show_erasure(done: ErasureResult, *, as_json: bool) -> None:
    if as_json:
        print_json(ErasedOut.from_domain(done).model_dump(mode="json"))
        return
    who = "The person was erased" if done.person_erased else "The person stays by another live consent"
    out.print(f"{who}: {done.person_id}. Faces erased: {done.faces}; consents: {done.consents}.")
    out.print(f"State: {done.state}; follow it with 'vultus erasures show {done.erasure_id}'.")
