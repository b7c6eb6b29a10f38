"""`vultus evaluate`: accuracy of the installed pack on a data set, with a report."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vultus.cli.common import JsonOption, load_settings, open_progress_bar, out, print_json, print_table
from vultus.cli.groups import show_groups
from vultus.errors import InvalidInputError
from vultus.evaluation.calibration_export import build_calibration
from vultus.evaluation.datasets import DataSet, ListedPairs, read_pairs, read_person_folders
from vultus.evaluation.gallery import evaluate_gallery
from vultus.evaluation.identification import TemplateFusion, split_gallery
from vultus.evaluation.labels import read_groups
from vultus.evaluation.liveness import (
    AssessedPhotos,
    assess_photos,
    build_liveness_assessor,
    evaluate_liveness,
    read_presentations,
)
from vultus.evaluation.page import format_percent, format_scientific
from vultus.evaluation.pairs import evaluate_all_pairs, evaluate_by_group, evaluate_listed_pairs
from vultus.evaluation.provenance import Provenance, build_provenance
from vultus.evaluation.record import GalleryReport, LivenessReport, PairsReport, build_evaluation_context
from vultus.evaluation.report import build_summary, write_report
from vultus.evaluation.runner import DescribedPhotos, describe_photos
from vultus.main import open_weights_store
from vultus.models.catalog.packs import get_liveness_networks
from vultus.models.liveness import LivenessDetector
from vultus.models.liveness.ensemble import LivenessRule
from vultus.models.loading import load_liveness
from vultus.models.pipeline import FacePipeline

if TYPE_CHECKING:
    from vultus.evaluation.liveness import MeanRate
    from vultus.settings import Settings
    from vultus.statistics.intervals import Mean, Rate

app = typer.Typer(no_args_is_help=True)

LIVENESS_THRESHOLD = LivenessRule().threshold

FolderArgument = Annotated[
    Path, typer.Argument(metavar="DIR", exists=True, file_okay=False, help="One folder per person.")
]
OutOption = Annotated[Path, typer.Option("--out", help="Folder for report.html and report.json.")]
PackOption = Annotated[str | None, typer.Option("--pack", help="Pack, or DETECTOR+EMBEDDER; default: the one in use.")]
WorkersOption = Annotated[int | None, typer.Option(min=1, help="Photos at a time; default: inference.workers.")]


@app.command("pairs")
def run_pairs_evaluation(
    folder: FolderArgument,
    pairs_file: Annotated[
        Path | None, typer.Option("--pairs", help="List in LFW's format; default: DIR/pairs.txt, if it exists.")
    ] = None,
    groups: Annotated[
        Path | None,
        typer.Option("--groups", help="CSV with the columns person,GROUP,… or path,GROUP,…: error rates by group."),
    ] = None,
    out_dir: OutOption = Path("report"),
    workers: WorkersOption = None,
    listed_only: Annotated[bool, typer.Option("--listed-only", help="Describe only the photos listed.")] = False,
    pack: PackOption = None,
    keep: Annotated[bool, typer.Option("--keep", help="Use the thresholds measured here for this pack.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Verification: are two photos of one person? LFW's protocol on listed pairs, and all pairs of the data set."""
    settings = load_settings()
    data = read_person_folders(folder)
    listed = _read_listed_pairs(folder, pairs_file, data, needed=listed_only)
    if listed and listed_only:
        data, listed = data.select_photos(listed.photo_positions), listed.convert_positions(listed.photo_positions)
    labels = read_groups(groups, data) if groups else {}
    pipeline = open_pipeline(settings, pack, calibrated=False)
    described = embed_photos(pipeline, data, workers or settings.inference.workers, show=not as_json)
    command = ["vultus", "evaluate", "pairs", str(folder)]
    command += ["--pack", pack] if pack else []
    command += ["--pairs", str(pairs_file)] if pairs_file else []
    command += ["--groups", str(groups)] if groups else []
    command += ["--listed-only"] if listed_only else []
    try:
        report = PairsReport(
            build_evaluation_context(data, described, describe_run(pipeline, command)),
            evaluate_listed_pairs(listed, described) if listed else None,
            evaluate_all_pairs(data, described, pipeline.calibration),
            evaluate_by_group(data, described, pipeline.calibration, labels),
        )
    except ValueError as error:
        raise InvalidInputError(f"The data set is too small: {error}.") from error
    page = write_report(report, out_dir)
    if keep:
        open_weights_store(settings).installation.save_calibration(pipeline.space.id, build_calibration(report))
    if as_json:
        print_json(build_summary(report))
    else:
        _show_pairs(report)
        show_groups(report.groups)
        out.print(f"Report: {page}", soft_wrap=True)


