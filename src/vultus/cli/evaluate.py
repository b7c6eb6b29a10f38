"""`vultus evaluate`: accuracy of the installed pack on a data set, with a report."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from vultus.cli.common import Json, err, fail, load_settings, out, print_json, print_table
from vultus.cli.groups import show_groups
from vultus.errors import InvalidInputError, VultusError
from vultus.evaluation.calibration_export import calibration_from
from vultus.evaluation.datasets import DataSet, Pairs, read_folders, read_groups, read_pairs
from vultus.evaluation.gallery import evaluate_gallery
from vultus.evaluation.identification import Fusion, split
from vultus.evaluation.liveness import evaluate_liveness, judge_all, read_presentations, watching
from vultus.evaluation.page import percent, scientific
from vultus.evaluation.pairs import by_groups, evaluate_all, evaluate_listed
from vultus.evaluation.provenance import Provenance, provenance
from vultus.evaluation.record import GalleryReport, LivenessReport, PairsReport, evaluated
from vultus.evaluation.report import summary, write
from vultus.evaluation.runner import Described, describe_all
from vultus.main import open_store
from vultus.models.catalog.entries import Kind
from vultus.models.catalog.packs import network_named
from vultus.models.liveness import LivenessDetector
from vultus.models.liveness.minifasnet import LivenessRule
from vultus.models.loading import load_liveness
from vultus.models.pipeline import FacePipeline

if TYPE_CHECKING:
    from vultus.evaluation.liveness import MeanRate
    from vultus.settings import Settings
    from vultus.statistics.intervals import Mean, Rate

app = typer.Typer(no_args_is_help=True)

LIVENESS_THRESHOLD = LivenessRule().threshold

Folder = Annotated[Path, typer.Argument(metavar="DIR", exists=True, file_okay=False, help="One folder a person.")]
Out = Annotated[Path, typer.Option("--out", help="Folder for report.html and report.json.")]
PackName = Annotated[str | None, typer.Option("--pack", help="Pack, or DETECTOR+EMBEDDER; default: the one in use.")]
Workers = Annotated[int | None, typer.Option(min=1, help="Photos at a time; default: inference.workers.")]


@app.command()
def pairs(
    folder: Folder,
    pairs_file: Annotated[
        Path | None, typer.Option("--pairs", help="List in LFW's format; default: DIR/pairs.txt, if it exists.")
    ] = None,
    groups: Annotated[
        Path | None, typer.Option("--groups", help="CSV with the columns person,GROUP,…: error rates by group too.")
    ] = None,
    out_dir: Out = Path("report"),
    workers: Workers = None,
    listed_only: Annotated[bool, typer.Option("--listed-only", help="Describe only the photos listed.")] = False,
    pack: PackName = None,
    keep: Annotated[bool, typer.Option("--keep", help="Use the thresholds measured here for this pack.")] = False,
    as_json: Json = False,
) -> None:
    """Verification: are two photos of one person? LFW's protocol on listed pairs, and all pairs of the data set."""
    settings = load_settings()
    with _readable_errors(as_json=as_json):
        data = read_folders(folder)
        listed = _listed(folder, pairs_file, data, needed=listed_only)
        if listed and listed_only:
            data, listed = data.only(listed.listed), listed.within(listed.listed)
        labels = read_groups(groups, data) if groups else {}
        pipeline = open_pipeline(settings, pack, calibrated=False)
        described = _describe(pipeline, data, workers or settings.inference.workers, show=not as_json)
        command = ["vultus", "evaluate", "pairs", str(folder)]
        command += ["--pack", pack] if pack else []
        command += ["--pairs", str(pairs_file)] if pairs_file else []
        command += ["--groups", str(groups)] if groups else []
        command += ["--listed-only"] if listed_only else []
        try:
            report = PairsReport(
                evaluated(data, described, _provenance(pipeline, command)),
                evaluate_listed(listed, described) if listed else None,
                evaluate_all(data, described, pipeline.calibration),
                by_groups(data, described, pipeline.calibration, labels),
            )
        except ValueError as error:
            raise InvalidInputError(f"The data set is too small: {error}.") from error
        page = write(report, out_dir)
        if keep:
            open_store(settings).records.keep_calibration(pipeline.contract.id, calibration_from(report))
    if as_json:
        print_json(summary(report))
    else:
        _show_pairs(report)
        show_groups(report.groups)
        out.print(f"Report: {page}", soft_wrap=True)


