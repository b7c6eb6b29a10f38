"""The keys of persons: durable, destroyed for every process, wrapped anew without a change."""

from __future__ import annotations

import multiprocessing
import os
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from vultus.errors import KeyRingError
from vultus.sealing.custody import Custody
from vultus.sealing.key_ring import FileKeyRing
from vultus.sealing.person_keys import HEADER_BYTES, SLOT_BYTES

if TYPE_CHECKING:
    from pathlib import Path
    from uuid import UUID


def open_custody(folder: Path) -> Custody:
    return Custody.open(folder / "custody", FileKeyRing(folder / "elsewhere" / "ring.json"))


@pytest.fixture
def custody(tmp_path: Path) -> Custody:
    found = open_custody(tmp_path)
    found.keys.create()
    return found


def test_a_destroyed_key_is_gone_for_every_reader_and_from_the_file(custody: Custody, tmp_path: Path) -> None:
    persons = [uuid4() for _ in range(3)]
    slots = custody.person_keys.create_keys(persons)
    other = open_custody(tmp_path).person_keys
    before = other.find_keys(list(zip(slots, persons, strict=True)))
    assert len({*before}) == 3
    assert None not in before

    assert custody.person_keys.destroy_keys([(slots[1], persons[1])]) == 1

    assert other.find_keys(list(zip(slots, persons, strict=True))) == [before[0], None, before[2]]
    content = other.path.read_bytes()
    assert persons[1].bytes not in content
    assert content[HEADER_BYTES + slots[1] * SLOT_BYTES :][:SLOT_BYTES] == bytes(SLOT_BYTES)
    assert other.list_keys() == [(slots[0], persons[0]), (slots[2], persons[2])]


def test_a_slot_that_another_person_has_by_now_is_neither_read_nor_destroyed(custody: Custody) -> None:
    erased, later = uuid4(), uuid4()
    (slot,) = custody.person_keys.create_keys([erased])
    custody.person_keys.destroy_keys([(slot, erased)])
    while later_slot := custody.person_keys.create_keys([later])[0]:  # until the slot comes round again
        if later_slot == slot:
            break
    assert custody.person_keys.find_keys([(slot, erased)]) == [None]
    assert custody.person_keys.destroy_keys([(slot, erased)]) == 0
    assert custody.person_keys.find_keys([(slot, later)]) != [None]


def test_a_new_key_encryption_key_changes_no_key_and_the_old_one_can_go(custody: Custody, tmp_path: Path) -> None:
    persons = [uuid4() for _ in range(5)]
    references = list(zip(custody.person_keys.create_keys(persons), persons, strict=True))
    before, signing = custody.person_keys.find_keys(references), custody.keys.load().signing_secret
    old_content, old_ring = custody.person_keys.path.read_bytes(), FileKeyRing(tmp_path / "elsewhere" / "ring.json")
    custody.keys.rotate()
    running = open_custody(tmp_path).person_keys  # has read the keys of before
    assert running.find_keys(references) == before

    assert custody.person_keys.rewrap_keys() == 5
    custody.keys.retire_old_versions()

    assert running.find_keys(references) == before
    assert custody.person_keys.rewrap_keys() == 0
    assert custody.keys.load().signing_secret == signing
    assert list(custody.keys.load().secrets) == [2]
    assert old_ring.path.read_text().count("secret") == 1
    custody.person_keys.path.write_bytes(old_content)  # a copy of before
    assert open_custody(tmp_path).person_keys.find_keys(references) == [None] * 5


def _create_keys(folder: Path, persons: list[UUID]) -> tuple[int, ...]:
    return open_custody(folder).person_keys.create_keys(persons)


def test_two_processes_take_different_slots(custody: Custody, tmp_path: Path) -> None:
    persons = [[uuid4() for _ in range(200)] for _ in range(4)]
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        slots = pool.starmap(_create_keys, [(tmp_path, part) for part in persons])
    assert len({slot for part in slots for slot in part}) == 800
    references = [one for part in zip(slots, persons, strict=True) for one in zip(*part, strict=True)]
    assert None not in custody.person_keys.find_keys(references)


