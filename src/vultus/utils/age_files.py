"""Files encrypted in the format of age (https://age-encryption.org/v1), written and read as streams.

What is encrypted to recipients, which are public keys, is opened by an identity, the secret key of one of them. So
whoever writes such files needs nothing with which they could be read. The tools `age` and `rage` open them too.
"""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING, Any

import pyrage

from vultus.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

MAGIC = b"age-encryption.org/"
_IDENTITY_PREFIX = "AGE-SECRET-KEY-1"
_MAX_IDENTITY_BYTES = 64 * 1024


def require_recipient(text: str) -> str:
    """Return the public key of somebody who may open files: `age1…`, or a line of an SSH key of Ed25519 or RSA.

    Raises:
        ValueError: It is none.
    """
    _parse_recipient(text)
    return text


def make_identity() -> tuple[str, str]:
    """Return a new identity, and the recipient of what it opens."""
    identity = pyrage.x25519.Identity.generate()
    return str(identity), str(identity.to_public())


def read_identities(path: Path, passphrase: str | None = None) -> list[Any]:
    """Return the identities of a file as `age-keygen` writes it, or of the private key of SSH.

    Args:
        path: Of the file, which `age -p` may have encrypted.
        passphrase: Of such a file.

    Raises:
        InvalidInputError: It cannot be read, holds no identity, or needs a passphrase that was not given or is wrong.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_IDENTITY_BYTES)
    except OSError as error:
        raise InvalidInputError(f"The identity {path} cannot be read: {error.strerror}.") from None
    if content.startswith(MAGIC):
        if passphrase is None:
            raise InvalidInputError(f"The identity {path} is encrypted; name a file with its passphrase.")
        try:
            content = pyrage.passphrase.decrypt(content, passphrase)
        except pyrage.DecryptError:
            raise InvalidInputError(f"The passphrase does not open the identity {path}.") from None
    try:
        if b"PRIVATE KEY-----" in content:
            return [pyrage.ssh.Identity.from_buffer(content)]
        lines = [line.strip() for line in content.decode().splitlines()]
        found = [pyrage.x25519.Identity.from_str(line) for line in lines if line.startswith(_IDENTITY_PREFIX)]
    except (UnicodeDecodeError, pyrage.IdentityError):
        found = []
    if not found:
        raise InvalidInputError(f"{path} holds no identity; 'vultus backup-identity FILE' makes one, or age-keygen.")
    return found


def encrypt_with_passphrase(content: bytes, passphrase: str) -> bytes:
    """Return bytes that `age -d` and `read_identities` open with a passphrase."""
    encrypted: bytes = pyrage.passphrase.encrypt(content, passphrase)
    return encrypted


def is_encrypted(file: Path) -> bool:
    """Return whether a file is one of age's.

    Raises:
        OSError: It cannot be read.
    """
    with file.open("rb") as stream:
        return stream.read(len(MAGIC)) == MAGIC


@contextmanager
def open_encrypted_writer(target: IO[bytes], recipients: Sequence[str]) -> Iterator[IO[bytes]]:
    """Yield a stream whose bytes arrive encrypted in another, all of them when the block ends.

    Args:
        target: Open for writing; what fails there is raised here.
        recipients: Who may open it; at least one.

    Raises:
        OSError: The target cannot be written.
    """
    keys = [_parse_recipient(one) for one in recipients]
    sink = _Sink(target)
    reading, writing = os.pipe()

    def encrypt() -> None:
        with os.fdopen(reading, "rb") as source, suppress(pyrage.EncryptError, OSError):
            pyrage.encrypt_io(source, sink, keys)
            sink.is_complete = True

    thread = threading.Thread(target=encrypt, name="age")
    thread.start()
    stream = os.fdopen(writing, "wb")
    try:
        with suppress(BrokenPipeError):  # the target failed, and says why below
            yield stream
            stream.close()
    finally:
        with suppress(BrokenPipeError):
            stream.close()
        thread.join()
    sink.check()


@contextmanager
def open_decrypted_reader(source: IO[bytes], identities: Sequence[Any]) -> Iterator[IO[bytes]]:
    """Yield a stream with the bytes of an encrypted one. Bytes count only once the block has read all and ended well.

    Raises:
        InvalidInputError: No identity opens it, or it is damaged, or does not end as it should.
    """
    reading, writing = os.pipe()
    failures: list[Exception] = []

    def decrypt() -> None:
        with suppress(BrokenPipeError), os.fdopen(writing, "wb") as target:
            try:
                pyrage.decrypt_io(source, target, list(identities))
            except (pyrage.DecryptError, OSError) as error:
                failures.append(error)

    thread = threading.Thread(target=decrypt, name="age")
    thread.start()
    name, stream = getattr(source, "name", "The file"), os.fdopen(reading, "rb")
    try:
        yield stream
        while stream.read(1 << 20):
            pass
    except BaseException:
        stream.close()
        thread.join()
        _check_decrypted(failures, name)
        raise
    stream.close()
    thread.join()
    _check_decrypted(failures, name)


def _check_decrypted(failures: Sequence[Exception], name: str) -> None:
    for error in failures:
        if isinstance(error, pyrage.DecryptError) and "No matching keys" in str(error):
            raise InvalidInputError(f"{name} was encrypted to others: the identity does not open it.") from None
        if "Broken pipe" not in str(error):
            raise InvalidInputError(f"{name} is damaged, or was cut off: a byte of it is not what was written.")


class _Sink:
    """Writes to a stream, and keeps the error that a library would turn into a text."""

    def __init__(self, target: IO[bytes]) -> None:
        self._target = target
        self._error: OSError | None = None
        self.is_complete = False

    def write(self, data: bytes) -> int:
        try:
            return self._target.write(data)
        except OSError as error:
            self._error = error
            raise

    def flush(self) -> None:
        self._target.flush()

    def check(self) -> None:
        """Raise what failed, if anything."""
        if self._error is not None:
            raise self._error
        if not self.is_complete:
            raise OSError("it cannot be encrypted")


def _parse_recipient(text: str) -> Any:
    kind = pyrage.ssh.Recipient if text.startswith("ssh-") else pyrage.x25519.Recipient
    try:
        return kind.from_str(text)
    except pyrage.RecipientError:
        raise ValueError(
            f"'{text}' is no recipient of age; write a public key as 'vultus backup-identity' prints it (age1…)"
        ) from None
