"""What the commands share: settings, an event loop, options and what they print."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import threading
from collections.abc import Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, TypeVar
from uuid import UUID

import typer
import uvloop
from pydantic import ValidationError

from vultus.cli.output import err, open_download_bar, open_progress_bar, out, print_json, print_table
from vultus.domain import PersonReference, Principal
from vultus.domain.texts import normalize_moment, require_text
from vultus.errors import ImageTooLargeError, InvalidInputError, SetupError
from vultus.services.photo_analysis import Photo
from vultus.settings import Settings, describe_mistakes
from vultus.utils import logging as logs
from vultus.utils.processes import list_end_signals

__all__ = ["err", "open_download_bar", "open_progress_bar", "out", "print_json", "print_table"]

log = logging.getLogger(__name__)

STANDARD_INPUT = Path("-")
EXTERNAL_ID_PREFIX = "external_id:"
COMMAND_LINE = Principal.from_process("cli")
"""The principal of every command."""

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
CollectionOption = Annotated[str, typer.Option("--collection", "-c", help="Id or name.")]
Purpose = Annotated[str, typer.Option(help="What the person agreed to.")]
RecordedBy = Annotated[str, typer.Option(help="Who took the agreement.")]
PersonArgument = Annotated[
    str, typer.Argument(metavar="PERSON", help="Id, or your own id; external_id:ID where yours looks like an id.")
]
Evidence = Annotated[str | None, typer.Option(help="Where the proof of consent is kept.")]


def parse_moment(text: str) -> datetime:
    """Return a date or moment as people and the API write it; without a time zone it is UTC.

    Raises:
        typer.BadParameter: It is none, or too far away.
    """
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        raise typer.BadParameter(
            f"'{text}' is no date; write 2030-01-01, 2030-01-01T00:00:00Z or 2030-01-01T00:00:00+01:00"
        ) from None
    try:
        return normalize_moment(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
    except ValueError as error:
        raise typer.BadParameter(f"{text} {error}") from None


Expires = Annotated[
    datetime | None,
    typer.Option(
        parser=parse_moment, metavar="DATE", help="In UTC unless it says otherwise; left out: until withdrawn."
    ),
]

Result = TypeVar("Result")


def load_settings(*, quiet: bool = True, **overrides: Any) -> Settings:
    """Read the settings from environment and configuration file, and set up logging.

    Args:
        quiet: Log warnings only, so that a command's own output stays readable.
        overrides: Fields by section that options of the command set; they take precedence over the environment.
    """
    try:
        settings = Settings(**overrides)
    except ValidationError as error:
        mistakes = describe_mistakes(error, overrides)
        is_option = all(name.startswith("--") for name, _ in mistakes)
        raise (InvalidInputError if is_option else SetupError)(
            "\n".join(f"{name}: {mistake}" for name, mistake in mistakes)
        ) from None
    logs.configure_logging(
        "WARNING" if quiet and settings.log.level != "DEBUG" else settings.log.level, settings.log.format
    )
    for caution in settings.cautions:
        log.warning("%s", caution)
    return settings


def run_command(command: Coroutine[Any, Any, Result]) -> Result:
    """Run a command in an event loop; SIGTERM and SIGHUP are a graceful stop like Ctrl-C."""

    async def run_cancellable() -> Result:
        task = asyncio.current_task()

        def stop() -> None:
            if task and not task.cancelling():  # a second signal would break off what the first one has to clean up
                task.cancel()

        if threading.current_thread() is threading.main_thread():
            for number in list_end_signals():
                asyncio.get_running_loop().add_signal_handler(number, stop)
        return await command

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(run_cancellable())


def read_photo(path: Path, settings: Settings) -> Photo:
    """Read a photo from a file that was named, or from standard input for `-`; no more of it than a photo may have.

    Raises:
        OSError: It cannot be read.
        InvalidInputError: Standard input is closed.
        ImageTooLargeError: It is larger than a photo may be.
    """
    limit = settings.photos.max_bytes
    if path == STANDARD_INPUT:
        if sys.stdin is None:
            raise InvalidInputError("Standard input is closed: send a photo to it, or name a file.")
        content, name = sys.stdin.buffer.read(limit + 1), "standard input"
    else:
        with path.open("rb") as stream:
            content, name = stream.read(limit + 1), path.name
    if len(content) > limit:
        raise ImageTooLargeError(f"{name} has more than {limit:,} bytes, the limit.")
    return Photo(content, name)


def parse_person(text: str) -> PersonReference:
    """Return the person that was typed: an id, or your own id, with or without `external_id:` before it."""
    with contextlib.suppress(ValueError):
        return UUID(text.strip())
    return require_text("PERSON", text.removeprefix(EXTERNAL_ID_PREFIX))
