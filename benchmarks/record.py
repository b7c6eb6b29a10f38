"""Stored measurements of benchmarks, and the tables of docs/results/performance.md made from them."""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil

from benchmarks import peer
from vultus.evaluation.provenance import find_commit, read_cpu_model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

Measurement = dict[str, Any]

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
DOCUMENT = ROOT / "docs" / "results" / "performance.md"
PACKAGES = (
    "vultus",
    "numpy",
    "onnxruntime",
    "opencv-python-headless",
    "simplejpeg",
    "pillow",
    "dlib-bin",
    "fastapi",
    "uvicorn",
)
MAX_OTHER_LOAD = 0.1
"""Share of the processor that other programs may use before a measurement counts as disturbed."""

LOAD_SAMPLE_S = 2.0


@dataclass(frozen=True, slots=True)
class Origin:
    """Source and machine of a measurement.

    Attributes:
        at: ISO 8601, UTC.
        commit: Of the source; `-dirty` with changes outside the results, None without a commit.
        cpu: Model name.
        cores: Logical ones.
        memory_gib: Of the machine.
        system: Operating system.
        python: Version.
        packages: Versions by name.
        dlib: How the peer's library was built.
        others: Share of the processor other programs used just before measuring, 0..1.
    """

    at: str
    commit: str | None
    cpu: str
    cores: int
    memory_gib: float
    system: str
    python: str
    packages: dict[str, str]
    dlib: str
    others: float

    @classmethod
    def from_this_machine(cls) -> Origin:
        """Describe this machine; measures the load of other programs for two seconds."""
        return cls(
            at=datetime.now(UTC).isoformat(timespec="seconds"),
            commit=find_source_commit(ROOT),
            cpu=read_cpu_model(Path("/proc/cpuinfo")),
            cores=psutil.cpu_count() or 1,
            memory_gib=round(psutil.virtual_memory().total / 2**30, 1),
            system=_get_system_name(),
            python=platform.python_version(),
            packages={name: version(name) for name in PACKAGES},
            dlib=peer.describe_dlib_build(),
            others=round(psutil.cpu_percent(LOAD_SAMPLE_S) / 100, 3),
        )


def find_source_commit(root: Path) -> str | None:
    """Return the commit, with `-dirty` if anything but results and their document was changed."""
    described = find_commit(root)
    if described is None or not described.endswith("-dirty"):
        return described
    own = [f":!{path.relative_to(ROOT).as_posix()}" for path in (RESULTS, DOCUMENT)]
    clean = subprocess.run(["git", "diff", "--quiet", "HEAD", "--", ".", *own], cwd=root, check=False)
    return described if clean.returncode else described.removesuffix("-dirty")


def compute_percentiles(values: Sequence[float]) -> dict[str, float]:
    """Return the 50th, 95th and 99th percentile of milliseconds, and their count."""
    p50, p95, p99 = np.percentile(values, [50, 95, 99])
    return {"n": len(values), **{f"p{at}_ms": round(float(ms), 3) for at, ms in ((50, p50), (95, p95), (99, p99))}}


def write_lines(name: str, lines: Iterable[Measurement], origin: Origin) -> None:
    """Store measurements with their origin, replacing those of the last run."""
    RESULTS.mkdir(exist_ok=True)
    text = "".join(json.dumps(line | {"origin": asdict(origin)}, ensure_ascii=False) + "\n" for line in lines)
    (RESULTS / f"{name}.jsonl").write_text(text, encoding="utf-8")


def read_lines(name: str) -> list[Measurement]:
    """Return the stored measurements; none before the first run."""
    path = RESULTS / f"{name}.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []


def build_argument_parser(name: str, about: str | None) -> argparse.ArgumentParser:
    """Return the argument parser of a benchmark that is a program of its own."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=about)
    parser.add_argument("--show", action="store_true", help="measure nothing: write the document from the lines kept")
    return parser


def run_benchmark(
    name: str,
    measure: Callable[[], list[Measurement]] | None,
    render: Callable[[list[Measurement]], str],
    is_full_length: Callable[[list[Measurement]], bool],
) -> None:
    """Measure, store the measurements, print the tables and update the document.

    Args:
        name: Of the benchmark.
        measure: Returns the measurements; None uses the stored ones.
        render: Returns the tables.
        is_full_length: Returns whether the run was not shortened.
    """
    if measure is not None:
        origin = Origin.from_this_machine()
        write_lines(name, measure(), origin)
    text = render_results(name, render, is_full_length)
    print(f"\n{text}\n")
    write_document(name, text)


def render_results(
    name: str, render: Callable[[list[Measurement]], str], is_full_length: Callable[[list[Measurement]], bool]
) -> str:
    """Return the tables of the stored measurements."""
    lines = read_lines(name)
    if not lines:
        return f"Not measured yet: `python -m benchmarks {name}`"
    return f"{render_heading(lines[0], full_length=is_full_length(lines))}\n\n{render(lines)}"


def render_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a Markdown table, padded for terminals; all columns but the first are right-aligned."""
    cells = [list(columns), *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(cell) for cell in column) for column in zip(*cells, strict=True)]
    written = [
        "| " + " | ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) + " |" for row in cells
    ]
    rule = "|" + "|".join(["-" * (widths[0] + 2), *("-" * (width + 1) + ":" for width in widths[1:])]) + "|"
    return "\n".join([written[0], rule, *written[1:]])


def render_heading(line: Measurement, *, full_length: bool) -> str:
    """Return where and when measurements were taken, and the reasons against them.

    Args:
        line: Any measurement of the run.
        full_length: Whether the run was not shortened.
    """
    origin = Origin(**line["origin"])
    doubts = []
    if origin.commit is None or origin.commit.endswith("-dirty"):
        doubts.append("from source that is not committed")
    if origin.others > MAX_OTHER_LOAD:
        doubts.append(f"while others used {origin.others:.0%} of the processor")
    if not full_length:
        doubts.append("in a shortened run")
    packages = ", ".join(f"{name} {number}" for name, number in origin.packages.items())
    where = (
        f"{origin.cpu}, {origin.cores} cores, {origin.memory_gib:g} GiB; {origin.system}, Python {origin.python}; "
        f"{packages} (dlib built with {origin.dlib}); commit {origin.commit or 'none'}; {origin.at}."
    )
    return (f"**Provisional: measured {', '.join(doubts)}.** " if doubts else "") + where


def write_document(name: str, text: str, path: Path = DOCUMENT) -> None:
    """Replace the text between a document's markers `<!-- name -->` and `<!-- /name -->`.

    Raises:
        ValueError: A marker is missing.
    """
    start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    before, opened, rest = path.read_text(encoding="utf-8").partition(start)
    _, closed, after = rest.partition(end)
    if not opened or not closed:
        raise ValueError(f"{path.name} lacks {start} … {end}")
    path.write_text(f"{before}{start}\n{text}\n{end}{after}", encoding="utf-8")


def format_milliseconds(value: float) -> str:
    """Format a duration with three digits."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _get_system_name() -> str:
    try:
        name = platform.freedesktop_os_release()["PRETTY_NAME"]
    except OSError:
        name = platform.system()
    return f"{name}, {platform.machine()}"
