"""Several packs on one data set, in one table."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vultus.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from vultus.models.catalog.packs import Pack

TABLE_START, TABLE_END = "<!-- packs -->", "<!-- /packs -->"
TARGET_FMRS = (1e-3, 1e-4)


@dataclass(frozen=True, slots=True)
class PackEvaluation:
    """Verification results of a pack.

    Attributes:
        pack: Its name.
        report: Members of `report.json`.
        published: Accuracy on LFW that its embedder's publisher states, percent; None where there is none.
        commercial_use: Whether its licences allow it without doubt.
    """

    pack: str
    report: dict[str, Any]
    published: float | None
    commercial_use: bool


def read_pack_evaluation(pack: Pack, path: Path) -> PackEvaluation:
    """Read a report of `vultus evaluate pairs`."""
    report = json.loads(path.read_text(encoding="utf-8"))
    return PackEvaluation(pack.name, report, pack.embedder.published.get("LFW"), pack.is_commercial_use_allowed)


def render_comparison_table(rows: Sequence[PackEvaluation]) -> str:
    """Return a Markdown table, packs in descending order of true accept rate at the strictest rate shown."""
    lines = [
        "| pack | commercial | accuracy, 10 folds | published | TAR at FMR 10⁻³ | TAR at FMR 10⁻⁴ "
        "| photos without a face | ms a photo | contract |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        _format_row(row) for row in sorted(rows, key=lambda row: -_find_true_accept_rate(row.report, TARGET_FMRS[-1]))
    ]
    return "\n".join(lines) + "\n"


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


def _format_row(row: PackEvaluation) -> str:
    evaluated = row.report["evaluated"]
    listed = row.report["listed"]
    accuracy = "not listed"
    if listed:
        mean = listed["accuracy"]["accuracy"]
        accuracy = f"{100 * mean['value']:.2f} % ± {100 * mean['standard_error']:.2f}"
    total = next(stage for stage in evaluated["timing"]["stages"] if stage["stage"] == "total")
    cells = (
        f"`{row.pack}`",
        "yes" if row.commercial_use else "no",
        accuracy,
        f"{row.published:.2f} %" if row.published else "",
        *(
            f"{100 * tar:.2f} %" if (tar := _find_true_accept_rate(row.report, rate)) else "not resolved"
            for rate in TARGET_FMRS
        ),
        f"{evaluated['without_face']} of {evaluated['photos']:,}",
        f"{total['median_ms']:.0f}",
        f"`{evaluated['provenance']['contract_id']}`",
    )
    return f"| {' | '.join(cells)} |"


def _find_true_accept_rate(report: dict[str, Any], rate: float) -> float:
    """Return the true accept rate over all pairs; 0 where the data resolve no threshold."""
    found = next((point["tar"] for point in report["all"]["points"] if point["target_fmr"] == rate), None)
    return float(found["value"]) if found else 0.0
