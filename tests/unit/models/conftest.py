"""The real pipeline, loaded once."""

from __future__ import annotations

import pytest

from vultus.models.pipeline import FacePipeline
from vultus.models.weights.store import WeightsStore
from vultus.settings import InferenceSettings, PhotoSettings


@pytest.fixture(scope="session")
def pipeline() -> FacePipeline:
    return FacePipeline.load(InferenceSettings(workers=2), PhotoSettings(), WeightsStore())
