"""DeepFace's networks, run by DeepFace itself where it is installed."""

from __future__ import annotations

import sys
from importlib.metadata import distribution
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import pytest
from onnx import TensorProto
from tests.faces import astronaut

from vultus.errors import WeightsError
from vultus.models.catalog.measured import DLIB_CHIPS
from vultus.models.catalog.packs import BUILTIN
from vultus.models.embedding.deepface import load_deepface
from vultus.models.embedding.dlib_resnet_graph import build_resnet
from vultus.models.embedding.inputs import DLIB
from vultus.models.embedding.network import NetworkEmbedder
from vultus.models.imaging.alignment import align_face
from vultus.models.runtime import OnnxSession
from vultus.models.weights.graph_builder import GraphBuilder
from vultus.models.weights.store import WeightsStore

if TYPE_CHECKING:
    from vultus.domain import Pixels
    from vultus.models.catalog.entries import PackagedFile

FILE = cast("PackagedFile", BUILTIN.embedder.files["weights"])
LANDMARKS = np.array([[204, 101], [247, 103], [225, 128], [202, 140], [245, 142]], np.float32)

installed = pytest.mark.skipif(find_spec("deepface") is None, reason="needs the extra: pip install 'vultus[deepface]'")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """DeepFace's folder for weights, empty."""
    monkeypatch.setenv("DEEPFACE_HOME", str(tmp_path))
    path = tmp_path / ".deepface" / "weights"
    path.mkdir(parents=True)
    return path


@pytest.fixture(scope="module")
def chips() -> Pixels:
    """One face, its mirror image, a darker and a turned one, (4, 150, 150, 3)."""
    face = align_face(astronaut(), LANDMARKS, DLIB_CHIPS["mtcnn"])
    return np.stack([face, face[:, ::-1], face // 2, np.rot90(face)])


def test_without_the_extra_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("deepface", "deepface.commons", "deepface.modules"):
        monkeypatch.setitem(sys.modules, name, None)

    with pytest.raises(WeightsError, match=r"pip install 'vultus\[deepface\]'"):
        load_deepface("Dlib")


@installed
def test_dlib_of_deepface_gives_the_vectors_of_the_built_in_network(folder: Path, chips: Pixels) -> None:
    (folder / Path(FILE.path).name).symlink_to(str(distribution(FILE.package).locate_file(FILE.path)))

    model = load_deepface("Dlib")

    built_in = NetworkEmbedder(OnnxSession(WeightsStore().build_graph(FILE, build_resnet)), DLIB)
    np.testing.assert_allclose(model.embedder.embed(chips[:, None]), built_in.embed(chips[:, None]), atol=1e-5)
    assert (model.weights_sha256, model.crop_input.side) == (FILE.sha256, 150)


@installed
def test_missing_weights_are_named_and_not_downloaded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(*_: object, **__: object) -> None:
        raise AssertionError("a download was begun")

    monkeypatch.setattr("socket.socket.connect", connect)

    with pytest.raises(WeightsError, match=r"facenet512_weights\.onnx, which does not exist"):
        load_deepface("Facenet512")
    assert list(folder.iterdir()) == []


@installed
def test_an_unknown_network_is_refused_with_the_known_ones() -> None:
    with pytest.raises(WeightsError, match=r"no recognition network 'Dlip', only ArcFace, "):
        load_deepface("Dlip")


@installed
def test_damaged_weights_are_a_set_up_error(folder: Path) -> None:
    (folder / "arcface_weights.onnx").write_bytes(b"half a file")

    with pytest.raises(WeightsError, match="ArcFace cannot be loaded"):
        load_deepface("ArcFace")


@installed
def test_a_network_that_takes_no_squares_gets_the_middle_of_the_crop(folder: Path) -> None:
    graph = GraphBuilder()
    middle = graph.add_node("ReduceMean", "images", axes=[1, 2], keepdims=0)
    vectors = graph.add_node("Pad", middle, graph.add_constant(np.array([0, 0, 0, 157], np.int64)))
    shape = ("n", 55, 47, 3)
    model = graph.build_graph("id", {"images": (TensorProto.FLOAT, shape)}, {"vectors": (vectors, ("n", 160))})
    (folder / "deepid_weights.onnx").write_bytes(model)
    chips = np.full((2, 55, 55, 3), (51, 102, 204), np.uint8)
    chips[:, :, [*range(4), *range(51, 55)]] = (255, 0, 0)

    found = load_deepface("DeepID").embedder.embed(chips[:, None])

    expected = np.array([204, 102, 51]) / np.linalg.norm([204, 102, 51])
    np.testing.assert_allclose(found[:, :3], [expected] * 2, atol=1e-6)
