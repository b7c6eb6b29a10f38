"""Error rates by group, as sections of a report's page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vultus.evaluation.page import NONE, Markup, cosine, section, share, small_rate, table
from vultus.statistics.groups import LEAST_PERSONS
from vultus.statistics.metrics import RESOLVED_ERRORS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vultus.statistics.groups import Differential, GroupsResult

SMALL = "too small to be resolved"


def sections(results: Sequence[GroupsResult]) -> list[str]:
    """Return a section for each division into groups."""
    made = []
    for result in results:
        made += [
            section(
                f"By {result.column}",
                "One threshold for everybody. False matches are counted among the persons of a group and, as a second "
                "figure, between them and persons of other groups; misses among the photos of each person. "
                f"{result.without_group:,} persons have no group and take no part. A rate is resolved where the common "
                f"rate of all groups would mean at least {RESOLVED_ERRORS} errors in the group, of at least "
                f"{LEAST_PERSONS} persons.",
            ),
            _differentials(result.differentials),
        ]
        made += [_at(result, at) for at in range(len(result.differentials))]
    return made


def _differentials(differentials: Sequence[Differential]) -> str:
    rows = [
        (
            cosine(one.threshold),
            _ratio(one.fmr_ratio, one.fmr_worst, one.fmr_best),
            _ratio(one.fnmr_ratio, one.fnmr_worst, one.fnmr_best),
        )
        for one in differentials
    ]
    return table(("threshold", "false match rate, worst to best", "false non-match rate, worst to best"), rows)


def _ratio(ratio: float | None, worst: str | None, best: str | None) -> str:
    if worst is None:
        return NONE
    return f"{'best is 0' if ratio is None else f'{ratio:.2f}'} ({worst} to {best})"


def _at(result: GroupsResult, at: int) -> str:
    rows = [
        (
            group.name,
            f"{group.persons:,}",
            f"{group.faces:,}",
            _marked(small_rate(rates.fmr), resolved=rates.fmr_resolved),
            small_rate(rates.fmr_across),
            _marked(share(rates.fnmr), resolved=rates.fnmr_resolved),
        )
        for group in result.groups
        for rates in [group.rates[at]]
    ]
    columns = ("group", "persons", "photos", "FMR within the group", "FMR across groups", "false non-match rate")
    limit = cosine(result.differentials[at].threshold)
    return f"<details><summary>At threshold {limit}</summary>{table(columns, rows)}</details>"


def _marked(cell: str, *, resolved: bool) -> str:
    return cell if resolved or cell == NONE else Markup(f"{cell} <small>{SMALL}</small>")
