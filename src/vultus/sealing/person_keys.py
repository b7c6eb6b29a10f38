"""One key per person, in a file of fixed slots outside the database: overwritten, it is gone from every backup.

The file holds a header of a page, then slots of 128 bytes, which no page or sector boundary divides:

    16  id of the person
     4  version of the key-encryption key, little-endian; 0: the slot is free, and zero throughout
     8  when the key was made, milliseconds since 1970
    12  nonce
    48  the person's key, encrypted by AES-256 in Galois/Counter Mode; the id is authenticated with it
    40  zero
"""

from __future__ import annotations

import logging
import mmap
import os
import secrets
import struct
import threading
import time
from collections import deque
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple
from uuid import UUID

import numpy as np
from cryptography.exceptions import InvalidTag

from vultus.errors import KeyRingError
from vultus.sealing.key_ring import KEY_BYTES, NONCE_BYTES
from vultus.utils.durable import PRIVATE_MODE, give_to_owner, lock_file, synchronise_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
    from pathlib import Path

    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    from vultus.sealing.key_store import InstallationKeys, KeyStore

log = logging.getLogger(__name__)

MAGIC = b"VULTUS PERSON KEYS 1\n"
HEADER_BYTES, SLOT_BYTES = 4096, 128
GROWTH_SLOTS = 8192
REWRAP_SLOTS = 8192
_SLOT = struct.Struct("<16sIQ12s48s")
_FREE = bytes(SLOT_BYTES)
_CONTEXT = b"vultus person key"

KeyReference = tuple[int, UUID]
"""Slot and person."""


class PersonKey(NamedTuple):
    """A person's key, 32 bytes, and the slot it lies in."""

    slot: int
    key: bytes


@dataclass(frozen=True, slots=True)
class KeyCounts:
    """What keys of persons there are.

    Attributes:
        by_version: Their numbers by version of the key-encryption key that wraps them.
        oldest: When the oldest was made; None if there is none.
        newest: When the newest was made; None if there is none.
    """

    by_version: Mapping[int, int]
    oldest: datetime | None
    newest: datetime | None


