"""Packs stand in one table, the best first, and the table in its document."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from vultus.errors import InvalidInputError
from vultus.evaluation.comparison import END, START, PackFigures, markdown, put_between_marks

if TYPE_CHECKING:
    from pathlib import Path


def report(accuracy: float, tar: float, contract: str) -> dict[str, Any]:
    return {
        "listed": {"accuracy": {"accuracy": {"value": accuracy, "standard_error": 0.001}}},
        "all": {
            "points": [
                {"target_fmr": 1e-3, "tar": {"value": 0.99}},
                {"target_fmr": 1e-4, "tar": {"value": tar}},
                {"target_fmr": 1e-5, "tar": None},
            ]
        },
        "evaluated": {
            "photos": 13233,
            "without_face": 1,
            "timing": {"stages": [{"stage": "detect", "median_ms": 9}, {"stage": "total", "median_ms": 30.4}]},
            "provenance": {"contract_id": contract},
        },
    }


ROWS = [
    PackFigures("builtin", report(0.993, 0.8478, "a-1"), 99.38, True),
    PackFigures("yunet+sface", report(0.9937, 0.9898, "b-2"), None, False),
]


def test_the_most_accurate_pack_comes_first_beside_what_was_published() -> None:
    first, second = markdown(ROWS).splitlines()[2:]

    assert first == "| `yunet+sface` | no | 99.37 % ± 0.10 |  | 99.00 % | 98.98 % | 1 of 13,233 | 30 | `b-2` |"
    assert second == "| `builtin` | yes | 99.30 % ± 0.10 | 99.38 % | 99.00 % | 84.78 % | 1 of 13,233 | 30 | `a-1` |"


def test_only_what_stands_between_the_marks_is_replaced(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{START}\nold\n{END}\nafter\n", encoding="utf-8")

    for text in ("first\n", "second\n"):
        put_between_marks(page, text)

    assert page.read_text(encoding="utf-8") == f"before\n{START}\n\nsecond\n\n{END}\nafter\n"


def test_a_document_without_marks_is_left_alone(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("text", encoding="utf-8")

    with pytest.raises(InvalidInputError, match="no marks"):
        put_between_marks(page, "table")
    assert page.read_text(encoding="utf-8") == "text"
