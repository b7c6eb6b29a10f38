"""`python -m benchmarks [benchmark …]`: measure, store the measurements, print their tables, update the document."""

from __future__ import annotations

import argparse
import signal
import sys
from functools import partial
from typing import TYPE_CHECKING

from benchmarks import live, photo, precision, record, request, sealing, search, serving, sources, tracking

if TYPE_CHECKING:
    from types import ModuleType

BENCHMARKS: dict[str, ModuleType] = {
    "photo": photo,
    "serving": serving,
    "precision": precision,
    "request": request,
    "search": search,
    "sealing": sealing,
    "tracking": tracking,
    "live": live,
    "sources": sources,
}


def render_results(name: str) -> str:
    """Return the tables of a benchmark's stored measurements."""
    return record.render_results(name, BENCHMARKS[name].render, partial(_is_full_length, name))


def _is_full_length(name: str, lines: list[record.Measurement]) -> bool:
    return bool(lines[0]["seconds"] >= BENCHMARKS[name].SECONDS)


def main() -> None:
    """Run the requested benchmarks, or all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="benchmark", help=f"{', '.join(BENCHMARKS)}; all unless given")
    parser.add_argument("--seconds", type=float, help="of every setting, warm-up not counted")
    parser.add_argument("--show", action="store_true", help="measure nothing: write the document from the lines kept")
    options = parser.parse_args()
    if unknown := set(options.names) - set(BENCHMARKS):
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that servers are stopped too
    for name in options.names or BENCHMARKS:
        benchmark = BENCHMARKS[name]
        measure = None if options.show else partial(benchmark.measure, options.seconds or benchmark.SECONDS)
        record.run_benchmark(name, measure, benchmark.render, partial(_is_full_length, name))


if __name__ == "__main__":
    main()