class PersonKeyFile:
    """The keys of persons, wrapped by the installation's key-encryption key.

    Any number of processes read and write it, one writes at a time. What a reader maps is what others write, so that a
    key is gone for all of them once it is destroyed.

    Args:
        path: Of the file, made with mode 0600 for the first key.
        store: The installation's keys.
    """

    def __init__(self, path: Path, store: KeyStore) -> None:
        self.path = path
        self._store = store
        self._lock = threading.Lock()
        self._mapped: mmap.mmap | None = None
        self._free: deque[int] | None = None

    def create_keys(
        self, persons: Sequence[UUID], *, last_slot: int | None = None, avoid: Collection[int] = ()
    ) -> tuple[int, ...]:
        """Make a key per person and return their slots, durable.

        Args:
            persons: Their ids.
            last_slot: The greatest slot that anybody has; None if nobody has a key, and the file may be made.
            avoid: Slots that are not given, free or not.

        Raises:
            KeyRingError: The installation's keys or the file cannot be used, or it is missing or ends before a slot.
        """
        with self._change_file(creates=last_slot is None) as number:
            if last_slot is not None:
                self._ensure_length(number, last_slot)
            keys = self._store.load()  # within the lock: a rotation that has begun to wrap anew does not miss a slot
            slots = self._take_free_slots(number, len(persons), avoid)
            for slot, person_id in zip(slots, persons, strict=True):
                made_at = time.time_ns() // 1_000_000
                _write_slot(number, slot, _wrap_key(keys, person_id, secrets.token_bytes(KEY_BYTES), made_at))
            os.fdatasync(number)
        return tuple(slots)

    def find_keys(self, references: Sequence[KeyReference]) -> list[bytes | None]:
        """Return the keys of persons, 32 bytes each, in the order given; None for one that was destroyed or is damaged.

        Raises:
            KeyRingError: The installation's keys or the file cannot be used.
        """
        ciphers, found = self._store.load(or_keep=True).ciphers, []
        for slot, person_id in references:
            if (key := _unwrap_key(self._read_slot(slot), person_id, ciphers)) is None:
                # Perhaps it was being written, or written on another machine, whose changes a network file system shows
                # to who takes the lock: again, after its writer, with the keys of today.
                with self._change_file() as number:
                    content = os.pread(number, SLOT_BYTES, _offset(slot))
                    key = _unwrap_key(content, person_id, self._store.load().ciphers)
            found.append(key)
        return found

    def peek_keys(self, references: Sequence[KeyReference]) -> list[bytes] | None:
        """Return the keys of persons, at once, if they can be had without waiting; None if `find_keys` is needed."""
        keys, mapped = self._store.peek(), self._mapped
        if keys is None or mapped is None:
            return None
        found = []
        for slot, person_id in references:
            key = _unwrap_key(mapped[_offset(slot) : _offset(slot + 1)], person_id, keys.ciphers)
            if key is None:
                return None
            found.append(key)
        return found

    def destroy_keys(self, keys: Iterable[KeyReference]) -> int:
        """Overwrite the slots of persons, durably; return how many still held their key.

        Raises:
            KeyRingError: The file cannot be written, is missing, or ends before a slot: nothing is known of its key.
        """
        wanted = list(keys)
        if not wanted:
            return 0
        destroyed = []
        with self._change_file() as number:
            self._ensure_length(number, max(slot for slot, _ in wanted))
            for slot, person_id in wanted:
                owner = os.pread(number, len(person_id.bytes), _offset(slot))
                if owner == person_id.bytes:
                    _write_slot(number, slot, _FREE)
                    destroyed.append(slot)
            os.fdatasync(number)
            if self._free is not None:
                self._free.extend(destroyed)
        return len(destroyed)

    def holds_key(self, slot: int, person_id: UUID) -> bool:
        """Return whether a slot is a person's, whether or not what it holds opens."""
        return self._read_slot(slot)[: len(person_id.bytes)] == person_id.bytes

    def list_keys(self) -> list[KeyReference]:
        """Return slot and person of every key."""
        if not self.path.exists():
            return []
        slots = self._read_all_slots()
        used = np.flatnonzero(slots[:, 16:20].any(axis=1))
        return [(int(slot), UUID(bytes=slots[slot, :16].tobytes())) for slot in used]

    def count_keys(self) -> KeyCounts:
        """Return how many keys there are by version of what wraps them, and the ages of the oldest and newest."""
        if not self.path.exists():
            return KeyCounts({}, None, None)
        slots = self._read_all_slots()
        versions = slots[:, 16:20].copy().view("<u4")[:, 0]
        made_at = slots[:, 20:28].copy().view("<u8")[:, 0][versions > 0]
        numbers, counts = np.unique(versions[versions > 0], return_counts=True)
        if not len(made_at):
            return KeyCounts({}, None, None)
        oldest, newest = (datetime.fromtimestamp(int(at) / 1000, UTC) for at in (made_at.min(), made_at.max()))
        return KeyCounts(dict(zip(numbers.tolist(), counts.tolist(), strict=True)), oldest, newest)

    def list_older_keys(self, references: Iterable[KeyReference], before: datetime) -> list[KeyReference]:
        """Return those of some keys that were made before a moment.

        Raises:
            KeyRingError: The file cannot be read.
        """
        limit = int(before.timestamp() * 1000)
        return [
            (slot, person_id)
            for slot, person_id in references
            if (content := self._read_slot(slot))[:16] == person_id.bytes and _SLOT.unpack_from(content)[2] < limit
        ]

    def rewrap_keys(self, record_progress: Callable[[int, int], None] = lambda done, total: None) -> int:
        """Wrap every key by the active key-encryption key; return how many were wrapped by another.

        The keys themselves stay, and so does what they sealed. One that does not open is logged, and stays as it is.
        Interrupted, it is called again.

        Args:
            record_progress: Called with the slots done and their total.

        Raises:
            KeyRingError: The installation's keys or the file cannot be used.
        """
        if not self.path.exists():
            return 0
        keys = self._store.load()
        rewrapped, start, total = 0, 0, self._count_slots()
        while start < total:
            end = min(start + REWRAP_SLOTS, total)
            with self._change_file() as number:  # so that no key is destroyed between reading and writing it
                for slot in range(start, end):
                    content = os.pread(number, SLOT_BYTES, _offset(slot))
                    owner, version, made_at = _SLOT.unpack_from(content)[:3]
                    if version in {0, keys.active_version}:
                        continue
                    person_id = UUID(bytes=owner)
                    if key := _unwrap_key(content, person_id, keys.ciphers):
                        _write_slot(number, slot, _wrap_key(keys, person_id, key, made_at))
                        rewrapped += 1
                    else:
                        log.error("the key of person %s, in slot %d of %s, does not open", person_id, slot, self.path)
                os.fdatasync(number)
            start = end
            record_progress(start, total)
        return rewrapped

    def _ensure_length(self, number: int, slot: int) -> None:
        if os.fstat(number).st_size < _offset(slot + 1):
            raise KeyRingError(
                f"{self.path} ends before slot {slot}: it is older than the database, or was cut off. Put the file "
                "back from your copy of the custody folder."
            )

    @contextmanager
    def _change_file(self, *, creates: bool = False) -> Iterator[int]:
        """Open the file for writing, alone; create it with its header if that is asked for."""
        if not creates and not self.path.exists():
            raise self._build_missing_error()  # and no folder made for its lock
        try:
            with lock_file(self.path.with_name(f"{self.path.name}.lock")):
                flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if creates else 0)
                number = os.open(self.path, flags, PRIVATE_MODE)
                try:
                    give_to_owner(number, self.path.parent)
                    size = os.fstat(number).st_size
                    if creates and size < HEADER_BYTES:
                        os.pwrite(number, MAGIC.ljust(HEADER_BYTES, b"\0"), 0)
                        os.fsync(number)
                        synchronise_folder(self.path.parent)
                    elif size < HEADER_BYTES or os.pread(number, len(MAGIC), 0) != MAGIC:
                        raise KeyRingError(f"{self.path} is not a file of persons' keys. Put it back from your copy.")
                    yield number
                finally:
                    os.close(number)
        except OSError as error:
            raise KeyRingError(f"{self.path} cannot be written: {error.strerror}.") from error

    def _take_free_slots(self, number: int, count: int, avoid: Collection[int]) -> list[int]:
        """Return free slots, of which others may have taken some since they were seen; the file grows as needed."""
        if self._free is None:
            self._free = deque(np.flatnonzero(~self._read_all_slots().any(axis=1)).tolist())
        taken: list[int] = []
        avoided: list[int] = []
        while len(taken) < count:
            if not self._free:
                first = (os.fstat(number).st_size - HEADER_BYTES) // SLOT_BYTES
                os.posix_fallocate(number, _offset(first), GROWTH_SLOTS * SLOT_BYTES)
                os.fsync(number)
                self._free.extend(range(first, first + GROWTH_SLOTS))
            slot = self._free.popleft()
            if slot in avoid:
                avoided.append(slot)
            elif os.pread(number, SLOT_BYTES, _offset(slot)) == _FREE:
                taken.append(slot)
        self._free.extend(avoided)
        return taken

    def _read_slot(self, slot: int) -> bytes:
        """Return what is in a slot, nothing if the file ends before it."""
        start, mapped = _offset(slot), self._mapped
        if mapped is None or start + SLOT_BYTES > len(mapped):
            mapped = self._map_file()
        return mapped[start : start + SLOT_BYTES]

    def _map_file(self) -> mmap.mmap:
        try:
            with self._lock, self.path.open("rb") as file:
                header = file.read(HEADER_BYTES)
                if len(header) < HEADER_BYTES or not header.startswith(MAGIC):
                    raise KeyRingError(f"{self.path} is not a file of persons' keys. Put it back from your copy.")
                self._mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
                return self._mapped
        except FileNotFoundError as error:
            raise self._build_missing_error() from error
        except (OSError, ValueError) as error:
            raise KeyRingError(f"{self.path} cannot be read: {error}.") from error

    def _build_missing_error(self) -> KeyRingError:
        return KeyRingError(
            f"The keys of persons, {self.path}, are missing. Put the file back from your copy of the custody folder; "
            "without it what is sealed cannot be read."
        )

    def _read_all_slots(self) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
        """Return the (n, 128) bytes of all slots."""
        with self.path.open("rb") as file:
            file.seek(HEADER_BYTES)
            content = np.fromfile(file, np.uint8)
        return content[: len(content) // SLOT_BYTES * SLOT_BYTES].reshape(-1, SLOT_BYTES)

    def _count_slots(self) -> int:
        return (self.path.stat().st_size - HEADER_BYTES) // SLOT_BYTES


def _offset(slot: int) -> int:
    return HEADER_BYTES + slot * SLOT_BYTES


def _wrap_key(keys: InstallationKeys, person_id: UUID, key: bytes, made_at: int) -> bytes:
    nonce, version = secrets.token_bytes(NONCE_BYTES), keys.active_version
    wrapped = keys.ciphers[version].encrypt(nonce, key, _CONTEXT + person_id.bytes)
    return _SLOT.pack(person_id.bytes, version, made_at, nonce, wrapped).ljust(SLOT_BYTES, b"\0")


def _unwrap_key(content: bytes, person_id: UUID, ciphers: Mapping[int, AESGCM]) -> bytes | None:
    """Return the key in a slot; None if it is not (any more) the person's, or does not open."""
    if len(content) < SLOT_BYTES:
        return None
    owner, version, _, nonce, wrapped = _SLOT.unpack_from(content)
    if owner != person_id.bytes or (cipher := ciphers.get(version)) is None:
        return None
    try:
        return cipher.decrypt(nonce, wrapped, _CONTEXT + owner)
    except InvalidTag:
        return None


def _write_slot(number: int, slot: int, content: bytes) -> None:
    written = os.pwrite(number, content, _offset(slot))
    if written != len(content):
        raise OSError(f"{written} of {len(content)} bytes were written")