@app.command("gallery")
def run_gallery_evaluation(
    folder: FolderArgument,
    enrol: Annotated[int, typer.Option(min=1, help="Photos enrolled per person: the first by file name.")] = 1,
    held_out: Annotated[float, typer.Option(min=0, max=1, help="Share of persons who are not enrolled.")] = 0.5,
    seed: Annotated[int, typer.Option(min=0, help="Of the draw of who is not enrolled.")] = 0,
    pack: PackOption = None,
    fusion: Annotated[
        TemplateFusion, typer.Option(help="A person's similarity: of the closest template, or of their mean.")
    ] = TemplateFusion.BEST,
    out_dir: OutOption = Path("report"),
    workers: WorkersOption = None,
    as_json: JsonOption = False,
) -> None:
    """Identification: who is this? Searches for enrolled people and for strangers."""
    settings = load_settings()
    data = read_person_folders(folder)
    parts = split_gallery(data, enrol=enrol, held_out=held_out, seed=seed)
    pipeline = open_pipeline(settings, pack)
    described = embed_photos(pipeline, data, workers or settings.inference.workers, show=not as_json)
    command = ["vultus", "evaluate", "gallery", str(folder)]
    command += ["--pack", pack] if pack else []
    command += ["--enrol", str(enrol), "--held-out", f"{held_out:g}", "--seed", str(seed)]
    command += ["--fusion", fusion.value] if fusion is not TemplateFusion.BEST else []
    report = GalleryReport(
        build_evaluation_context(data, described, describe_run(pipeline, command)),
        enrol,
        held_out,
        seed,
        evaluate_gallery(data, parts, described, pipeline, fusion),
        fusion,
    )
    page = write_report(report, out_dir)
    if as_json:
        print_json(build_summary(report))
    else:
        _show_gallery(report)
        out.print(f"Report: {page}", soft_wrap=True)


@app.command("liveness")
def run_liveness_evaluation(
    folder: Annotated[
        Path,
        typer.Argument(metavar="DIR", exists=True, file_okay=False, help="Photos in live and in spoof/SPECIES."),
    ],
    networks: Annotated[
        list[str] | None,
        typer.Option(
            "--network", help="Liveness network, or an ensemble NAME+NAME; repeatable: a report each in OUT/NETWORK."
        ),
    ] = None,
    threshold: Annotated[
        float, typer.Option(min=0, max=1, help="Score from which on a face counts as live.")
    ] = LIVENESS_THRESHOLD,
    out_dir: OutOption = Path("report"),
    workers: WorkersOption = None,
    pack: PackOption = None,
    as_json: JsonOption = False,
) -> None:
    """Presentation attack detection: do photographed faces pass for live ones?"""
    settings = load_settings()
    data = read_presentations(folder)
    names = networks or [settings.inference.liveness or "minifasnet"]
    opened = [open_liveness(settings, name) for name in names]
    pipeline = open_pipeline(settings, pack, calibrated=False)
    assessor = build_liveness_assessor(pipeline, [one.detector for one in opened], settings.photos)
    with _show_progress(len(data.photos), show=not as_json) as progress:
        assessed = assess_photos(assessor, data, workers=workers or settings.inference.workers, progress=progress)
    if not assessed:
        raise InvalidInputError(f"No face was found in any of the {len(data.photos)} photos of {folder}.")
    command = ["vultus", "evaluate", "liveness", str(folder)]
    command += [word for name in networks or () for word in ("--network", name)]
    command += ["--threshold", f"{threshold:g}"] if threshold != LIVENESS_THRESHOLD else []
    command += ["--pack", pack] if pack else []
    provenance = describe_run(pipeline, command)
    reports = [
        _build_liveness_report(data, photos, one, threshold, provenance)
        for one, photos in zip(opened, assessed, strict=True)
    ]
    folders = [out_dir / report.network if len(reports) > 1 else out_dir for report in reports]
    pages = [write_report(report, target) for report, target in zip(reports, folders, strict=True)]
    if as_json:
        summaries = [build_summary(report) for report in reports]
        print_json(summaries if len(summaries) > 1 else summaries[0])
        return
    for report, page in zip(reports, pages, strict=True):
        _show_liveness(report)
        out.print(f"Report: {page}", soft_wrap=True)


