"""The documents are complete: settings, operations, error codes, commands."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import typer
from hatch_build import CONFIG, ROOT_PAGES
from pydantic import BaseModel

from tests.contracts.test_errors import tree
from tests.contracts.test_openapi import SCHEMA
from vultus.cli.app import app
from vultus.models.catalog.packs import NETWORKS, PACKS
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
    group = typer.main.get_group(app)
    context = typer.Context(group)
    for name in group.list_commands(context):
        inner = getattr(group.get_command(context, name), "commands", None)
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


def test_every_command_of_the_manual_exists() -> None:
    named = set(re.findall(r"^\| `vultus ([a-z-]+)", (DOCS / "cli.md").read_text(), re.MULTILINE))

    assert named == {command.split()[1] for command in commands()}


@pytest.mark.parametrize("name", [*NETWORKS, *PACKS])
def test_every_network_and_pack_is_in_the_models_manual(name: str) -> None:
    assert f"\n| `{name}` |" in (DOCS / "models.md").read_text()


def test_what_the_threat_model_names_is_tested_and_measured() -> None:
    files = list((ROOT / "tests").rglob("test_*.py"))
    tests = {name for file in files for name in re.findall(r"def test_(\w+)", file.read_text())}
    figures = re.findall(r"^\| (F\d+) \|", (DOCS / "trust.md").read_text(), re.MULTILINE)
    page = (DOCS / "threat-model.md").read_text()

    assert set(re.findall(r"`([a-z0-9]+(?:_[a-z0-9]+)+)`", page)) <= tests | {file.stem[5:] for file in files}
    assert set(re.findall(r"\bF\d+\b", page)) <= set(figures)


def test_decisions_are_numbered_and_listed_in_order() -> None:
    pages = sorted(path.name for path in (ROOT / "docs/decisions").glob("0*.md"))
    index = (ROOT / "docs/decisions/README.md").read_text()
    listed = re.findall(r"^\| (\d+) \| \[.+?\]\((.+?)\)", index, re.MULTILINE)

    assert [int(page[:4]) for page in pages] == list(range(1, len(pages) + 1))
    assert [page for _, page in listed] == pages
    assert [int(number) for number, _ in listed] == list(range(1, len(pages) + 1))


def test_links_between_documents_resolve() -> None:
    pages = [ROOT / "README.md", ROOT / "CHANGELOG.md", *DOCS.rglob("*.md")]
    broken = [
        f"{page.relative_to(ROOT)}: {link}"
        for page in pages
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
        if not (page.parent / link).exists()
    ]

    assert broken == []


def read_navigation(entry: Any) -> Iterator[str]:
    """Yield the pages that an entry of the manual's navigation names."""
    if isinstance(entry, str):
        yield from (path.relative_to(DOCS).as_posix() for path in DOCS.glob(entry)) if "*" in entry else (entry,)
    else:
        for inner in entry.values() if isinstance(entry, dict) else entry:
            yield from read_navigation(inner)


def test_every_page_is_in_the_navigation_of_the_manual_once() -> None:
    config = tomllib.loads((DOCS / CONFIG).read_text())["project"]
    pages = [path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")]

    assert sorted(read_navigation(config["nav"])) == sorted([*pages, *ROOT_PAGES.values()])


def drawn_floors() -> list[list[set[str]]]:
    """Return, for every drawing of floors in the architecture, the names on each floor, the highest first."""
    drawings = []
    for drawing in re.findall(r"```mermaid\nflowchart TD\n(.*?)```", (DOCS / "architecture.md").read_text(), re.DOTALL):
        labels = {node: label.partition("<br/>")[0] for node, label in re.findall(r'(\w+)\["([^"]+)"\]', drawing)}
        arrows = re.findall(r'(\w+)(?:\["[^"]+"\])? --> (\w+)', drawing)
        floor = dict.fromkeys(labels, 0)
        for _ in labels:  # as many rounds as the longest path may have arrows
            floor |= {below: max(floor[below], floor[above] + 1) for above, below in arrows}
        names = {node: set(re.split(r" [|:] ", label)) for node, label in labels.items()}
        floors: list[set[str]] = [set() for _ in range(max(floor.values()) + 1)]
        for node, level in floor.items():
            floors[level] |= names[node]
        drawings.append(floors)
    return drawings


def test_the_architecture_draws_the_layers_that_are_held() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    held = [
        [set(re.split(r" [|:] ", layer.strip("()"))) for layer in contract["layers"]]
        for contract in contracts
        if contract["type"] == "layers"
    ]

    assert len(held) == 3
    assert drawn_floors() == held
