"""The embedded PostgreSQL, shared by every process on a data directory: the first starts it, the last stops it.

Two lock files in the data directory, both released by the kernel however a process ends:
- `users.lock`, held shared by every process that uses the server;
- `lifecycle.lock`, held exclusively while a process acquires or releases the shared lock, starts or stops the server.
"""

from __future__ import annotations

import fcntl
import logging
import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Self
from urllib.parse import quote

from vultus.db.embedded.account import OWN_NAMES, OWN_SERVER_ADVICE, SystemAccount, get_server_account
from vultus.db.embedded.cluster import DATABASE, OWNER, PORT, SERVICE, SUPERUSER, PostgresCluster
from vultus.db.urls import DatabaseUrls
from vultus.errors import EmbeddedDatabaseError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import TracebackType

log = logging.getLogger(__name__)

_OTHERS_BITS = 0o067
"""Mode bits that let others in; the group of the user that runs PostgreSQL may pass through."""


class EmbeddedPostgres:
    """A shared lock on the server of a data directory. All methods block: call them from a thread.

    Args:
        data_dir: Directory of Vultus' files; created if missing.
    """

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir.absolute()
        self._cluster: PostgresCluster | None = None
        self._share: int | None = None

    def start(self) -> DatabaseUrls:
        """Acquire the server, starting it if it does not run; return its URLs.

        Called again it checks that the server still runs, and restarts it if it has died. Then it creates no files: an
        empty database in the place of one that is gone would be a loss of everything, in silence.

        Raises:
            EmbeddedDatabaseError: The server cannot be started; the detail states the remedy.
        """
        if self._share is not None and not self._require_cluster().has_files():
            raise EmbeddedDatabaseError(
                f"The files of the database, {self._data_dir / 'postgres'}, are gone. Mount their volume or put them "
                "back: the server goes on with them then. Nothing was created in their place."
            )
        try:
            account = self._prepare_data_directory()
            with self._lock_lifecycle():
                cluster = self._cluster = PostgresCluster(self._data_dir, account)
                acquiring = self._share is None
                if acquiring:
                    self._share = self._open_lock_file("users.lock", fcntl.LOCK_SH)
                try:
                    cluster.start()
                except BaseException:  # Ctrl-C too: an unused server must not keep running
                    if acquiring:
                        self._release_share()
                    raise
        except OSError as error:
            raise EmbeddedDatabaseError(
                f"The data directory {self._data_dir} cannot be used: {error}. Set VULTUS_DATA_DIR to a directory on a "
                f"local disk that this user may write, {OWN_SERVER_ADVICE}."
            ) from error
        return DatabaseUrls(self._build_url(SERVICE), self._build_url(OWNER))

    @property
    def superuser_url(self) -> str:
        """The URL for administration; the server was started."""
        return self._build_url(SUPERUSER)

    def _build_url(self, role: str) -> str:
        # All that variables such as PGPORT would set otherwise.
        fixed = f"port={PORT}&sslmode=disable&sslnegotiation=postgres&target_session_attrs=any"
        folder = quote(str(self._require_cluster().socket_directory))
        return f"postgresql+asyncpg://{role}@/{DATABASE}?host={folder}&{fixed}"

    def is_running(self) -> bool:
        """Return whether the server runs; a cheap check of its process."""
        return self._cluster is not None and self._cluster.is_running()

    def rotate_log(self) -> None:
        """Move what is in the server's log to another file if it is long."""
        self._require_cluster().rotate_log()

    def stop(self) -> None:
        """Release the server; the last process to release it stops it."""
        if self._share is not None:
            with self._lock_lifecycle():
                self._release_share()

    def _require_cluster(self) -> PostgresCluster:
        if self._cluster is None:
            raise EmbeddedDatabaseError("The embedded PostgreSQL was not started.")
        return self._cluster

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _release_share(self) -> None:
        share, self._share = self._share, None
        if share is None or self._cluster is None:
            return
        try:
            # Converting the shared lock to an exclusive one succeeds only when no other process holds it.
            fcntl.flock(share, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        else:
            self._cluster.stop()
        finally:
            os.close(share)

    def _prepare_data_directory(self) -> SystemAccount:
        """Create the data directory and let only the server's user traverse it; return that user."""
        if "\n" in str(self._data_dir):
            raise EmbeddedDatabaseError(
                "The path of the data directory contains a line break; set VULTUS_DATA_DIR anew."
            )
        account = get_server_account(self._data_dir / "postgres")
        if not self._data_dir.exists():
            self._data_dir.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileExistsError):
                self._data_dir.mkdir(mode=0o700)
        self._data_dir = self._data_dir.resolve()
        self._close_to_others()
        if (
            account.find_blocked_directory(self._data_dir) == self._data_dir
            and self._data_dir.stat().st_uid == os.geteuid()
        ):
            os.chown(self._data_dir, -1, account.gid)
            self._data_dir.chmod(self._data_dir.stat().st_mode & 0o707 | 0o010)
        if blocked := account.find_blocked_directory(self._data_dir):
            whose = f"The user '{account.name}'"
            remedy = "Set VULTUS_DATA_DIR to a directory that this user may enter"
            if account.is_other:
                whose = f"PostgreSQL does not run as root but as the system user '{account.name}', which"
                remedy = "Set VULTUS_DATA_DIR=/var/lib/vultus, start Vultus as an ordinary user"
            raise EmbeddedDatabaseError(f"{whose} cannot enter {blocked}. {remedy}, {OWN_SERVER_ADVICE}.")
        return account

    def _close_to_others(self) -> None:
        """Take a data directory that was made by others, with mode 0755, away from other users; never a shared one."""
        found = self._data_dir.stat()
        names = {path.name for path in self._data_dir.iterdir()}
        is_ours = not names or not names.isdisjoint(OWN_NAMES)
        if found.st_mode & _OTHERS_BITS and found.st_uid == os.geteuid() and is_ours:
            self._data_dir.chmod(found.st_mode & 0o7777 & ~_OTHERS_BITS)
            log.warning(
                "%s was open to other users; its mode is %o now", self._data_dir, self._data_dir.stat().st_mode & 0o777
            )

    @contextmanager
    def _lock_lifecycle(self) -> Iterator[None]:
        lock = self._open_lock_file("lifecycle.lock", fcntl.LOCK_EX)
        try:
            yield
        finally:
            os.close(lock)

    def _open_lock_file(self, name: str, operation: int) -> int:
        """Return the descriptor of an open file that holds a lock; child programs do not inherit it."""
        lock = os.open(self._data_dir / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(lock, operation)
        except BaseException:
            os.close(lock)
            raise
        return lock
