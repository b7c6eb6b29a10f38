"""`vultus models`: the pretrained networks, their licences and their weights."""

from __future__ import annotations

import getpass
import os
from pathlib import Path
from typing import Annotated

import typer

from vultus.cli.common import (
    JsonOption,
    err,
    load_settings,
    open_download_bar,
    out,
    print_json,
    print_table,
)
from vultus.errors import InvalidInputError, NotFoundError
from vultus.main import open_weights_store
from vultus.models.catalog.entries import Network, PackagedFile, PublishedFile
from vultus.models.catalog.packs import NETWORKS, PACKS, get_network, get_pack
from vultus.models.pipeline import FacePipeline, get_default_pack
from vultus.models.weights.download import Downloader, open_archive_member
from vultus.models.weights.files import compute_file_sha256
from vultus.models.weights.store import FileState, WeightsStore

app = typer.Typer(no_args_is_help=True)

Names = Annotated[list[str], typer.Argument(metavar="NAME...", help="Networks or packs.")]


@app.command("list")
def list_networks(as_json: JsonOption = False) -> None:
    """List every network with its licence and whether its weights are present and verified."""
    settings = load_settings()
    store = open_weights_store(settings)
    rows = [_build_network_row(network, store) for network in NETWORKS.values()]
    if as_json:
        print_json(rows)
        return
    print_table(
        "Networks",
        ("name", "kind", "licence", "commercial", "weights", "LFW, published"),
        [
            (row["name"], row["kind"], row["licence"], row["commercial_use"], row["weights"], _format_share(row["lfw"]))
            for row in rows
        ],
    )
    default = settings.inference.pack or get_default_pack(store)
    packs = [
        (pack.name, pack.detector.name, pack.embedder.name, "new collections" if pack.name == default else "")
        for pack in PACKS.values()
    ]
    print_table("Packs", ("name", "detector", "embedder", "used for"), packs)
    out.print("Any DETECTOR+EMBEDDER is a pack too, and deepface:MODEL an embedder.")


@app.command("show")
def show_network(
    name: Annotated[str, typer.Argument(help="A network or a pack.")], as_json: JsonOption = False
) -> None:
    """Show a network's origin, inputs, licence and files."""
    store = open_weights_store(load_settings())
    shown = [
        (network, _build_network_details(network, store), _list_network_files(network, store))
        for network in _find_networks([name])
    ]
    if as_json:
        print_json([{**details, "files": files} for _, details, files in shown])
        return
    for network, details, files in shown:
        known = {key.replace("_", " "): value for key, value in details.items() if value not in (None, [], {})}
        print_table(network.name, ("what", "value"), [(key, _format_value(value)) for key, value in known.items()])
        print_table("Files", ("role", "file", "SHA-256", "from", "state"), [tuple(file.values()) for file in files])


@app.command("pull")
def download_weights(names: Names, as_json: JsonOption = False) -> None:
    """Download weights, verify them and place them; a broken download is continued."""
    settings = load_settings()
    placed: list[tuple[PublishedFile, str]] = []
    store = open_weights_store(settings)
    networks = _find_networks(names)
    store.check_licences(*networks)
    missing = [file for file in _list_published_files(networks) if store.get_file_state(file) is not FileState.PRESENT]
    with open_download_bar() as progress:
        downloader = Downloader(
            store, mirror=settings.models.mirror, timeout_s=settings.models.timeout_s, progress=progress
        )
        placed += zip(missing, downloader.fetch_weights(*missing), strict=True)
    _print_placed_files(placed, as_json=as_json)


