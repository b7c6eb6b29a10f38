"""Error rates by group, as tables for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vultus.cli.common import out, print_table
from vultus.evaluation.page import cosine, percent, scientific

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vultus.statistics.groups import GroupsResult
    from vultus.statistics.intervals import Rate

COLUMNS = ("threshold", "group", "persons", "FMR within", "FMR across", "FNMR")


def show_groups(results: Iterable[GroupsResult]) -> None:
    """Print each group's rates and how far the worst is from the best; too small groups are marked."""
    for result in results:
        rows = [
            (
                cosine(rates.threshold),
                group.name,
                group.persons,
                _rate(rates.fmr, resolved=rates.fmr_resolved, small=True),
                _rate(rates.fmr_across, resolved=True, small=True),
                _rate(rates.fnmr, resolved=rates.fnmr_resolved),
            )
            for at in range(len(result.differentials))
            for group in result.groups
            for rates in [group.rates[at]]
        ]
        print_table(f"By {result.column}; * too small to be resolved", COLUMNS, rows)
        for one in result.differentials:
            ratios = [
                f"{name} {ratio:.2f} ({worst} to {best})"
                for name, ratio, worst, best in (
                    ("FMR", one.fmr_ratio, one.fmr_worst, one.fmr_best),
                    ("FNMR", one.fnmr_ratio, one.fnmr_worst, one.fnmr_best),
                )
                if ratio is not None
            ]
            if ratios:
                out.print(f"worst to best at {one.threshold:.4f}: {', '.join(ratios)}", soft_wrap=True)


def _rate(rate: Rate | None, *, resolved: bool, small: bool = False) -> str:
    if rate is None:
        return ""
    write = scientific if small else percent
    return f"{write(rate.value)} ({write(rate.low)} to {write(rate.high)}){'' if resolved else ' *'}"
