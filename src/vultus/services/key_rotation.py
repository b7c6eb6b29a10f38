"""Rotation of keys, and what else an operator does with them: a status, a check, and slots nobody needs.

Every step leaves everything readable, and can be repeated: an interrupted rotation is finished by the next call.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID

from vultus.domain import Permission
from vultus.errors import ConflictError, KeyRingError
from vultus.sealing.envelopes import read_secret_version
from vultus.sealing.person_keys import KeyCounts
from vultus.services.people.key_destruction import KeyDestroyer
from vultus.services.people.rekeying import rekey_persons
from vultus.services.secret_vault import SecretDamagedError, SecretVault
from vultus.utils.durable import lock_file, write_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from vultus.db.database import Database
    from vultus.domain import Principal
    from vultus.sealing.custody import Custody
    from vultus.sealing.person_keys import KeyReference

    Progress = Callable[[int, int | None], None]

log = logging.getLogger(__name__)

BATCH_SIZE = 200
CHECK_BATCH = 5_000
UNUSED_AFTER = timedelta(hours=1)
"""A key younger than this may belong to a person whose registration is not committed yet."""


def ignore_progress(_done: int, _total: int | None) -> None:
    """Show nobody how far it is."""


@dataclass(frozen=True, slots=True)
class KeyRingStatus:
    """The keys of an installation.

    Attributes:
        ring: What the key ring is, and where.
        master_keys: When each version of its master key was made.
        versions: Of the key-encryption key; more than one until a rotation is finished.
        persons: Keys of persons.
        secrets: Number of sealed secrets by version of the key-encryption key; None for those of version 0.1.
        spent: Keys that are still to be destroyed.
        rekeying_since: When the re-keying of persons began that was interrupted, or is running.
    """

    ring: str
    master_keys: Mapping[int, datetime]
    versions: tuple[int, ...]
    persons: KeyCounts
    secrets: Mapping[int | None, int]
    spent: int
    rekeying_since: datetime | None

    @property
    def is_rotating(self) -> bool:
        """Whether a rotation is not finished."""
        return len(self.versions) > 1 or len(self.master_keys) > 1


@dataclass(frozen=True, slots=True)
class KeyCheck:
    """What a check found.

    Attributes:
        persons: Persons with a key.
        lost: Those of them whose key is not in the file, or does not open.
        secrets: Sealed secrets.
        unreadable: Contexts of those that do not open.
    """

    persons: int
    lost: tuple[UUID, ...]
    secrets: int
    unreadable: tuple[str, ...]


class KeyRotator:
    """Rotates the keys of an installation while it serves.

    Args:
        database: What is sealed.
        custody: The keys.
    """

    def __init__(self, database: Database, custody: Custody) -> None:
        self._database = database
        self._custody = custody
        self._vault = SecretVault(custody.keys)
        self._begun_file = custody.keys.path.with_name("rekeying.json")

    async def get_status(self, principal: Principal) -> KeyRingStatus:
        """Return what keys there are.

        Raises:
            KeyRingError: They cannot be used.
        """
        _require_operator(principal)
        custody = self._custody
        async with self._database.transaction(read_only=True) as work:
            secrets = [read_secret_version(one.sealed) for one in await work.sealed_values.list_secrets()]
            spent = await work.person_keys.count_spent_keys()
        return KeyRingStatus(
            ring=custody.keys.ring.description,
            master_keys=await asyncio.to_thread(custody.keys.ring.list_versions),
            versions=tuple(sorted((await asyncio.to_thread(custody.keys.load)).secrets)),
            persons=await asyncio.to_thread(custody.person_keys.count_keys),
            secrets={version: secrets.count(version) for version in {*secrets}},
            spent=spent,
            rekeying_since=begun[0] if (begun := self._read_beginning()) else None,
        )

    async def rotate(self, principal: Principal, progress: Progress = ignore_progress) -> int:
        """Replace master key and key-encryption key, and wrap and seal by them; return how many keys were wrapped.

        No template is touched: the keys of persons stay. Interrupted before, it goes on.

        Raises:
            ConflictError: Another process is rotating.
            KeyRingError: Keys or key ring cannot be used.
        """
        _require_operator(principal)
        keys = self._custody.keys
        with self._hold_rotation():
            if len((await asyncio.to_thread(keys.load)).secrets) == 1:
                await asyncio.to_thread(keys.rotate)
            wrapped = await asyncio.to_thread(self._custody.person_keys.rewrap_keys, progress)
            await self._reseal_secrets()
            await asyncio.to_thread(keys.retire_old_versions)
        return wrapped

    async def rekey_persons(
        self, principal: Principal, reference: str | None = None, progress: Progress = ignore_progress
    ) -> int:
        """Give every person a new key, and seal anew what the old one sealed, which is destroyed; return how many.

        Interrupted, the next call goes on with those whose key is older than its beginning.

        Args:
            principal: The caller.
            reference: Id or name of a collection, to re-key its persons alone.
            progress: Called with persons done and their total.

        Raises:
            ConflictError: Another process is rotating.
            KeyRingError: Keys cannot be used, or one is lost.
            NotFoundError: There is no such collection.
        """
        _require_operator(principal)
        with self._hold_rotation():
            async with self._database.transaction(read_only=True) as work:
                found = None if reference is None else await work.open(reference, principal, Permission.READ)
                counts = await work.person_keys.count_keys()
            collections = list(counts) if found is None else [found.id]
            total = sum(counts.get(collection_id, 0) for collection_id in collections)
            begun_at = self._begin_rekeying(reference)
            seen = done = 0
            for collection_id in collections:
                after: UUID | None = None
                while keys := await self._list_keys(after, BATCH_SIZE, collection_id):
                    older = await asyncio.to_thread(self._custody.person_keys.list_older_keys, keys, begun_at)
                    done += await self._rekey(collection_id, [person_id for _, person_id in older])
                    after, seen = keys[-1][1], seen + len(keys)
                    progress(seen, total)
            self._begun_file.unlink(missing_ok=True)
        return done

    async def check(self, principal: Principal, progress: Progress = ignore_progress) -> KeyCheck:
        """Open every key and secret that the database refers to.

        Raises:
            KeyRingError: The installation's keys cannot be used.
        """
        _require_operator(principal)
        await asyncio.to_thread(self._custody.keys.load)
        lost: list[UUID] = []
        checked, after = 0, None
        while references := await self._list_keys(after, CHECK_BATCH):
            lost += await asyncio.to_thread(self._list_lost, references)
            after, checked = references[-1][1], checked + len(references)
            progress(checked, None)
        async with self._database.transaction(read_only=True) as work:
            secrets = await work.sealed_values.list_secrets()
        unreadable = []
        for one in secrets:
            try:
                self._vault.unseal(one.sealed, one.context)
            except (KeyRingError, SecretDamagedError):
                unreadable.append(one.context)
        return KeyCheck(checked, tuple(lost), len(secrets), tuple(unreadable))

    async def list_unused_keys(self, principal: Principal) -> list[KeyReference]:
        """Return the keys whose person this database does not have: left over from a crash, or of a newer database."""
        _require_operator(principal)
        listed = await asyncio.to_thread(self._custody.person_keys.list_keys)
        unused: list[KeyReference] = []
        for start in range(0, len(listed), CHECK_BATCH):
            batch = listed[start : start + CHECK_BATCH]
            async with self._database.transaction(read_only=True) as work:
                slots = await work.person_keys.load_slots([person_id for _, person_id in batch])
            unused += [(slot, person_id) for slot, person_id in batch if slots.get(person_id) != slot]
        before = datetime.now(UTC) - UNUSED_AFTER
        return await asyncio.to_thread(self._custody.person_keys.list_older_keys, unused, before)

    async def destroy_keys(self, principal: Principal, keys: Sequence[KeyReference]) -> int:
        """Destroy keys that `list_unused_keys` returned; return how many.

        Raises:
            KeyRingError: The file cannot be written.
        """
        _require_operator(principal)
        return await asyncio.to_thread(self._custody.person_keys.destroy_keys, keys)

    async def _rekey(self, collection_id: UUID, persons: Sequence[UUID]) -> int:
        if not persons:
            return 0
        async with self._database.transaction(writes_to=str(collection_id)) as work:
            await work.lock_collection(collection_id)
            done = await rekey_persons(work, collection_id, persons)
        await KeyDestroyer(self._database, self._custody.person_keys).destroy_spent_keys()
        return done

    async def _reseal_secrets(self) -> None:
        async with self._database.transaction() as work:
            await work.sealed_values.await_holders()  # those after it seal with the newest key
        keys = await asyncio.to_thread(self._custody.keys.load)
        async with self._database.transaction() as work:
            for one in await work.sealed_values.list_secrets():
                version = read_secret_version(one.sealed)
                if version in {None, keys.active_version}:
                    continue
                if version not in keys.secrets:  # of a database that was restored from before an earlier rotation
                    log.error("the secret of %s was sealed by a key that is gone: set it again", one.context)
                    continue
                try:
                    plain = self._vault.unseal(one.sealed, one.context)
                except SecretDamagedError:
                    log.error("the secret of %s is damaged, and was before: set it again", one.context)
                else:
                    await work.sealed_values.replace_secret(one, self._vault.seal(plain, one.context))

    async def _list_keys(self, after: UUID | None, limit: int, collection_id: UUID | None = None) -> list[KeyReference]:
        async with self._database.transaction(read_only=True) as work:
            return await work.person_keys.list_keys(after, limit, collection_id)

    def _list_lost(self, references: Sequence[KeyReference]) -> list[UUID]:
        try:
            found = self._custody.person_keys.find_keys(references)
        except KeyRingError:  # the file is missing, or none
            return [person_id for _, person_id in references]
        return [person_id for (_, person_id), key in zip(references, found, strict=True) if key is None]

    @contextmanager
    def _hold_rotation(self) -> Iterator[None]:
        try:
            with lock_file(self._custody.keys.path.with_name("rotation.lock"), wait=False):
                yield
        except BlockingIOError:
            raise ConflictError("Another process is rotating keys; wait until it is done.") from None

    def _begin_rekeying(self, reference: str | None) -> datetime:
        """Return when the re-keying began that is gone on with, or begin one now."""
        if (begun := self._read_beginning()) and begun[1] == reference:
            return begun[0]
        begun_at = datetime.now(UTC)
        write_file(self._begun_file, json.dumps({"begun_at": begun_at.isoformat(), "of": reference}).encode())
        return begun_at

    def _read_beginning(self) -> tuple[datetime, str | None] | None:
        """Return when a re-keying began that is not done, and of which collection."""
        try:
            found = json.loads(self._begun_file.read_bytes())
            return datetime.fromisoformat(found["begun_at"]), found["of"]
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise KeyRingError(f"{self._begun_file} is damaged: delete it, and begin again.") from error


def _require_operator(principal: Principal) -> None:
    principal.require(Permission.CONFIGURE)
    principal.require_all_collections("look after keys")
