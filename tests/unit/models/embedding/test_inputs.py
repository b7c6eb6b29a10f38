"""The known networks' inputs, with the real MobileFaceNet."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from tests.faces import drawn, encoded, portrait
from tests.weights import real_weights

from vultus.domain import DETECTION
from vultus.models.embedding.inputs import ARCFACE_POINTS, FACENET_TEMPLATE, MOBILE_FACE_NET, build_arcface_template
from vultus.models.embedding.network import CropInput, NetworkEmbedder
from vultus.models.imaging.alignment import align_face
from vultus.models.imaging.decoding import EncodedPhoto
from vultus.models.imaging.geometry import estimate_similarity_transform, transform_points
from vultus.models.runtime import OnnxSession
from vultus.models.views import MirrorCropper
from vultus.settings import PhotoSettings

if TYPE_CHECKING:
    from vultus.domain import FloatArray
    from vultus.models.pipeline import FacePipeline

TEMPLATE = build_arcface_template(112)


@pytest.fixture(scope="module")
def session() -> OnnxSession:
    return OnnxSession(real_weights("MobileFaceNet.onnx"))


def cosines(session: OnnxSession, spec: CropInput, pipeline: FacePipeline) -> tuple[FloatArray, FloatArray]:
    """Return the cosines of the astronaut with other photos of her, and with drawn faces."""
    photos = [
        portrait(),
        portrait(mirror=True, brightness=0.7),
        portrait(scale=0.5, angle=12),
        *(encoded(drawn(seed)) for seed in range(4, 8)),
    ]
    chips = []
    for photo in photos:
        (face,) = pipeline.analyze_photo(photo, DETECTION).faces
        pixels = EncodedPhoto.open(photo, PhotoSettings()).decode(1024).pixels
        chip = align_face(pixels, face.face.landmarks, TEMPLATE)
        chips.append(MirrorCropper().crop_views(pixels, face.face.landmarks[None], chip[None]))
    vectors = NetworkEmbedder(session, spec).embed(np.concatenate(chips))
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    alike: FloatArray = vectors[1:] @ vectors[0]
    return alike[:2], alike[2:]


def test_mobile_face_net_separates_a_person_from_drawn_faces(session: OnnxSession, pipeline: FacePipeline) -> None:
    same, others = cosines(session, MOBILE_FACE_NET, pipeline)

    assert same.min() > 0.8
    assert others.max() < 0.3


def test_mobile_face_net_is_fed_as_it_was_trained(session: OnnxSession, pipeline: FacePipeline) -> None:
    right, _ = cosines(session, MOBILE_FACE_NET, pipeline)

    for spec in (replace(MOBILE_FACE_NET, order="BGR"), replace(MOBILE_FACE_NET, mean=0.0, deviation=1.0)):
        wrong, _ = cosines(session, spec, pipeline)
        assert wrong.mean() < right.mean()


def test_templates_are_faces_upright_and_inside_the_crop() -> None:
    for template in (TEMPLATE, build_arcface_template(160), FACENET_TEMPLATE):
        assert 0.2 * template.side < template.array.min() < template.array.max() < 0.85 * template.side
        matrix = estimate_similarity_transform(np.array(ARCFACE_POINTS), template.array)
        assert abs(transform_points(np.array(ARCFACE_POINTS), matrix) - template.array).max() < 0.04 * template.side
        assert abs(matrix[0, 1]) < 0.03
