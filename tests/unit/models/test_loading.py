"""A pack is loaded when its licences allow it, its code is here and its thresholds are known."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from vultus.domain import Calibration
from vultus.errors import LicenceError, WeightsError
from vultus.models.catalog import packs
from vultus.models.catalog.licences import INSIGHTFACE
from vultus.models.catalog.packs import BUILTIN
from vultus.models.pipeline import FacePipeline, default_pack
from vultus.models.store import WeightsStore
from vultus.settings import InferenceSettings, PhotoSettings

if TYPE_CHECKING:
    from pathlib import Path

    from vultus.models.catalog.packs import Pack

MEASURED = Calibration(((1e-2, 0.5), (1e-3, 0.6)), margin=0.02, source="a test")


@pytest.fixture
def store(graph_cache: Path, tmp_path: Path) -> WeightsStore:
    return WeightsStore(graph_cache, tmp_path / "models")


def load(store: WeightsStore, pack: Pack, monkeypatch: pytest.MonkeyPatch, *, calibrated: bool = True) -> FacePipeline:
    monkeypatch.setitem(packs.PACKS, "tried", replace(pack, name="tried"))
    return FacePipeline.load(InferenceSettings(), PhotoSettings(), store, pack="tried", calibrated=calibrated)


def test_a_pack_nobody_measured_is_measured_but_not_served(
    store: WeightsStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    unmeasured = replace(BUILTIN, calibration=None)

    with pytest.raises(WeightsError, match="vultus evaluate pairs DIR --pack tried --keep"):
        load(store, unmeasured, monkeypatch)
    made = load(store, unmeasured, monkeypatch, calibrated=False)
    assert made.pack.calibration is None

    store.records.keep_calibration(made.contract.id, MEASURED)
    assert load(store, unmeasured, monkeypatch).calibration == MEASURED


def test_thresholds_measured_here_come_before_the_catalogues(
    store: WeightsStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.records.keep_calibration(BUILTIN.contract.id, MEASURED)

    assert load(store, BUILTIN, monkeypatch).calibration == MEASURED


def test_a_licence_is_asked_for_again_at_every_load(store: WeightsStore, monkeypatch: pytest.MonkeyPatch) -> None:
    asking = replace(BUILTIN, detector=replace(BUILTIN.detector, licence=INSIGHTFACE))

    with pytest.raises(LicenceError, match="was not accepted"):
        load(store, asking, monkeypatch)
    store.records.accept(asking.detector)
    assert not load(store, asking, monkeypatch).pack.commercial_use


def test_a_network_without_code_is_told(store: WeightsStore, monkeypatch: pytest.MonkeyPatch) -> None:
    foreign = replace(BUILTIN, embedder=replace(BUILTIN.embedder, family="unheard-of"))

    with pytest.raises(WeightsError, match=r"no code that runs dlib-resnet; it runs networks of .*dlib-resnet"):
        load(store, foreign, monkeypatch)


def test_the_setting_comes_before_the_choice_and_the_choice_before_the_built_in(store: WeightsStore) -> None:
    assert default_pack(InferenceSettings(), store) == "builtin"
    store.records.choose_pack("opencv")
    assert default_pack(InferenceSettings(), store) == "opencv"
    assert default_pack(InferenceSettings(pack="auraface"), store) == "auraface"
