"""`vultus evaluate packs`: every pack that is present, on one data set, in one table."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vultus.cli import evaluate, impostors
from vultus.cli.common import err, exit_with_error, load_settings, out
from vultus.errors import VultusError
from vultus.evaluation.comparison import read_pack_evaluation, render_comparison_table, write_between_markers
from vultus.main import open_weights_store
from vultus.models.catalog.entries import NetworkKind
from vultus.models.catalog.packs import NETWORKS, PACKS, Pack, get_pack
from vultus.models.loading import has_alignment_template
from vultus.models.weights.store import FileState

if TYPE_CHECKING:
    from vultus.models.weights.store import WeightsStore


evaluation = impostors.evaluation
"""`vultus evaluate` with all its commands."""


@evaluation.command("packs")
def run_packs_evaluation(
    folder: evaluate.FolderArgument,
    names: Annotated[
        list[str] | None,
        typer.Option("--pack", help="Repeatable; default: every detector and embedder that is present."),
    ] = None,
    out_dir: evaluate.OutOption = Path("report"),
    table: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="Document in which the table is replaced."),
    ] = None,
    workers: evaluate.WorkersOption = None,
) -> None:
    """Measure every pack that is present and write one table; packs already measured in the folder are skipped."""
    settings = load_settings()
    store = open_weights_store(settings)
    try:
        chosen = [get_pack(name) for name in names] if names else list_present_packs(store)
        for pack in chosen:
            target = out_dir / pack.name
            space_id = evaluate.open_pipeline(settings, pack.name, calibrated=False).space.id
            if _is_measured(target / "report.json", space_id):
                err.print(f"{pack.name} was measured already: {target}", highlight=False)
                continue
            err.print(pack.name, highlight=False)
            evaluate.run_pairs_evaluation(folder, out_dir=target, workers=workers, pack=pack.name)
        text = render_comparison_table(
            [read_pack_evaluation(pack, out_dir / pack.name / "report.json") for pack in chosen]
        )
        (out_dir / "packs.md").write_text(text, encoding="utf-8")
        if table:
            write_between_markers(table, text)
    except VultusError as error:
        exit_with_error(error)
    out.print(text, soft_wrap=True, highlight=False)


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


def _is_measured(path: Path, space_id: str) -> bool:
    if not path.is_file():
        return False
    report = json.loads(path.read_text(encoding="utf-8"))
    return bool(report["evaluated"]["provenance"]["contract_id"] == space_id)
