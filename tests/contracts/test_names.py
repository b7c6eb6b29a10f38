"""The field's words: names of functions and classes, and words that are not used any more (docs/glossary.md)."""

from __future__ import annotations

import ast
import re
import tokenize
from collections import defaultdict
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "src" / "vultus").rglob("*.py"))
CODE = [path for folder in ("src", "tests", "benchmarks", "chaos") for path in sorted((ROOT / folder).rglob("*.py"))]
HISTORY = ROOT / "src" / "vultus" / "db" / "migrations" / "versions"
"""Migrations stay as they were released."""

DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]

MAX_ONE_WORD_SHARE = 0.40
MIN_VERB_SHARE = 0.45

COMMON_VERBS = frozenset(
    [
        "add",
        "apply",
        "build",
        "calculate",
        "check",
        "close",
        "compute",
        "convert",
        "count",
        "create",
        "delete",
        "ensure",
        "fetch",
        "find",
        "format",
        "from",
        "get",
        "handle",
        "has",
        "init",
        "is",
        "list",
        "load",
        "make",
        "open",
        "parse",
        "print",
        "process",
        "read",
        "receive",
        "register",
        "remove",
        "render",
        "run",
        "save",
        "search",
        "send",
        "set",
        "show",
        "start",
        "stop",
        "to",
        "update",
        "validate",
        "write",
    ]
)
"""Counted with these, the code bases of Starlette, httpx, uvicorn, FastAPI and asyncpg have shares of 38 to 42 %."""

OLD_NAMES = re.compile(
    r"""\b_?(
        Look | Asking | have_planned | ANEW | QUESTIONS | under_contract | check_searched |
        check_written | MovedError | Crew | crowd | nurse | told | patience_s | check_room | KEPT_S |
        Hunt | hunts? | seems | apart | clearance | Coder | codings? | Carrier | Supplier | set_out |
        under_way | Side | left_behind | Watch | doubted | wished | inexactly_if_so | exactly |
        OwnGallery | OwnPoint | OwnGraph | turn_on | Wanted | judge_photos | JudgedFace |
        without_doubles | home | ours | mine | truth | Wire | beside | sweep_now_and_then |
        carry_now_and_then | repeat_forever | forever | Until | Gone | ensure_first | mend | contract_of
        | Contract | Transition | Transitions | LEAST_\w+ | MOST_\w+ | OLDEST_\w+ | LONGEST_\w+
    )\b""",
    re.VERBOSE,
)

OLD_WORDS = {
    r"\bnurse\b": "fork server",
    r"\bcrew\b": "worker group",
    r"\blest\b": "so that … not",
    r"\bfor ever\b": "indefinitely",
    r"\bhas been by\b|\bhas come by\b": "has run",
    r"\bplanes? at right angles\b": "orthogonal hyperplanes",
    r"\bbits that differ\b": "Hamming distance",
    r"\bcarried over\b|\bcarry over\b|\bcarries faces\b": "backfilled",
    r"\bchanges its network\b|\bchange its network\b": "is migrated to another network",
    r"\b(?:result|candidates?|face|entry|line|row|vector) a "
    r"(?:probe|face|person|row|photo|contract|column|collection)\b": "per",
    r"\bown gallery\b": "the collection's own faces",
    r"\bset(?:s)? out for\b": "start a migration to",
}


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def function_names() -> list[str]:
    nodes = (node for path in SOURCES for node in ast.walk(parsed(path)))
    names = [node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return [name.strip("_") for name in names if not name.startswith("__")]


def test_functions_are_a_verb_and_its_object(capsys: pytest.CaptureFixture[str]) -> None:
    names = function_names()
    one_word = sum("_" not in name for name in names) / len(names)
    verb_first = sum(name.split("_")[0] in COMMON_VERBS for name in names) / len(names)
    with capsys.disabled():
        print(  # noqa: T201  the figures are published by the run
            f"\n{len(names)} functions: {one_word:.1%} of one word (at most {MAX_ONE_WORD_SHARE:.0%}), "
            f"{verb_first:.1%} begin with a common verb (at least {MIN_VERB_SHARE:.0%})"
        )

    assert one_word <= MAX_ONE_WORD_SHARE
    assert verb_first >= MIN_VERB_SHARE


def test_a_class_name_stands_in_one_folder() -> None:
    folders: defaultdict[str, set[str]] = defaultdict(set)
    for path in SOURCES:
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.ClassDef):
                folders[node.name].add(relative(path))

    assert {name: sorted(found) for name, found in folders.items() if len(found) > 1} == {}


def identifiers(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.arg):
            found.add(node.arg)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            found.add(node.attr)
    return found


@pytest.mark.parametrize("path", CODE, ids=relative)
def test_no_name_is_of_the_old_words(path: Path) -> None:
    assert sorted(name for name in identifiers(path) if OLD_NAMES.fullmatch(name)) == []


def prose(path: Path) -> str:
    """Return a document without its code, or a module's docstrings and comments."""
    if path.suffix == ".md":
        return re.sub(r"```.*?```|`[^`]*`", "", path.read_text(), flags=re.DOTALL)
    with path.open("rb") as file:
        comments = [token.string for token in tokenize.tokenize(file.readline) if token.type == tokenize.COMMENT]
    strings = [
        node.value.value
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    ]
    return "\n".join([*comments, *strings])


@pytest.mark.parametrize(
    "path", [path for path in (*CODE, *DOCUMENTS) if path != Path(__file__) and path.parent != HISTORY], ids=relative
)
def test_no_sentence_is_of_the_old_words(path: Path) -> None:
    text = re.sub(r"\s+", " ", prose(path))

    assert {word: instead for word, instead in OLD_WORDS.items() if re.search(word, text, re.IGNORECASE)} == {}
