"""Tables of error rates by group."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vultus.cli.common import out, print_table
from vultus.evaluation.page import format_cosine, format_percent, format_scientific

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vultus.statistics.groups import GroupsResult
    from vultus.statistics.intervals import Rate

COLUMNS = ("threshold", "group", "persons", "FMR within", "FMR across", "FNMR")


def show_groups(results: Iterable[GroupsResult]) -> None:
    """Print each group's rates and the ratio of worst to best; groups too small to be resolved are marked."""
    for result in results:
        rows = [
            (
                format_cosine(rates.threshold),
                group.name,
                group.persons,
                _format_rate(rates.fmr, resolved=rates.fmr_resolved, small=True),
                _format_rate(rates.fmr_across, resolved=True, small=True),
                _format_rate(rates.fnmr, resolved=rates.fnmr_resolved),
            )
            for at in range(len(result.differentials))
            for group in result.groups
            for rates in [group.rates[at]]
        ]
        print_table(f"By {result.column}; * too small to be resolved", COLUMNS, rows)
        for differential in result.differentials:
            ratios = [
                f"{name} {ratio:.2f} ({worst} to {best})"
                for name, ratio, worst, best in (
                    ("FMR", differential.fmr_ratio, differential.fmr_worst, differential.fmr_best),
                    ("FNMR", differential.fnmr_ratio, differential.fnmr_worst, differential.fnmr_best),
                )
                if ratio is not None
            ]
            if ratios:
                out.print(f"worst to best at {differential.threshold:.4f}: {', '.join(ratios)}", soft_wrap=True)


def _format_rate(rate: Rate | None, *, resolved: bool, small: bool = False) -> str:
    if rate is None:
        return ""
    write = format_scientific if small else format_percent
    return f"{write(rate.value)} ({write(rate.low)} to {write(rate.high)}){'' if resolved else ' *'}"
