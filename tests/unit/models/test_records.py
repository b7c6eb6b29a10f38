"""What an installation writes down is there the next time, and damage is told."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from vultus import __version__
from vultus.domain import Calibration
from vultus.errors import WeightsError
from vultus.models.catalog.detectors import SCRFD_10G
from vultus.models.catalog.embedders import ARCFACE_R50
from vultus.models.records import Records

CALIBRATION = Calibration(((1e-2, 0.3), (1e-3, 0.4)), margin=0.03, source="a test, 5 pairs")


def test_an_empty_folder_knows_nothing_and_is_not_made(tmp_path: Path) -> None:
    records = Records(tmp_path / "models")

    assert (records.digest("w"), records.calibration("c"), records.chosen_pack()) == (None, None, None)
    assert not records.accepted(SCRFD_10G)
    assert not records.folder.exists()


def test_an_acceptance_names_who_when_and_what(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = Records(tmp_path / "models")
    monkeypatch.setattr("getpass.getuser", lambda: "ada")

    records.accept(SCRFD_10G)

    assert records.accepted(SCRFD_10G)
    assert not records.accepted(ARCFACE_R50)
    (kept,) = json.loads((records.folder / "acceptances.json").read_text())
    assert (kept["by"], kept["network"], kept["licence"], kept["vultus"]) == (
        "ada",
        "scrfd-10g",
        "InsightFace non-commercial",
        __version__,
    )
    assert stat.S_IMODE(records.folder.stat().st_mode) == 0o700


def test_a_user_without_a_name_accepts_by_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> str:
        raise KeyError

    monkeypatch.setattr("getpass.getuser", nobody)
    records = Records(tmp_path)

    records.choose_pack("opencv")

    assert json.loads((tmp_path / "use.json").read_text())["by"].startswith("uid ")
    assert records.chosen_pack() == "opencv"


def test_thresholds_are_kept_by_contract(tmp_path: Path) -> None:
    records = Records(tmp_path)

    path = records.keep_calibration("sface-12345678", CALIBRATION)

    assert path == tmp_path / "calibrations/sface-12345678.json"
    assert records.calibration("sface-12345678") == CALIBRATION
    assert records.calibration("sface-87654321") is None


def test_a_contract_with_a_strange_name_stays_in_the_folder(tmp_path: Path) -> None:
    path = Records(tmp_path).keep_calibration("deepface:../x-1", CALIBRATION)

    assert path.parent == tmp_path / "calibrations"


def test_a_damaged_record_is_told(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{")

    with pytest.raises(WeightsError, match=r"manifest\.json cannot be read.*Mend or remove it"):
        Records(tmp_path).digest("w")
