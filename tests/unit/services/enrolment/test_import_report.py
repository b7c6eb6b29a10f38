"""The report of an import survives crashes and odd names, and is written by one import at a time."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from vultus.errors import ConflictError
from vultus.services.enrolment.folders import LeftOut, LeftOutReason
from vultus.services.enrolment.import_report import ImportReport

ODD_NAMES = ["Ada/a\u2028b.jpg", "Ada/c\x85d.jpg", "Zoë/1.jpg", os.fsdecode(b"Jos\xe9/2.jpg"), 'a"\n.jpg']

OUTCOMES = ["unreadable", "worker_lost", "enrolled_as_other_person", "no_face", "enrolled", "duplicate_photo"]
PHOTOS = [*ODD_NAMES, *OUTCOMES, "Ada/1.jpg", "a.jpg", "b.jpg"]
COLLECTION = uuid4()


def open_report(path: Path, **options: Any) -> ImportReport:
    usual = {"rules": "rules", "terms": "terms", "retry": False}
    return ImportReport(
        path, **{"collection_id": COLLECTION, "stamps": dict.fromkeys(PHOTOS, "1-2"), **usual, **options}
    )


def test_every_name_is_known_again(tmp_path: Path) -> None:
    path = tmp_path / "report.jsonl"
    with open_report(path) as report:
        for name in ODD_NAMES:
            report.add_outcome(name, "enrolled")
        report.add_left_out(LeftOut("x", LeftOutReason.LINK))

    with open_report(path) as again:
        again.add_left_out(LeftOut("x", LeftOutReason.LINK))
        assert (again.skipped, [name for name in ODD_NAMES if again.should_try(name)]) == (5, [])
    assert len(path.read_bytes().splitlines()) == 6
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("tail", [b'{"photo": "Zo\xc3', b'{"photo": "b.jpg", "outc', b"\0\0\0\0", b"[]\n7\n"])
def test_a_line_that_a_crash_cut_is_ignored_and_ended(tail: bytes, tmp_path: Path) -> None:
    path = tmp_path / "report.jsonl"
    with open_report(path) as report:
        report.add_outcome("a.jpg", "enrolled")
    path.write_bytes(path.read_bytes() + tail)

    with open_report(path) as report:
        assert report.should_try("b.jpg")
        report.add_outcome("b.jpg", "enrolled")

    with open_report(path) as again:
        assert not again.should_try("a.jpg")
        assert not again.should_try("b.jpg")


def test_what_may_go_away_is_tried_again_and_what_is_refused_under_other_rules(tmp_path: Path) -> None:
    path = tmp_path / "report.jsonl"
    with open_report(path) as report:
        for outcome in OUTCOMES:
            report.add_outcome(outcome, outcome)

    def list_due(**options: object) -> list[str]:
        with open_report(path, **options) as again:
            return [name for name in OUTCOMES if again.should_try(name)]

    assert list_due() == OUTCOMES[:3]
    assert list_due(rules="others") == list_due(retry=True) == OUTCOMES[:4]


def test_a_file_that_was_replaced_is_another_photo(tmp_path: Path) -> None:
    path = tmp_path / "report.jsonl"
    with open_report(path) as report:
        report.add_outcome("no_face", "no_face")
        report.add_outcome("enrolled", "enrolled")

    with open_report(path, stamps={"no_face": "1-3", "enrolled": "1-3"}) as again:
        assert again.should_try("no_face")
        assert again.should_try("enrolled")
        assert not again.is_enrolled("enrolled")
        assert (again.skipped, again.refused_before) == (1, 1)


def test_what_is_said_of_another_collection_counts_for_nothing(tmp_path: Path) -> None:
    path = tmp_path / "report.jsonl"
    with open_report(path) as report:
        report.add_outcome("enrolled", "enrolled")

    with open_report(path, collection_id=uuid4()) as other:
        assert other.should_try("enrolled")
        assert (other.skipped, other.is_enrolled("enrolled")) == (0, False)


def test_a_consent_goes_on_under_the_same_terms(tmp_path: Path) -> None:
    path, consent = tmp_path / "report.jsonl", uuid4()
    with open_report(path) as report:
        report.add_outcome("Ada/1.jpg", "enrolled", person="Ada", consent_id=consent)

    with open_report(path) as same:
        assert same.find_consent("Ada") == consent
    with open_report(path, terms="others") as other:
        assert other.find_consent("Ada") is None


def test_photos_that_are_gone_count_no_more(tmp_path: Path) -> None:
    with open_report(tmp_path / "report.jsonl") as report:
        report.add_outcome("a.jpg", "unreadable")

    with open_report(tmp_path / "report.jsonl", stamps={}) as again:
        assert (again.skipped, again.refused_before) == (0, 0)


def test_one_import_at_a_time_writes_a_report(tmp_path: Path) -> None:
    with open_report(tmp_path / "report.jsonl"), pytest.raises(ConflictError, match="Another import"):
        open_report(tmp_path / "report.jsonl")


def test_a_report_is_a_regular_file_and_no_link(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("keep")
    (tmp_path / "link").symlink_to("file")
    os.mkfifo(tmp_path / "pipe")

    for name in ("link", "pipe", "."):
        with pytest.raises(OSError, match=r".+"):
            open_report(tmp_path / name)

    assert (tmp_path / "file").read_text() == "keep"