@app.command("verify")
def verify_weights(
    names: Annotated[list[str] | None, typer.Argument(help="Networks or packs; all that are present.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Compare weights with their digests; exit code 1 when one is damaged or a named one is missing."""
    store = open_weights_store(load_settings())
    networks = _find_networks(names or list(NETWORKS))
    states = {file.filename: store.get_file_state(file) for network in networks for file in network.files.values()}
    if not names:
        states = {name: state for name, state in states.items() if state is not FileState.ABSENT}
    if as_json:
        print_json(states)
    else:
        print_table("Weights", ("file", "state"), list(states.items()))
    if any(state is not FileState.PRESENT for state in states.values()):
        raise typer.Exit(1)


@app.command("import")
def import_files(
    files: Annotated[list[Path], typer.Argument(exists=True, dir_okay=False, help="Weights, or archives of them.")],
    as_name: Annotated[
        str | None,
        typer.Option("--as", help="The file's name in the catalogue; for files without a published digest."),
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Take this file although another one was pinned under its name.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Place weights that were downloaded by hand; each is recognised by its digest."""
    placed = []
    store = open_weights_store(load_settings())
    if as_name and len(files) > 1:
        raise InvalidInputError("--as names one file; import the others by themselves.")
    for path in files:
        for file in _find_matching_files(path, as_name):
            if file.archive and compute_file_sha256(path) == file.archive.sha256:
                with open_archive_member(path, file.archive.member, store.ensure_models_dir()) as member:
                    placed.append((file, store.add_file(file, member)))
            else:
                placed.append((file, store.import_file(file, path, replace=replace)))
    _print_placed_files(placed, as_json=as_json)


@app.command("accept")
def accept_licence(
    licence: Annotated[str, typer.Argument(help="The licence's name.")],
    as_json: JsonOption = False,
) -> None:
    """Accept a licence by its name; who did it and when is recorded."""
    known = {network.licence.name: network.licence for network in (*NETWORKS.values(), get_network("deepface:any"))}
    found = known.get(licence)
    store = open_weights_store(load_settings())
    if found is None or not found.must_be_accepted:
        licence_names = sorted(name for name, entry in known.items() if entry.must_be_accepted)
        raise NotFoundError(f"No licence '{licence}' waits to be accepted; there are {', '.join(licence_names)}.")
    store.installation.add_acceptance(found, accepted_by=_get_user_name())
    if as_json:
        print_json({"licence": found.name, **store.installation.get_acceptances()[found.name]})
    else:
        typer.echo(f"Accepted {found.name}: {found.terms}")


@app.command("use")
def select_default_pack(
    pack: Annotated[str, typer.Argument(help="A pack, or DETECTOR+EMBEDDER.")], as_json: JsonOption = False
) -> None:
    """Make a pack the default for new collections; those in use before stay loaded for their collections."""
    settings = load_settings()
    store = open_weights_store(settings)
    chosen = get_pack(pack)
    FacePipeline.load(settings.inference, settings.photos, store, pack=chosen.name)
    packs = store.installation.set_default_pack(chosen.name, get_default_pack(store))
    if as_json:
        print_json({"pack": chosen.name, "loaded": packs})
    else:
        typer.echo(f"New collections use {chosen.name}. Loaded at the next start: {', '.join(packs)}.")
    if settings.inference.pack:
        err.print("VULTUS_INFERENCE__PACK is set and goes before this choice.")


def _get_user_name() -> str:
    """Return the user's name, or `uid N`: in a container a user id often has no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


def _find_networks(names: list[str]) -> list[Network]:
    found: dict[str, Network] = {}
    for name in names:
        if name in PACKS or "+" in name:
            pack = get_pack(name)
            parts = [pack.detector, pack.embedder]
        else:
            parts = [get_network(name)]
        found |= {network.name: network for network in parts}
    return list(found.values())


def _list_published_files(networks: list[Network]) -> list[PublishedFile]:
    return [file for network in networks for file in network.files.values() if isinstance(file, PublishedFile)]


def _find_matching_files(path: Path, as_name: str | None) -> list[PublishedFile]:
    """Return the catalogue's files that `path` holds: by the name given, else by its digest or its archive's."""
    published = _list_published_files(list(NETWORKS.values()))
    if as_name:
        found = [file for file in published if file.filename == as_name]
        if not found:
            raise NotFoundError(f"No file of the catalogue is called '{as_name}'; see vultus models show NAME.")
        return found
    digest = compute_file_sha256(path)
    found = [file for file in published if digest in {file.sha256, file.archive.sha256 if file.archive else None}]
    if not found:
        raise InvalidInputError(
            f"{path} is none of the weights whose digest is known (SHA-256 {digest}). If its authors publish no "
            "digest, name it: --as FILENAME, as vultus models show NAME prints it."
        )
    return found


def _print_placed_files(placed: list[tuple[PublishedFile, str]], *, as_json: bool) -> None:
    if as_json:
        print_json([{"file": file.filename, "sha256": digest, "pinned": not file.sha256} for file, digest in placed])
        return
    for file, digest in placed:
        if file.sha256:
            typer.echo(f"{file.filename} verified and placed.")
        else:
            typer.echo(f"{file.filename} placed. Nobody publishes its digest; only this one is accepted now: {digest}")
    if not placed:
        typer.echo("There is nothing to fetch: everything is here and sound.")


def _get_weights_state(network: Network, store: WeightsStore) -> str:
    if not network.files:
        return "DeepFace's folder"
    states = {store.get_file_state(file) for file in network.files.values()}
    return next(state.value for state in (FileState.DAMAGED, FileState.ABSENT, FileState.PRESENT) if state in states)


def _build_network_row(network: Network, store: WeightsStore) -> dict[str, object]:
    return {
        "name": network.name,
        "kind": network.kind.value,
        "licence": network.licence.name,
        "commercial_use": network.licence.commercial_use,
        "weights": _get_weights_state(network, store),
        "lfw": network.published.get("LFW"),
    }


def _build_network_details(network: Network, store: WeightsStore) -> dict[str, object]:
    licence = network.licence
    return {
        **_build_network_row(network, store),
        "terms": licence.terms,
        "accepted": store.installation.is_licence_accepted(licence) if licence.must_be_accepted else "not needed",
        "paper": network.paper,
        "inputs": network.inputs,
        "dimension": network.dimension or None,
        "published": network.published,
        "packs": [pack.name for pack in PACKS.values() if network.name in (pack.detector.name, pack.embedder.name)],
    }


def _list_network_files(network: Network, store: WeightsStore) -> list[dict[str, str]]:
    return [
        {
            "role": role,
            "file": file.filename,
            "sha256": file.sha256
            or store.installation.find_pinned_digest(file.filename)
            or "pinned at the first download",
            "from": _format_origin(file),
            "state": store.get_file_state(file).value,
        }
        for role, file in network.files.items()
    ]


def _format_origin(file: PackagedFile | PublishedFile) -> str:
    if isinstance(file, PackagedFile):
        return f"package {file.package} {file.version}"
    origins = [f"{file.archive.member} in {file.archive.url}" if file.archive else file.url]
    origins.append(f"package {file.wheel.package} {file.wheel.version}" if file.wheel else None)
    return ", or ".join(origin for origin in origins if origin) or "import only"


def _format_value(value: object) -> object:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_format_share(number)}" for key, number in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return _format_share(value) if isinstance(value, float) else value


def _format_share(percent: object) -> str:
    """Return a published figure with as many digits as the others; empty if there is none."""
    return "" if percent is None else f"{percent:.2f}"
