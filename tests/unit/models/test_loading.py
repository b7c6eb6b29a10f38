"""A pack is loaded when its licences allow it and its thresholds are known."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import pytest

from vultus.domain import Calibration
from vultus.errors import LicenceError, WeightsError
from vultus.models import loading
from vultus.models.catalog import packs
from vultus.models.catalog.licences import INSIGHTFACE
from vultus.models.catalog.measured import CALIBRATIONS
from vultus.models.catalog.packs import BUILTIN, pack_named
from vultus.models.pipeline import FacePipeline, default_pack
from vultus.models.runtime.choice import Runtime
from vultus.models.weights.store import WeightsStore
from vultus.settings import InferenceSettings, PhotoSettings

if TYPE_CHECKING:
    from pathlib import Path

MEASURED = Calibration(((1e-2, 0.5), (1e-3, 0.6)), margin=0.02, source="a test")


@pytest.fixture
def store(graph_cache: Path, tmp_path: Path) -> WeightsStore:
    return WeightsStore(graph_cache, tmp_path / "models")


def load(store: WeightsStore, pack: str | None = None, *, calibrated: bool = True) -> FacePipeline:
    return FacePipeline.load(InferenceSettings(), PhotoSettings(), store, pack=pack, calibrated=calibrated)


def test_a_pack_nobody_measured_is_measured_but_serves_only_with_kept_thresholds(
    store: WeightsStore, pipeline: FacePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(CALIBRATIONS, pipeline.contract.id)

    with pytest.raises(WeightsError, match="vultus evaluate pairs DIR --pack builtin --keep"):
        load(store)
    assert load(store, calibrated=False).calibration.points == ()

    store.records.keep_calibration(pipeline.contract.id, MEASURED)
    assert load(store).calibration == MEASURED


def asking(monkeypatch: pytest.MonkeyPatch) -> str:
    """Make a pack of the built-in networks whose licence must be accepted."""
    pack = replace(BUILTIN, name="asking", detector=replace(BUILTIN.detector, licence=INSIGHTFACE))
    monkeypatch.setitem(packs.PACKS, pack.name, pack)
    return pack.name


def test_a_licence_is_asked_for_at_every_load(store: WeightsStore, monkeypatch: pytest.MonkeyPatch) -> None:
    name = asking(monkeypatch)

    with pytest.raises(LicenceError, match=f"Run: vultus models accept {INSIGHTFACE.name}"):
        load(store, name)
    store.records.accept(INSIGHTFACE, who="ada")
    assert load(store, name).pack.name == name


@pytest.mark.parametrize("usage", ["any", "commercial"])
def test_commercial_use_refuses_what_forbids_it_even_when_accepted(
    tmp_path: Path, usage: Literal["any", "commercial"]
) -> None:
    store = WeightsStore(tmp_path, tmp_path / "models", usage=usage)
    store.records.accept(INSIGHTFACE, who="ada")
    pack = pack_named("buffalo_l")

    words = {"any": "det_10g.onnx are missing", "commercial": "scrfd-10g must not be used: VULTUS_MODELS__USAGE"}
    with pytest.raises(WeightsError, match=words[usage]):
        loading.load_pack(pack, store, Runtime(InferenceSettings()))
    store.check_licences(BUILTIN.detector, BUILTIN.embedder)


def test_the_setting_comes_before_the_choice_and_the_choice_before_the_built_in(
    store: WeightsStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert default_pack(store) == "builtin"
    monkeypatch.setitem(packs.PACKS, "twin", replace(BUILTIN, name="twin"))
    store.records.choose("twin", "builtin")

    assert load(store).pack.name == "twin"
    assert FacePipeline.load(InferenceSettings(pack="builtin"), PhotoSettings(), store).pack.name == "builtin"


def test_a_detector_nobody_measured_in_dlibs_crops_is_told_with_those_that_were(store: WeightsStore) -> None:
    with pytest.raises(WeightsError, match=r"landmarks of scrfd-10g; choose .*: mtcnn, retinaface-mobilenet, yunet"):
        loading.template_of(pack_named("scrfd-10g+dlib-resnet"), loading.CROPS["dlib-resnet"])
