"""A pack is loaded when its licences allow it and its thresholds are known."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import pytest
from tests.networks import share_landmarks

from vultus.domain import Calibration
from vultus.errors import LicenceError, WeightsError
from vultus.models import loading
from vultus.models.catalog import packs
from vultus.models.catalog.licences import INSIGHTFACE
from vultus.models.catalog.measured import CALIBRATIONS
from vultus.models.catalog.packs import BUILTIN, get_pack
from vultus.models.pipeline import FacePipeline, get_default_pack
from vultus.models.runtime.choice import Runtime
from vultus.models.weights.store import WeightsStore
from vultus.settings import InferenceSettings, PhotoSettings

if TYPE_CHECKING:
    from pathlib import Path

MEASURED = Calibration(((1e-2, 0.5), (1e-3, 0.6)), margin=0.02, source="a test")


@pytest.fixture(autouse=True)
def _shared_landmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    share_landmarks(monkeypatch)


@pytest.fixture
def store(tmp_path: Path) -> WeightsStore:
    return WeightsStore(tmp_path / "models")


def load(store: WeightsStore, pack: str | None = None, *, calibrated: bool = True) -> FacePipeline:
    return FacePipeline.load(InferenceSettings(), PhotoSettings(), store, pack=pack, calibrated=calibrated)


def test_an_uncalibrated_pack_can_be_evaluated_but_serves_only_with_stored_thresholds(
    store: WeightsStore, pipeline: FacePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(CALIBRATIONS, pipeline.space.id)

    with pytest.raises(WeightsError, match="vultus evaluate pairs DIR --pack builtin --keep"):
        load(store)
    assert load(store, calibrated=False).calibration.points == ()

    store.installation.save_calibration(pipeline.space.id, MEASURED)
    assert load(store).calibration == MEASURED


def add_licensed_pack(monkeypatch: pytest.MonkeyPatch) -> str:
    """Add a pack of the built-in networks whose licence must be accepted."""
    pack = replace(BUILTIN, name="asking", detector=replace(BUILTIN.detector, licence=INSIGHTFACE))
    monkeypatch.setitem(packs.PACKS, pack.name, pack)
    return pack.name


def test_a_licence_is_required_at_every_load(store: WeightsStore, monkeypatch: pytest.MonkeyPatch) -> None:
    name = add_licensed_pack(monkeypatch)

    with pytest.raises(LicenceError, match=f"Run: vultus models accept {INSIGHTFACE.name}"):
        load(store, name)
    store.installation.add_acceptance(INSIGHTFACE, accepted_by="ada")
    assert load(store, name).pack.name == name


@pytest.mark.parametrize("usage", ["any", "commercial"])
def test_commercial_use_refuses_what_forbids_it_even_when_accepted(
    tmp_path: Path, usage: Literal["any", "commercial"]
) -> None:
    store = WeightsStore(tmp_path / "models", usage=usage)
    store.installation.add_acceptance(INSIGHTFACE, accepted_by="ada")
    pack = get_pack("buffalo_l")

    words = {"any": "det_10g.onnx are missing", "commercial": "scrfd-10g must not be used: VULTUS_MODELS__USAGE"}
    with pytest.raises(WeightsError, match=words[usage]):
        loading.load_pack(pack, store, Runtime(InferenceSettings()))
    store.check_licences(BUILTIN.detector, BUILTIN.embedder)


def test_the_setting_comes_before_the_choice_and_the_choice_before_the_built_in(
    store: WeightsStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert get_default_pack(store) == "builtin"
    monkeypatch.setitem(packs.PACKS, "twin", replace(BUILTIN, name="twin"))
    store.installation.set_default_pack("twin", "builtin")

    assert load(store).pack.name == "twin"
    assert FacePipeline.load(InferenceSettings(pack="builtin"), PhotoSettings(), store).pack.name == "builtin"


def test_a_detector_without_measured_dlib_crops_is_refused_with_the_measured_ones(store: WeightsStore) -> None:
    with pytest.raises(WeightsError, match=r"landmarks of scrfd-10g; choose .*: mtcnn, retinaface-mobilenet, yunet"):
        loading.get_alignment_template(get_pack("scrfd-10g+dlib-resnet"), loading.CROP_INPUTS["dlib-resnet"])
