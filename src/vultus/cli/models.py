"""`vultus models`: which networks there are, and getting them onto this machine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from vultus.cli.common import Json, err, fail, load_settings, out, print_json, print_table
from vultus.errors import InvalidInputError, VultusError, WeightsError
from vultus.main import open_store
from vultus.models.catalog.entries import DownloadedFile, Network, PackagedFile
from vultus.models.catalog.packs import NETWORKS, PACKS, Pack, network_named, networks_named, pack_named
from vultus.models.fetching import Fetcher, Placed
from vultus.models.pipeline import FacePipeline, default_pack
from vultus.models.store import WeightsStore
from vultus.settings import Settings

app = typer.Typer(no_args_is_help=True)

Names = Annotated[list[str], typer.Argument(metavar="NAME...", help="Packs or networks.")]
Accept = Annotated[str | None, typer.Option("--accept", metavar="LICENCE", help="Accept this licence, by its name.")]

BAD = ("damaged", "absent")


@app.command("list")
def list_models(as_json: Json = False) -> None:
    """List every known network, its licence, and whether its weights are here."""
    with _store(as_json=as_json) as (settings, store):
        rows = [_summary(network, store) for network in NETWORKS.values()]
        default = default_pack(settings.inference, store)
    if as_json:
        print_json({"networks": rows, "packs": {name: pack.pair for name, pack in PACKS.items()}, "default": default})
        return
    columns = ("name", "kind", "licence", "commercial", "size_bytes", "state", "lfw")
    cells = [[_cell(row[column]) for column in columns] for row in rows]
    print_table("Networks", ("name", "kind", "licence", "commercial", "size", "state", "LFW"), cells)
    packs = [
        (name, pack.pair, "yes" if pack.commercial_use else "no", "default" if name == default else "")
        for name, pack in PACKS.items()
    ]
    print_table("Packs (any DETECTOR+EMBEDDER is one too)", ("name", "networks", "commercial", ""), packs)


@app.command()
def show(name: Annotated[str, typer.Argument(help="A pack or a network.")], as_json: Json = False) -> None:
    """Show everything that is known of a pack or a network."""
    with _store(as_json=as_json) as (_, store):
        networks = networks_named(name)
        pack = pack_named(name) if len(networks) > 1 else None
        shown: dict[str, Any] = {"networks": [_everything(network, store) for network in networks]}
        if pack:
            shown = {"pack": _of_pack(pack, store), **shown}
    if as_json:
        print_json(shown)
        return
    for part in [*([shown["pack"]] if pack else []), *shown["networks"]]:
        rows = [(key, _cell(value)) for key, value in part.items() if key not in {"name", "files"}]
        rows += [(f"file {role}", _cell(about)) for role, about in part.get("files", {}).items()]
        print_table(part["name"], ("", ""), rows)


@app.command()
def pull(names: Names, accept: Accept = None, as_json: Json = False) -> None:
    """Download what is missing of some packs or networks, and verify it."""
    with _store(as_json=as_json) as (settings, store), _progress(show=not as_json) as progress:
        networks = [network for name in names for network in networks_named(name)]
        _accept(store, networks, accept)
        placed = Fetcher(store, settings.models, lambda file: _watch(progress, file)).pull(networks)
    _tell(placed, as_json=as_json, nothing="Everything was here already.")


@app.command()
def verify(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="Default: what is here.")] = None,
    as_json: Json = False,
) -> None:
    """Compare the digests of weights with the published or recorded ones."""
    with _store(as_json=as_json) as (_, store):
        asked = [one for name in names for one in networks_named(name)] if names else NETWORKS.values()
        networks = {one.name: one for one in asked}
        found = [
            {"network": network.name, "file": _name_of(file), "state": store.state(file)}
            for network in networks.values()
            for file in network.files.values()
        ]
    if not names:
        found = [one for one in found if one["state"] != "absent"]
    if as_json:
        print_json({"files": found})
    else:
        print_table("Weights", ("network", "file", "state"), [tuple(one.values()) for one in found])
    if any(one["state"] in BAD for one in found):
        raise typer.Exit(1)


@app.command("import")
def import_weights(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", exists=True, dir_okay=False)],
    as_name: Annotated[str | None, typer.Option("--as", metavar="NAME", help="The network, if no digest says.")] = None,
    accept: Accept = None,
    as_json: Json = False,
) -> None:
    """Copy weights from files: recognised by their digest, or named with --as where none is published."""
    with _store(as_json=as_json) as (settings, store):
        network = network_named(as_name) if as_name else None
        fetcher = Fetcher(store, settings.models)
        placed = []
        for path in files:
            _accept(store, [network] if network else fetcher.recognise(path), accept)
            placed += fetcher.take(path, network)
    _tell(placed, as_json=as_json, nothing="")


@app.command()
def use(pack: Annotated[str, typer.Argument(help="A pack, or DETECTOR+EMBEDDER.")], as_json: Json = False) -> None:
    """Make a pack the default for new collections, after loading it."""
    with _store(as_json=as_json) as (settings, store):
        before = default_pack(settings.inference, store)
        chosen = FacePipeline.load(settings.inference, settings.photos, store, pack=pack)
        store.records.choose_pack(chosen.pack.name)
    facts = {"pack": chosen.pack.name, "contract_id": chosen.contract.id, "before": before}
    if as_json:
        print_json(facts)
        return
    out.print(f"New collections use pack '{chosen.pack.name}' (contract {chosen.contract.id}).", soft_wrap=True)
    if settings.inference.pack:
        out.print(f"But VULTUS_INFERENCE__PACK says '{settings.inference.pack}', and comes first.", soft_wrap=True)
    if before != chosen.pack.name:
        out.print(
            f"Collections made with '{before}' need it loaded beside: VULTUS_INFERENCE__EXTRA_PACKS={before}",
            soft_wrap=True,
        )


@contextmanager
def _store(*, as_json: bool) -> Iterator[tuple[Settings, WeightsStore]]:
    settings = load_settings()
    try:
        yield settings, open_store(settings)
    except VultusError as error:
        fail(error, as_json=as_json)
    except OSError as error:
        fail(WeightsError(f"{error.filename}: {error.strerror}."), as_json=as_json)


def _accept(store: WeightsStore, networks: Iterable[Network], accept: str | None) -> None:
    """Write down the acceptance of every network that asks for it and whose licence was named."""
    asking = [one for one in networks if one.licence.must_be_accepted]
    if accept is not None and accept not in {one.licence.name for one in asking}:
        names = ", ".join(f"'{one}'" for one in sorted({one.licence.name for one in asking}))
        raise InvalidInputError(
            f"None of these networks has a licence '{accept}' to accept"
            + (f"; to accept is {names}." if names else ": none asks for it.")
        )
    for network in asking:
        if network.licence.name == accept and not store.records.accepted(network):
            store.records.accept(network)


def _progress(*, show: bool) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    return Progress(*columns, console=err, disable=not show)


def _watch(progress: Progress, file: str) -> Any:
    bar = progress.add_task(file, total=None)
    return lambda here, total: progress.update(bar, completed=here, total=total)


def _tell(placed: list[Placed], *, as_json: bool, nothing: str) -> None:
    if as_json:
        print_json({"placed": [asdict(one) for one in placed]})
        return
    if not placed:
        out.print(nothing)
    for one in placed:
        out.print(f"{one.network}: {one.filename} placed, SHA-256 {one.sha256}", soft_wrap=True, highlight=False)
        if one.pinned:
            out.print(
                "  No source states this digest. It was recorded in manifest.json and holds from now on; compare it "
                "with that of somebody you trust.",
                soft_wrap=True,
            )


def _summary(network: Network, store: WeightsStore) -> dict[str, Any]:
    return {
        "name": network.name,
        "kind": network.kind,
        "licence": network.licence.name,
        "commercial": network.licence.commercial_use,
        "size_bytes": _size(network, store),
        "state": _state(network, store),
        "lfw": network.published.get("LFW"),
    }


def _state(network: Network, store: WeightsStore) -> str:
    """Return the worst state of a network's files."""
    states = {store.state(file) for file in network.files.values()}
    return next((state for state in BAD if state in states), "present")


