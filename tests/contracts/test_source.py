"""Rules of the source that no linter holds: sizes, one commit, no registry, no machine's path."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
MAX_FILE_LINES = 400
PICTURES = ROOT / "docs" / "pictures"
MAX_PICTURES_BYTES = 1_500_000
MAX_FUNCTION_LINES = 60


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def tracked() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [path for line in listed.stdout.splitlines() if (path := ROOT / line).is_file()]


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_files_and_functions_stay_short(path: Path) -> None:
    text = path.read_text()
    long = [
        f"{node.name}: {node.end_lineno - node.lineno + 1} lines"
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno + 1 > MAX_FUNCTION_LINES
    ]

    assert text.count("\n") <= MAX_FILE_LINES
    assert long == []


def test_only_the_unit_of_work_begins_and_commits() -> None:
    calls = {
        (name(path), node.func.attr)
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in {"begin", "commit"}
    }

    assert calls == {("src/vultus/db/database.py", "begin"), ("src/vultus/db/migrate.py", "begin")}


def find_code_words(tree: ast.AST) -> list[tuple[int, str]]:
    """Line and text of names, attributes and strings; docstrings are none of them."""
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
            found.append((node.lineno, node.value))
        elif isinstance(node, ast.Attribute | ast.Name):
            found.append((node.lineno, node.attr if isinstance(node, ast.Attribute) else node.id))
    return found


def test_only_the_template_store_touches_embeddings() -> None:
    """Neither the column nor pgvector's operators nor the wire format; docstrings may speak of embedding spaces."""
    others = re.compile(r"src/vultus/db/(?!templates/|migrations/|tables\.py|types\.py|copying\.py)")
    touching = re.compile(r"\b(embedding|convert_to_vectors|encode_vectors)\b|<=>|<#>|<->")
    found = [
        f"{name(path)}:{line}"
        for path in SOURCES
        if others.match(name(path))
        for line, words in find_code_words(ast.parse(path.read_text()))
        if touching.search(words)
    ]

    assert found == []


def test_no_file_names_a_registry_or_a_machine() -> None:
    forbidden = re.compile(
        r"py(?:pi\.org|thonhosted)|registr[y]\.npmjs|--index-ur[l] https?:|--find-link[s]|/home/\w+/|/root/\w"
    )
    found = []
    for path in tracked():
        if path.suffix in {".png", ".ico", ".webp"}:
            continue
        found += [
            f"{name(path)}:{at}" for at, line in enumerate(path.read_text().splitlines(), 1) if forbidden.search(line)
        ]

    assert found == []


def test_no_photo_and_no_weights_are_tracked() -> None:
    """But the pictures of the documentation, which `tools/pictures.py` takes of people who are drawn."""
    pictures = re.compile(r"\.(jpe?g|webp|bmp|gif|heic|onnx|pth?|h5|dat|np[yz]|bin)$", re.IGNORECASE)

    found = [path for path in tracked() if pictures.search(path.name)]

    assert [name(path) for path in found if path.parent != PICTURES] == []
    assert sum(path.stat().st_size for path in found) <= MAX_PICTURES_BYTES
