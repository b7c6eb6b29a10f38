"""`python -m benchmarks [question …]`: measure, keep the lines, show the tables, put them into the document."""

from __future__ import annotations

import argparse
import signal
import sys
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
    question, lines = QUESTIONS[name], record.read(name)
    if not lines:
        return f"Not measured yet: `python -m benchmarks {name}`"
    head = record.heading(lines[0], full_length=lines[0]["seconds"] >= question.SECONDS)
    return f"{head}\n\n{question.render(lines)}"


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
        if not asked.show:
            origin = record.Origin.here()
            record.write(name, QUESTIONS[name].measure(asked.seconds or QUESTIONS[name].SECONDS), origin)
        text = rendered(name)
        print(f"\n{text}\n")
        record.document(name, text)


if __name__ == "__main__":
    main()
