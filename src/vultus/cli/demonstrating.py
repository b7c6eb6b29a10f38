"""`vultus demo`."""

from __future__ import annotations

from typing import Annotated

import typer

from vultus.cli.common import load_settings, run_command
from vultus.demo.show import run_demo


def run_tour(
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="TCP port; left out: the usual one, or any if it is taken.")
    ] = None,
    seconds: Annotated[
        float | None, typer.Option("--for", min=0, metavar="SECONDS", help="End by itself after the tour was shown.")
    ] = None,
    browser: Annotated[bool, typer.Option(help="Open the console, where there is a desktop.")] = True,
) -> None:
    """Show everything with drawn people; nothing of it stays."""
    run_command(run_demo(load_settings(), typer.echo, port=port, seconds=seconds, opens_browser=browser))
