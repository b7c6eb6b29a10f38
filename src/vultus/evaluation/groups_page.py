"""Error rates by group, as sections of a report's page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vultus.evaluation.page import (
    NO_VALUE,
    Markup,
    format_cosine,
    format_share,
    format_small_rate,
    render_section,
    render_table,
)
from vultus.statistics.groups import MIN_GROUP_PERSONS
from vultus.statistics.metrics import RESOLVED_ERRORS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vultus.statistics.groups import Differential, GroupsResult

UNRESOLVED_NOTE = "too small to be resolved"


def render_group_sections(results: Sequence[GroupsResult]) -> list[str]:
    """Return the sections of every grouping."""
    sections = []
    for result in results:
        sections += [
            render_section(
                f"By {result.column}",
                "One threshold for everybody. False matches are counted among the persons of a group and, as a second "
                "figure, between them and persons of other groups; misses among the photos of each person. "
                f"{result.without_group:,} persons have no group and take no part. A rate is resolved where the common "
                f"rate of all groups would mean at least {RESOLVED_ERRORS} errors in the group, of at least "
                f"{MIN_GROUP_PERSONS} persons.",
            ),
            _render_differentials(result.differentials),
        ]
        sections += [_render_rates_at_threshold(result, at) for at in range(len(result.differentials))]
    return sections


def _render_differentials(differentials: Sequence[Differential]) -> str:
    rows = [
        (
            format_cosine(differential.threshold),
            _format_ratio(differential.fmr_ratio, differential.fmr_worst, differential.fmr_best),
            _format_ratio(differential.fnmr_ratio, differential.fnmr_worst, differential.fnmr_best),
        )
        for differential in differentials
    ]
    return render_table(("threshold", "false match rate, worst to best", "false non-match rate, worst to best"), rows)


def _format_ratio(ratio: float | None, worst: str | None, best: str | None) -> str:
    if worst is None:
        return NO_VALUE
    return f"{'best is 0' if ratio is None else f'{ratio:.2f}'} ({worst} to {best})"


def _render_rates_at_threshold(result: GroupsResult, threshold_index: int) -> str:
    rows = [
        (
            group.name,
            f"{group.persons:,}",
            f"{group.faces:,}",
            _format_resolved_rate(format_small_rate(rates.fmr), is_resolved=rates.fmr_resolved),
            format_small_rate(rates.fmr_across),
            _format_resolved_rate(format_share(rates.fnmr), is_resolved=rates.fnmr_resolved),
        )
        for group in result.groups
        for rates in [group.rates[threshold_index]]
    ]
    columns = ("group", "persons", "photos", "FMR within the group", "FMR across groups", "false non-match rate")
    limit = format_cosine(result.differentials[threshold_index].threshold)
    return f"<details><summary>At threshold {limit}</summary>{render_table(columns, rows)}</details>"


def _format_resolved_rate(cell: str, *, is_resolved: bool) -> str:
    return cell if is_resolved or cell == NO_VALUE else Markup(f"{cell} <small>{UNRESOLVED_NOTE}</small>")
