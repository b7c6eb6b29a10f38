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

START, END = "<!-- packs -->", "<!-- /packs -->"
RATES = (1e-3, 1e-4)


@dataclass(frozen=True, slots=True)
class PackFigures:
    """What a report of verification says about a pack.

    Attributes:
        pack: Its name.
        report: Members of `report.json`.
        published: Accuracy on LFW its embedder's publisher states, percent; None where nobody does.
        commercial_use: Whether its licences allow it without doubt.
    """

    pack: str
    report: dict[str, Any]
    published: float | None
    commercial_use: bool


def figures(pack: Pack, path: Path) -> PackFigures:
    """Read a report of `vultus evaluate pairs`."""
    report = json.loads(path.read_text(encoding="utf-8"))
    return PackFigures(pack.name, report, pack.embedder.published.get("LFW"), pack.commercial_use)


def markdown(rows: Sequence[PackFigures]) -> str:
    """Return a Markdown table, most accurate pack first by its true accepts at the strictest rate shown."""
    lines = [
        "| pack | commercial | accuracy, 10 folds | published | TAR at FMR 10⁻³ | TAR at FMR 10⁻⁴ "
        "| photos without a face | ms a photo | contract |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [_row(row) for row in sorted(rows, key=lambda row: -_tar(row.report, RATES[-1]))]
    return "\n".join(lines) + "\n"


def put_between_marks(path: Path, text: str) -> None:
    """Replace what a document says between the marks of this table.

    Raises:
        InvalidInputError: It has no marks.
    """
    before, start, rest = path.read_text(encoding="utf-8").partition(START)
    _, end, after = rest.partition(END)
    if not (start and end):
        raise InvalidInputError(f"{path} has no marks {START} and {END} to put the table between.")
    path.write_text(f"{before}{START}\n\n{text}\n{END}{after}", encoding="utf-8")


def _row(row: PackFigures) -> str:
    evaluated = row.report["evaluated"]
    listed = row.report["listed"]
    accuracy = "not listed"
    if listed:
        mean = listed["accuracy"]["accuracy"]
        accuracy = f"{100 * mean['value']:.2f} % ± {100 * mean['standard_error']:.2f}"
    took = next(stage for stage in evaluated["timing"]["stages"] if stage["stage"] == "total")
    cells = (
        f"`{row.pack}`",
        "yes" if row.commercial_use else "no",
        accuracy,
        f"{row.published:.2f} %" if row.published else "",
        *(f"{100 * tar:.2f} %" if (tar := _tar(row.report, rate)) else "not resolved" for rate in RATES),
        f"{evaluated['without_face']} of {evaluated['photos']:,}",
        f"{took['median_ms']:.0f}",
        f"`{evaluated['provenance']['contract_id']}`",
    )
    return f"| {' | '.join(cells)} |"


def _tar(report: dict[str, Any], rate: float) -> float:
    """Return the true accept rate over all pairs; 0 where the data resolve no threshold."""
    found = next((point["tar"] for point in report["all"]["points"] if point["target_fmr"] == rate), None)
    return float(found["value"]) if found else 0.0
