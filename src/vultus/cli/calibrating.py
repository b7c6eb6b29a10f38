"""`vultus calibrate`: thresholds measured on a collection's own faces."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from vultus.cli.common import COMMAND_LINE, JsonOption, load_settings, out, print_json, print_table, run_command
from vultus.cli.groups import show_groups
from vultus.cli.opening import open_services
from vultus.evaluation.page import format_percent, format_scientific
from vultus.schemas.calibration import CalibrationOut
from vultus.services.calibration.calibration import (
    DEFAULT_SAMPLE,
    MAX_SAMPLE,
    MIN_SAMPLE,
    CalibrationRequest,
    CalibrationResult,
    CollectionCalibrator,
)

if TYPE_CHECKING:
    from vultus.services.calibration.thresholds import OperatingPoint
    from vultus.settings import Settings
    from vultus.statistics.intervals import Rate

CHILDREN_NOTE = (
    "No network here tells children under about twelve apart, whatever the threshold: let none decide about them alone."
)
COLUMNS = ("threshold", "FMR, from", "FMR here", "FNMR here", "FPIR expected", "FPIR here")


def calibrate(
    collection: Annotated[str, typer.Argument(help="Id or name.")],
    target_fmr: Annotated[float | None, typer.Option(min=1e-12, max=0.5, help="Target false match rate.")] = None,
    target_fpir: Annotated[
        float | None, typer.Option(min=1e-12, max=0.999, help="Target false positive identification rate of a search.")
    ] = None,
    apply: Annotated[
        bool, typer.Option("--apply", help="Store the thresholds, and the target for the policy.")
    ] = False,
    sample: Annotated[int, typer.Option(min=MIN_SAMPLE, max=MAX_SAMPLE, help="Most faces compared.")] = DEFAULT_SAMPLE,
    seed: Annotated[int, typer.Option(min=0, help="Of the draw, if there are more.")] = 0,
    group_by: Annotated[str | None, typer.Option(help="Metadata key to report error rates by.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure a collection, and propose a threshold.

    It is measured on its own faces; --apply sets the threshold.
    """
    request = CalibrationRequest(target_fmr, target_fpir, apply=apply, sample=sample, seed=seed, group_by=group_by)

    async def measure_collection(settings: Settings) -> CalibrationResult:
        async with open_services(settings) as services:
            job = CollectionCalibrator(services.database, services.spaces, services.collections)
            return await job.calibrate(COMMAND_LINE, collection, request)

    done = run_command(measure_collection(load_settings()))
    if as_json:
        print_json(CalibrationOut.from_attributes(done).model_dump(mode="json"))
        return
    _show_calibration(done)


def _show_calibration(done: CalibrationResult) -> None:
    measured = done.measured
    title = (
        f"{done.collection.name}: {measured.genuine:,} comparisons of one person and {measured.impostor:,} of two, "
        f"{done.faces:,} of {done.gallery_size:,} faces"
    )
    rows = [_build_point_row("", point) for point in measured.points]
    rows += [_build_point_row("now ", measured.current), _build_point_row("proposed ", measured.proposed)]
    print_table(title, COLUMNS, rows)
    if done.suspicious:
        pairs = [
            (pair.first_person_id, pair.second_person_id, f"{pair.similarity or 0:.4f}") for pair in done.suspicious
        ]
        print_table("Maybe one person enrolled twice", ("person", "person", "cosine"), pairs)
    if done.groups:
        show_groups((done.groups,))
    out.print(done.source, soft_wrap=True)
    out.print(CHILDREN_NOTE, soft_wrap=True)
    out.print("Stored." if done.applied else "Nothing was changed; --apply stores it.")


def _build_point_row(name: str, point: OperatingPoint) -> tuple[str, ...]:
    return (
        f"{name}{point.threshold:.4f}",
        f"{format_scientific(point.stated_fmr)}, {point.origin}",
        _format_rate(point.fmr, small=True),
        _format_rate(point.fnmr),
        format_scientific(point.expected_fpir),
        _format_rate(point.measured_fpir),
    )


def _format_rate(rate: Rate | None, *, small: bool = False) -> str:
    if rate is None:
        return ""
    write = format_scientific if small else format_percent
    return f"{write(rate.value)} ({write(rate.low)} to {write(rate.high)})"
