"""The real pipeline, loaded once."""

from __future__ import annotations

import pytest
from tests.networks import load_pipeline

from vultus.models.pipeline import FacePipeline
from vultus.settings import InferenceSettings


@pytest.fixture(scope="session")
def pipeline() -> FacePipeline:
    return load_pipeline(InferenceSettings(workers=2))