@pytest.mark.parametrize("lost", ["elsewhere/ring.json", "custody/keys.json", "custody/persons.keys"])
def test_what_is_missing_or_damaged_is_named(custody: Custody, tmp_path: Path, lost: str) -> None:
    person_id = uuid4()
    (slot,) = custody.person_keys.create_keys([person_id])
    content = (tmp_path / lost).read_bytes()
    for damaged in (None, b"{}", content[: min(HEADER_BYTES - 1, len(content) // 3)]):
        (tmp_path / lost).unlink(missing_ok=True)
        if damaged is not None:
            (tmp_path / lost).write_bytes(damaged)
        with pytest.raises(KeyRingError, match=lost.rpartition("/")[2]):
            open_custody(tmp_path).person_keys.find_keys([(slot, person_id)])


def test_another_installations_key_ring_opens_nothing(custody: Custody, tmp_path: Path) -> None:
    ring = FileKeyRing(tmp_path / "elsewhere" / "ring.json")
    ring.path.unlink()
    ring.create()
    with pytest.raises(KeyRingError, match="not the key ring of this installation"):
        open_custody(tmp_path).keys.load()
    assert custody.keys.path.stat().st_mode & 0o777 == ring.path.stat().st_mode & 0o777 == 0o600


def test_a_damaged_slot_is_one_persons_loss(custody: Custody, caplog: pytest.LogCaptureFixture) -> None:
    persons, keys = [uuid4() for _ in range(3)], custody.person_keys
    references = list(zip(keys.create_keys(persons), persons, strict=True))
    before = keys.find_keys(references)
    with keys.path.open("r+b") as file:
        file.seek(HEADER_BYTES + references[1][0] * SLOT_BYTES + 50)
        file.write(b"damage")
    beyond = (10**6, uuid4())
    readable = [before[0], None, before[2]]
    assert keys.find_keys([*references, beyond]) == [*readable, None]

    custody.keys.rotate()
    assert keys.rewrap_keys() == 2
    assert str(persons[1]) in caplog.text
    custody.keys.retire_old_versions()
    assert keys.find_keys(references) == readable


def test_keys_that_were_loaded_open_while_the_key_ring_is_away_and_seal_nothing(
    custody: Custody, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As with a key ring that is a copy of before a rotation, or in a Vault that is away during one."""
    persons, keys = [uuid4(), uuid4()], custody.person_keys
    references = list(zip(keys.create_keys(persons), persons, strict=True))
    assert keys.peek_keys(references) is None  # nothing waits for a file: it is mapped by the first search
    found = keys.find_keys(references)
    assert keys.peek_keys(references) == found
    open_custody(tmp_path).keys.rotate()
    (tmp_path / "elsewhere" / "ring.json").unlink()

    assert keys.peek_keys(references) is None
    assert keys.find_keys(references) == keys.find_keys(references) == found
    assert caplog.text.count("the keys of before are kept") == 1
    with pytest.raises(KeyRingError, match=r"ring\.json, is missing"):
        keys.create_keys([uuid4()])
    open_custody(tmp_path).person_keys.destroy_keys(references[:1])
    with pytest.raises(KeyRingError, match=r"ring\.json, is missing"):  # no keys of today to look for it by
        keys.find_keys(references)


def test_no_slot_is_given_in_a_file_that_is_missing_or_older_than_the_database(custody: Custody) -> None:
    keys = custody.person_keys
    with pytest.raises(KeyRingError, match="missing"):
        keys.create_keys([uuid4()], last_slot=0)
    assert not keys.path.exists()
    (slot,) = keys.create_keys([uuid4()])
    with pytest.raises(KeyRingError, match="ends before slot 100000"):
        keys.create_keys([uuid4()], last_slot=100_000)
    assert keys.create_keys([uuid4()], last_slot=slot, avoid={slot + 1}) == (slot + 2,)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes files for others")
def test_what_root_writes_belongs_to_whom_the_server_runs_as(custody: Custody, tmp_path: Path) -> None:
    custody.keys.path.unlink()
    (ring := tmp_path / "elsewhere" / "ring.json").unlink()
    for path in (ring.parent, custody.keys.path.parent):
        os.chown(path, 1234, 1235)
    custody.keys.create()
    custody.person_keys.create_keys([uuid4()])
    custody.keys.rotate()

    written = [path for folder in ("custody", "elsewhere") for path in (tmp_path / folder).iterdir()]
    assert len(written) == 5
    assert {(path.stat().st_uid, path.stat().st_gid) for path in written} == {(1234, 1235)}
