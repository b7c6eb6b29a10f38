"""How a command ends: every failure becomes one readable sentence and a documented exit code, in this one place."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import re
import sys
import traceback
from typing import Any, NamedTuple

import typer
from typer._click.exceptions import ClickException, NoArgsIsHelpError

from vultus.cli.output import err, print_json
from vultus.errors import ErrorKind, NoPhotoAcceptedError, VultusError

EXIT_CODES = {
    ErrorKind.MALFORMED: 2,
    ErrorKind.INVALID: 2,
    ErrorKind.UNSUPPORTED: 2,
    ErrorKind.TOO_LARGE: 2,
    ErrorKind.MISMATCH: 2,
    ErrorKind.NOT_FOUND: 3,
    ErrorKind.GONE: 3,
    ErrorKind.CONFLICT: 4,
    ErrorKind.UNAUTHENTICATED: 5,
    ErrorKind.FORBIDDEN: 5,
    ErrorKind.LIMITED: 6,
    ErrorKind.TIMEOUT: 6,
    ErrorKind.OVERLOADED: 6,
    ErrorKind.UNAVAILABLE: 6,
    ErrorKind.SETUP: 7,
    ErrorKind.INTERNAL: 70,
}

EXIT_FOUND = 1
"""A check found something, or not everything could be done; what was said tells which."""

EXIT_USAGE = EXIT_CODES[ErrorKind.INVALID]
EXIT_SETUP = EXIT_CODES[ErrorKind.SETUP]
EXIT_DEFECT = EXIT_CODES[ErrorKind.INTERNAL]
EXIT_INTERRUPTED = 130
EXIT_READER_GONE = 141
"""128 + SIGPIPE, as of a program that does not handle the signal."""

# Reasons of the operating system that lie in the machine; any other one that names a file lies in what was typed.
_MACHINE_ERRORS = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EIO,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOMEM,
    errno.EAGAIN,
    errno.EADDRINUSE,
    errno.EADDRNOTAVAIL,
}

_OPTION_WORDS = re.compile(
    r"\b(?:largest_face=true|(allow_lookalike|largest_face|leave_behind|external_id|recorded_by|expires_at|"
    r"evidence_ref|unique_per_image))\b"
)
_OPTIONS = {"expires_at": "--expires", "evidence_ref": "--evidence", "unique_per_image": "--unique"}


_FRAMEWORK_WORDS = re.compile(r"Input should be (a valid UUID|[^,;]+)(?:, invalid .*)?")
"""What the option parser says of a wrong value; it ends in where its own parser stopped."""


class Ending(NamedTuple):
    """How a command ends: its code, and for a failure what is said of it."""

    exit_code: int
    code: str = ""
    title: str = ""
    detail: str = ""
    facts: dict[str, Any] = {}  # noqa: RUF012  never changed

    def describe(self) -> dict[str, Any]:
        """Return what is said of a failure, as JSON has it."""
        return {"code": self.code, "title": self.title, "detail": self.detail, **self.facts}


def report_failure(error: BaseException, *, as_json: bool, with_trace: bool) -> int:
    """Say what went wrong and return the exit code.

    Args:
        error: What a command raised.
        as_json: Whether standard output gets the error as JSON.
        with_trace: Whether to print the traceback too.
    """
    if isinstance(error, NoArgsIsHelpError):
        error.show()
        return EXIT_USAGE
    ending = build_ending(_unwrap_group(error))
    if ending.exit_code == EXIT_READER_GONE:
        return ending.exit_code
    with contextlib.suppress(OSError):  # standard error is closed or full: the code alone has to say it
        if with_trace:
            err.print("".join(traceback.format_exception(error)))
        err.print_labelled(ending.title, "red", f" ({ending.code}): {ending.detail}")
    if as_json:
        with contextlib.suppress(OSError):
            print_json({"error": ending.describe()}, indent=None)  # a line of its own after lines
            sys.stdout.flush()
    return ending.exit_code


def build_ending(error: BaseException) -> Ending:
    """Return how a command ends that raised an error."""
    match error:
        case VultusError():
            ending = Ending(EXIT_CODES[error.kind], error.code, error.title, describe_error(error), error.facts)
        case ClickException():
            ending = Ending(EXIT_USAGE, "usage", "Cannot be run so", _describe_usage(error))
        case KeyboardInterrupt() | asyncio.CancelledError() | typer.Abort() | EOFError():
            ending = Ending(EXIT_INTERRUPTED, "interrupted", "Stopped", "Run it again to go on.")
        case BrokenPipeError():
            ending = Ending(EXIT_READER_GONE)
        case OSError():
            ending = _build_system_ending(error)
        case MemoryError():
            ending = Ending(EXIT_SETUP, "memory", "Out of memory", "This machine has too little free memory for it.")
        case _:
            detail = f"{type(error).__name__}: {error}. Please report it with what `vultus --traceback …` prints."
            ending = Ending(EXIT_DEFECT, "defect", "A defect of Vultus", detail)
    return ending


def describe_error(error: VultusError) -> str:
    """Return an error's detail in the command line's words: options and file names instead of the API's fields."""
    if isinstance(error, NoPhotoAcceptedError):
        return "No photo could be enrolled, so nothing was stored: " + "; ".join(
            f"{photo['filename'] or 'photo'}: {use_option_words(photo['detail'])}" for photo in error.facts["rejected"]
        )
    return use_option_words(error.detail)


def use_option_words(detail: str) -> str:
    """Return a sentence with the options of commands instead of the API's fields."""

    def get_option(found: re.Match[str]) -> str:
        field = found.group(1) or "largest_face"
        return _OPTIONS.get(field, f"--{field.replace('_', '-')}")

    return re.sub(r"\bset (--)", r"use \1", _OPTION_WORDS.sub(get_option, detail))


def _build_system_ending(error: OSError) -> Ending:
    reason = error.strerror or str(error) or type(error).__name__
    names = " → ".join(os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, str | bytes))
    if names and error.errno not in _MACHINE_ERRORS:
        return Ending(EXIT_USAGE, "file", "File cannot be used", f"{names}: {reason}.")
    detail = f"{names}: {reason}." if names else f"{reason}."
    return Ending(EXIT_SETUP, "system", "The machine refused", detail)


def _describe_usage(error: ClickException) -> str:
    context = getattr(error, "ctx", None)
    hint = f" See {context.command_path} --help." if context is not None else ""
    message = _FRAMEWORK_WORDS.sub(r"must be \1", error.format_message().replace("Value error, ", ""))
    return f"{message.rstrip('.')}.{hint}"


def _unwrap_group(error: BaseException) -> BaseException:
    """Return the error that decides of a group: one that says what to do, else the first."""
    while isinstance(error, BaseExceptionGroup):
        error = next((inner for inner in error.exceptions if isinstance(inner, VultusError)), error.exceptions[0])
    return error
