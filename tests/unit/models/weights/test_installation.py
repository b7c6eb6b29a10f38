"""State of an installation persists, and damage is reported."""

from __future__ import annotations

import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from vultus.domain import Calibration
from vultus.errors import WeightsError
from vultus.models.catalog.licences import INSIGHTFACE, VGGFACE2
from vultus.models.weights.installation import InstallationState

CALIBRATION = Calibration(((1e-2, 0.3), (1e-3, 0.4)), margin=0.03, source="a test, 5 pairs")


def test_an_empty_folder_has_no_state_and_is_not_created(tmp_path: Path) -> None:
    records = InstallationState(tmp_path / "models")

    assert (records.find_pinned_digest("w"), records.find_calibration("c"), records.list_chosen_packs()) == (
        None,
        None,
        (),
    )
    assert not records.is_licence_accepted(INSIGHTFACE)
    assert not (tmp_path / "models").exists()


def test_without_a_folder_nothing_is_persisted_silently() -> None:
    assert InstallationState(None).list_chosen_packs() == ()
    with pytest.raises(WeightsError, match="no models folder"):
        InstallationState(None).add_pinned_digest("w", "0" * 64)


def test_an_acceptance_names_who_when_and_what_and_stays_the_first(tmp_path: Path) -> None:
    InstallationState(tmp_path / "models").add_acceptance(INSIGHTFACE, accepted_by="ada")
    InstallationState(tmp_path / "models").add_acceptance(INSIGHTFACE, accepted_by="bob")

    records = InstallationState(tmp_path / "models")
    kept = records.get_acceptances()
    assert (kept[INSIGHTFACE.name]["by"], kept[INSIGHTFACE.name]["terms"]) == ("ada", INSIGHTFACE.terms)
    assert datetime.now(UTC) - datetime.fromisoformat(kept[INSIGHTFACE.name]["at"]) < timedelta(minutes=1)
    assert (records.is_licence_accepted(INSIGHTFACE), records.is_licence_accepted(VGGFACE2)) == (True, False)
    assert stat.S_IMODE((tmp_path / "models").stat().st_mode) == 0o700


def test_the_last_choice_comes_first_and_earlier_ones_stay(tmp_path: Path) -> None:
    records = InstallationState(tmp_path)

    assert records.set_default_pack("opencv", "builtin") == ("opencv", "builtin")
    assert records.set_default_pack("auraface", "opencv") == ("auraface", "opencv", "builtin")
    assert records.set_default_pack("builtin", "auraface") == ("builtin", "auraface", "opencv")
    assert InstallationState(tmp_path).list_chosen_packs() == ("builtin", "auraface", "opencv")


@pytest.mark.parametrize("logistic", [None, (30.0, -12.5)])
def test_thresholds_come_back_as_they_were_kept(tmp_path: Path, logistic: tuple[float, float] | None) -> None:
    kept = Calibration(CALIBRATION.points, CALIBRATION.margin, CALIBRATION.source, logistic)

    InstallationState(tmp_path).save_calibration("sface-12345678", kept)

    assert InstallationState(tmp_path).find_calibration("sface-12345678") == kept
    assert InstallationState(tmp_path).find_calibration("sface-87654321") is None


def test_concurrent_changes_do_not_undo_each_other(tmp_path: Path) -> None:
    together = threading.Barrier(4)

    def pin(name: str) -> None:
        together.wait()
        InstallationState(tmp_path).add_pinned_digest(name, name * 64)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(pin, "abcd"))

    assert [InstallationState(tmp_path).find_pinned_digest(name) for name in "abcd"] == [name * 64 for name in "abcd"]


@pytest.mark.parametrize("damage", ["{", "[]", "\udcff"])
def test_a_damaged_record_is_reported_and_not_changed(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "records.json"
    path.write_bytes(damage.encode("utf-8", "surrogateescape"))

    with pytest.raises(WeightsError, match=r"records\.json cannot be read: .*Restore it, or remove it"):
        InstallationState(tmp_path).add_pinned_digest("w", "0" * 64)

    assert path.read_bytes() == damage.encode("utf-8", "surrogateescape")
