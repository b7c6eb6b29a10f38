"""However a command ends, it says so in a sentence and with a documented code; nothing printed commands a terminal."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from tests.cli.test_commands import GRANT, Cli, cli
from tests.faces import portrait
from typer.testing import CliRunner

from vultus import __main__
from vultus.cli import keys
from vultus.cli.app import app
from vultus.cli.common import run_command
from vultus.cli.failures import EXIT_INTERRUPTED, build_ending
from vultus.db.database import Database
from vultus.errors import InvalidInputError, OverloadedError

__all__ = ["cli"]

VULTUS = (sys.executable, "-m", "vultus")


def fail_with(error: BaseException, monkeypatch: pytest.MonkeyPatch, *options: str) -> Any:
    """Run a command that raises an error."""

    def fail(command: Coroutine[Any, Any, Any]) -> None:
        command.close()
        raise error

    monkeypatch.setattr(keys, "run_command", fail)
    return CliRunner().invoke(app, [*options, "keys", "list"])


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (PermissionError(13, "Permission denied", "/photos"), 2),
        (IsADirectoryError(21, "Is a directory", "/photos"), 2),
        (FileExistsError(17, "File exists", "a", None, "b"), 2),
        (OSError(30, "Read-only file system", "/photos/x"), 2),
        (OSError(28, "No space left on device", "/photos/x"), 7),
        (OSError(28, "No space left on device"), 7),
        (OSError("strange"), 7),
        (MemoryError(), 7),
        (BrokenPipeError(32, "Broken pipe"), 141),
        (KeyboardInterrupt(), 130),
        (asyncio.CancelledError(), 130),
        (EOFError(), 130),
        (BaseExceptionGroup("", [ValueError("x"), OverloadedError("full")]), 6),
        (ValueError("x"), 70),
        (RecursionError("deep"), 70),
    ],
    ids=repr,
)
def test_no_error_leaves_the_documented_codes(error: BaseException, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = fail_with(error, monkeypatch)

    assert (ended.exit_code, ended.stdout) == (code, "")
    assert "Traceback" not in ended.stderr
    assert len(ended.stderr.splitlines()) == (0 if code == 141 else 1)


def test_a_traceback_is_printed_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = fail_with(ValueError("x"), monkeypatch, "--traceback")

    assert ended.exit_code == 70
    assert "Traceback" in ended.stderr


def test_errors_speak_of_options() -> None:
    ending = build_ending(InvalidInputError("set largest_face=true, or set allow_lookalike, or give external_id."))

    assert ending.detail == "use --largest-face, or use --allow-lookalike, or give --external-id."


@pytest.mark.parametrize("words", [["keys", "lst"], ["recognize"], ["keys", "create"], ["serve", "-x"]])
async def test_wrong_usage_is_json_too(words: list[str], cli: Cli) -> None:
    refused = await cli.json(*words, code=2)

    assert refused["error"]["code"] == "usage"
    assert "--help" in refused["error"]["detail"]


async def test_wrong_settings_are_json_too(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VULTUS_PHOTOS__MAX_PHOTOS", "none")

    assert "VULTUS_PHOTOS__MAX_PHOTOS" in (await cli.json("keys", "list", code=7))["error"]["detail"]


async def run_program(*words: str, shell: str = "", **options: Any) -> tuple[int | None, str]:
    """Return the exit code of a program and what it wrote to standard error."""
    command = ["bash", "-c", f'"$@" {shell}', "bash", *VULTUS, *words]
    program = await asyncio.create_subprocess_exec(
        *command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "COLUMNS": "40"}, **options
    )
    _, said = await program.communicate()
    return program.returncode, said.decode()


@pytest.mark.usefixtures("unmeasured_processes")
@pytest.mark.parametrize(
    ("words", "shell", "code"),
    [
        ("keys list", "| true; exit ${PIPESTATUS[0]}", 141),
        ("keys list", ">&-", 0),
        ("keys list", ">/dev/full", 7),
        ("recognize /nowhere.jpg --json", ">/dev/full", 2),
        ("recognize /nowhere.jpg", "2>/dev/full", 2),
        ("recognize /nowhere.jpg", "2>&-", 2),
        ("recognize -", "<&-", 2),
        ("persons erase nobody", "<&-", 2),
    ],
)
async def test_output_that_nobody_reads_is_no_defect(words: str, shell: str, code: int, cli: Cli) -> None:
    ended, said = await run_program(*words.split(), shell=shell)

    assert ended == code
    assert "Traceback" not in said
    assert "Exception ignored" not in said


@pytest.mark.usefixtures("unmeasured_processes")
async def test_a_terminal_of_another_charset_gets_escapes(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    await cli("keys", "create", "张伟", "--role", "admin")
    monkeypatch.setenv("PYTHONIOENCODING", "latin-1")

    table = await asyncio.to_thread(subprocess.run, [*VULTUS, "keys", "list"], capture_output=True)
    machine = await asyncio.to_thread(subprocess.run, [*VULTUS, "keys", "list", "--json"], capture_output=True)

    assert (table.returncode, rb"\u5f20\u4f1f" in table.stdout) == (0, True)
    assert json.loads(machine.stdout)[0]["name"] == "张伟"


@pytest.mark.usefixtures("unmeasured_processes")
async def test_an_interrupted_command_says_so(cli: Cli) -> None:
    program = await asyncio.create_subprocess_exec(
        *VULTUS, "import", str(cli.folder), *GRANT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    cli.photo("Ada/1.jpg", portrait())
    await asyncio.sleep(1.5)
    program.send_signal(signal.SIGINT)
    _, said = await program.communicate()

    # Python ends by the signal itself if it came within an `exec`, wherever it was handled; a shell says 130 for both.
    assert program.returncode in {0, EXIT_INTERRUPTED, -signal.SIGINT}
    assert b"Traceback" not in said


def test_a_second_signal_does_not_break_off_cleaning_up() -> None:
    cleaned = False

    async def work() -> None:
        nonlocal cleaned
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.sleep(10)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)  # as `timeout` sends it to a process and to its group
            await asyncio.sleep(0.05)
            cleaned = True

    with pytest.raises(asyncio.CancelledError):
        run_command(work())

    assert cleaned


def test_a_command_interrupted_while_it_is_imported_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("vultus.cli.app.main", Mock(side_effect=KeyboardInterrupt))
    monkeypatch.setattr(signal, "signal", Mock())

    with pytest.raises(SystemExit) as ended:
        __main__.main()

    assert ended.value.code == EXIT_INTERRUPTED
    assert "Stopped" in capsys.readouterr().err


async def test_what_was_stored_before_the_rule_is_printed_as_escapes(cli: Cli, database: Database) -> None:
    made = await cli.json("register", cli.photo("ada\x1b[31m.jpg", portrait()), "--name", "Ada", *GRANT)
    async with database.transaction() as work:
        collection = await work.collections.get_collection_by_name("default")
        await work.persons.update_person(
            collection.id, made["person"]["id"], name="a\x1b[31mRED\x1b]0;title\x07\x9b\u202egpj.exe"
        )
    photo = cli.photo("party\u202e.jpg", portrait(angle=6))

    table = (await cli("recognize", photo)).stdout
    machine = (await cli("recognize", photo, "--json")).stdout

    for said in (table, machine):
        assert not {"\x1b", "\x07", "\x9b", "\u202e"} & set(said)
    assert r"a\x1b[31mRED\x1b]0;title\x07\x9b\u202egpj.exe" in table
    assert r"party\u202e.jpg" in table
    assert json.loads(machine)["faces"][0]["person"]["name"].startswith("a\x1b[31mRED")


async def test_names_that_would_command_a_terminal_are_refused(cli: Cli) -> None:
    ada = cli.photo("ada.jpg", portrait())
    for name in ("a\x1b[31mRED", "a\x9b31m", os.fsdecode("José".encode("latin-1")), "", "  "):
        refused = await cli.json("register", ada, "--name", name, *GRANT, code=2)
        assert refused["error"]["code"] == "invalid_input"


@pytest.mark.parametrize(
    "wrong", [("--purpose", ""), ("--recorded-by", "  "), ("--expires", "9999-12-31"), ("--expires", "tomorrow")]
)
async def test_a_consent_that_the_api_refuses_is_refused(wrong: tuple[str, str], cli: Cli) -> None:
    await cli("register", cli.photo("ada.jpg", portrait()), "--name", "Ada", *GRANT, *wrong, code=2)


async def test_a_path_that_cannot_be_used_is_named(cli: Cli) -> None:
    folder = Path(cli.folder / "folder.jpg")
    folder.mkdir()

    for path in (str(folder), "/nowhere.jpg", "/nowhere/x.jpg"):
        refused = await cli.json("register", path, "--name", "Ada", *GRANT, code=2)
        assert (refused["error"]["code"], path in refused["error"]["detail"]) == ("file", True)
