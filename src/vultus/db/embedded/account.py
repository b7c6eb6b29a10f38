"""Which system user runs the embedded PostgreSQL, and what that user can reach.

PostgreSQL refuses to run as root. An ordinary user runs it themself; for root it is the system user `vultus`.
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
    from pathlib import Path

SERVICE_USER = "vultus"
OWN_SERVER = "or use a PostgreSQL of your own: VULTUS_DATABASE__URL=postgresql://user:password@host/database"


@dataclass(frozen=True, slots=True)
class Account:
    """A system user."""

    name: str
    uid: int
    gid: int

    @property
    def is_other(self) -> bool:
        """Whether it is somebody else than the user of this process."""
        return self.uid != os.geteuid()

    def popen_options(self) -> dict[str, Any]:
        """Return the arguments of `subprocess` that run a program as this user, in a session of its own."""
        options: dict[str, Any] = {"start_new_session": True, "cwd": "/", "umask": 0o077}
        if self.is_other:
            options |= {"user": self.uid, "group": self.gid, "extra_groups": []}
        return options

    def give(self, path: Path) -> None:
        """Make a file or directory this user's."""
        if self.is_other:
            os.chown(path, self.uid, self.gid)

    def blocked_at(self, path: Path) -> Path | None:
        """Return the first directory on the way to `path`, or `path` itself, that this user cannot pass.

        Judged by owner, group and mode; root passes everywhere.
        """
        if self.uid == 0:
            return None
        return next(
            (step for step in (*reversed(path.parents), path) if step.exists() and not self._passes(step)), None
        )

    def _passes(self, path: Path) -> bool:
        found = path.stat()
        if found.st_uid == self.uid:
            return bool(found.st_mode & stat.S_IXUSR)
        return bool(found.st_mode & (stat.S_IXGRP if found.st_gid == self.gid else stat.S_IXOTH))


def account_for(cluster: Path) -> Account:
    """Return who runs the server with its files in `cluster`.

    Raises:
        EmbeddedDatabaseError: There is no user that could.
    """
    uid = os.geteuid()
    if uid != 0:
        try:
            return _account(pwd.getpwuid(uid))
        except KeyError:
            raise EmbeddedDatabaseError(
                f"The user id {uid} has no name, and PostgreSQL needs one. Run as a user of /etc/passwd, {OWN_SERVER}."
            ) from None
    if cluster.exists() and (owner := cluster.stat().st_uid) != 0:
        try:
            return _account(pwd.getpwuid(owner))
        except KeyError:
            raise EmbeddedDatabaseError(
                f"{cluster} belongs to user id {owner}, which has no name on this machine. Give it to the user that is "
                f"to run PostgreSQL: 'chown -R {SERVICE_USER}: {cluster}'."
            ) from None
    return _service_account()


def _service_account() -> Account:
    try:
        return _account(pwd.getpwnam(SERVICE_USER))
    except KeyError:
        pass
    advice = (
        f"PostgreSQL does not run as root, and the system user '{SERVICE_USER}' that would run it could not be "
        f"made{{}}. Make it ('useradd --system {SERVICE_USER}'), start Vultus as an ordinary user, {OWN_SERVER}."
    )
    useradd = shutil.which("useradd", path=f"{os.defpath}:/usr/sbin:/sbin")
    if useradd is None:
        raise EmbeddedDatabaseError(advice.format(": there is no useradd"))
    made = subprocess.run(  # noqa: S603  fixed arguments, no shell
        [useradd, "--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent", "--shell",
         "/usr/sbin/nologin", SERVICE_USER],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    try:
        return _account(pwd.getpwnam(SERVICE_USER))  # also when another process made it first
    except KeyError:
        raise EmbeddedDatabaseError(advice.format(f": {made.stderr.strip()}")) from None


def _account(entry: pwd.struct_passwd) -> Account:
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)
