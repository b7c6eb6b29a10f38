"""What the commands share: settings, readable errors, tables and JSON."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

import typer
import uvloop
from pydantic import ValidationError
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TransferSpeedColumn
from rich.table import Table
from rich.text import Text

from vultus.domain import Principal
from vultus.errors import ErrorKind, VultusError
from vultus.services.photo_analysis import Photo
from vultus.settings import Settings, describe_mistakes
from vultus.utils import logging as logs

log = logging.getLogger(__name__)

# Output may contain untrusted text: its brackets and colons are not markup. A pipe has no width at which names would
# have to be broken.
out = Console(markup=False, emoji=False, width=None if sys.stdout.isatty() else 1000)
err = Console(stderr=True, markup=False, emoji=False)

COMMAND_LINE = Principal.from_process("cli")
"""The principal of every command."""

EXIT_CODES = {
    ErrorKind.MALFORMED: 2,
    ErrorKind.INVALID: 2,
    ErrorKind.UNSUPPORTED: 2,
    ErrorKind.TOO_LARGE: 2,
    ErrorKind.MISMATCH: 2,
    ErrorKind.NOT_FOUND: 3,
    ErrorKind.CONFLICT: 4,
    ErrorKind.UNAUTHENTICATED: 5,
    ErrorKind.FORBIDDEN: 5,
    ErrorKind.TIMEOUT: 6,
    ErrorKind.OVERLOADED: 6,
    ErrorKind.UNAVAILABLE: 6,
    ErrorKind.SETUP: 7,
    ErrorKind.INTERNAL: 70,
}

EXIT_INTERRUPTED = 130

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
CollectionOption = Annotated[str, typer.Option("--collection", "-c", help="Id or name.")]

Result = TypeVar("Result")


def load_settings(*, quiet: bool = True, **overrides: Any) -> Settings:
    """Read the settings from environment and configuration file, and set up logging.

    Args:
        quiet: Log warnings only, so that a command's own output stays readable.
        overrides: Fields by section that options of the command set; they take precedence over the environment.
    """
    try:
        settings = Settings(**overrides)
    except VultusError as error:
        exit_with_error(error)
    except ValidationError as error:
        mistakes = describe_mistakes(error, overrides)
        for name, mistake in mistakes:
            err.print(Text.assemble((name, "red"), f": {mistake}"), highlight=False, soft_wrap=True)
        is_option = all(name.startswith("--") for name, _ in mistakes)
        raise typer.Exit(EXIT_CODES[ErrorKind.INVALID if is_option else ErrorKind.SETUP]) from None
    logs.configure_logging(
        "WARNING" if quiet and settings.log.level != "DEBUG" else settings.log.level, settings.log.format
    )
    for caution in settings.cautions:
        log.warning("%s", caution)
    return settings


def run_command(command: Coroutine[Any, Any, Result], *, as_json: bool = False) -> Result:
    """Run a command; an error becomes one readable line and an exit code, SIGTERM a graceful stop like Ctrl-C."""

    async def run_cancellable() -> Result:
        task = asyncio.current_task()
        if threading.current_thread() is threading.main_thread() and task is not None:
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await command

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(run_cancellable())
    except VultusError as error:
        exit_with_error(error, as_json=as_json)
    except BaseExceptionGroup as group:
        if isinstance(group.exceptions[0], VultusError):
            exit_with_error(group.exceptions[0], as_json=as_json)
        raise
    except (KeyboardInterrupt, asyncio.CancelledError):
        err.print("Stopped. An import goes on where it stopped when it is run again.")
        raise typer.Exit(EXIT_INTERRUPTED) from None


def exit_with_error(error: VultusError, *, as_json: bool = False) -> NoReturn:
    """Print the error and exit with the code of its kind."""
    if as_json:
        print_json({"error": {"code": error.code, "title": error.title, "detail": error.detail, **error.facts}})
    err.print(Text.assemble((error.title, "red"), f" ({error.code}): {error.detail}"), highlight=False)
    raise typer.Exit(EXIT_CODES[error.kind])


@contextmanager
def open_download_bar() -> Iterator[Callable[[str, int, int | None], None]]:
    """Yield a function that shows the progress of downloads, given a name, the bytes received and the total bytes.

    The bar appears with the first call and disappears with the last byte.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    bar = Progress(*columns, console=err, transient=True)
    tasks: dict[str, TaskID] = {}

    def show_progress(name: str, received: int, total: int | None) -> None:
        if not bar.live.is_started:
            bar.start()
        if name not in tasks:
            tasks[name] = bar.add_task(name)
        bar.update(tasks[name], completed=received, total=total)
        if received == total:
            bar.stop()  # a log line would break it
            bar.remove_task(tasks.pop(name))

    try:
        yield show_progress
    finally:
        bar.stop()


def print_json(value: Any) -> None:
    """Write JSON to standard output, nothing else."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n")


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table."""
    table = Table(title=title, title_justify="left", header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column == "id")
    for row in rows:
        table.add_row(*(_format_cell(cell) for cell in row))
    out.print(table)


def _format_cell(value: object) -> str:
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M")
    return "" if value is None else str(value)


def read_photo(path: Path) -> Photo:
    """Read a photo from a file."""
    return Photo(path.read_bytes(), path.name)
