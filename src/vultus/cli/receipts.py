"""`vultus receipts`: signed receipts of erasures, and whether one stands."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from vultus.cli.common import COMMAND_LINE, JsonOption, load_settings, out, print_json, print_table, run_command
from vultus.cli.erasures import ErasureArgument
from vultus.main import open_database
from vultus.sealing.custody import open_custody
from vultus.sealing.signatures import encode_public_key, verify_document
from vultus.services.people.receipts import RECEIPT, ReceiptService

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from vultus.settings import Settings

app = typer.Typer(no_args_is_help=True)
Result = TypeVar("Result")


@app.command("show")
def show_receipt(erasure_id: ErasureArgument) -> None:
    """Print the receipt of an erasure as of now, for a file of its own."""
    sys.stdout.buffer.write(_call_service(lambda service: service.issue_receipt(COMMAND_LINE, erasure_id)))


@app.command("public-key")
def show_public_key() -> None:
    """Print the key that verifies this installation's receipts: give it to whoever gets one."""
    out.print(_call_service(lambda service: service.get_public_key(COMMAND_LINE)))


@app.command("verify")
def verify_receipt(
    file: Annotated[Path, typer.Argument(help="A receipt, byte for byte as it was given.")],
    public_key: Annotated[
        str | None, typer.Option(help="Of the installation that issued it; this one's unless given.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check a receipt, without a database; another byte anywhere is refused."""
    if public_key is None:
        public_key = encode_public_key(open_custody(load_settings()).keys.load().signing_key.public_key())
    found = verify_document(RECEIPT, file.read_bytes(), public_key=public_key)
    if as_json:
        print_json(found.content)
        return
    out.print(f"The receipt stands: the installation {found.installation_id} signed it.")
    rows = [(name.replace("_", " "), value) for name, value in found.content.items() if value not in (None, [])]
    print_table("Receipt", ("what", "value"), rows)


def _call_service(action: Callable[[ReceiptService], Awaitable[Result]]) -> Result:
    async def call(settings: Settings) -> Result:
        async with open_database(settings) as database:
            return await action(ReceiptService(database, open_custody(settings).keys, settings.ledger_file))

    return run_command(call(load_settings()))
