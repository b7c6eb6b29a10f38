"""Rotation of keys: wherever it is interrupted everything can be read, and the next call finishes it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text
from tests.callers import CALLER

from vultus.domain import Box, Crop
from vultus.errors import ConflictError, KeyRingError
from vultus.sealing.custody import Custody
from vultus.sealing.key_ring import FileKeyRing
from vultus.sealing.key_store import KeyStore
from vultus.sealing.person_keys import HEADER_BYTES, SLOT_BYTES, PersonKeyFile
from vultus.services import crop_vault, key_rotation
from vultus.services.crop_vault import CropKeyGoneError, CropVault
from vultus.services.key_rotation import KeyCheck, KeyRotator
from vultus.services.people import rekeying
from vultus.services.secret_vault import SecretVault
from vultus.utils.durable import lock_file

if TYPE_CHECKING:
    from pathlib import Path

    from vultus.db.database import Database
    from vultus.domain import Collection, FloatArray
    from vultus.services.collections import CollectionService

Enrol = Callable[..., Awaitable[Any]]
Towards = Callable[..., "FloatArray"]

WEBHOOK = UUID(int=9)
CROP = Crop(b"a small photo", Box(1, 2, 3, 4))


class CrashError(Exception):
    pass


class Gallery:
    """A sealed collection of three persons with crops, a webhook, and a process that has read their keys."""

    def __init__(self, database: Database, custody: Custody, collection: Collection, ring: Path) -> None:
        self.database, self.custody, self.collection = database, custody, collection
        self.running = Custody.open(custody.keys.path.parent, FileKeyRing(ring))
        self.persons: list[UUID] = []

    async def fill(self, enrol: Enrol, towards: Towards) -> None:
        async with self.database.transaction() as work:
            secrets, crops = SecretVault(self.custody.keys), CropVault(self.custody)
            for at, name in enumerate("abc"):
                one = await enrol(work, self.collection, name, towards(at), towards(at, 0.1))
                await crops.save_crops(work, [(face, CROP) for face in one.faces], one.consent)
                self.persons.append(one.person.id)
            await secrets.hold_keys(work)
            sealed = secrets.seal(b"a signing key", f"webhook:{WEBHOOK}")
            await work._session.execute(
                text(
                    "INSERT INTO webhooks (id, name, url, with_names, sealed_secret, position)"
                    " VALUES (:id, 'a', 'b', false, :sealed, 0)"
                ),
                {"id": WEBHOOK, "sealed": sealed},
            )
        assert await self.read() == await self.read(self.running)

    async def read(self, custody: Custody | None = None) -> list[Any]:
        """Return templates, crops and the secret as a process with these keys reads them; by default one just begun."""
        custody = custody or Custody.open(self.custody.keys.path.parent, self.custody.keys.ring)
        self.database.use_keys(custody)
        found: list[Any] = []
        async with self.database.transaction(read_only=True) as work:
            for person_id in self.persons:
                for face_id, _, vector in await work.templates.list_person_templates(self.collection.id, person_id):
                    stored = await work.crops.find_crop(self.collection.id, face_id)
                    assert stored is not None
                    crop = await CropVault(custody).open_crop(stored, collection_id=self.collection.id, face_id=face_id)
                    found.append((face_id, vector.tolist(), crop.jpeg))
            (sealed,) = await work.webhooks.get_sealed_secrets(WEBHOOK)
        found.append(SecretVault(custody.keys).unseal(sealed, f"webhook:{WEBHOOK}"))
        self.database.use_keys(self.custody)
        return found

    async def list_slots(self) -> dict[UUID, int]:
        async with self.database.transaction(read_only=True) as work:
            return await work.person_keys.load_slots(self.persons)


@pytest.fixture
async def gallery(
    database: Database, collections: CollectionService, custody: Custody, enrol: Enrol, towards: Towards, tmp_path: Path
) -> Gallery:
    collection = await collections.create_collection(CALLER, "sealed", policy={"storage": "sealed"})
    gallery = Gallery(database, custody, collection, tmp_path / "ring.json")
    await gallery.fill(enrol, towards)
    return gallery


STEPS = [
    (FileKeyRing, "rotate"),
    (KeyStore, "_write"),
    (PersonKeyFile, "rewrap_keys"),
    (KeyRotator, "_reseal_secrets"),
    (KeyStore, "retire_old_versions"),
    (FileKeyRing, "retire_old_versions"),
]


@pytest.mark.parametrize("is_done", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("step", STEPS, ids=lambda step: f"{step[0].__name__}.{step[1]}")
async def test_a_rotation_is_interrupted_anywhere(
    gallery: Gallery, monkeypatch: pytest.MonkeyPatch, step: tuple[type, str], is_done: bool
) -> None:
    before = await gallery.read()
    rotator = KeyRotator(gallery.database, gallery.custody)
    owner, name = step
    act = getattr(owner, name)

    def crash(self: Any, *arguments: Any) -> None:
        if is_done:
            act(self, *arguments)
        raise CrashError

    async def crash_later(self: Any) -> None:
        if is_done:
            await act(self)
        raise CrashError

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, crash_later if name == "_reseal_secrets" else crash)
        with pytest.raises(CrashError):
            await rotator.rotate(CALLER)
    assert await gallery.read() == await gallery.read(gallery.running) == before

    await rotator.rotate(CALLER)

    status = await rotator.get_status(CALLER)
    (active,) = status.versions
    assert not status.is_rotating
    assert (status.persons.by_version, status.secrets) == ({active: 3}, {active: 1})
    assert await gallery.read() == await gallery.read(gallery.running) == before
    assert await rotator.check(CALLER) == KeyCheck(3, (), 1, ())


async def test_a_server_that_registers_during_a_rotation_loses_nobody(
    gallery: Gallery, enrol: Enrol, towards: Towards, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has read the old keys, and writes with the new ones from their first second on."""
    retire, added = KeyStore.retire_old_versions, uuid4()

    def register_first(self: KeyStore) -> None:
        gallery.running.person_keys.create_keys([added])
        retire(self)

    monkeypatch.setattr(KeyStore, "retire_old_versions", register_first)
    rotator = KeyRotator(gallery.database, gallery.custody)
    await rotator.rotate(CALLER)

    assert (await rotator.get_status(CALLER)).persons.by_version == {2: 4}
    ((slot, _),) = [one for one in gallery.custody.person_keys.list_keys() if one[1] == added]
    assert gallery.custody.person_keys.find_keys([(slot, added)]) != [None]


