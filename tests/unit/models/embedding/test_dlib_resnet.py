"""The embedder is dlib's network, without dlib."""

from __future__ import annotations

from importlib.metadata import distribution
from typing import TYPE_CHECKING, cast

import dlib
import numpy as np
import pytest
from tests.faces import astronaut

from vultus.errors import WeightsError
from vultus.models.catalog.measured import DLIB_CHIPS
from vultus.models.catalog.packs import BUILTIN
from vultus.models.embedding.dlib_resnet_graph import build_resnet
from vultus.models.embedding.inputs import DLIB
from vultus.models.embedding.network import NetworkEmbedder
from vultus.models.imaging.alignment import align_face
from vultus.models.runtime import OnnxSession
from vultus.models.weights.store import WeightsStore

if TYPE_CHECKING:
    from vultus.domain import Pixels
    from vultus.models.catalog.entries import PackagedFile

FILE = cast("PackagedFile", BUILTIN.embedder.files["weights"])
LANDMARKS = np.array([[204, 101], [247, 103], [225, 128], [202, 140], [245, 142]], np.float32)


@pytest.fixture(scope="module")
def session() -> OnnxSession:
    return OnnxSession(WeightsStore().build_graph(FILE, build_resnet))


@pytest.fixture(scope="module")
def chips() -> Pixels:
    """One face, its mirror image, darker and turned ones, and noise: (6, 150, 150, 3)."""
    face = align_face(astronaut(), LANDMARKS, DLIB_CHIPS["mtcnn"])
    noise = np.random.default_rng(0).integers(0, 256, face.shape)
    return np.stack([face, face[:, ::-1], face // 2, np.rot90(face), 255 - face, noise]).astype(np.uint8)


def test_vectors_agree_with_dlib_on_the_same_crops(session: OnnxSession, chips: Pixels) -> None:
    original = dlib.face_recognition_model_v1(str(distribution(FILE.package).locate_file(FILE.path)))

    (vectors,) = session.run(chips)

    expected = np.array([original.compute_face_descriptor(np.ascontiguousarray(chip)) for chip in chips])
    np.testing.assert_allclose(vectors, expected, atol=1e-5)


def test_vectors_have_length_one_and_do_not_depend_on_the_batch(session: OnnxSession, chips: Pixels) -> None:
    embedder = NetworkEmbedder(session, DLIB)

    together = embedder.embed(chips[:, None])

    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)
    alone = np.concatenate([embedder.embed(chip[None, None]) for chip in chips])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_no_crops_give_no_vectors(session: OnnxSession) -> None:
    assert NetworkEmbedder(session, DLIB).embed(np.zeros((0, 2, 150, 150, 3), np.uint8)).shape == (0, 128)


def test_weights_of_another_network_are_refused() -> None:
    weights = WeightsStore().read_weights(FILE)

    with pytest.raises(WeightsError, match="cannot be read"):
        build_resnet(weights[: len(weights) // 2])
    with pytest.raises(WeightsError, match="numbers belong"):
        build_resnet(weights.replace(b"con_4", b"con_5", 1))
