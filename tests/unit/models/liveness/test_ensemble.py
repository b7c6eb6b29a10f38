"""Scores are averaged, and the networks of an ensemble are found by their names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.weights import FOLDER, real_weights

from vultus.domain import Box, DetectedFace, LivenessReason, Pixels
from vultus.errors import NotFoundError
from vultus.models.catalog.packs import get_liveness_networks
from vultus.models.liveness.ensemble import LivenessEnsemble, LivenessRule
from vultus.models.loading import load_liveness
from vultus.models.weights.store import WeightsStore

FACE = DetectedFace(Box(75, 75, 175, 175), np.zeros((5, 2), np.float32), 0.9)
PHOTO = np.full((250, 250, 3), 128, np.uint8)


class FixedScorer:
    """Gives every face the same score."""

    def __init__(self, score: float) -> None:
        self.score = score

    def compute_score(self, pixels: Pixels, face: DetectedFace) -> float:
        assert pixels is PHOTO
        assert face is FACE
        return self.score


@pytest.mark.parametrize(("threshold", "reason"), [(0.6, LivenessReason.LIVE), (0.61, LivenessReason.SPOOF)])
def test_the_mean_score_is_compared_with_the_threshold(threshold: float, reason: LivenessReason) -> None:
    ensemble = LivenessEnsemble([FixedScorer(0.25), FixedScorer(0.95)], LivenessRule(threshold))

    liveness = ensemble.assess_liveness(PHOTO, FACE)

    assert liveness.score == pytest.approx(0.6)
    assert liveness.reason is reason


@pytest.mark.parametrize("name", ["minifasnet", "facenox", "minifasnet+facenox"])
def test_every_network_and_ensemble_is_loaded_by_its_name(name: str, tmp_path: Path) -> None:
    networks = get_liveness_networks(name)
    for network in networks:
        for file in network.files.values():
            real_weights(file.filename)

    ensemble = load_liveness(networks, WeightsStore(FOLDER))

    assert 0 < ensemble.assess_liveness(PHOTO, FACE).score < 1


def test_the_order_of_an_ensembles_names_does_not_matter() -> None:
    assert get_liveness_networks("facenox+minifasnet") == get_liveness_networks("minifasnet+facenox")
    with pytest.raises(NotFoundError, match="kind detector, not liveness"):
        get_liveness_networks("minifasnet+mtcnn")
