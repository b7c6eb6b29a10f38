"""Opening the services for a command, with a warning of a pack that confuses people."""

from __future__ import annotations

import shutil
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from vultus import main
from vultus.cli.output import err
from vultus.models.catalog.packs import RECOMMENDED

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from vultus.services.wiring import Services
    from vultus.settings import Settings


@asynccontextmanager
async def open_services(settings: Settings) -> AsyncIterator[Services]:
    """Yield the services of `vultus.main`; `vultus serve` and `vultus doctor` warn in full."""
    async with main.open_services(settings) as services:
        if services.spaces.default.caution is not None:
            why = " (VULTUS_MODELS__OFFLINE is set)" if settings.models.offline else ""
            err.print_labelled(
                "Warning",
                "yellow",
                f": the built-in pack serves{why}, which confuses some people far more often than others; "
                f"run: {describe_remedy()}",
            )
        yield services


def describe_remedy() -> str:
    """Return the commands that fetch and choose the recommended pack, as this user has to type them."""
    program = name_program()
    return f"{program} models pull {RECOMMENDED.name} && {program} models use {RECOMMENDED.name}"


def name_program() -> str:
    """Return what starts this program: its name where the shell finds it, its path elsewhere."""
    path = Path(sys.argv[0])
    if path.name != "vultus" or shutil.which("vultus") == str(path):
        return "vultus"
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