async def test_a_rotation_waits_for_secrets_that_are_being_sealed(
    gallery: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, reseal = asyncio.Event(), KeyRotator._reseal_secrets

    async def reseal_noted(self: KeyRotator) -> None:
        begun.set()
        await reseal(self)

    monkeypatch.setattr(KeyRotator, "_reseal_secrets", reseal_noted)
    secrets = SecretVault(gallery.running.keys)
    rotator = KeyRotator(gallery.database, gallery.custody)
    async with gallery.database.transaction() as work:
        await secrets.hold_keys(work)
        sealed = secrets.seal(b"another", f"webhook:{WEBHOOK}")
        rotation = asyncio.create_task(rotator.rotate(CALLER))
        await begun.wait()
        assert (await asyncio.wait({rotation}, timeout=0.3))[0] == set()
        await work.webhooks.rotate_secret(WEBHOOK, sealed, 0)
    await rotation

    async with gallery.database.transaction(read_only=True) as work:
        (found,) = await work.webhooks.get_sealed_secrets(WEBHOOK)
    assert SecretVault(gallery.custody.keys).unseal(found, f"webhook:{WEBHOOK}") == b"another"


@pytest.mark.parametrize("crashes", [0, 1, 2])
async def test_persons_get_new_keys_and_keep_what_was_sealed(
    gallery: Gallery, monkeypatch: pytest.MonkeyPatch, crashes: int
) -> None:
    """Interrupted in the middle of a batch, or between two, the next call goes on."""
    before, old = await gallery.read(), await gallery.list_slots()
    content = gallery.custody.person_keys.path.read_bytes()
    monkeypatch.setattr(key_rotation, "BATCH_SIZE", 1)
    rotator = KeyRotator(gallery.database, gallery.custody)
    act, calls = crop_vault.reseal_crops, 0

    async def crash_in_the_second(*arguments: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 2 and crashes:
            raise CrashError
        await act(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(rekeying, "reseal_crops", crash_in_the_second)
        for _ in range(crashes):
            calls = min(calls, 1)
            with pytest.raises(CrashError):
                await rotator.rekey_persons(CALLER)
            assert await gallery.read() == await gallery.read(gallery.running) == before
            assert len(gallery.custody.person_keys.list_keys()) == 3
    changed = await rotator.rekey_persons(CALLER, "sealed")
    changed += await rotator.rekey_persons(CALLER)

    new = await gallery.list_slots()
    assert not {*old.items()} & {*new.items()}
    assert await gallery.read() == await gallery.read(gallery.running) == before
    assert gallery.custody.person_keys.find_keys([(slot, person) for person, slot in old.items()]) == [None] * 3
    assert changed >= 3
    assert (await rotator.get_status(CALLER)).rekeying_since is None
    gallery.custody.person_keys.path.write_bytes(content)  # a copy of before opens nothing of today
    with pytest.raises((KeyRingError, CropKeyGoneError)):
        await gallery.read()


async def test_what_is_lost_is_found_and_what_is_left_over_is_destroyed(
    gallery: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    rotator = KeyRotator(gallery.database, gallery.custody)
    keys, slots = gallery.custody.person_keys, await gallery.list_slots()
    left_over = uuid4()
    (slot,) = keys.create_keys([left_over])
    assert await rotator.list_unused_keys(CALLER) == []  # perhaps of a registration that is not committed yet
    monkeypatch.setattr(key_rotation, "UNUSED_AFTER", timedelta(seconds=-1))
    assert await rotator.list_unused_keys(CALLER) == [(slot, left_over)]
    assert await rotator.destroy_keys(CALLER, [(slot, left_over)]) == 1

    keys.destroy_keys([(slots[gallery.persons[1]], gallery.persons[1])])
    with gallery.custody.person_keys.path.open("r+b") as file:
        file.seek(HEADER_BYTES + slots[gallery.persons[2]] * SLOT_BYTES + 50)
        file.write(b"damage")
    assert await rotator.check(CALLER) == KeyCheck(3, tuple(gallery.persons[1:]), 1, ())


async def test_a_secret_whose_key_is_gone_does_not_hold_up_a_rotation(
    gallery: Gallery, caplog: pytest.LogCaptureFixture
) -> None:
    """As in a database that was restored from before the last one."""
    rotator = KeyRotator(gallery.database, gallery.custody)
    async with gallery.database.transaction(read_only=True) as work:
        (old,) = await work.sealed_values.list_secrets()
    await rotator.rotate(CALLER)
    async with gallery.database.transaction() as work:
        (new,) = await work.sealed_values.list_secrets()
        await work.sealed_values.replace_secret(new, old.sealed)

    await rotator.rotate(CALLER)

    assert f"the secret of {old.context} was sealed by a key that is gone: set it again" in caplog.text
    assert not (await rotator.get_status(CALLER)).is_rotating


async def test_one_process_rotates_at_a_time(gallery: Gallery) -> None:
    rotator = KeyRotator(gallery.database, gallery.custody)
    with lock_file(gallery.custody.keys.path.with_name("rotation.lock")), pytest.raises(ConflictError):
        await rotator.rotate(CALLER)
