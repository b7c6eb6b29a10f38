"""Commands are imported when they are run."""

from __future__ import annotations

import subprocess
import sys

import pytest
import typer

from vultus.cli.app import COMMANDS, app

HEAVY = {
    *("asyncpg", "cv2", "faiss", "fastapi", "jinja2", "numpy", "onnxruntime", "pydantic", "scipy", "sqlalchemy"),
    "uvicorn",
}


@pytest.mark.parametrize("option", ["--version", "--help"])
def test_neither_version_nor_help_imports_what_a_command_needs(option: str) -> None:
    program = f"""
import sys
from vultus.cli.app import app
sys.argv = ["vultus", {option!r}]
try:
    app()
finally:
    print(*sorted(sys.modules), file=sys.stderr)
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)

    assert ended.returncode == 0
    assert HEAVY & set(ended.stderr.split()) == set()


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_of_commands_says_what_each_says_of_itself(name: str) -> None:
    group = typer.main.get_group(app)

    command = group.get_command(typer.Context(group), name)

    assert command is not None
    assert (command.name, command.get_short_help_str(200)) == (name, COMMANDS[name].help)
    _usage, _, text = command.get_help(typer.Context(command, info_name=name)).partition("\n")
    assert "..." not in text
