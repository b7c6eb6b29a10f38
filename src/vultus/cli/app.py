"""`vultus`: its commands, imported when they are run, and how it ends."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, NoReturn

import typer
from typer.core import TyperGroup

from vultus import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typer._click import Command, Context, HelpFormatter


class CommandSource(NamedTuple):
    """Where a command or a group of commands is defined, and its line in the list of commands."""

    module: str
    attribute: str
    help: str


COMMANDS = {
    "serve": CommandSource("serving", "serve", "Start the API, and PostgreSQL if none is set."),
    "demo": CommandSource("demonstrating", "run_tour", "Show everything with drawn people; nothing of it stays."),
    "register": CommandSource("people", "register", "Register a person from photos, with their consent."),
    "recognize": CommandSource("people", "recognize", "Recognise the people in photos."),
    "watch": CommandSource("watching", "watch", "Watch a camera or a video, and print one line per sighting."),
    "verify": CommandSource("verifying", "verify", "Say whether a photo shows a person; exit code 1 if not."),
    "compare": CommandSource("verifying", "compare", "Say whether two photos show one person; exit code 1 if not."),
    "import": CommandSource("importing", "import_folder", "Register everybody in a folder of folders."),
    "import-vectors": CommandSource("vectors", "import_vectors", "Register persons from vectors made elsewhere."),
    "persons": CommandSource("officers", "persons", "List, show, export and erase persons."),
    "consents": CommandSource("officers", "consents", "List and withdraw consents."),
    "collections": CommandSource("galleries", "app", "Create, list, show and delete collections."),
    "export-bundle": CommandSource("bundles", "export_collection", "Write a collection to a signed file."),
    "import-bundle": CommandSource("bundles", "import_bundle", "Add the persons of a bundle to a collection here."),
    "audit": CommandSource("auditing", "app", "List who changed what and when, and check that list."),
    "sweep": CommandSource("officers", "sweep_expired", "Erase what rests on expired consents."),
    "erasures": CommandSource("erasures", "app", "List what was erased, and how far its bytes are gone."),
    "receipts": CommandSource("receipts", "app", "Signed receipts of erasures, and whether one stands."),
    "scrub": CommandSource("erasures", "scrub", "Rewrite the files that hold bytes of what was erased."),
    "calibrate": CommandSource("calibrating", "calibrate", "Measure a collection, and propose a threshold."),
    "search-by": CommandSource("searching", "search_by", "Set how a collection is searched."),
    "doctor": CommandSource("doctor", "check_installation", "Check this installation, and name remedies."),
    "health": CommandSource(
        "health", "check_health", "Ask the running server whether it can serve requests; exit code 1 if not."
    ),
    "evaluate": CommandSource("packs", "evaluation", "Measure accuracy on a data set of yours."),
    "models": CommandSource("models", "app", "Networks: licences, weights, and which are used."),
    "transition": CommandSource("migration", "app", "Migrate a collection to another network."),
    "db": CommandSource("database", "app", "The database and its schema."),
    "keys": CommandSource("keys", "app", "API keys."),
    "key-ring": CommandSource("key_ring", "app", "The keys that seal what is in the database."),
    "backup": CommandSource("backups", "write_backup_file", "Write the database to an encrypted file."),
    "restore": CommandSource("backups", "restore_backup_file", "Restore a backup into an empty database."),
    "verify-backup": CommandSource("backups", "verify_backup_file", "Restore a backup into a temporary database."),
    "backup-identity": CommandSource("backups", "make_backup_identity", "Make the secret key that opens backups."),
}
"""In the order they are listed."""


class BrokenOffError(Exception):
    """Carries an error past Typer, which would end the program with a code of its own."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error


class LazyCommandGroup(TyperGroup):
    """Imports a command's module when the command is run, and ends the program with a documented code.

    Networks, database driver and server take seconds to import; `--version` and `--help` need none of them.
    """

    def main(self, args: Sequence[str] | None = None, *_: Any, **extra: Any) -> NoReturn:
        """Run the command line; whatever goes wrong is said by `vultus.cli.failures`."""
        words = list(sys.argv[1:] if args is None else args)
        try:
            result = super().main(words, **{**extra, "standalone_mode": False})
            code = result if isinstance(result, int) else 0
            sys.stdout.flush()
        except SystemExit:
            raise
        except BaseException as error:  # noqa: BLE001  the one place where a command's errors end
            code = _report_failure(error.error if isinstance(error, BrokenOffError) else error, words)
        sys.exit(code)

    def invoke(self, ctx: Context) -> Any:
        """Run the command that was asked for."""
        try:
            return super().invoke(ctx)
        except (KeyboardInterrupt, EOFError, OSError) as error:
            raise BrokenOffError(error) from error

    def list_commands(self, ctx: Context) -> list[str]:
        """Return the names of the commands."""
        return list(COMMANDS)

    def get_command(self, ctx: Context, cmd_name: str) -> Command | None:
        """Import a command; None if there is none of this name."""
        if (source := COMMANDS.get(cmd_name)) is None:
            return None
        found = getattr(import_module(f"vultus.cli.{source.module}"), source.attribute)
        command: Command | TyperGroup
        if isinstance(found, typer.Typer):
            found.info.help = source.help
            found.rich_markup_mode = None
            command = typer.main.get_group(found)
            for one in command.commands.values():
                one.short_help = one.get_short_help_str(limit=200)  # its whole sentence, which would be cut
        else:
            single = typer.Typer(add_completion=False, rich_markup_mode=None)
            single.command(cmd_name)(found)
            command = typer.main.get_command(single)
        command.name = cmd_name
        return command

    def format_commands(self, ctx: Context, formatter: HelpFormatter) -> None:
        """Write the list of commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, source.help) for name, source in COMMANDS.items()])


app = typer.Typer(
    name="vultus",
    cls=LazyCommandGroup,
    help="Register people with consent, recognise them, forget them completely.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _print_version(is_requested: bool) -> None:
    if is_requested:
        typer.echo(f"vultus {__version__}")
        raise typer.Exit


@app.callback()
def _parse_global_options(
    _: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
    __: Annotated[bool, typer.Option("--traceback", help="Print where in the program an error arose.")] = False,
) -> None: ...


def main() -> None:
    """Run the command line."""
    _open_missing_streams()
    app()


def _report_failure(error: BaseException, words: list[str]) -> int:
    """Say what went wrong, as JSON where it was asked for, and return the exit code."""
    report = import_module("vultus.cli.failures").report_failure
    code: int = report(error, as_json="--json" in words, with_trace="--traceback" in words)
    _discard_output()
    return code


def _open_missing_streams() -> None:
    """Open what was closed of standard input, output and error: no file opened later may become one of them."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115
        else:
            stream.reconfigure(errors="backslashreplace")  # a terminal of another charset


def _discard_output() -> None:
    """Send nowhere what standard output still holds, so that Python does not fail with it at its end."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):  # it is no file
        return
