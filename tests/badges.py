"""Draws the badges of a run of `.ci/run`: `python -m tests.badges LOG COVERAGE.json FOLDER`."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from xml.sax.saxutils import escape

GOOD, BAD = "#2e7d32", "#b3261e"
CHARACTER_PX, PADDING_PX = 7, 12
SUMMARY = re.compile(r"=+ (?:(\d+) failed, )?(\d+) passed\b.* =+$")


def draw_badge(label: str, value: str, colour: str) -> str:
    """Return a picture of two fields, which a screen reader reads as one sentence."""
    left, right = (len(text) * CHARACTER_PX + PADDING_PX for text in (label, value))
    text = escape(f"{label}: {value}")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + right}" height="20" role="img" aria-label="{text}">'
        f'<title>{text}</title><clipPath id="c"><rect width="{left + right}" height="20" rx="4"/></clipPath>'
        f'<g clip-path="url(#c)"><rect width="{left}" height="20" fill="#444"/>'
        f'<rect x="{left}" width="{right}" height="20" fill="{colour}"/></g>'
        '<g fill="#fff" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11" text-anchor="middle">'
        f'<text x="{left / 2}" y="14">{escape(label)}</text>'
        f'<text x="{left + right / 2}" y="14">{escape(value)}</text></g></svg>\n'
    )


def draw_tests(log: str) -> str:
    """Return the badge of the tests; the last summary of pytest in the log is that of the whole suite."""
    found = [match for line in log.splitlines() if (match := SUMMARY.search(line.strip()))]
    if not found:
        return draw_badge("tests", "not run", BAD)
    failed, passed = found[-1].groups()
    return draw_badge("tests", f"{failed} failed", BAD) if failed else draw_badge("tests", f"{passed} passed", GOOD)


def draw_coverage(report: str, required: float = 96) -> str:
    """Return the badge of lines and branches reached; rounded down, for 100 % is said of nothing less."""
    percent = int(json.loads(report)["totals"]["percent_covered"])
    return draw_badge("coverage", f"{percent} %", GOOD if percent >= required else BAD)


if __name__ == "__main__":
    log, report, folder = map(Path, sys.argv[1:4])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tests.svg").write_text(draw_tests(log.read_text(errors="replace")))
    (folder / "coverage.svg").write_text(draw_coverage(report.read_text()))
