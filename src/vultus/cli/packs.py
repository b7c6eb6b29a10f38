"""`vultus evaluate packs`: every pack that is present, on one data set, in one table."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vultus.cli import evaluate
from vultus.cli.common import err, fail, load_settings, out
from vultus.errors import VultusError
from vultus.evaluation.comparison import figures, markdown, put_between_marks
from vultus.main import open_store
from vultus.models.catalog.entries import Kind
from vultus.models.catalog.packs import NETWORKS, PACKS, Pack, pack_named
from vultus.models.loading import fits
from vultus.models.weights.store import State

if TYPE_CHECKING:
    from vultus.models.weights.store import WeightsStore


def packs(
    folder: evaluate.Folder,
    names: Annotated[
        list[str] | None, typer.Option("--pack", help="Repeatable; default: every detector and embedder that is here.")
    ] = None,
    out_dir: evaluate.Out = Path("report"),
    table: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="Document in which the table is replaced."),
    ] = None,
    workers: evaluate.Workers = None,
) -> None:
    """Measure every pack that is present, and write one table; packs measured already in the folder are not again."""
    settings = load_settings()
    store = open_store(settings)
    try:
        chosen = [pack_named(name) for name in names] if names else present(store)
        for pack in chosen:
            target = out_dir / pack.name
            contract = evaluate.open_pipeline(settings, pack.name, calibrated=False).contract.id
            if _measured(target / "report.json", contract):
                err.print(f"{pack.name} was measured already: {target}", highlight=False)
                continue
            err.print(pack.name, highlight=False)
            evaluate.pairs(folder, out_dir=target, workers=workers, pack=pack.name)
        text = markdown([figures(pack, out_dir / pack.name / "report.json") for pack in chosen])
        (out_dir / "packs.md").write_text(text, encoding="utf-8")
        if table:
            put_between_marks(table, text)
    except VultusError as error:
        fail(error)
    out.print(text, soft_wrap=True, highlight=False)


def present(store: WeightsStore) -> list[Pack]:
    """Return every pack whose weights are here and whose licences allow it, by its own name if it has one."""
    here = {
        kind: [
            network.name
            for network in NETWORKS.values()
            if network.kind is kind
            and all(store.state(file) is State.PRESENT for file in network.files.values())
            and store.allowed(network)
        ]
        for kind in (Kind.DETECTOR, Kind.EMBEDDER)
    }
    own = {(pack.detector.name, pack.embedder.name): pack.name for pack in PACKS.values()}
    pairs = product(here[Kind.DETECTOR], here[Kind.EMBEDDER])
    return [pack for pack in (pack_named(own.get(pair, "+".join(pair))) for pair in pairs) if fits(pack)]


def _measured(path: Path, contract_id: str) -> bool:
    if not path.is_file():
        return False
    report = json.loads(path.read_text(encoding="utf-8"))
    return bool(report["evaluated"]["provenance"]["contract_id"] == contract_id)
