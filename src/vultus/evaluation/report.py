"""A report: `report.html` for people, `report.json` for machines, in a folder of its own."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from vultus.evaluation import gallery_page, liveness_page, pairs_page
from vultus.evaluation.record import GalleryReport, PairsReport

if TYPE_CHECKING:
    from pathlib import Path

    from vultus.evaluation.record import Report


def as_json(report: Report) -> dict[str, Any]:
    """Return everything, in values JSON has."""
    return asdict(report)


def summary(report: Report) -> dict[str, Any]:
    """Return everything but the numbers that are only there to be drawn."""
    return {key: _without_drawings(value) for key, value in as_json(report).items()}


def _without_drawings(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_drawings(inner) for key, inner in value.items() if key not in {"drawing", "cmc"}}
    return value


def _page(report: Report) -> str:
    if isinstance(report, PairsReport):
        return pairs_page.render(report)
    return gallery_page.render(report) if isinstance(report, GalleryReport) else liveness_page.render(report)


def write(report: Report, folder: Path) -> Path:
    """Write both files, replacing those of an earlier run, and return the page's path."""
    folder.mkdir(parents=True, exist_ok=True)
    html = _page(report)
    text = json.dumps(as_json(report), indent=1, ensure_ascii=False, allow_nan=False)
    (folder / "report.json").write_text(text + "\n", encoding="utf-8")
    target = folder / "report.html"
    target.write_text(html, encoding="utf-8")
    return target
