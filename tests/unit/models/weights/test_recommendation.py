"""The recommended pack becomes the default once; without an origin the built-in one serves."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests import loopback

from vultus.models.catalog.entries import PublishedFile
from vultus.models.catalog.packs import RECOMMENDED
from vultus.models.weights import recommendation
from vultus.models.weights.download import Downloader
from vultus.models.weights.installation import InstallationState
from vultus.models.weights.recommendation import ensure_recommended_pack
from vultus.models.weights.store import WeightsStore
from vultus.settings import ModelSettings

DETECTOR, EMBEDDER = b"a detector", b"an embedder"
CHOSEN = ("sface", "builtin")


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[loopback.Site]:
    """A publisher of small files in place of the recommended pack's."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with loopback.serve(files={"/d.onnx": DETECTOR, "/e.onnx": EMBEDDER}) as publisher:
        files = [
            PublishedFile(name, hashlib.sha256(content).hexdigest(), f"{publisher.url}/{name}")
            for name, content in (("d.onnx", DETECTOR), ("e.onnx", EMBEDDER))
        ]
        pack = RECOMMENDED
        parts = (
            replace(pack.detector, files={"weights": files[0]}),
            replace(pack.embedder, files={"weights": files[1]}),
        )
        monkeypatch.setattr(recommendation, "RECOMMENDED", replace(pack, detector=parts[0], embedder=parts[1]))
        yield publisher


@pytest.fixture
def store(tmp_path: Path) -> WeightsStore:
    return WeightsStore(tmp_path / "models")


def ensure(store: WeightsStore, *, offline: bool = False, retry: bool = True) -> tuple[str, ...]:
    ensure_recommended_pack(store, ModelSettings(offline=offline), retry=retry)
    return store.installation.list_chosen_packs()


def test_it_is_fetched_once_and_the_built_in_pack_stays_loaded(site: loopback.Site, store: WeightsStore) -> None:
    assert ensure(store) == CHOSEN
    assert len(site.requests) == 2

    assert ensure(store) == CHOSEN
    assert len(site.requests) == 2


def test_a_choice_made_before_is_kept(site: loopback.Site, store: WeightsStore) -> None:
    store.installation.set_default_pack("builtin", "builtin")

    assert ensure(store) == ("builtin",)
    assert site.requests == []


def test_offline_nothing_is_fetched_but_what_was_imported_is_used(site: loopback.Site, store: WeightsStore) -> None:
    assert ensure(store, offline=True) == ()
    assert site.requests == []

    for name, content in (("d.onnx", DETECTOR), ("e.onnx", EMBEDDER)):
        (store.ensure_models_dir() / name).write_bytes(content)
    assert ensure(store, offline=True) == CHOSEN


def test_a_failure_is_logged_and_only_a_server_tries_again(
    site: loopback.Site, store: WeightsStore, caplog: pytest.LogCaptureFixture
) -> None:
    site.status = 503
    with caplog.at_level(logging.WARNING):
        assert ensure(store, retry=False) == ()
    assert "the recommended pack 'sface' could not be fetched" in caplog.text
    asked = len(site.requests)

    assert ensure(store, retry=False) == ()
    assert len(site.requests) == asked

    site.status = None
    assert ensure(store) == CHOSEN


def test_wrong_bytes_are_refused(site: loopback.Site, store: WeightsStore) -> None:
    site.files["/e.onnx"] = b"something else"

    assert ensure(store) == ()


def test_a_models_folder_that_cannot_be_written_stops_no_start(
    site: loopback.Site, store: WeightsStore, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tests may run as root, whom no mode of a folder stops."""

    def refuse(self: InstallationState, *_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(InstallationState, "set_default_pack", refuse)
    monkeypatch.setattr(InstallationState, "record_failed_fetch", refuse)
    with caplog.at_level(logging.WARNING):
        assert ensure(store) == ()
        assert "VULTUS_INFERENCE__PACK=sface" in caplog.text
        site.status = 503
        (store.ensure_models_dir() / "e.onnx").unlink()
        assert ensure(store) == ()


def test_a_download_that_cannot_be_written_stops_no_start(
    site: loopback.Site, store: WeightsStore, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_out_of_space(self: Downloader, *_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Downloader, "fetch_weights", run_out_of_space)
    with caplog.at_level(logging.WARNING):
        assert ensure(store) == ()

    assert "No space left on device" in caplog.text
