"""The recommended pack on its real weights: what a fresh installation recognises with."""

from __future__ import annotations

import pytest
from tests.faces import drawn, encoded, portrait
from tests.weights import real_weights

from vultus.models.catalog.entries import PublishedFile
from vultus.models.catalog.packs import BUILTIN, RECOMMENDED
from vultus.models.pipeline import FacePipeline, get_default_pack
from vultus.models.pipelines import PipelineRegistry
from vultus.models.weights.recommendation import ensure_recommended_pack
from vultus.models.weights.store import WeightsStore
from vultus.settings import InferenceSettings, ModelSettings, PhotoSettings


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> WeightsStore:
    """An installation without a connection whose models folder has the recommended weights."""
    folder = tmp_path_factory.mktemp("models")
    for network in (RECOMMENDED.detector, RECOMMENDED.embedder):
        for file in network.files.values():
            assert isinstance(file, PublishedFile)
            (folder / file.filename).write_bytes(real_weights(file.filename))
    store = WeightsStore(folder)
    ensure_recommended_pack(store, ModelSettings(offline=True), retry=True)
    return store


def test_it_serves_by_default_beside_the_built_in_pack(store: WeightsStore) -> None:
    loaded = PipelineRegistry.load(InferenceSettings(), PhotoSettings(), store)

    assert get_default_pack(store) == RECOMMENDED.name
    assert [pipeline.pack.name for pipeline in loaded] == [RECOMMENDED.name, BUILTIN.name]
    assert (loaded.default.pack.caution, loaded.default.calibration.default_fmr) == (None, 1e-4)
    assert loaded.default.pack.is_commercial_use_allowed


def test_photos_of_one_person_match_and_a_drawn_face_does_not(store: WeightsStore) -> None:
    pipeline = FacePipeline.load(InferenceSettings(), PhotoSettings(), store)

    (face,) = pipeline.analyze_photo(portrait()).faces
    (other,) = pipeline.analyze_photo(portrait(scale=0.6, angle=8, brightness=0.8, mirror=True)).faces
    strangers = [stranger for seed in range(4) for stranger in pipeline.analyze_photo(encoded(drawn(seed))).faces]

    threshold = pipeline.calibration.get_threshold(pipeline.calibration.default_fmr)
    assert face.vector.shape == (128,)
    assert float(face.vector @ other.vector) > threshold
    assert all(float(face.vector @ stranger.vector) < threshold for stranger in strangers)
