"""Several packs in one table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vultus.errors import InvalidInputError
from vultus.evaluation.pack_evaluation import PackEvaluation
from vultus.evaluation.page import format_cosine, format_percent, format_scientific
from vultus.evaluation.provenance import Provenance

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


TABLE_START, TABLE_END = "<!-- packs -->", "<!-- /packs -->"
TARGET_FMRS = (1e-4, 1e-5, 1e-6)
PACKS_SCHEMA = "vultus.evaluation.packs/1"
NOT_MEASURED, NOT_RESOLVED = "not measured", "not resolved"

COLUMNS = (
    "pack",
    "commercial",
    "accuracy, 10 folds",
    *(f"TAR at FMR {format_scientific(target)}" for target in TARGET_FMRS),
    "default threshold: its TAR",
    "its FMR, matched",
    "its FMR, worst group",
    "photos without a face",
    "ms a photo (× built-in)",
    "embedding space",
)


@dataclass(frozen=True, slots=True)
class PacksReport:
    """Several packs on the same photos.

    Attributes:
        data: Name of the verification data's folder.
        photos: Of the verification data.
        matched_data: Name of the matched data's folder; None without it.
        matched_photos: Of the matched data; 0 without it.
        provenance: Program and machine; names and embedding spaces of all packs.
        packs: The figures.
        schema: Names this structure.
    """

    data: str
    photos: int
    matched_data: str | None
    matched_photos: int
    provenance: Provenance
    packs: tuple[PackEvaluation, ...]
    schema: str = PACKS_SCHEMA


def render_comparison_table(rows: Sequence[PackEvaluation]) -> str:
    """Return a Markdown table, packs in ascending order of false match rate among matched adults, then of misses."""
    ordered = sorted(rows, key=lambda row: (_get_matched_fmr(row), -row.default.tar.value if row.default.tar else 0))
    lines = [COLUMNS, ("---",) * len(COLUMNS), *(_format_row(row) for row in ordered)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def write_between_markers(path: Path, text: str) -> None:
    """Replace the text between the table's markers in a document.

    Raises:
        InvalidInputError: It lacks the markers.
    """
    before, start, rest = path.read_text(encoding="utf-8").partition(TABLE_START)
    _, end, after = rest.partition(TABLE_END)
    if not (start and end):
        raise InvalidInputError(f"{path} has no marks {TABLE_START} and {TABLE_END} to put the table between.")
    path.write_text(f"{before}{TABLE_START}\n\n{text}\n{TABLE_END}{after}", encoding="utf-8")


def _get_matched_fmr(row: PackEvaluation) -> float:
    return row.matched.get_rates(row.default.threshold).fmr.value if row.matched else 0.0


def _format_row(row: PackEvaluation) -> tuple[str, ...]:
    tar = format_percent(row.default.tar.value) if row.default.tar else ""
    return (
        f"`{row.pack}`",
        "yes" if row.commercial_use else "no",
        f"{100 * row.accuracy.value:.2f} % ± {100 * row.accuracy.standard_error:.2f}" if row.accuracy else "not listed",
        *(_format_true_accept_rate(row, target) for target in TARGET_FMRS),
        f"{format_cosine(row.default.threshold)}{'' if row.is_calibrated else ' (measured here)'}: {tar}",
        *_format_matched(row),
        f"{row.without_face}"
        + ("" if row.matched_without_face is None else f" and {row.matched_without_face} of the matched"),
        f"{row.time.median_ms:.1f} ({row.time.relative:.2f})",
        f"`{row.space_id}`",
    )


def _format_true_accept_rate(row: PackEvaluation, target: float) -> str:
    point = next((point for point in row.points if point.target_fmr == target), None)
    return format_percent(point.tar.value) if point and point.resolved and point.tar else NOT_RESOLVED


def _format_matched(row: PackEvaluation) -> tuple[str, str]:
    if row.matched is None:
        return NOT_MEASURED, NOT_MEASURED
    rates = row.matched.get_rates(row.default.threshold)
    if rates.worst_fmr is None:
        return format_scientific(rates.fmr.value), NOT_RESOLVED
    mark = "" if rates.worst_fmr.resolved else f", {rates.worst_fmr.fmr.hits} of {rates.worst_fmr.fmr.trials:,}"
    return format_scientific(rates.fmr.value), f"{format_scientific(rates.worst_fmr.fmr.value)} ({rates.worst}{mark})"
