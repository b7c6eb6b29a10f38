"""`vultus evaluate impostors`: false match rates among people of one sex and one age band."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vultus.cli import evaluate
from vultus.cli.common import JsonOption, load_settings, out, print_json, print_table
from vultus.evaluation.datasets import read_person_folders
from vultus.evaluation.labels import read_demographics
from vultus.evaluation.page import format_cosine, format_scientific
from vultus.evaluation.record import ImpostorsReport, build_evaluation_context
from vultus.evaluation.report import build_summary, write_report
from vultus.statistics.matched import MIN_GROUP_PAIRS, evaluate_matched_impostors

if TYPE_CHECKING:
    from vultus.statistics.intervals import Rate
    from vultus.statistics.matched import GroupFmr, MatchedImpostors

evaluation = evaluate.app


@evaluation.command("impostors")
def run_impostors_evaluation(
    folder: evaluate.FolderArgument,
    groups: Annotated[Path, typer.Option("--groups", help="CSV with path or person, age, sex and perhaps race.")],
    out_dir: evaluate.OutOption = Path("report"),
    workers: evaluate.WorkersOption = None,
    pack: evaluate.PackOption = None,
    as_json: JsonOption = False,
) -> None:
    """False match rates among people of one sex and one age band; one photo per person suffices."""
    settings = load_settings()
    data = read_person_folders(folder)
    labels = read_demographics(groups, data)
    pipeline = evaluate.open_pipeline(settings, pack, calibrated=False)
    described = evaluate.embed_photos(pipeline, data, workers or settings.inference.workers, show=not as_json)
    command = ["vultus", "evaluate", "impostors", str(folder), "--groups", str(groups)]
    command += ["--pack", pack] if pack else []
    stated = pipeline.calibration.points
    used = (pipeline.calibration.get_threshold(pipeline.calibration.default_fmr),) if stated else ()
    found = described.has_vector
    result = evaluate_matched_impostors(
        described.vectors[found],
        data.person_indices[found],
        labels.select_photos(found),
        (*(threshold for _, threshold in stated), *used),
    )
    report = ImpostorsReport(
        build_evaluation_context(data, described, evaluate.describe_run(pipeline, command)), stated, result
    )
    page = write_report(report, out_dir)
    if as_json:
        print_json(build_summary(report))
    else:
        show_matched_impostors(result)
        out.print(f"Report: {page}", soft_wrap=True)


def show_matched_impostors(result: MatchedImpostors) -> None:
    """Print the rates of matched adults, their worst group and children at every threshold."""
    targets = {point.threshold: point for point in result.points}
    rows = []
    for at, rates in enumerate(result.rates):
        target = targets.get(rates.threshold)
        worst = f"{_format_rate(rates.worst_fmr)}, {rates.worst}" if rates.worst_fmr else ""
        rows.append(
            (
                format_cosine(rates.threshold),
                f"{format_scientific(target.target_fmr)}{'' if target.resolved else ' *'}" if target else "",
                _format_interval(rates.fmr),
                worst,
                *(_format_rate(group.rates[at]) for group in result.children),
            )
        )
    children = [f"children {group.name}" for group in result.children]
    print_table(
        f"{result.pairs:,} pairs of adults of one sex and age band; * too few errors to be resolved",
        ("threshold", "target FMR", "FMR, matched", f"worst group of {MIN_GROUP_PAIRS:,} pairs", *children),
        rows,
    )


def _format_rate(group: GroupFmr | None) -> str:
    return f"{format_scientific(group.fmr.value)}{'' if group.resolved else ' *'}" if group else ""


def _format_interval(rate: Rate) -> str:
    return f"{format_scientific(rate.value)} ({format_scientific(rate.low)} to {format_scientific(rate.high)})"
