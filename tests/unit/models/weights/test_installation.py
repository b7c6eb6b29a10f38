"""What an installation writes down is there the next time, and damage is told."""

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
from vultus.models.weights.installation import Records

CALIBRATION = Calibration(((1e-2, 0.3), (1e-3, 0.4)), margin=0.03, source="a test, 5 pairs")


def test_an_empty_folder_knows_nothing_and_is_not_made(tmp_path: Path) -> None:
    records = Records(tmp_path / "models")

    assert (records.pinned("w"), records.calibration("c"), records.chosen()) == (None, None, ())
    assert not records.accepted(INSIGHTFACE)
    assert not (tmp_path / "models").exists()


def test_without_a_folder_nothing_is_remembered_silently() -> None:
    assert Records(None).chosen() == ()
    with pytest.raises(WeightsError, match="no models folder"):
        Records(None).pin("w", "0" * 64)


def test_an_acceptance_names_who_when_and_what_and_stays_the_first(tmp_path: Path) -> None:
    Records(tmp_path / "models").accept(INSIGHTFACE, who="ada")
    Records(tmp_path / "models").accept(INSIGHTFACE, who="bob")

    records = Records(tmp_path / "models")
    kept = records.acceptances()
    assert (kept[INSIGHTFACE.name]["by"], kept[INSIGHTFACE.name]["terms"]) == ("ada", INSIGHTFACE.terms)
    assert datetime.now(UTC) - datetime.fromisoformat(kept[INSIGHTFACE.name]["at"]) < timedelta(minutes=1)
    assert (records.accepted(INSIGHTFACE), records.accepted(VGGFACE2)) == (True, False)
    assert stat.S_IMODE((tmp_path / "models").stat().st_mode) == 0o700


def test_the_last_choice_comes_first_and_earlier_ones_stay(tmp_path: Path) -> None:
    records = Records(tmp_path)

    assert records.choose("opencv", "builtin") == ("opencv", "builtin")
    assert records.choose("auraface", "opencv") == ("auraface", "opencv", "builtin")
    assert records.choose("builtin", "auraface") == ("builtin", "auraface", "opencv")
    assert Records(tmp_path).chosen() == ("builtin", "auraface", "opencv")


@pytest.mark.parametrize("logistic", [None, (30.0, -12.5)])
def test_thresholds_come_back_as_they_were_kept(tmp_path: Path, logistic: tuple[float, float] | None) -> None:
    kept = Calibration(CALIBRATION.points, CALIBRATION.margin, CALIBRATION.source, logistic)

    Records(tmp_path).keep_calibration("sface-12345678", kept)

    assert Records(tmp_path).calibration("sface-12345678") == kept
    assert Records(tmp_path).calibration("sface-87654321") is None


def test_changes_at_the_same_time_do_not_undo_each_other(tmp_path: Path) -> None:
    together = threading.Barrier(4)

    def pin(name: str) -> None:
        together.wait()
        Records(tmp_path).pin(name, name * 64)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(pin, "abcd"))

    assert [Records(tmp_path).pinned(name) for name in "abcd"] == [name * 64 for name in "abcd"]


@pytest.mark.parametrize("damage", ["{", "[]", "\udcff"])
def test_a_damaged_record_is_told_and_left_as_it_is(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "records.json"
    path.write_bytes(damage.encode("utf-8", "surrogateescape"))

    with pytest.raises(WeightsError, match=r"records\.json cannot be read: .*Restore it, or remove it"):
        Records(tmp_path).pin("w", "0" * 64)

    assert path.read_bytes() == damage.encode("utf-8", "surrogateescape")
