"""Every collection is served by the pack of its embedding space, or refused with the remedy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.networks import share_networks

from vultus.errors import NotFoundError, PackNotLoadedError
from vultus.models.pipelines import PipelineRegistry
from vultus.models.weights.store import WeightsStore
from vultus.settings import InferenceSettings, PhotoSettings, Settings

if TYPE_CHECKING:
    from pathlib import Path

    from vultus.models.pipeline import FacePipeline


def test_a_pipeline_is_found_by_its_space_and_by_its_pack(pipeline: FacePipeline) -> None:
    loaded = PipelineRegistry(pipeline)

    assert loaded.get_pipeline_for_space(pipeline.space.id) is pipeline
    assert loaded.spaces.get_space_of_pack("builtin") == pipeline.describe_space()
    assert list(loaded) == [pipeline]


def test_what_is_not_loaded_is_refused_with_what_is(pipeline: FacePipeline) -> None:
    loaded = PipelineRegistry(pipeline)

    with pytest.raises(PackNotLoadedError, match=r"arcface-12345678.*\(builtin\).*VULTUS_INFERENCE__EXTRA_PACKS"):
        loaded.get_pipeline_for_space("arcface-12345678")
    with pytest.raises(NotFoundError, match="loaded are builtin"):
        loaded.spaces.get_space_of_pack("buffalo_l")


def test_a_pack_chosen_once_that_cannot_be_loaded_any_more_does_not_stop_the_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    share_networks(monkeypatch)
    store = WeightsStore(tmp_path / "models")
    store.installation.set_default_pack("opencv", "builtin")
    store.installation.set_default_pack("builtin", "opencv")

    loaded = PipelineRegistry.load(InferenceSettings(), PhotoSettings(), store)

    assert [one.pack.name for one in loaded] == ["builtin"]
    assert "pack opencv, in use before, is not loaded" in caplog.text


def test_further_packs_are_listed_with_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VULTUS_INFERENCE__EXTRA_PACKS", "yunet+sface, buffalo_l,")

    assert Settings().inference.extra_packs == ("yunet+sface", "buffalo_l")
