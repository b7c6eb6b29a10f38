"""`vultus calibrate`: thresholds measured on a collection's own faces."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from vultus.cli.common import Json, load_settings, out, print_json, print_table, run
from vultus.cli.groups import show_groups
from vultus.domain import Actor
from vultus.evaluation.page import percent, scientific
from vultus.main import open_services
from vultus.schemas.calibration import CalibrationOut
from vultus.services.calibration.calibration import (
    DEFAULT_SAMPLE,
    LEAST_SAMPLE,
    MOST_SAMPLE,
    Calibrated,
    OwnGallery,
    Wanted,
)

if TYPE_CHECKING:
    from vultus.services.calibration.thresholds import OwnPoint
    from vultus.settings import Settings
    from vultus.statistics.intervals import Rate

COLUMNS = ("threshold", "FMR, from", "FMR here", "FNMR here", "FPIR expected", "FPIR here")


def calibrate(
    collection: Annotated[str, typer.Argument(help="Id or name.")],
    target_fmr: Annotated[float | None, typer.Option(min=1e-12, max=0.5, help="Wanted false match rate.")] = None,
    target_fpir: Annotated[
        float | None, typer.Option(min=1e-12, max=0.999, help="Wanted false positive identification rate of a search.")
    ] = None,
    apply: Annotated[
        bool, typer.Option("--apply", help="Store the thresholds, and the target for the policy.")
    ] = False,
    sample: Annotated[
        int, typer.Option(min=LEAST_SAMPLE, max=MOST_SAMPLE, help="Most faces compared.")
    ] = DEFAULT_SAMPLE,
    seed: Annotated[int, typer.Option(min=0, help="Of the draw, if there are more.")] = 0,
    group_by: Annotated[str | None, typer.Option(help="Metadata key to report error rates by.")] = None,
    as_json: Json = False,
) -> None:
    """Measure a collection on its own faces and propose a threshold; --apply sets it."""
    wanted = Wanted(target_fmr, target_fpir, apply=apply, sample=sample, seed=seed, group_by=group_by)

    async def work(settings: Settings) -> Calibrated:
        async with open_services(settings) as services:
            job = OwnGallery(services.database, services.pipelines, services.collections)
            return await job.calibrate(collection, wanted, actor=Actor("cli"))

    done = run(work(load_settings()), as_json=as_json)
    if as_json:
        print_json(CalibrationOut.like(done).model_dump(mode="json"))
        return
    _show(done)


def _show(done: Calibrated) -> None:
    measured = done.measured
    title = (
        f"{done.collection.name}: {measured.genuine:,} comparisons of one person and {measured.impostor:,} of two, "
        f"{done.faces:,} of {done.gallery_size:,} faces"
    )
    rows = [_row("", point) for point in measured.points]
    rows += [_row("now ", measured.current), _row("proposed ", measured.proposed)]
    print_table(title, COLUMNS, rows)
    if done.suspicious:
        pairs = [(one.first_person_id, one.second_person_id, f"{one.similarity:.4f}") for one in done.suspicious]
        print_table("Maybe one person enrolled twice", ("person", "person", "cosine"), pairs)
    if done.groups:
        show_groups((done.groups,))
    out.print(done.source, soft_wrap=True)
    out.print("Stored." if done.applied else "Nothing was changed; --apply stores it.")


def _row(name: str, point: OwnPoint) -> tuple[str, ...]:
    return (
        f"{name}{point.threshold:.4f}",
        f"{scientific(point.stated_fmr)}, {point.origin}",
        _rate(point.fmr, small=True),
        _rate(point.fnmr),
        scientific(point.expected_fpir),
        _rate(point.measured_fpir),
    )


def _rate(rate: Rate | None, *, small: bool = False) -> str:
    if rate is None:
        return ""
    write = scientific if small else percent
    return f"{write(rate.value)} ({write(rate.low)} to {write(rate.high)})"
