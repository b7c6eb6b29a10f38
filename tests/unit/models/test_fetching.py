"""Weights get into the models folder only when they are the right ones and somebody may use them."""

from __future__ import annotations

import hashlib
import json
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests import loopback

from vultus.errors import InvalidInputError, LicenceError, WeightsError
from vultus.models import fetching
from vultus.models.catalog.detectors import MTCNN, SCRFD_10G, YUNET
from vultus.models.catalog.entries import Archive, DownloadedFile, Network
from vultus.models.fetching import Fetcher
from vultus.models.store import WeightsStore
from vultus.settings import ModelSettings

CONTENT = b"the weights of a network"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def direct(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def store(tmp_path: Path) -> WeightsStore:
    return WeightsStore(tmp_path / "cache")


def of(file: DownloadedFile, like: Network = YUNET) -> Network:
    return replace(like, files={"network": file})


def zipped(path: Path, **members: bytes) -> Archive:
    """Write an archive and return what a catalogue would say of its member w.onnx."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return Archive("", hashlib.sha256(path.read_bytes()).hexdigest(), "w.onnx")


def pull(store: WeightsStore, *networks: Network, **settings: Any) -> list[fetching.Placed]:
    return Fetcher(store, ModelSettings(**settings)).pull(networks)


def left_in(store: WeightsStore) -> list[str]:
    return sorted(path.name for path in (store.records.folder / "weights").iterdir())


def test_what_is_missing_or_damaged_is_fetched_once(store: WeightsStore) -> None:
    with loopback.serve(files={"/w": CONTENT}) as site:
        network = of(DownloadedFile("w.onnx", url=f"{site.url}/w", sha256=SHA256))
        assert [one.filename for one in pull(store, network, network)] == ["w.onnx"]
        assert pull(store, network) == []
        store.path(network.file).write_bytes(b"damaged")  # type: ignore[arg-type]
        assert not pull(store, network)[0].pinned

    assert store.read(network.file) == CONTENT
    assert len(site.asked) == 2
    assert left_in(store) == ["w.onnx"]


def test_a_wrong_digest_is_never_placed(store: WeightsStore) -> None:
    with loopback.serve(files={"/w": b"something else"}) as site:
        network = of(DownloadedFile("w.onnx", url=f"{site.url}/w", sha256=SHA256))
        found = hashlib.sha256(b"something else").hexdigest()
        with pytest.raises(WeightsError, match=f"SHA-256 is {found}, expected {SHA256}, as published"):
            pull(store, network)

    assert left_in(store) == []
    with pytest.raises(WeightsError, match="are not in"):
        store.read(network.file)


def test_a_digest_nobody_published_is_pinned_at_first_sight(store: WeightsStore) -> None:
    with loopback.serve(files={"/w": CONTENT}) as site:
        network = of(DownloadedFile("w.pt", url=f"{site.url}/w"))
        (placed,) = pull(store, network)
        assert (placed.pinned, placed.sha256) == (True, SHA256)
        assert store.settled(network).file.sha256 == SHA256

        site.files["/w"] = b"replaced by its publisher"
        store.path(network.file).unlink()  # type: ignore[arg-type]
        with pytest.raises(WeightsError, match=f"expected {SHA256}, as recorded when .*manifest.json"):
            pull(store, network)

    assert json.loads((store.records.folder / "manifest.json").read_text())["w.pt"]["source"] == f"{site.url}/w"


def test_a_mirror_takes_the_place_of_every_address(store: WeightsStore, tmp_path: Path) -> None:
    network = of(
        DownloadedFile("w.onnx", sha256=SHA256, archive=Archive("https://example.invalid/a.zip", "0" * 64, "w.onnx"))
    )
    with loopback.serve(files={"/models/w.onnx": CONTENT}) as site:
        pull(store, network, mirror=f"{site.url}/models/")
    other = WeightsStore(tmp_path / "other/cache")

    pull(other, network, mirror=(store.records.folder / "weights").as_uri())

    assert other.read(network.file) == store.read(network.file) == CONTENT


def test_an_archive_is_fetched_once_for_all_its_members(store: WeightsStore, tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a.zip", **{"folder/w.onnx": CONTENT, "v.onnx": CONTENT * 2})
    with loopback.serve(files={"/a.zip": (tmp_path / "a.zip").read_bytes()}) as site:
        archive = replace(archive, url=f"{site.url}/a.zip")
        other = hashlib.sha256(CONTENT * 2).hexdigest()
        pull(
            store,
            of(DownloadedFile("w.onnx", sha256=SHA256, archive=archive)),
            replace(of(DownloadedFile("v.onnx", sha256=other, archive=replace(archive, member="v.onnx"))), name="v"),
        )

    assert len(site.asked) == 1
    assert left_in(store) == ["v.onnx", "w.onnx"]


@pytest.mark.parametrize(
    ("members", "changes", "words"),
    [
        ({"w.onnx": CONTENT}, {"sha256": "0" * 64}, "expected 0000"),
        ({"other.onnx": CONTENT}, {}, "holds 0 files named w.onnx"),
        ({"w.onnx": CONTENT, "b/w.onnx": CONTENT}, {}, "holds 2 files named w.onnx"),
        ({"w.onnx": b"0" * 10**6}, {}, "larger than 1000 bytes"),
        ({"w.onnx": b"other weights"}, {}, f"expected {SHA256}"),
    ],
)
def test_an_archive_that_is_not_the_expected_one_gives_nothing(
    store: WeightsStore, tmp_path: Path, members: dict[str, bytes], changes: dict[str, str], words: str
) -> None:
    archive = replace(zipped(tmp_path / "a.zip", **members), **changes)
    with loopback.serve(files={"/a.zip": (tmp_path / "a.zip").read_bytes()}) as site:
        file = DownloadedFile("w.onnx", sha256=SHA256, size=1000, archive=replace(archive, url=f"{site.url}/a.zip"))
        with pytest.raises(WeightsError, match=words):
            pull(store, of(file))

    assert "w.onnx" not in left_in(store)


def test_an_archive_never_decides_where_anything_is_written(store: WeightsStore, tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a.zip", **{"../../w.onnx": CONTENT, "../../evil": b"evil", "/tmp/evil": b"evil"})
    network = of(DownloadedFile("w.onnx", sha256=SHA256, archive=archive))

    Fetcher(store, ModelSettings()).take(tmp_path / "a.zip", network)

    assert store.read(network.file) == CONTENT
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file() and "lock" not in path.name) == [
        "a.zip",
        "manifest.json",
        "w.onnx",
    ]


def test_a_damaged_archive_is_told(tmp_path: Path) -> None:
    zipped(tmp_path / "a.zip", **{"w.onnx": bytes(range(256)) * 100})
    content = bytearray((tmp_path / "a.zip").read_bytes())
    content[60:90] = bytes(30)
    (tmp_path / "a.zip").write_bytes(content)

    for path in (tmp_path / "a.zip", Path(__file__)):
        with pytest.raises(WeightsError, match="cannot be unpacked"):
            fetching.unpack(path, "w.onnx", tmp_path / "w.onnx", limit=10**6)


def test_two_pulls_at_once_take_turns(tmp_path: Path) -> None:
    with loopback.serve(files={"/w": CONTENT * 10_000}) as site:
        sha256 = hashlib.sha256(CONTENT * 10_000).hexdigest()
        network = of(DownloadedFile("w.onnx", url=f"{site.url}/w", sha256=sha256))
        stores = [WeightsStore(tmp_path / "cache") for _ in range(4)]
        with ThreadPoolExecutor(4) as threads:
            placed = list(threads.map(lambda store: pull(store, network), stores))

    assert sorted(map(len, placed)) == [0, 0, 0, 1]
    assert len(site.asked) == 1
    assert stores[0].state(network.file) == "present"


def test_a_licence_is_accepted_before_anything_is_fetched(store: WeightsStore) -> None:
    with loopback.serve(files={"/w": CONTENT}) as site:
        network = of(DownloadedFile("w.onnx", url=f"{site.url}/w", sha256=SHA256), like=SCRFD_10G)
        with pytest.raises(LicenceError, match="pull scrfd-10g --accept 'InsightFace non-commercial'"):
            pull(store, network)
        assert site.asked == []

        store.records.accept(network)
        pull(store, network)

    assert store.state(network.file) == "present"


def test_commercial_use_refuses_what_forbids_it_even_when_accepted(tmp_path: Path) -> None:
    store = WeightsStore(tmp_path / "cache", usage="commercial")
    store.records.accept(SCRFD_10G)

    with pytest.raises(LicenceError, match="may not be used commercially"):
        pull(store, SCRFD_10G)
    store.permit(MTCNN)


def test_weights_no_program_can_fetch_say_how_to_import_them(store: WeightsStore) -> None:
    with pytest.raises(WeightsError, match=r"vultus models import w\.pth --as yunet"):
        pull(store, of(DownloadedFile("w.pth")))


def test_a_file_is_recognised_by_its_digest(
    store: WeightsStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = of(DownloadedFile("w.onnx", sha256=SHA256))
    monkeypatch.setattr(fetching, "NETWORKS", {"yunet": network, "mtcnn": MTCNN})
    fetcher, path = Fetcher(store, ModelSettings()), tmp_path / "called differently"
    path.write_bytes(CONTENT)

    assert fetcher.recognise(path) == [network]
    (placed,) = fetcher.take(path)

    assert (placed.network, placed.pinned, store.read(network.file)) == ("yunet", False, CONTENT)
    path.write_bytes(b"unknown")
    with pytest.raises(InvalidInputError, match=f"{hashlib.sha256(b'unknown').hexdigest()}, which is no known.*--as"):
        fetcher.take(path)
    with pytest.raises(WeightsError, match="No such file"):
        fetcher.take(tmp_path / "nothing")


def test_an_import_by_name_pins_or_compares(store: WeightsStore, tmp_path: Path) -> None:
    (tmp_path / "w").write_bytes(CONTENT)
    fetcher = Fetcher(store, ModelSettings())

    assert fetcher.take(tmp_path / "w", of(DownloadedFile("w.pt")))[0].pinned
    with pytest.raises(WeightsError, match=f"SHA-256 is {SHA256}, expected {YUNET.file.sha256}"):
        fetcher.take(tmp_path / "w", YUNET)
    with pytest.raises(InvalidInputError, match="none of the files of mtcnn: it has none"):
        fetcher.take(tmp_path / "w", MTCNN)

    assert left_in(store) == ["w.pt"]


def test_the_file_of_a_network_with_several_is_found_by_digest_or_name(store: WeightsStore, tmp_path: Path) -> None:
    network = replace(
        YUNET, files={"a": DownloadedFile("a.pth", sha256=SHA256), "b": DownloadedFile("b.pth", sha256=None)}
    )
    (tmp_path / "x").write_bytes(CONTENT)
    (tmp_path / "b.pth").write_bytes(b"others")
    fetcher = Fetcher(store, ModelSettings())

    assert [fetcher.take(tmp_path / name, network)[0].filename for name in ("x", "b.pth")] == ["a.pth", "b.pth"]


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(WeightsError, match="file"):
        pull(WeightsStore(tmp_path / "cache", tmp_path / "file"), of(DownloadedFile("w.onnx", url="file:///w")))
