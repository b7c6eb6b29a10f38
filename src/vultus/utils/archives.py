"""Archives: tar files that are written and read as streams, with the digest of every member at their end.

`digests.json` is the last member but for a signature of it. So an archive that was cut off has none, and one that was
changed disagrees with it. What is long lies in parts, `NAME.00000`, `NAME.00001` and so on, to be joined in order.

Tar's extensions are neither written nor read: a header of theirs fills memory before anything of it is checked.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import tarfile
from contextlib import ExitStack, contextmanager, suppress
from hashlib import sha256
from typing import IO, TYPE_CHECKING, Any

from vultus.errors import AlreadyExistsError, InvalidInputError
from vultus.utils.age_files import is_encrypted, open_decrypted_reader, open_encrypted_writer
from vultus.utils.durable import synchronise_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

DIGESTS, SIGNATURE = "digests.json", "signature.json"
PART_BYTES = 4 * 2**20
MAX_MEMBER_BYTES = 64 * 2**20
"""Members are held in memory, one at a time."""

MAX_MEMBERS = 250_000
"""Of parts of a dump, 1 TB. Their digests are held in memory."""

MAX_DIGEST_LINE, MAX_SIGNATURE_BYTES = 512, 4096
_NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class ArchiveWriter:
    """Writes members into a stream.

    Args:
        stream: It is never read, and no position of it is sought.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._digests: dict[str, str] = {}

    def add_member(self, name: str, content: bytes) -> None:
        """Write a member.

        Raises:
            InvalidInputError: It, or their number, is too large to be read again.
        """
        if len(content) > MAX_MEMBER_BYTES or len(self._digests) >= MAX_MEMBERS:
            raise InvalidInputError(
                f"{name} does not fit into an archive, which holds {MAX_MEMBERS:,} members of {MAX_MEMBER_BYTES >> 20} "
                f"MiB; it has {len(content):,} bytes."
            )
        self._digests[name] = sha256(content).hexdigest()
        self._write(name, content)

    def close(self, sign: Callable[[bytes], bytes] | None = None) -> None:
        """Write the digests, and what a function makes of them as their signature, and end the archive."""
        digests = json.dumps({"sha256": self._digests}, indent=1).encode()
        self._write(DIGESTS, digests)
        if sign is not None:
            self._write(SIGNATURE, sign(digests))
        self._stream.write(bytes(2 * tarfile.BLOCKSIZE))

    def _write(self, name: str, content: bytes) -> None:
        entry = tarfile.TarInfo(name)
        entry.size, entry.mode = len(content), 0o600
        for part in (entry.tobuf(tarfile.USTAR_FORMAT), content, bytes(-len(content) % tarfile.BLOCKSIZE)):
            self._stream.write(part)


class PartedMember:
    """A member of unknown length, written in parts.

    Args:
        archive: To which they are added.
        name: Of the member, before the numbers of its parts.
    """

    def __init__(self, archive: ArchiveWriter, name: str) -> None:
        self._archive = archive
        self._name = name
        self._waiting = bytearray()
        self._count = 0

    def write(self, data: bytes) -> None:
        """Append bytes."""
        self._waiting += data
        while len(self._waiting) >= PART_BYTES:
            self._write_part(bytes(self._waiting[:PART_BYTES]))
            del self._waiting[:PART_BYTES]

    def close(self) -> None:
        """Write what waits."""
        if self._waiting or not self._count:
            self._write_part(bytes(self._waiting))
            self._waiting.clear()

    def _write_part(self, content: bytes) -> None:
        self._archive.add_member(f"{self._name}.{self._count:05}", content)
        self._count += 1


