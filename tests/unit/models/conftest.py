"""The real pipeline, loaded once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from vultus.models.pipeline import FacePipeline
from vultus.models.weights.store import WeightsStore
from vultus.settings import InferenceSettings, PhotoSettings

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def graph_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("graphs")


@pytest.fixture(scope="session")
def pipeline(graph_cache: Path) -> FacePipeline:
    return FacePipeline.load(InferenceSettings(workers=2), PhotoSettings(), WeightsStore(graph_cache))
