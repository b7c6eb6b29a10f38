"""An append-only file of JSON lines, each of which names the digest of the line before, shared by processes."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

from vultus.errors import LedgerError
from vultus.utils.durable import synchronise_folder

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

GENESIS = "0" * 64
PREVIOUS = "previous"
MAX_LINE_BYTES = 64 * 1024
"""Of a line with its end; a record has a fixed number of short fields."""


@dataclass(frozen=True, slots=True)
class ChainPosition:
    """A place between two lines.

    Attributes:
        offset: Bytes before it.
        digest: SHA-256, hexadecimal, of the line before it; zeros at the beginning.
    """

    offset: int = 0
    digest: str = GENESIS


class ChainedFile:
    """A file that only grows. A change of anything but its last line is found by whoever reads it.

    A line that was not written to its end, because the machine stopped, was acknowledged to nobody: it is cut off when
    the next one is appended.

    Args:
        path: Where it is; made with mode 0600 by the first line.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, records: Sequence[Mapping[str, Any]]) -> ChainPosition:
        """Append lines, durably, and return the end of the file.

        Raises:
            LedgerError: They cannot be written, or the file ends with what is no line of it.
        """
        with self._open(os.O_RDWR | os.O_CREAT) as file:
            end = self._find_end(file)
            if end.offset and not end.digest:
                raise LedgerError(f"{self.path} does not end with a line of its own.")
            file.truncate(end.offset)
            file.seek(end.offset)
            lines, digest = [], end.digest
            for one in records:
                lines.append(_encode(one, digest))
                digest = _compute_digest(lines[-1])
            file.write(b"".join(lines))
            file.flush()
            os.fsync(file.fileno())
            if end.offset == 0:
                synchronise_folder(self.path.parent)
            return ChainPosition(file.tell(), digest)

    def read(self, since: ChainPosition | None = None) -> tuple[list[dict[str, Any]], ChainPosition]:
        """Return the records after a position, and the end of the file; nothing of a file that is not there.

        Raises:
            LedgerError: The file cannot be read, is not what it was at the position, or its chain is broken.
        """
        since = since or ChainPosition()
        if not self.path.exists():
            if since.offset:
                raise LedgerError(f"{self.path} is missing, and {since.offset} bytes of it were read before.")
            return [], since
        with self._open(os.O_RDONLY) as file:
            if self._find_digest(file, since.offset) != since.digest:
                raise LedgerError(f"{self.path} is not the file it was: it does not go on at byte {since.offset}.")
            file.seek(since.offset)
            records, digest, offset = [], since.digest, since.offset
            for line in iter(lambda: file.readline(MAX_LINE_BYTES), b""):
                if not line.endswith(b"\n") and len(line) < MAX_LINE_BYTES:
                    break  # not written to its end
                record = _decode(line)
                if record is None or record.pop(PREVIOUS, None) != digest:
                    raise LedgerError(f"{self.path} was changed: the chain breaks at byte {offset}.")
                records.append(record)
                digest, offset = _compute_digest(line), offset + len(line)
            return records, ChainPosition(offset, digest)

    def find_end(self) -> ChainPosition:
        """Return the end of the file: of its last whole line.

        Raises:
            LedgerError: It cannot be read.
        """
        if not self.path.exists():
            return ChainPosition()
        with self._open(os.O_RDONLY) as file:
            return self._find_end(file)

    def read_first(self) -> dict[str, Any]:
        """Return the first record; nothing if the file does not begin with one."""
        with self._open(os.O_RDONLY) as file:
            return _decode(file.readline(MAX_LINE_BYTES)) or {}

    def read_last(self, max_bytes: int) -> list[dict[str, Any]]:
        """Return the last records, as many as fit into so many bytes; their chain is not checked."""
        if not self.path.exists():
            return []
        with self._open(os.O_RDONLY) as file:
            start = max(0, file.seek(0, os.SEEK_END) - max_bytes)
            file.seek(start)
            lines = file.read(max_bytes).splitlines(keepends=True)[1 if start else 0 :]
        return [record for record in map(_decode, lines) if record is not None]

    @contextmanager
    def _open(self, flags: int) -> Iterator[BinaryIO]:
        """Open the file, alone if it is to be written."""
        is_writing = bool(flags & os.O_RDWR)
        try:
            if is_writing:
                self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with os.fdopen(os.open(self.path, flags | os.O_CLOEXEC, 0o600), "r+b" if is_writing else "rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX if is_writing else fcntl.LOCK_SH)
                yield file
        except OSError as error:
            verb = "written" if is_writing else "read"
            raise LedgerError(f"{self.path} cannot be {verb}: {error.strerror}.") from error

    def _find_end(self, file: BinaryIO) -> ChainPosition:
        """Return the end of the last line that was written to its end."""
        size = file.seek(0, os.SEEK_END)
        start = max(0, size - MAX_LINE_BYTES)
        file.seek(start)
        end = start + file.read(size - start).rfind(b"\n") + 1
        return ChainPosition(end, self._find_digest(file, end))

    def _find_digest(self, file: BinaryIO, offset: int) -> str:
        """Return the digest of the line that ends at an offset; nothing's if none does."""
        if offset == 0:
            return GENESIS
        start = max(0, offset - MAX_LINE_BYTES)
        file.seek(start)
        before = file.read(offset - start)
        if len(before) < offset - start or not before.endswith(b"\n"):
            return ""
        return _compute_digest(before[before.rfind(b"\n", 0, -1) + 1 :])


def _encode(record: Mapping[str, Any], previous: str) -> bytes:
    return json.dumps({**record, PREVIOUS: previous}, separators=(",", ":"), ensure_ascii=True).encode() + b"\n"


def _decode(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def _compute_digest(line: bytes) -> str:
    return hashlib.sha256(line).hexdigest()