@app.command()
def gallery(
    folder: Folder,
    enrol: Annotated[int, typer.Option(min=1, help="Photos enrolled a person: the first by file name.")] = 1,
    held_out: Annotated[float, typer.Option(min=0, max=1, help="Share of persons who are not enrolled.")] = 0.5,
    seed: Annotated[int, typer.Option(min=0, help="Of the draw of who is not enrolled.")] = 0,
    pack: PackName = None,
    fusion: Annotated[
        Fusion, typer.Option(help="A person's similarity: of the closest template, or of their mean.")
    ] = Fusion.BEST,
    out_dir: Out = Path("report"),
    workers: Workers = None,
    as_json: Json = False,
) -> None:
    """Identification: who is this? Searches for enrolled people and for strangers."""
    settings = load_settings()
    with _readable_errors(as_json=as_json):
        data = read_folders(folder)
        parts = split(data, enrol=enrol, held_out=held_out, seed=seed)
        pipeline = open_pipeline(settings, pack)
        described = _describe(pipeline, data, workers or settings.inference.workers, show=not as_json)
        command = ["vultus", "evaluate", "gallery", str(folder)]
        command += ["--pack", pack] if pack else []
        command += ["--enrol", str(enrol), "--held-out", f"{held_out:g}", "--seed", str(seed)]
        command += ["--fusion", fusion.value] if fusion is not Fusion.BEST else []
        report = GalleryReport(
            evaluated(data, described, _provenance(pipeline, command)),
            enrol,
            held_out,
            seed,
            evaluate_gallery(data, parts, described, pipeline, fusion),
            fusion,
        )
        page = write(report, out_dir)
    if as_json:
        print_json(summary(report))
    else:
        _show_gallery(report)
        out.print(f"Report: {page}", soft_wrap=True)


@app.command()
def liveness(
    folder: Annotated[
        Path,
        typer.Argument(metavar="DIR", exists=True, file_okay=False, help="Photos in live and in spoof/SPECIES."),
    ],
    threshold: Annotated[
        float, typer.Option(min=0, max=1, help="Score from which on a face counts as live.")
    ] = LIVENESS_THRESHOLD,
    out_dir: Out = Path("report"),
    workers: Workers = None,
    as_json: Json = False,
) -> None:
    """Presentation attack detection: do photographed faces pass for live ones?"""
    settings = load_settings()
    with _readable_errors(as_json=as_json):
        data = read_presentations(folder)
        detector, networks = open_liveness(settings)
        pipeline = open_pipeline(settings, None, calibrated=False)
        judge = watching(pipeline, detector, settings.photos)
        with _bar(len(data.photos), show=not as_json) as progress:
            judged = judge_all(judge, data, workers=workers or settings.inference.workers, progress=progress)
        command = ["vultus", "evaluate", "liveness", str(folder)]
        command += ["--threshold", f"{threshold:g}"] if threshold != LIVENESS_THRESHOLD else []
        report = LivenessReport(
            data=folder.resolve().name,
            photos=dict(zip(data.persons, data.counts.tolist(), strict=True)),
            failures=judged.failures,
            photos_per_s=judged.photos_per_s,
            workers=judged.workers,
            networks=networks,
            provenance=_provenance(pipeline, command),
            result=evaluate_liveness(data, judged, threshold),
        )
        page = write(report, out_dir)
    if as_json:
        print_json(summary(report))
    else:
        _show_liveness(report)
        out.print(f"Report: {page}", soft_wrap=True)


def open_liveness(settings: Settings) -> tuple[LivenessDetector, dict[str, str]]:
    """Load the networks that tell live faces from pictures; return them with the SHA-256 of their files."""
    store = open_store(settings)
    network = network_named(settings.inference.liveness or "minifasnet", Kind.LIVENESS)
    detector = load_liveness(network, store)
    return detector, {file.filename: store.digest(file) for file in network.files.values()}