class ArchiveReader:
    """Reads the members of an archive in order, each once, and compares them with its digests.

    Args:
        stream: Of the archive.
        name: For messages.
        expected: Digests by member of an earlier reading, if it must be the same: a member is yielded if its is.

    Attributes:
        digests: The member with the digests, once it was read.
        signature: What signs it, if anything does.
        found: Digests by member.
    """

    def __init__(self, stream: IO[bytes], name: str, expected: Mapping[str, str] | None = None) -> None:
        self._stream = stream
        self._name = name
        self._expected = expected
        self.digests = b""
        self.signature: bytes | None = None
        self.found: dict[str, str] = {}

    def read_members(self) -> Iterator[tuple[str, bytes]]:
        """Yield name and content of every member but digests and signature.

        Raises:
            InvalidInputError: It is no archive, was cut off, or differs from its digests: what was yielded before must
                not count.
        """
        found = self.found
        for name, content in self._read_entries():
            if self.digests:
                if name != SIGNATURE or self.signature is not None:
                    raise self._fail()
                self.signature = content
            elif name == DIGESTS:
                self._check_digests(content, found)
                self.digests = content
            elif name in found:
                raise self._fail()
            else:
                found[name] = sha256(content).hexdigest()
                if self._expected is not None and self._expected.get(name) != found[name]:
                    raise InvalidInputError(f"{self._name} was replaced by another file while it was read.")
                yield name, content
        if not self.digests:
            raise self._fail()

    def _read_entries(self) -> Iterator[tuple[str, bytes]]:
        try:
            while (entry := self._read_header()) is not None:
                yield entry.name, self._read_exactly(entry.size)
                self._read_exactly(-entry.size % tarfile.BLOCKSIZE)
        except (tarfile.TarError, EOFError, ValueError, OverflowError) as error:
            raise self._fail() from error

    def _read_header(self) -> tarfile.TarInfo | None:
        """Return what heads the next member; None at the end of the archive."""
        header = self._read_exactly(tarfile.BLOCKSIZE)
        if not any(header):
            return None
        entry = tarfile.TarInfo.frombuf(header, "ascii", "strict")
        is_plain = entry.type == tarfile.REGTYPE and _NAME_PATTERN.fullmatch(entry.name)
        limits = {DIGESTS: MAX_DIGEST_LINE * (len(self.found) + 1), SIGNATURE: MAX_SIGNATURE_BYTES}
        limit = min(MAX_MEMBER_BYTES, limits.get(entry.name, MAX_MEMBER_BYTES))
        if not is_plain or not 0 <= entry.size <= limit or len(self.found) > MAX_MEMBERS:
            raise self._fail()
        return entry

    def _read_exactly(self, count: int) -> bytes:
        found = bytearray()
        while len(found) < count:
            if not (data := self._stream.read(count - len(found))):
                raise self._fail()
            found += data
        return bytes(found)

    def _check_digests(self, content: bytes, found: dict[str, str]) -> None:
        try:
            stated = json.loads(content)["sha256"]
        except (KeyError, TypeError, ValueError, RecursionError):
            stated = None
        if not isinstance(stated, dict) or list(stated.items()) != list(found.items()):
            raise self._fail()

    def _fail(self) -> InvalidInputError:
        return InvalidInputError(f"{self._name} is no archive of Vultus, or damaged, or was cut off.")


@contextmanager
def create_archive(file: Path, recipients: Sequence[str]) -> Iterator[ArchiveWriter]:
    """Yield the writer of a new file of mode 0600, which is there when the block has ended well, whole and on the disk.

    Args:
        file: Must not exist.
        recipients: Who may open it; without any it is not encrypted.

    Raises:
        AlreadyExistsError: The file exists.
        InvalidInputError: It cannot be written; nothing is left of it.
    """
    if os.path.lexists(file):
        raise AlreadyExistsError(f"{file} exists; nothing is overwritten. Name another file.")
    draft = file.with_name(f".{file.name}.{secrets.token_hex(4)}.unfinished")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as target:
            with ExitStack() as stack:
                yield ArchiveWriter(
                    stack.enter_context(open_encrypted_writer(target, recipients)) if recipients else target
                )
            target.flush()
            os.fsync(target.fileno())
        draft.rename(file)
        synchronise_folder(file.parent)
    except OSError as error:
        raise InvalidInputError(
            f"{file} cannot be written: {error.strerror or error}. Nothing was left of it."
        ) from error
    finally:
        with suppress(OSError):
            draft.unlink()


@contextmanager
def open_archive(
    file: Path, identities: Sequence[Any], expected: Mapping[str, str] | None = None
) -> Iterator[ArchiveReader]:
    """Yield the reader of a file, encrypted or not. What was read counts only once the block has ended well.

    Args:
        file: Of `create_archive`.
        identities: That may open it.
        expected: As in `ArchiveReader`.

    Raises:
        InvalidInputError: It cannot be read, or no identity opens it, or it is damaged.
    """
    try:
        with file.open("rb") as source, ExitStack() as stack:
            if not is_encrypted(file):
                yield ArchiveReader(source, str(file), expected)
                return
            if not identities:
                raise InvalidInputError(f"{file} is encrypted; name the identity that opens it (--identity FILE).")
            yield ArchiveReader(stack.enter_context(open_decrypted_reader(source, identities)), str(file), expected)
    except OSError as error:
        raise InvalidInputError(f"{file} cannot be read: {error.strerror or error}.") from error