@dataclass(frozen=True, slots=True)
class OpenedLiveness:
    """A liveness network or ensemble under evaluation.

    Attributes:
        name: As in the catalogue.
        detector: The loaded networks.
        digests: SHA-256 of each file of weights.
    """

    name: str
    detector: LivenessDetector
    digests: dict[str, str]


def open_liveness(settings: Settings, name: str) -> OpenedLiveness:
    """Load a liveness network or ensemble."""
    store = open_weights_store(settings)
    networks = get_liveness_networks(name)
    detector = load_liveness(networks, store)
    digests = {file.filename: store.get_digest(file) for network in networks for file in network.files.values()}
    return OpenedLiveness("+".join(one.name for one in networks), detector, digests)


def _build_liveness_report(
    data: DataSet, assessed: AssessedPhotos, opened: OpenedLiveness, threshold: float, provenance: Provenance
) -> LivenessReport:
    return LivenessReport(
        data=data.root.resolve().name,
        photos=dict(zip(data.persons, data.photo_counts.tolist(), strict=True)),
        failures=assessed.failures,
        photos_per_s=assessed.photos_per_s,
        workers=assessed.workers,
        networks=opened.digests,
        provenance=provenance,
        result=evaluate_liveness(data, assessed, threshold),
        network=opened.name,
    )


def open_pipeline(settings: Settings, pack: str | None, *, calibrated: bool = True) -> FacePipeline:
    """Load a pack."""
    store = open_weights_store(settings)
    return FacePipeline.load(settings.inference, settings.photos, store, pack=pack, calibrated=calibrated)


def _read_listed_pairs(folder: Path, pairs_file: Path | None, data: DataSet, *, needed: bool) -> ListedPairs | None:
    path = pairs_file or folder / "pairs.txt"
    return read_pairs(path, data) if pairs_file or needed or path.exists() else None


def describe_run(pipeline: FacePipeline, command: list[str]) -> Provenance:
    """Return what is needed to make the report again."""
    return build_provenance(pack=pipeline.pack.name, contract_id=pipeline.space.id, command=shlex.join(command))


def embed_photos(pipeline: FacePipeline, data: DataSet, workers: int, *, show: bool) -> DescribedPhotos:
    """Describe every photo, with a progress bar if `show`."""
    with _show_progress(len(data.photos), show=show) as progress:
        return describe_photos(pipeline, data, workers=workers, progress=progress)


@contextmanager
def _show_progress(photos: int, *, show: bool) -> Iterator[Callable[[int, int], None]]:
    with open_progress_bar(show=show) as progress:
        bar = progress.add_task("photos", total=photos)
        yield lambda done, _: progress.update(bar, completed=done)


