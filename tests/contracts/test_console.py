"""The console's files: small, typed, in two languages, and nothing from elsewhere."""

from __future__ import annotations

import gzip
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from vultus.domain import Band, Verdict
from vultus.domain.sources import SourceProblem, SourceState
from vultus.domain.webhooks import DeliveryState
from vultus.schemas.reasons import DecisionReason, RejectionReason

STATIC = Path(__file__).parents[2] / "src/vultus/console/static"
SCRIPTS = {path.relative_to(STATIC).as_posix(): path.read_text() for path in sorted(STATIC.rglob("*.js"))}
CATALOGUES = {path.stem: path.read_text() for path in sorted((STATIC / "words").iterdir())}
MAX_BYTES = 166_000
"""Of all scripts, without comments and indentation."""

MAX_SENT_BYTES = 102_000
"""Of scripts, one language and styles as they are sent, compressed."""

MAX_LINES = 250
COMPILER = "typescript@7.0.2"
RULES = (
    *("--noEmit", "--allowJs", "--checkJs", "--strict", "--target", "es2023", "--module", "esnext"),
    *("--moduleResolution", "bundler", "--lib", "dom,dom.iterable,es2023", "--types", ""),
)


def read_catalogue(language: str) -> dict[str, str]:
    """Return a catalogue, in which no text is named twice."""

    def refuse_repeated(pairs: list[tuple[str, str]]) -> dict[str, str]:
        assert len({key for key, _ in pairs}) == len(pairs)
        return dict(pairs)

    loaded: dict[str, str] = json.loads(CATALOGUES[language], object_pairs_hook=refuse_repeated)
    return loaded


WORDS = read_catalogue("en")


def test_both_languages_have_the_same_texts_with_the_same_places() -> None:
    german = read_catalogue("de")
    places = re.compile(r"\{\w+\}")

    assert list(german) == list(WORDS)
    assert [key for key in WORDS if sorted(places.findall(WORDS[key])) != sorted(places.findall(german[key]))] == []
    assert [key for key, text in {**WORDS, **german}.items() if not text.strip()] == []


def test_every_text_is_used_and_every_used_text_is_there() -> None:
    code = "\n".join(SCRIPTS.values())
    literal = set(re.findall(r'"([a-z_]+(?:\.[a-z0-9_]+)*)"', code))
    counted = {f"{key}.{form}" for key in re.findall(r'count\("([^"]+)"', code) for form in ("one", "other")}
    families = tuple(re.findall(r"`([a-z_.]+\.)\$\{", code))
    called = set(re.findall(r'\bt\("([^"]+)"', code)) | counted

    assert called - WORDS.keys() == set()
    assert [key for key in WORDS if key not in literal | counted and not key.startswith(families)] == []


@pytest.mark.parametrize("language", CATALOGUES)
def test_the_sentence_people_agree_to_is_documented(language: str) -> None:
    """Its number is recorded: another wording gets another number, and this one stays documented."""
    manual = (STATIC.parents[3] / "docs/console.md").read_text()
    parts = {key: text for key, text in read_catalogue(language).items() if key.startswith("enrol.statement.")}

    assert len(parts) == 5
    assert [key for key, text in parts.items() if text.replace("{day}", "[day]") not in manual] == []
    assert "Sentence 1 of the console" in manual and "NUMBER = 1;" in SCRIPTS["parts/statement.js"]


@pytest.mark.parametrize("kind", [RejectionReason, DecisionReason], ids=["rejections", "decisions"])
def test_every_reason_has_a_text(kind: object) -> None:
    codes = kind.__metadata__[0].json_schema_extra["enum"]  # type: ignore[attr-defined]

    assert [code for code in codes if f"reason.{code}" not in WORDS] == []


def test_every_state_and_problem_of_a_source_and_every_state_of_a_delivery_has_a_text() -> None:
    wanted = {
        *(f"cameras.state.{state}" for state in SourceState),
        *(f"source.{problem}" for problem in SourceProblem),
        *(f"delivery.{state}" for state in DeliveryState),
    }
    assert sorted(wanted - WORDS.keys()) == []


def test_every_verdict_has_a_text() -> None:
    assert [one for one in Verdict if one is not Verdict.MATCH and f"verdict.{one}" not in WORDS] == []
    assert [band for band in Band if f"band.{band}" not in WORDS] == []


def test_what_a_page_loads_is_small() -> None:
    said_to_people = re.compile(r"(?<![\w\"])/\*.*?\*/|^\s*//[^\n]*\n|^[ ]+", re.DOTALL | re.MULTILINE)
    assert sum(len(said_to_people.sub("", text).encode()) for text in SCRIPTS.values()) <= MAX_BYTES
    loaded = [*SCRIPTS.values(), max(CATALOGUES.values(), key=len), (STATIC / "console.css").read_text()]
    assert sum(len(gzip.compress(text.encode())) for text in loaded) <= MAX_SENT_BYTES
    assert {name: text.count("\n") for name, text in SCRIPTS.items() if text.count("\n") > MAX_LINES} == {}
    assert SCRIPTS["parts/h.js"].count("\n") <= 150


def test_nothing_comes_from_elsewhere_and_no_markup_is_made_of_texts() -> None:
    forbidden = re.compile(
        r"https?://(?!www\.w3\.org/2000/svg)|innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|"
        r"new Function|setHTML|srcdoc|DOMParser|\.cssText|style=",
    )
    files = {path.name: path.read_text() for path in STATIC.rglob("*") if path.is_file()}

    assert {name: forbidden.findall(text) for name, text in files.items() if forbidden.search(text)} == {}


def test_the_types_hold(tmp_path: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("npm is not installed, which brings the type checker of the console's scripts")
    install = [npm, "install", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline", COMPILER]
    done = subprocess.run(install, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        pytest.skip(f"the type checker cannot be installed: {done.stderr[-200:]}")
    compiler = tmp_path / "node_modules/.bin/tsc"
    checked = subprocess.run(
        [compiler, *RULES, STATIC / "app.js"], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )

    assert checked.stdout == ""
    assert checked.returncode == 0