def open_pipeline(settings: Settings, pack: str | None, *, calibrated: bool = True) -> FacePipeline:
    """Load the networks."""
    store = open_store(settings)
    return FacePipeline.load(settings.inference, settings.photos, store, pack=pack, calibrated=calibrated)


@contextmanager
def _readable_errors(*, as_json: bool) -> Iterator[None]:
    try:
        yield
    except VultusError as error:
        fail(error, as_json=as_json)


def _listed(folder: Path, given: Path | None, data: DataSet, *, needed: bool) -> Pairs | None:
    path = given or folder / "pairs.txt"
    return read_pairs(path, data) if given or needed or path.exists() else None


def _provenance(pipeline: FacePipeline, command: list[str]) -> Provenance:
    return provenance(pack=pipeline.pack.name, contract_id=pipeline.contract.id, command=shlex.join(command))


def _describe(pipeline: FacePipeline, data: DataSet, workers: int, *, show: bool) -> Described:
    with _bar(len(data.photos), show=show) as progress:
        return describe_all(pipeline, data, workers=workers, progress=progress)


@contextmanager
def _bar(photos: int, *, show: bool) -> Iterator[Callable[[int, int], None]]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, disable=not show) as progress:
        bar = progress.add_task("photos", total=photos)
        yield lambda done, _: progress.update(bar, completed=done)


def _show_pairs(report: PairsReport) -> None:
    everything, listed = report.all, report.listed
    rows = [("photos without a face", f"{report.evaluated.without_face} of {report.evaluated.photos:,}", "")]
    if listed:
        rows.append(("accuracy, mean of folds", *_share(listed.accuracy.accuracy)))
        rows += [
            (f"TAR at FMR {scientific(point.target_fmr)}, listed", *_share(point.tar))
            for point in listed.points
            if point.tar and point.resolved
        ]
    rows += [
        (f"TAR at FMR {scientific(point.target_fmr)}, all pairs", *_share(point.tar))
        for point in everything.points
        if point.tar and point.resolved
    ]
    rows.append(("equal error rate, all pairs", percent(everything.equal_error.rate), ""))
    print_table("Verification", ("figure", "value", "95 % interval"), rows)


def _show_gallery(report: GalleryReport) -> None:
    result = report.result
    rows = [("photos without a face", f"{report.evaluated.without_face} of {report.evaluated.photos:,}", "")]
    rows += [(f"mate within rank {best}", *_share(rate)) for best, rate in result.identified.items()]
    rows += [
        (f"FNIR at FPIR {scientific(point.target_fpir)}", *_share(point.fnir)) for point in result.points if point.fnir
    ]
    rows += [
        (f"TAR at FMR {scientific(point.target_fmr)}, one to one", *_share(point.tar))
        for point in result.verification
        if point.target_fmr
    ]
    rows += [
        ("FMR at the default threshold, one to one", scientific(point.fmr), "")
        for point in result.verification
        if point.target_fmr is None
    ]
    rows.append(("default decision: right person", *_share(result.decisions_mate["correct_match"])))
    rows.append(("default decision: wrong person", *_share(result.decisions_mate["wrong_match"])))
    rows.append(("default decision: stranger matched", *_share(result.decisions_stranger["wrong_match"])))
    print_table("Identification", ("figure", "value", "95 % interval"), rows)


def _show_liveness(report: LivenessReport) -> None:
    result = report.result
    rows = []
    for words, point in (("", result.default), (", equal error", result.equal_error)):
        rows += [(f"APCER, {kind}{words}", *_share(rate)) for kind, rate in point.apcer.items()]
        rows += [(f"BPCER{words}", *_share(point.bpcer)), (f"ACER, worst species{words}", *_share(point.acer))]
    rows += [("not judged, live", *_share(result.bpnrr))]
    rows += [(f"not judged, {kind}", *_share(rate)) for kind, rate in result.apnrr.items()]
    print_table("Presentation attack detection", ("figure", "value", "95 % interval"), rows)


def _share(value: Rate | Mean | MeanRate) -> tuple[str, str]:
    return percent(value.value), f"{percent(value.low)} to {percent(value.high)}"
