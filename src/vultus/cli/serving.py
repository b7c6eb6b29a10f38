"""`vultus serve`."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from vultus import main
from vultus.cli.common import load_settings, open_download_bar, run_command
from vultus.errors import SetupError
from vultus.utils.files import write_secret_file

FIRST_KEY_FILE = "administrator.key"
"""In the data directory: the first administrator's key, where there is no terminal to show it on."""


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="TCP port; 0 lets the system choose.")] = None,
) -> None:
    """Start the API, and PostgreSQL if none is set."""
    given = {name: value for name, value in (("host", host), ("port", port)) if value is not None}
    settings = load_settings(quiet=False, server=given)
    deliver_key = partial(_deliver_key, settings.data_dir / FIRST_KEY_FILE)
    with open_download_bar() as progress:
        run_command(main.serve_api(settings, _print_address, deliver_key, progress))


def _print_address(address: str) -> None:
    typer.echo(
        f"Vultus answers on {address}  (console: {address}/console, manual: {address}/manual, API: {address}/docs)"
    )


def _deliver_key(path: Path, secret: str) -> None:
    """Show the administrator's key on a terminal; elsewhere output ends in a log, so there it goes to a file."""
    if sys.stdout.isatty():
        typer.echo(f"\nAdministrator's API key, shown this once:\n\n    {secret}\n")
        return
    try:
        write_secret_file(path, secret)
    except OSError as error:
        raise SetupError(
            f"The administrator's API key cannot be written to {path}: {error.strerror}. Make the folder writable, or "
            "run `vultus keys create administrator --role admin` first."
        ) from error
    typer.echo(f"The administrator's API key is in {path}, which only its owner can read: move it to a safe place.")
