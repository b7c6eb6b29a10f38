"""Files that are there after a power cut once a call has returned, and are changed by one process at a time."""

from __future__ import annotations

import fcntl
import os
import secrets
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PRIVATE_MODE = 0o600


def write_file(path: Path, content: bytes) -> None:
    """Replace a file's content as a whole, with mode 0600, on the disk when it returns; create its folder.

    Raises:
        OSError: It cannot be written; what was there is unchanged.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE_MODE), "wb") as file:
            give_to_owner(file.fileno(), path if path.exists() else path.parent)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise
    synchronise_folder(path.parent)


def give_to_owner(number: int, of: Path) -> None:
    """Give an open file that root made to the owner of another file or folder: the server may run as another user."""
    if os.geteuid() == 0:
        owner = of.stat()
        with suppress(PermissionError):  # of a network file system that knows no root
            os.fchown(number, owner.st_uid, owner.st_gid)


def synchronise_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


@contextmanager
def lock_file(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold the lock on a file, which is created, against every other process and thread.

    Args:
        path: Of the file.
        wait: Whether to wait until it is free.

    Raises:
        BlockingIOError: It is held, and was not to be waited for.
        OSError: It cannot be opened.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    number = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE_MODE)
    try:
        give_to_owner(number, path.parent)
        fcntl.flock(number, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(number)
