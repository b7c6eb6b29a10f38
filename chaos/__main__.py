"""`python -m chaos [figure …]`: break things on purpose, and print a line per figure with tries, failures and bound."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import signal
import sys
import time

from benchmarks.record import Origin

from chaos import (
    bombs,
    canaries,
    deliveries,
    durability,
    erasure,
    faults,
    fuzzing,
    isolation,
    keyless,
    kills,
    losses,
    malformed,
    oracle,
    overload,
    record,
    residues,
    restores,
    retries,
    sessions,
    slow,
    tampered_audit,
    tampering,
    theft,
    unconsented,
)
from chaos.outcome import Figure, Outcome, Plan

FIGURES = {
    name: Figure.from_module(module)
    for name, module in {
        "F1": kills,
        "F2": durability,
        "F3": malformed,
        "F4": bombs,
        "F5": fuzzing,
        "F6": keyless,
        "F7": slow,
        "F8": overload,
        "F9": faults,
        "F10": retries,
        "F11": isolation,
        "F12": erasure,
        "F13": residues,
        "F14": restores,
        "F15": theft,
        "F16": oracle,
        "F17": canaries,
        "F18": tampered_audit,
        "F18b": unconsented,
        "F19": sessions,
        "F20": tampering,
        "F21": deliveries,
        "F22": losses,
    }.items()
}
"""In the order they are measured."""


def measure_figure(name: str, plan: Plan) -> tuple[Outcome, float]:
    """Return the outcome of a figure and how long it took, seconds."""
    started = time.monotonic()
    outcome = asyncio.run(_measure(name, plan))
    return outcome, time.monotonic() - started


async def _measure(name: str, plan: Plan) -> Outcome:
    outcome = await FIGURES[name].measure(plan)
    await asyncio.sleep(0.05)  # so that transports learn that they were closed
    return outcome


def main() -> None:
    """Measure the requested figures, or all; the exit status is 1 unless all passed."""
    parser = argparse.ArgumentParser(prog="python -m chaos", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="figure", help=f"{', '.join(FIGURES)}; all unless given")
    parser.add_argument("--short", action="store_true", help="few tries, durations not judged: seconds per figure")
    parser.add_argument("--long", action="store_true", help="of F1 200 kills instead of 20: a quarter of an hour")
    parser.add_argument("--seed", type=int, default=1, help="of everything drawn; 1 unless given")
    parser.add_argument("--json", action="store_true", help="a JSON object per figure instead of a line")
    parser.add_argument("--record", action="store_true", help="store the outcomes, and write them to docs/trust.md")
    options = parser.parse_args()
    if options.record and options.short:
        parser.error("only a full run is recorded")
    if unknown := set(options.names) - set(FIGURES):
        parser.error(f"no such figure: {', '.join(sorted(unknown))}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that servers are stopped too
    logging.disable(logging.WARNING)  # of damaged files, in this process
    plan = Plan(options.seed, options.short, options.long)
    origin = Origin.from_this_machine()
    where = {name: getattr(origin, name) for name in ("at", "commit", "cpu", "cores", "others")}
    if not options.json:
        print(", ".join(f"{name} {value}" for name, value in where.items()), flush=True)
    passed = True
    for name in options.names or FIGURES:
        outcome, seconds = measure_figure(name, plan)
        passed &= outcome.is_passed(plan)
        result = outcome.to_json(name, plan, seconds) | {"origin": where}
        text = json.dumps(result, ensure_ascii=False)
        print(text if options.json else outcome.render_line(name, plan, seconds), flush=True)
        if options.record:
            record.store_result(result, FIGURES)
            record.update_document(FIGURES)
    sys.exit(not passed)


if __name__ == "__main__":
    main()
