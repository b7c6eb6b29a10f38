"""Packs are listed in one table, the best first, and the table is written to its document."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from vultus.errors import InvalidInputError
from vultus.evaluation.comparison import (
    TABLE_END,
    TABLE_START,
    PackEvaluation,
    render_comparison_table,
    write_between_markers,
)

if TYPE_CHECKING:
    from pathlib import Path


def report(accuracy: float, tar: float, space_id: str) -> dict[str, Any]:
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
            "provenance": {"contract_id": space_id},
        },
    }


ROWS = [
    PackEvaluation("builtin", report(0.993, 0.8478, "a-1"), 99.38, True),
    PackEvaluation("yunet+sface", report(0.9937, 0.9898, "b-2"), None, False),
]


def test_the_most_accurate_pack_comes_first_beside_what_was_published() -> None:
    first, second = render_comparison_table(ROWS).splitlines()[2:]

    assert first == "| `yunet+sface` | no | 99.37 % ± 0.10 |  | 99.00 % | 98.98 % | 1 of 13,233 | 30 | `b-2` |"
    assert second == "| `builtin` | yes | 99.30 % ± 0.10 | 99.38 % | 99.00 % | 84.78 % | 1 of 13,233 | 30 | `a-1` |"


def test_only_the_text_between_the_markers_is_replaced(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{TABLE_START}\nold\n{TABLE_END}\nafter\n", encoding="utf-8")

    for text in ("first\n", "second\n"):
        write_between_markers(page, text)

    assert page.read_text(encoding="utf-8") == f"before\n{TABLE_START}\n\nsecond\n\n{TABLE_END}\nafter\n"


def test_a_document_without_markers_is_not_changed(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("text", encoding="utf-8")

    with pytest.raises(InvalidInputError, match="no marks"):
        write_between_markers(page, "table")
    assert page.read_text(encoding="utf-8") == "text"
