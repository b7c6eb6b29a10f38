"""`python -m benchmarks [question …]`: measure, keep the lines, show the tables, put them into the document."""

from __future__ import annotations

import argparse
import signal
import sys
from functools import partial
from typing import TYPE_CHECKING

from benchmarks import photo, precision, record, request, search, serving

if TYPE_CHECKING:
    from types import ModuleType

QUESTIONS: dict[str, ModuleType] = {
    "photo": photo,
    "serving": serving,
    "precision": precision,
    "request": request,
    "search": search,
}


def rendered(name: str) -> str:
    """Return a question's tables, made of the lines kept."""
    return record.shown(name, QUESTIONS[name].render, partial(_full, name))


def _full(name: str, lines: list[record.Line]) -> bool:
    return bool(lines[0]["seconds"] >= QUESTIONS[name].SECONDS)


def main() -> None:
    """Run the questions asked for, or all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("questions", nargs="*", metavar="question", help=f"{', '.join(QUESTIONS)}; all unless given")
    parser.add_argument("--seconds", type=float, help="of every setting, warm-up not counted")
    parser.add_argument("--show", action="store_true", help="measure nothing: write the document from the lines kept")
    asked = parser.parse_args()
    if unknown := set(asked.questions) - set(QUESTIONS):
        parser.error(f"no such question: {', '.join(sorted(unknown))}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that servers are stopped then too
    for name in asked.questions or QUESTIONS:
        question = QUESTIONS[name]
        measure = None if asked.show else partial(question.measure, asked.seconds or question.SECONDS)
        record.answer(name, measure, question.render, partial(_full, name))


if __name__ == "__main__":
    main()
