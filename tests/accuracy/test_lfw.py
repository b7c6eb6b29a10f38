"""The built-in pack keeps its accuracy on Labeled Faces in the Wild (minutes long; VULTUS_LFW names the data)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vultus.evaluation.datasets import read_pairs, read_person_folders
from vultus.evaluation.pairs import evaluate_listed_pairs
from vultus.evaluation.runner import describe_photos
from vultus.models.pipeline import FacePipeline
from vultus.models.weights.store import WeightsStore
from vultus.settings import InferenceSettings, PhotoSettings

LFW = os.environ.get("VULTUS_LFW")

pytestmark = pytest.mark.skipif(not LFW, reason="VULTUS_LFW does not name a folder with LFW and its pairs.txt")


def test_six_thousand_pairs_are_classified(tmp_path: Path) -> None:
    root = Path(LFW or "")
    everything = read_person_folders(root)
    pairs = read_pairs(root / "pairs.txt", everything)
    listed = everything.select_photos(pairs.photo_positions)
    pipeline = FacePipeline.load(InferenceSettings(), PhotoSettings(), WeightsStore())

    described = describe_photos(pipeline, listed, workers=os.cpu_count() or 1)
    result = evaluate_listed_pairs(pairs.convert_positions(pairs.photo_positions), described)

    assert len(described.failures) <= 0.003 * len(listed.photos)
    assert result.accuracy.accuracy.value >= 0.992
