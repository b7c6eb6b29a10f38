"""`vultus evaluate packs`: every pack that is present, on one data set, in one table."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vultus.cli import evaluate, impostors
from vultus.cli.common import JsonOption, err, load_settings, out, print_json
from vultus.errors import InvalidInputError
from vultus.evaluation.comparison import PacksReport, render_comparison_table, write_between_markers
from vultus.evaluation.datasets import read_pairs, read_person_folders
from vultus.evaluation.labels import read_demographics
from vultus.evaluation.pack_evaluation import (
    MatchedData,
    PackVectors,
    VerificationData,
    evaluate_packs,
    measure_photo_times,
)
from vultus.evaluation.provenance import build_provenance
from vultus.evaluation.report import to_json_values, write_json
from vultus.evaluation.vector_cache import compute_cache_key, get_or_embed
from vultus.main import open_weights_store
from vultus.models.catalog.entries import NetworkKind
from vultus.models.catalog.packs import BUILTIN, NETWORKS, PACKS, Pack, get_pack
from vultus.models.loading import has_alignment_template
from vultus.models.weights.store import FileState
from vultus.settings import Settings

if TYPE_CHECKING:
    from vultus.evaluation.datasets import DataSet
    from vultus.evaluation.pack_evaluation import PackEvaluation
    from vultus.evaluation.runner import PhotoVectors
    from vultus.models.pipeline import FacePipeline
    from vultus.models.weights.store import WeightsStore

evaluation = impostors.evaluation
"""`vultus evaluate` with all its commands."""


@evaluation.command("packs")
def run_packs_evaluation(
    folder: evaluate.FolderArgument,
    matched: Annotated[
        Path | None,
        typer.Option(exists=True, file_okay=False, help="Photos of strangers, for false matches at one sex and age."),
    ] = None,
    groups: Annotated[
        Path | None,
        typer.Option("--groups", help="Their labels: path or person, age, sex, race; default: groups.csv there."),
    ] = None,
    names: Annotated[
        list[str] | None,
        typer.Option("--pack", "--packs", help="Repeatable, or with commas; default: every pack that is present."),
    ] = None,
    out_dir: evaluate.OutOption = Path("report"),
    table: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="Document in which the table is replaced."),
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(file_okay=False, help="Folder that keeps vectors, which are biometric data.")
    ] = None,
    workers: evaluate.WorkersOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure packs on the same photos and write one table: LFW's protocol, matched impostors, missed faces, time."""
    settings = load_settings()
    packs = _choose_packs(names, open_weights_store(settings))
    verification = _read_verification_data(folder)
    strangers = _read_matched_data(matched, groups) if matched else None
    loaded = {pack.name: evaluate.open_pipeline(settings, pack.name, calibrated=False) for pack in packs}
    embedder = _DataSetEmbedder(settings, cache, workers or settings.inference.workers, show=not as_json)
    vectors = [embedder.embed_pack(pack, loaded[pack.name], verification, strangers) for pack in packs]
    timed = {BUILTIN.name: evaluate.open_pipeline(settings, BUILTIN.name, calibrated=False)} | loaded
    times = measure_photo_times(timed, verification.data, reference=BUILTIN.name)
    try:
        found = evaluate_packs(vectors, verification, strangers, times)
    except ValueError as error:
        raise InvalidInputError(f"The data set is too small: {error}.") from error
    report = _build_report(vectors, verification, strangers, found)
    text = render_comparison_table(found)
    out_dir.mkdir(parents=True, exist_ok=True)
    (out_dir / "packs.md").write_text(text, encoding="utf-8")
    write_json(report, out_dir / "packs.json")
    if table:
        write_between_markers(table, text)
    if as_json:
        print_json(to_json_values(report))
    else:
        out.print(text, soft_wrap=True, highlight=False)


@dataclass(frozen=True, slots=True)
class _DataSetEmbedder:
    """Embeds data sets, or takes the vectors from the cache."""

    settings: Settings
    cache: Path | None
    workers: int
    show: bool

    def embed_pack(
        self, pack: Pack, pipeline: FacePipeline, verification: VerificationData, matched: MatchedData | None
    ) -> PackVectors:
        """Return the vectors of both data sets."""
        return PackVectors(
            pack=pack.name,
            family=pack.embedder.name,
            commercial_use=pack.is_commercial_use_allowed,
            space_id=pipeline.space.id,
            calibration=pipeline.calibration,
            photos=self._embed_photos(pipeline, verification.data),
            matched=self._embed_photos(pipeline, matched.data) if matched else None,
        )

    def _embed_photos(self, pipeline: FacePipeline, data: DataSet) -> PhotoVectors:
        rules = f"{self.settings.inference.model_dump_json()}{self.settings.photos.model_dump_json()}"
        key = compute_cache_key(pipeline.space.id, rules, data) if self.cache else ""
        return get_or_embed(self.cache, key, lambda: self._run_networks(pipeline, data))

    def _run_networks(self, pipeline: FacePipeline, data: DataSet) -> PhotoVectors:
        err.print(f"{pipeline.pack.name}, {data.root.name}", highlight=False)
        return evaluate.embed_photos(pipeline, data, self.workers, show=self.show)


def _choose_packs(names: list[str] | None, store: WeightsStore) -> list[Pack]:
    if not names:
        return list_present_packs(store)
    return [get_pack(name) for name in dict.fromkeys(name.strip() for text in names for name in text.split(","))]


def _read_verification_data(folder: Path) -> VerificationData:
    data = read_person_folders(folder)
    pairs = folder / "pairs.txt"
    return VerificationData(data, read_pairs(pairs, data) if pairs.exists() else None)


def _read_matched_data(folder: Path, groups: Path | None) -> MatchedData:
    data = read_person_folders(folder)
    return MatchedData(data, read_demographics(groups or folder / "groups.csv", data))


def _build_report(
    vectors: list[PackVectors],
    verification: VerificationData,
    matched: MatchedData | None,
    found: list[PackEvaluation],
) -> PacksReport:
    command = ["vultus", "evaluate", "packs", verification.data.root.name]
    command += ["--matched", matched.data.root.name] if matched else []
    command += ["--packs", ",".join(pack.pack for pack in vectors)]
    return PacksReport(
        data=verification.data.root.resolve().name,
        photos=len(verification.data.photos),
        matched_data=matched.data.root.resolve().name if matched else None,
        matched_photos=len(matched.data.photos) if matched else 0,
        provenance=build_provenance(
            pack=", ".join(pack.pack for pack in vectors),
            contract_id=", ".join(pack.space_id for pack in vectors),
            command=shlex.join(command),
        ),
        packs=tuple(found),
    )


def list_present_packs(store: WeightsStore) -> list[Pack]:
    """Return every pack whose weights are present and whose licences allow it, by its own name if it has one."""
    available = {
        kind: [
            network.name
            for network in NETWORKS.values()
            if network.kind is kind
            and all(store.get_file_state(file) is FileState.PRESENT for file in network.files.values())
            and store.is_allowed(network)
        ]
        for kind in (NetworkKind.DETECTOR, NetworkKind.EMBEDDER)
    }
    known_names = {(pack.detector.name, pack.embedder.name): pack.name for pack in PACKS.values()}
    pairs = product(available[NetworkKind.DETECTOR], available[NetworkKind.EMBEDDER])
    return [
        pack
        for pack in (get_pack(known_names.get(pair, "+".join(pair))) for pair in pairs)
        if has_alignment_template(pack)
    ]
