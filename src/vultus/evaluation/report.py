"""A report: `report.html` for people, `report.json` for machines, in a folder of its own."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from vultus.evaluation import gallery_page, impostors_page, liveness_page, pairs_page
from vultus.evaluation.record import GalleryReport, ImpostorsReport, PairsReport

if TYPE_CHECKING:
    from pathlib import Path

    from vultus.evaluation.comparison import PacksReport
    from vultus.evaluation.record import Report


def to_json_values(report: Report | PacksReport) -> dict[str, Any]:
    """Return every field as JSON values."""
    return asdict(report)


def build_summary(report: Report) -> dict[str, Any]:
    """Return every field but the plot data."""
    return {key: _remove_plot_data(value) for key, value in to_json_values(report).items()}


def _remove_plot_data(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _remove_plot_data(inner) for key, inner in value.items() if key not in {"drawing", "cmc"}}
    return value


def _render_page(report: Report) -> str:
    if isinstance(report, PairsReport):
        return pairs_page.render_pairs_page(report)
    if isinstance(report, ImpostorsReport):
        return impostors_page.render_impostors_page(report)
    return (
        gallery_page.render_gallery_page(report)
        if isinstance(report, GalleryReport)
        else liveness_page.render_liveness_page(report)
    )


def write_report(report: Report, folder: Path) -> Path:
    """Write both files, replacing those of an earlier run, and return the page's path."""
    folder.mkdir(parents=True, exist_ok=True)
    html = _render_page(report)
    write_json(report, folder / "report.json")
    target = folder / "report.html"
    target.write_text(html, encoding="utf-8")
    return target


def write_json(report: Report | PacksReport, path: Path) -> None:
    """Write every field as JSON."""
    text = json.dumps(to_json_values(report), indent=1, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")
