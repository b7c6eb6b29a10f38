"""`vultus export-bundle` and `vultus import-bundle`: a collection moves to another installation."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vultus.cli.backups import IdentityOption, PassphraseOption, open_identities
from vultus.cli.common import (
    COMMAND_LINE,
    JsonOption,
    load_settings,
    open_download_bar,
    open_progress_bar,
    out,
    print_json,
    run_command,
)
from vultus.cli.galleries import ReferenceArgument
from vultus.cli.opening import open_services
from vultus.domain import Storage
from vultus.errors import InvalidInputError
from vultus.evaluation.watch_report import count_things
from vultus.sealing.signatures import encode_public_key
from vultus.services.bundles.export import BundleExporter
from vultus.services.bundles.importing import BundleImporter
from vultus.utils.age_files import require_recipient

if TYPE_CHECKING:
    from vultus.services.bundles.importing import BundleReport
    from vultus.services.bundles.records import BundleCounts


def export_collection(
    collection: ReferenceArgument,
    file: Annotated[Path, typer.Argument(help="To be written; must not exist.")],
    recipient: Annotated[list[str] | None, typer.Option(help="Who can open it, repeatable: a public key.")] = None,
    plain: Annotated[bool, typer.Option("--plain", help="Do not encrypt it.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write a collection to a signed file.

    With everybody's consents, faces and templates.
    """
    if bool(recipient) == plain:
        raise InvalidInputError(
            "Say who can open the bundle (--recipient KEY, as 'vultus backup-identity' prints it over there), or say "
            "--plain to write it without encryption."
        )
    try:
        recipients = tuple(map(require_recipient, recipient or ()))
    except ValueError as error:
        raise InvalidInputError(f"--recipient: {error}.") from None

    async def export() -> tuple[BundleCounts, str]:
        async with open_services(load_settings()) as services:
            keys = services.custody.keys
            exporter = BundleExporter(services.database, services.spaces, keys)
            with open_progress_bar(show=not as_json) as bar:
                task = bar.add_task("Persons", total=None)
                counts = await exporter.export_collection(
                    COMMAND_LINE,
                    collection,
                    file,
                    recipients=recipients,
                    progress=lambda done, total: bar.update(task, completed=done, total=total),
                )
            loaded = await asyncio.to_thread(keys.load)
            return counts, encode_public_key(loaded.signing_key.public_key())

    counts, key = run_command(export())
    if as_json:
        numbers = {"persons": counts.persons, "consents": counts.consents, "faces": counts.faces}
        print_json({"file": str(file), **numbers, "public_key": key})
        return
    out.print(
        f"Wrote {file}: {_describe(counts)}. Signed by {key}: "
        "tell whoever imports it this key by another way than the file."
    )


def import_bundle(
    file: Annotated[Path, typer.Argument(help="Written by `vultus export-bundle`.")],
    signed_by: Annotated[
        str | None, typer.Option(help="Public key of who must have signed it; default: this installation.")
    ] = None,
    identity: IdentityOption = None,
    passphrase_file: PassphraseOption = None,
    name: Annotated[str | None, typer.Option(help="Of the collection here, if it is to be another one.")] = None,
    storage: Annotated[
        Storage | None,
        typer.Option(help="How templates lie in a collection that is created; by default as over there."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Add the persons of a bundle to a collection here.

    It is created if it is not here. Nobody who is here is changed, and nobody who was erased here comes back.
    """
    settings = load_settings()
    identities = open_identities(identity, passphrase_file)

    async def add() -> BundleReport:
        async with open_services(settings) as services:
            importer = BundleImporter(
                services.database,
                services.spaces,
                services.custody.keys,
                settings.ledger_file,
                has_liveness=bool(settings.inference.liveness),
            )
            done = 0
            with open_download_bar("Importing") as show_progress:

                def advance(count: int) -> None:
                    nonlocal done
                    done += count
                    show_progress(str(file), done, None)

                return await importer.import_bundle(
                    COMMAND_LINE,
                    file,
                    identities=identities,
                    signed_by=signed_by,
                    name=name,
                    storage=storage,
                    progress=advance,
                )

    report = run_command(add())
    counts = {field: getattr(report, field) for field in ("persons", "consents", "faces", "known", "erased", "lapsed")}
    if as_json:
        print_json({"collection_id": report.collection.id, "is_new": report.is_new, **counts})
        return
    what = "Created" if report.is_new else "Added to"
    out.print(
        f"{what} {report.collection.name} ({report.collection.id}): {_describe(report)}. Left out: {report.known} who "
        f"were there, {report.erased} erased here, {report.lapsed} whose consents have ended."
    )


def _describe(held: BundleCounts | BundleReport) -> str:
    things = {"person": held.persons, "consent": held.consents, "face": held.faces}
    return ", ".join(count_things(number, noun) for noun, number in things.items())