def _show_pairs(report: PairsReport) -> None:
    all_pairs, listed = report.all, report.listed
    rows = [("photos without a face", f"{report.evaluated.without_face} of {report.evaluated.photos:,}", "")]
    if listed:
        rows.append(("accuracy, mean of folds", *_format_share(listed.accuracy.accuracy)))
        rows += [
            (f"TAR at FMR {format_scientific(point.target_fmr)}, listed", *_format_share(point.tar))
            for point in listed.points
            if point.tar and point.resolved
        ]
    rows += [
        (f"TAR at FMR {format_scientific(point.target_fmr)}, all pairs", *_format_share(point.tar))
        for point in all_pairs.points
        if point.tar and point.resolved
    ]
    if all_pairs.equal_error:
        rows.append(("equal error rate, all pairs", format_percent(all_pairs.equal_error.rate), ""))
    else:
        rows.append(("pairs of one person", "none: false match rates only", ""))
        rows += [
            (f"FMR at {check.threshold:.4f}, all pairs", *_format_small_rate(check.fmr))
            for check in all_pairs.calibration
        ]
    print_table("Verification", ("figure", "value", "95 % interval"), rows)


def _show_gallery(report: GalleryReport) -> None:
    result = report.result
    rows = [("photos without a face", f"{report.evaluated.without_face} of {report.evaluated.photos:,}", "")]
    rows += [(f"mate within rank {best}", *_format_share(rate)) for best, rate in result.identified.items()]
    rows += [
        (f"FNIR at FPIR {format_scientific(point.target_fpir)}", *_format_share(point.fnir))
        for point in result.points
        if point.fnir
    ]
    rows += [
        (f"TAR at FMR {format_scientific(point.target_fmr)}, one to one", *_format_share(point.tar))
        for point in result.verification
        if point.target_fmr
    ]
    rows += [
        ("FMR at the default threshold, one to one", format_scientific(point.fmr), "")
        for point in result.verification
        if point.target_fmr is None
    ]
    rows.append(("default decision: right person", *_format_share(result.decisions_mate["correct_match"])))
    rows.append(("default decision: wrong person", *_format_share(result.decisions_mate["wrong_match"])))
    rows.append(("default decision: stranger matched", *_format_share(result.decisions_stranger["wrong_match"])))
    print_table("Identification", ("figure", "value", "95 % interval"), rows)
    print_table(
        "Policies",
        ("target FMR", "target FPIR", "margin", "threshold", "right person", "wrong person", "strangers named"),
        [
            (
                format_scientific(one.target_fmr) if one.target_fmr else "",
                format_scientific(one.target_fpir) if one.target_fpir else "",
                f"{one.margin:g}",
                f"{one.threshold:.4f}",
                *(format_percent(rate.value) for rate in (one.right, one.wrong, one.named)),
            )
            for one in result.policies
        ],
    )


def _show_liveness(report: LivenessReport) -> None:
    result = report.result
    rows = []
    for suffix, point in (("", result.default), (", equal error", result.equal_error)):
        rows += [(f"APCER, {kind}{suffix}", *_format_share(rate)) for kind, rate in point.apcer.items()]
        rows += [
            (f"BPCER{suffix}", *_format_share(point.bpcer)),
            (f"ACER, worst species{suffix}", *_format_share(point.acer)),
        ]
    rows += [("not judged, live", *_format_share(result.bpnrr))]
    rows += [(f"not judged, {kind}", *_format_share(rate)) for kind, rate in result.apnrr.items()]
    print_table(f"Presentation attack detection, {report.network}", ("figure", "value", "95 % interval"), rows)


def _format_share(value: Rate | Mean | MeanRate) -> tuple[str, str]:
    return format_percent(value.value), f"{format_percent(value.low)} to {format_percent(value.high)}"


def _format_small_rate(value: Rate) -> tuple[str, str]:
    return format_scientific(value.value), f"{format_scientific(value.low)} to {format_scientific(value.high)}"
