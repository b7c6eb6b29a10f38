"""Results of a benchmark: measurements, tables, and a document that agrees with them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from benchmarks import record
from benchmarks.__main__ import BENCHMARKS, render_results

if TYPE_CHECKING:
    from pathlib import Path

ORIGIN = {
    "at": "2026-01-01T00:00:00+00:00",
    "commit": "abc",
    "cpu": "Chip",
    "cores": 2,
    "memory_gib": 8.0,
    "system": "Linux",
    "python": "3.11",
    "packages": {"vultus": "0"},
    "dlib": "AVX yes",
    "others": 0.0,
}


def test_text_is_put_between_its_own_markers_again_and_again(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- one -->\nold\n<!-- /one -->\n<!-- two -->\nkept\n<!-- /two -->\n")

    record.write_document("one", "new", page)
    record.write_document("one", "newer", page)

    assert page.read_text() == "a\n<!-- one -->\nnewer\n<!-- /one -->\n<!-- two -->\nkept\n<!-- /two -->\n"


def test_a_document_without_the_marker_is_refused(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- one -->")

    with pytest.raises(ValueError, match="lacks"):
        record.write_document("one", "new", page)


def test_a_sound_run_is_not_called_provisional() -> None:
    assert "Provisional" not in record.render_heading({"origin": ORIGIN}, full_length=True)


@pytest.mark.parametrize(
    ("origin", "full_length", "words"),
    [
        ({"commit": None}, True, "not committed"),
        ({"commit": "abc-dirty"}, True, "not committed"),
        ({"others": 0.4}, True, "others used 40%"),
        ({}, False, "shortened"),
    ],
)
def test_reasons_against_a_run_are_reported(origin: dict[str, Any], full_length: bool, words: str) -> None:
    said = record.render_heading({"origin": {**ORIGIN, **origin}}, full_length=full_length)

    assert said.startswith("**Provisional")
    assert words in said


@pytest.mark.parametrize("name", BENCHMARKS)
def test_the_document_shows_the_stored_measurements(name: str) -> None:
    assert f"<!-- {name} -->\n{render_results(name)}\n<!-- /{name} -->" in record.DOCUMENT.read_text()
