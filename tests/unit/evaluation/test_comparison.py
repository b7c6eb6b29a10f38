"""Packs are listed in one table, the fewest false matches first, and the table is written to its document."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from vultus.errors import InvalidInputError
from vultus.evaluation.comparison import TABLE_END, TABLE_START, render_comparison_table, write_between_markers
from vultus.evaluation.pack_evaluation import PackEvaluation, PhotoTime
from vultus.evaluation.pairs import CalibrationCheck, VerificationPoint
from vultus.statistics.intervals import Mean, Rate
from vultus.statistics.matched import GroupFmr, MatchedImpostors, MatchedRates

if TYPE_CHECKING:
    from pathlib import Path


def rate(hits: int, trials: int) -> Rate:
    return Rate(hits / trials, 0, 1, hits, trials, "none")


def evaluation(name: str, matches: int) -> PackEvaluation:
    worst = GroupFmr(rate(3, 2500), 0.25, resolved=False)
    rates = (MatchedRates(0.4, rate(matches, 10_000), "female 18–34 a", worst),)
    return PackEvaluation(
        pack=name,
        commercial_use=True,
        space_id=f"{name}-1",
        accuracy=Mean(0.994, 0.001, 0.99, 1, 10),
        points=(
            VerificationPoint(1e-4, 8700, resolved=True, threshold=0.4, tar=rate(99, 100)),
            VerificationPoint(1e-5, 870, resolved=True, threshold=0.5, tar=rate(98, 100)),
            VerificationPoint(1e-6, 8, resolved=False, threshold=0.6, tar=rate(97, 100)),
        ),
        default=CalibrationCheck(1e-4, 0.4, rate(1, 10_000), rate(991, 1000)),
        is_calibrated=True,
        without_face=2,
        matched=MatchedImpostors(100, 10_000, (), rates, (), (), 0, 0),
        matched_without_face=7,
        doubles=(),
        matched_doubles=(),
        time=PhotoTime(13.44, 1.0),
        calibration=None,
    )


def test_the_pack_with_the_fewest_matched_false_matches_is_first() -> None:
    table = render_comparison_table([evaluation("one", 30), evaluation("other", 5)])

    heading, _, first, second = table.strip().split("\n")
    assert heading.startswith("| pack | commercial | accuracy, 10 folds | TAR at FMR 10⁻⁴ |")
    assert first == (
        "| `other` | yes | 99.40 % ± 0.10 | 99.00 % | 98.00 % | not resolved | 0.4000: 99.10 % | 5.0·10⁻⁴ "
        "| 1.2·10⁻³ (female 18–34 a, 3 of 2,500) | 2 and 7 of the matched | 13.4 (1.00) | `other-1` |"
    )
    assert second.startswith("| `one` | yes |")


def test_what_was_not_measured_is_said() -> None:
    row = replace(evaluation("one", 1), matched=None, matched_without_face=None, accuracy=None, is_calibrated=False)

    cells = render_comparison_table([row]).strip().split("\n")[-1].split(" | ")

    assert cells[2] == "not listed"
    assert cells[6:10] == ["0.4000 (measured here): 99.10 %", "not measured", "not measured", "2"]


def test_no_group_may_be_large_enough() -> None:
    row = evaluation("one", 1)
    assert row.matched is not None
    small = replace(row.matched, rates=(MatchedRates(0.4, rate(1, 10_000), None, None),))

    assert "| 10⁻⁴ | not resolved |" in render_comparison_table([replace(row, matched=small)])


def test_the_table_replaces_what_stands_between_its_markers(tmp_path: Path) -> None:
    document = tmp_path / "accuracy.md"
    document.write_text(f"before\n\n{TABLE_START}\nold\n{TABLE_END}\n\nafter\n")

    write_between_markers(document, "| new |\n")
    write_between_markers(document, "| new |\n")

    assert document.read_text() == f"before\n\n{TABLE_START}\n\n| new |\n\n{TABLE_END}\n\nafter\n"


def test_a_document_without_markers_stays_as_it_is(tmp_path: Path) -> None:
    document = tmp_path / "accuracy.md"
    document.write_text("nothing")

    with pytest.raises(InvalidInputError, match="no marks"):
        write_between_markers(document, "| new |\n")

    assert document.read_text() == "nothing"
