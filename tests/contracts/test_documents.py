"""The documents say everything there is: settings, operations, error codes, commands."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import typer
from pydantic import BaseModel

from tests.contracts.test_errors import tree
from tests.contracts.test_openapi import SCHEMA
from vultus.cli.app import app
from vultus.models.catalog.entries import Network
from vultus.models.catalog.packs import NETWORKS, PACKS, Pack
from vultus.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def variables(model: type[BaseModel] = Settings, prefix: str = "VULTUS_") -> Iterator[str]:
    for field, info in model.model_fields.items():
        name = prefix + field.upper()
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            yield from variables(info.annotation, name + "__")
        else:
            yield name


def commands() -> Iterator[str]:
    group = typer.main.get_command(app)
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        inner = getattr(command, "commands", None)
        yield from (f"vultus {name} {sub}" for sub in inner) if inner else (f"vultus {name}",)


@pytest.mark.parametrize("variable", list(variables()))
def test_every_setting_is_in_the_configuration_manual(variable: str) -> None:
    assert f"`{variable}`" in (DOCS / "configuration.md").read_text()


@pytest.mark.parametrize(
    "operation", [f"{method.upper()} {path}" for path, methods in SCHEMA["paths"].items() for method in methods]
)
def test_every_operation_is_in_the_api_manual(operation: str) -> None:
    assert f"`{operation}`" in (DOCS / "api.md").read_text()


@pytest.mark.parametrize("code", sorted({error.code for error in tree()} - {"error"}))
def test_every_error_code_is_in_the_api_manual(code: str) -> None:
    assert f"`{code}`" in (DOCS / "api.md").read_text()


@pytest.mark.parametrize("command", list(commands()))
def test_every_command_is_in_the_manual(command: str) -> None:
    assert f"`{command}" in (DOCS / "cli.md").read_text()


@pytest.mark.parametrize("row", [*NETWORKS.values(), *PACKS.values()], ids=lambda row: row.name)
def test_every_network_and_pack_is_in_the_models_manual(row: Network | Pack) -> None:
    if isinstance(row, Network):
        told = f"| `{row.name}` | {row.licence.name} | {'yes' if row.licence.commercial_use else 'no'} |"
    else:
        told = f"| `{row.name}` | {row.detector.name} + {row.embedder.name} | {'yes' if row.commercial_use else 'no'} |"

    assert told in (DOCS / "models.md").read_text()


def test_links_between_documents_lead_somewhere() -> None:
    pages = [ROOT / "README.md", ROOT / "CHANGELOG.md", *DOCS.rglob("*.md")]
    broken = [
        f"{page.relative_to(ROOT)}: {link}"
        for page in pages
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
        if not (page.parent / link).exists()
    ]

    assert broken == []
