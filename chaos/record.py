"""Stored outcomes of figures, and the table of docs/trust.md made from them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from benchmarks.record import MAX_OTHER_LOAD, ROOT, write_document

if TYPE_CHECKING:
    from collections.abc import Iterable

    from chaos.outcome import Figure

RESULTS = ROOT / "chaos" / "results.jsonl"
DOCUMENT = ROOT / "docs" / "trust.md"
MARKER = "figures"

Result = dict[str, Any]


def read_results() -> dict[str, Result]:
    """Return the stored outcomes by figure."""
    lines = RESULTS.read_text(encoding="utf-8").splitlines() if RESULTS.is_file() else []
    return {result["figure"]: result for result in map(json.loads, lines)}


def store_result(result: Result, order: Iterable[str]) -> None:
    """Store an outcome in place of the figure's last one; lines are in the order of the figures."""
    results = read_results() | {result["figure"]: result}
    lines = [json.dumps(results[name], ensure_ascii=False) + "\n" for name in order if name in results]
    RESULTS.write_text("".join(lines), encoding="utf-8")


def render_results(figures: dict[str, Figure]) -> str:
    """Return the table of all figures, and what each measured."""
    results = read_results()
    rows = [_build_row(name, figure, results.get(name)) for name, figure in figures.items()]
    columns = ("figure", "what is asked", "bar", "tries", "failures", "bound", "verdict", "measured")
    table = [columns, ("---",) * len(columns), *rows]
    lines = [f"| {' | '.join(map(str, row))} |" for row in table]
    return "\n\n".join(
        ["\n".join(lines), *(_render_details(name, results[name]) for name in figures if name in results)]
    )


def update_document(figures: dict[str, Figure]) -> None:
    """Write the table into the document."""
    write_document(MARKER, render_results(figures), DOCUMENT)


def _build_row(name: str, figure: Figure, result: Result | None) -> list[object]:
    if result is None:
        return [name, figure.question, figure.bar, "", "", "", "not measured yet", ""]
    verdict = "held" if result["passed"] else "**not held**"
    origin = result["origin"]
    when = f"{origin['at'][:10]}, {origin['commit'] or 'no commit'}"
    if origin["others"] > MAX_OTHER_LOAD:
        when += ", provisional: the machine was busy with other programs"
    bound = f"≤ {result['bound']:.2g}"
    tries, failures = f"{result['tries']:,}", f"{result['failures']:,}"
    return [name, figure.question, figure.bar, tries, failures, bound, verdict, when]


def _render_details(name: str, result: Result) -> str:
    origin = result["origin"]
    values = [
        f"{bar['name']} {bar['value']:.4g} ({'≥' if bar['at_least'] else '≤'} {bar['limit']:g}"
        f"{'' if bar['held'] else ', not held'})"
        for bar in result["bars"]
    ]
    failed = [f"failed: {one}" for one in result["failed"][:3]]
    command = f"python -m chaos {name} --seed {result['seed']}{' --long' * result.get('long', False)}"
    return (
        f"**{name}** {'; '.join([*values, *result['notes'], *failed])}. `{command}`: {result['seconds']:.0f} s on "
        f"{origin['cpu']}, {origin['cores']} cores, of which other programs used {origin['others']:.0%} just before."
    )
