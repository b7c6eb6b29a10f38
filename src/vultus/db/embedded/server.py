"""The embedded PostgreSQL, shared by every process on a data directory: the first starts it, the last stops it.

Two lock files in the data directory, both released by the kernel however a process ends:
- `users.lock`, held shared by everyone who uses the server;
- `lifecycle.lock`, held exclusively while somebody joins, starts or stops.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Self
from urllib.parse import quote

from vultus.db.embedded.account import OWN_SERVER, Account, account_for
from vultus.db.embedded.cluster import DATABASE, ROLE, Cluster
from vultus.errors import EmbeddedDatabaseError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import TracebackType


class EmbeddedPostgres:
    """A share in the server of a data directory. Everything blocks: call it from a thread.

    Args:
        data_dir: Where Vultus keeps its files; made if missing.
    """

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir.absolute()
        self._cluster: Cluster | None = None
        self._share: int | None = None

    def start(self) -> str:
        """Join the server, starting it if it does not run; return its URL for `Database.connect`.

        Called again it checks that the server still runs, and starts it anew if it has died.

        Raises:
            EmbeddedDatabaseError: The server cannot be started; the detail says what to do.
        """
        try:
            account = self._prepare()
            with self._lifecycle():
                cluster = self._cluster = Cluster(self._data_dir, account)
                joining = self._share is None
                if joining:
                    self._share = self._locked("users.lock", fcntl.LOCK_SH)
                try:
                    cluster.start()
                except BaseException:  # Ctrl-C too: a server nobody uses must not stay behind
                    if joining:
                        self._leave()
                    raise
        except OSError as error:
            raise EmbeddedDatabaseError(
                f"The data directory {self._data_dir} cannot be used: {error}. Set VULTUS_DATA_DIR to a directory on a "
                f"local disk that this user may write, {OWN_SERVER}."
            ) from error
        return f"postgresql+asyncpg://{ROLE}@/{DATABASE}?host={quote(str(cluster.sockets))}"

    def alive(self) -> bool:
        """Say whether the server runs; a cheap look at its process."""
        return self._cluster is not None and self._cluster.running()

    def stop(self) -> None:
        """Leave the server; whoever leaves last stops it."""
        if self._share is not None:
            with self._lifecycle():
                self._leave()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _leave(self) -> None:
        share, self._share = self._share, None
        if share is None or self._cluster is None:
            return
        try:
            # Turning the share exclusive succeeds only when no one else has one.
            fcntl.flock(share, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        else:
            self._cluster.stop()
        finally:
            os.close(share)

    def _prepare(self) -> Account:
        """Make the data directory, and let the server's user pass through it and nobody else."""
        account = account_for(self._data_dir / "postgres")
        if not self._data_dir.exists():
            self._data_dir.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileExistsError):
                self._data_dir.mkdir(mode=0o700)
        self._data_dir = self._data_dir.resolve()
        if account.blocked_at(self._data_dir) == self._data_dir and self._data_dir.stat().st_uid == os.geteuid():
            os.chown(self._data_dir, -1, account.gid)
            self._data_dir.chmod(self._data_dir.stat().st_mode & 0o707 | 0o010)
        if blocked := account.blocked_at(self._data_dir):
            raise EmbeddedDatabaseError(
                f"PostgreSQL does not run as root but as the system user '{account.name}', which cannot enter "
                f"{blocked}. Set VULTUS_DATA_DIR=/var/lib/vultus, start Vultus as an ordinary user, {OWN_SERVER}."
            )
        return account

    @contextmanager
    def _lifecycle(self) -> Iterator[None]:
        lock = self._locked("lifecycle.lock", fcntl.LOCK_EX)
        try:
            yield
        finally:
            os.close(lock)

    def _locked(self, name: str, how: int) -> int:
        """Return an open file that holds a lock; it is not inherited by other programs."""
        lock = os.open(self._data_dir / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(lock, how)
        except BaseException:
            os.close(lock)
            raise
        return lock