def _size(network: Network, store: WeightsStore) -> int | None:
    """Return the bytes of a network's downloaded files: as they are here, else as published."""
    files = [file for file in network.files.values() if isinstance(file, DownloadedFile)]
    sizes = [store.path(file).stat().st_size if store.path(file).exists() else file.size for file in files]
    known = [size for size in sizes if size is not None]
    return sum(known) if files and len(known) == len(files) else None


def _everything(network: Network, store: WeightsStore) -> dict[str, Any]:
    return {
        **_summary(network, store),
        "terms": network.licence.terms,
        "licence_url": network.licence.url,
        "accepted": store.records.accepted(network) if network.licence.must_be_accepted else None,
        "paper": network.paper,
        "inputs": network.inputs,
        "dimension": network.dimension or None,
        "published": network.published,
        "packs": [name for name, pack in PACKS.items() if network in pack.networks],
        "files": {role: _of_file(file, store) for role, file in network.files.items()},
    }


def _of_file(file: Any, store: WeightsStore) -> dict[str, Any]:
    source = file.url or (file.archive and file.archive.url) if isinstance(file, DownloadedFile) else None
    if isinstance(file, PackagedFile):
        source = f"package {file.package} {file.version}"
    return {"file": _name_of(file), "sha256": store.sha256(file), "source": source, "state": store.state(file)}


def _of_pack(pack: Pack, store: WeightsStore) -> dict[str, Any]:
    whole = replace(pack, detector=store.settled(pack.detector), embedder=store.settled(pack.embedder))
    files = [*whole.detector.files.values(), *whole.embedder.files.values()]
    known = whole.embedder.files and all(file.sha256 for file in files)
    contract = whole.contract if known else None
    kept = store.records.calibration(contract.id) if contract else None
    calibration = kept or pack.calibration
    return {
        "name": f"pack {pack.name}",
        "contract": contract.id if contract else "known once the weights are here",
        "commercial": pack.commercial_use,
        "thresholds": calibration.source if calibration else "not measured",
        "operating_points": {f"{rate:g}": round(at, 4) for rate, at in calibration.points} if calibration else None,
        "margin": calibration.margin if calibration else None,
    }


def _name_of(file: Any) -> str:
    return str(file.filename if isinstance(file, DownloadedFile) else file.path)


def _cell(value: Any) -> str:
    """Return a value as a person reads it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return "\n".join(f"{key}: {inner}" for key, inner in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, int):
        return f"{value / 1e6:.1f} MB" if value > 100_000 else str(value)
    return "" if value is None else str(value)
