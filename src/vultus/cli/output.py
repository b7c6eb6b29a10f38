"""What commands print: lines, tables, progress and JSON. The one place where text reaches a terminal.

Names, ids and file names are untrusted, also those stored before there was a rule for them: every character that a
terminal would obey or hide is printed as an escape.
"""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table
from rich.text import Text

from vultus.utils import moments
from vultus.utils.characters import escape_json, escape_text

PIPE_WIDTH = 1000
"""A pipe has no width at which names or addresses would have to be broken."""


class TerminalConsole(Console):
    """Prints text without markup; what a terminal would obey or hide is escaped, and no line is broken in a pipe."""

    def __init__(self, *, stderr: bool = False) -> None:
        stream = sys.stderr if stderr else sys.stdout
        is_terminal = stream is not None and stream.isatty()
        super().__init__(stderr=stderr, markup=False, emoji=False, width=None if is_terminal else PIPE_WIDTH)

    def print(self, *objects: Any, **options: Any) -> None:
        """Print objects; strings are escaped."""
        if not self.is_terminal and all(isinstance(value, str | Text) for value in objects):
            options.setdefault("soft_wrap", True)
        escaped = [escape_text(value, line_breaks=True) if isinstance(value, str) else value for value in objects]
        super().print(*escaped, **options)

    def on_broken_pipe(self) -> None:
        """Let the error end the command in the one place where errors do; Rich would exit with 1."""
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))

    def print_labelled(self, label: str, style: str, text: str) -> None:
        """Print a coloured label and a text."""
        parts = (escape_text(label), style), escape_text(text, line_breaks=True)
        self.print(Text.assemble(*parts), highlight=False, soft_wrap=True)


out = TerminalConsole()
err = TerminalConsole(stderr=True)


def print_json(value: Any, *, indent: int | None = 2) -> None:
    """Write JSON to standard output, nothing else; times as the API writes them, on one line without an indent."""
    is_unicode = (sys.stdout.encoding or "utf-8").lower().startswith("utf")
    document = json.dumps(value, indent=indent, ensure_ascii=not is_unicode, default=_format_for_json)
    sys.stdout.write(escape_json(document) + "\n")


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table."""
    table = Table(title=Text(escape_text(title)), title_justify="left", header_style="bold")
    for column in columns:
        table.add_column(escape_text(column), overflow="fold", no_wrap=column == "id")
    for row in rows:
        table.add_row(*(escape_text(_format_cell(cell)) for cell in row))
    out.print(table)


def format_moment(moment: datetime | None) -> str | None:
    """Return a moment as the API writes it: `2030-01-01T00:00:00Z`."""
    return None if moment is None else moments.format_moment(moment, "seconds")


@contextmanager
def open_download_bar(verb: str = "Downloading") -> Iterator[Callable[[str, int, int | None], None]]:
    """Yield a function that shows the progress of downloads, given a name, the bytes received and the total bytes.

    The bar appears with the first call and disappears with the last byte. Outside a terminal a file has one line.

    Args:
        verb: What is done with the bytes, for that line.
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

    def announce_download(name: str, _received: int, _total: int | None) -> None:
        if name not in tasks:
            tasks[name] = TaskID(len(tasks))
            err.print(f"{verb} {name}")

    try:
        yield show_progress if err.is_terminal else announce_download
    finally:
        if bar.live.is_started:  # stopped anew it would print a line
            bar.stop()


def open_progress_bar(*, show: bool = True) -> Progress:
    """Return a bar of things done on standard error; it shows nothing outside a terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=err, disable=not (show and err.is_terminal))


def _format_cell(value: object) -> str:
    if isinstance(value, datetime):
        return format_moment(value) or ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_format_cell(part)}" for name, part in value.items())
    if isinstance(value, list):
        return "; ".join(map(_format_cell, value))
    return "" if value is None else str(value)


def _format_for_json(value: object) -> str:
    return format_moment(value) or "" if isinstance(value, datetime) else str(value)
