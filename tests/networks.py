"""The built-in networks, loaded once a process: for tests of what is done with them, not of how they are loaded."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

import pytest

from vultus.models import loading
from vultus.models.catalog.measured import CALIBRATIONS
from vultus.models.catalog.packs import BUILTIN
from vultus.models.detection import dlib_landmarks
from vultus.models.pipeline import FacePipeline
from vultus.models.weights.store import WeightsStore
from vultus.settings import InferenceSettings, PhotoSettings

if TYPE_CHECKING:
    from vultus.models.catalog.packs import Pack
    from vultus.models.loading import LoadedPack
    from vultus.models.runtime.choice import Runtime

_loaded: dict[str, LoadedPack] = {}
"""By runtime."""

_decode_once = cache(dlib_landmarks._decode_predictor)


def share_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every pipeline of the built-in pack have the same networks: another set takes a second and 100 MB."""
    monkeypatch.setattr("vultus.models.pipeline.load_pack", _load_shared_pack)


def share_landmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Decode dlib's landmarks, most of the time of a load, once a process; everything else is loaded each time."""
    monkeypatch.setattr(dlib_landmarks, "_decode_predictor", _decode_once)


def load_pipeline(inference: InferenceSettings | None = None) -> FacePipeline:
    """Return a pipeline of the built-in pack with the shared networks."""
    with pytest.MonkeyPatch.context() as patch:
        share_networks(patch)
        return FacePipeline.load(inference or InferenceSettings(), PhotoSettings(), WeightsStore(), pack=BUILTIN.name)


def _load_shared_pack(pack: Pack, store: WeightsStore, runtime: Runtime) -> LoadedPack:
    if pack is not BUILTIN:
        return loading.load_pack(pack, store, runtime)
    if runtime.description not in _loaded:
        with pytest.MonkeyPatch.context() as patch:
            share_landmarks(patch)
            _loaded[runtime.description] = loading.load_pack(pack, store, runtime)
    shared = _loaded[runtime.description]
    own = store.installation.find_calibration(shared.space.id)
    return replace(shared, calibration=own or CALIBRATIONS.get(shared.space.id))
