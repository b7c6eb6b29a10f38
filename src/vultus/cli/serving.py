"""`vultus serve`."""

from __future__ import annotations

from typing import Annotated

import typer

from vultus import main
from vultus.cli.common import load_settings, open_download_bar, run_command


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="TCP port; 0 lets the system choose.")] = None,
) -> None:
    """Start PostgreSQL, if no database is configured, and the API."""
    given = {name: value for name, value in (("host", host), ("port", port)) if value is not None}
    settings = load_settings(quiet=False, server=given)
    with open_download_bar() as progress:
        run_command(main.serve_api(settings, _print_address, progress))


def _print_address(address: str, first_key: str | None) -> None:
    typer.echo(f"Vultus answers on {address}  (documentation: {address}/docs)")
    if first_key:
        typer.echo(f"\nAdministrator's API key, shown this once:\n\n    {first_key}\n")
