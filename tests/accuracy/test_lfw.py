"""The default pack keeps its accuracy on Labeled Faces in the Wild (minutes long; VULTUS_LFW names the data)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vultus.evaluation.datasets import read_folders, read_pairs
from vultus.evaluation.pairs import evaluate_listed
from vultus.evaluation.runner import describe_all
from vultus.models.pipeline import FacePipeline
from vultus.models.weights.store import WeightsStore
from vultus.settings import InferenceSettings, PhotoSettings

LFW = os.environ.get("VULTUS_LFW")

pytestmark = pytest.mark.skipif(not LFW, reason="VULTUS_LFW does not name a folder with LFW and its pairs.txt")


def test_six_thousand_pairs_are_told_apart(tmp_path: Path) -> None:
    root = Path(LFW or "")
    everything = read_folders(root)
    pairs = read_pairs(root / "pairs.txt", everything)
    listed = everything.only(pairs.listed)
    pipeline = FacePipeline.load(InferenceSettings(), PhotoSettings(), WeightsStore(tmp_path))

    described = describe_all(pipeline, listed, workers=os.cpu_count() or 1)
    result = evaluate_listed(pairs.within(pairs.listed), described)

    assert len(described.failures) <= 0.003 * len(listed.photos)
    assert result.accuracy.accuracy.value >= 0.992
