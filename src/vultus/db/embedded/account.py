"""The system user that runs the embedded PostgreSQL, and the directories that user may traverse.

PostgreSQL refuses to run as root. An ordinary user runs it directly; for root the system user `vultus` does.
"""

from __future__ import annotations

import os
import pwd
import shutil
import stat
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vultus.errors import EmbeddedDatabaseError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

SERVICE_USER = "vultus"
OWN_NAMES = frozenset(
    {"administrator.key", "backups", "cache", "crops.key", "imports", "lifecycle.lock", "models", "postgres", "run",
     "users.lock", "vultus.toml"}
)  # fmt: skip
"""What Vultus keeps in its data directory, beside PostgreSQL's programs."""

OWN_SERVER_ADVICE = "or use a PostgreSQL of your own: VULTUS_DATABASE__URL=postgresql://user:password@host/database"


@dataclass(frozen=True, slots=True)
class SystemAccount:
    """A system user."""

    name: str
    uid: int
    gid: int

    @property
    def is_other(self) -> bool:
        """Whether it is another user than that of this process."""
        return self.uid != os.geteuid()

    def build_popen_options(self) -> dict[str, Any]:
        """Return the arguments of `subprocess` that run a program as this user, in a new session."""
        options: dict[str, Any] = {"start_new_session": True, "cwd": "/", "umask": 0o077}
        if self.is_other:
            options |= {"user": self.uid, "group": self.gid, "extra_groups": []}
        return options

    def set_owner(self, path: Path) -> None:
        """Set the owner of a file or directory to this user."""
        if self.is_other:
            os.chown(path, self.uid, self.gid)

    def become(self) -> None:
        """Make this process, which is root, this user's, for good: the kernel takes its capabilities."""
        os.setgroups([])
        os.setresgid(self.gid, self.gid, self.gid)
        os.setresuid(self.uid, self.uid, self.uid)

    def take_over(self, data_dir: Path) -> None:
        """Make this user the owner of what Vultus keeps in its data directory, and of the directory.

        Args:
            data_dir: What else lies in it, and what is linked, keeps its owner.
        """
        for path in (entry for entry in data_dir.iterdir() if entry.name in OWN_NAMES or entry.name[:9] == "programs-"):
            inside = path.rglob("*") if path.is_dir() and not path.is_symlink() else ()
            for found in (path, *inside):
                if not stat.S_ISREG(found.lstat().st_mode) or found.lstat().st_nlink == 1:
                    os.chown(found, self.uid, self.gid, follow_symlinks=False)
        os.chown(data_dir, self.uid, self.gid)

    def take_over_files(self, folder: Path, files: Iterable[Path]) -> None:
        """Make this user the owner of some files, and of their folder if nothing else lies in it."""
        own = [path for path in files if path.exists() and not path.is_symlink()]
        for path in own:
            self.set_owner(path)
        if set(folder.iterdir()) <= set(own):
            self.set_owner(folder)

    def find_unreadable(self, paths: Iterable[Path]) -> Path | None:
        """Return the first of existing paths that this user may not read; only root can ask."""
        existing = [path for path in paths if path.exists()]
        os.setegid(self.gid)
        os.seteuid(self.uid)
        try:
            return next((path for path in existing if not os.access(path, os.R_OK, effective_ids=True)), None)
        finally:
            os.seteuid(0)
            os.setegid(0)

    def find_blocked_directory(self, path: Path) -> Path | None:
        """Return the first directory of `path`, or `path` itself, that this user may not traverse.

        Decided by owner, group and mode; root may traverse everything.
        """
        if self.uid == 0:
            return None
        return next(
            (step for step in (*reversed(path.parents), path) if step.exists() and not self._has_access(step)), None
        )

    def _has_access(self, path: Path) -> bool:
        found = path.stat()
        if found.st_uid == self.uid:
            return bool(found.st_mode & stat.S_IXUSR)
        return bool(found.st_mode & (stat.S_IXGRP if found.st_gid == self.gid else stat.S_IXOTH))


def get_server_account(cluster_directory: Path) -> SystemAccount:
    """Return the user that runs the server of `cluster_directory`.

    Raises:
        EmbeddedDatabaseError: There is no suitable user.
    """
    uid = os.geteuid()
    if uid != 0:
        try:
            return _build_account(pwd.getpwuid(uid))
        except KeyError:
            raise EmbeddedDatabaseError(
                f"The user id {uid} has no name, and PostgreSQL needs one. Run as a user of /etc/passwd, "
                f"{OWN_SERVER_ADVICE}."
            ) from None
    if cluster_directory.exists() and (owner := cluster_directory.stat().st_uid) != 0:
        try:
            return _build_account(pwd.getpwuid(owner))
        except KeyError:
            raise EmbeddedDatabaseError(
                f"{cluster_directory} belongs to user id {owner}, which has no name on this machine. Give it to "
                f"the user that is to run PostgreSQL: 'chown -R {SERVICE_USER}: {cluster_directory}'."
            ) from None
    return _ensure_service_account()


def _ensure_service_account() -> SystemAccount:
    try:
        return _build_account(pwd.getpwnam(SERVICE_USER))
    except KeyError:
        pass
    advice = (
        f"PostgreSQL does not run as root, and the system user '{SERVICE_USER}' that would run it could not be "
        f"made{{}}. Make it ('useradd --system {SERVICE_USER}'), start Vultus as an ordinary user, {OWN_SERVER_ADVICE}."
    )
    useradd = shutil.which("useradd", path=f"{os.defpath}:/usr/sbin:/sbin")
    if useradd is None:
        raise EmbeddedDatabaseError(advice.format(": there is no useradd"))
    result = subprocess.run(  # noqa: S603  fixed arguments, no shell
        [useradd, "--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent", "--shell",
         "/usr/sbin/nologin", SERVICE_USER],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    try:
        return _build_account(pwd.getpwnam(SERVICE_USER))  # also when another process created it first
    except KeyError:
        raise EmbeddedDatabaseError(advice.format(f": {result.stderr.strip()}")) from None


def _build_account(entry: pwd.struct_passwd) -> SystemAccount:
    return SystemAccount(entry.pw_name, entry.pw_uid, entry.pw_gid)
