"""One embedded PostgreSQL: programs, files, start and stop. `server.py` serializes the calls."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import socket
import stat
import subprocess
import tempfile
import time
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from vultus.db.embedded import tuning
from vultus.db.embedded.programs import SERVER_MAJOR_VERSION, PostgresPrograms
from vultus.errors import EmbeddedDatabaseError

if TYPE_CHECKING:
    from vultus.db.embedded.account import SystemAccount

DATABASE = "vultus"
OWNER = "vultus"
"""Owns the database, migrates and maintains it."""

SERVICE = "vultus_service"
"""Serves: it reads and writes rows, and owns nothing."""

SUPERUSER = "postgres"
"""Made with the files, for administration."""

_ADD_SERVICE = (
    f"DO $$ BEGIN IF to_regrole('{SERVICE}') IS NULL THEN CREATE ROLE {SERVICE} LOGIN; END IF;"
    f" GRANT pg_checkpoint TO {OWNER}; GRANT EXECUTE ON FUNCTION pg_switch_wal() TO {OWNER}; END $$;"
)
"""One line, as a server without a network reads them."""

PORT = 5432  # only part of the socket's name
MAX_SOCKET_PATH_BYTES = 107  # Linux' sun_path less its final zero
MAX_SOCKET_DIRECTORY_BYTES = MAX_SOCKET_PATH_BYTES - len(f"/.s.PGSQL.{PORT}")
_PLAIN_PATH = re.compile(r"[\w./ +:=~-]+", re.ASCII)
START_TIMEOUT_S = 120  # crash recovery may read much
STOP_TIMEOUT_S = 60
MAX_LOG_BYTES = 4 * 2**20


class PostgresCluster:
    """The files of one PostgreSQL under a data directory, and the server on them.

    Args:
        data_dir: Existing, absolute, without symbolic links.
        account: The user that runs the server.
    """

    def __init__(self, data_dir: Path, account: SystemAccount) -> None:
        self._data_dir = data_dir
        self._account = account
        self._programs = PostgresPrograms(data_dir, account)
        self._cluster_directory = data_dir / "postgres"
        self._log_file = self._cluster_directory / "server.log"

    @cached_property
    def socket_directory(self) -> Path:
        """Directory of the Unix socket: of the running server, else of the next one."""
        lines = self._read_pid_file()
        if len(lines) > 4 and lines[4]:
            return Path(lines[4])
        return self._create_socket_directory()

    def is_running(self) -> bool:
        """Return whether a server runs on the files, ready or starting.

        The process id alone proves nothing: after a crash another process may have it. A connection detects a server
        in another container on the same files, whose process ids are not visible here.
        """
        return self._is_server(self._read_pid()) or self._is_accepting_connections()

    def has_files(self) -> bool:
        """Return whether a database was made here."""
        return (self._cluster_directory / "PG_VERSION").exists()

    def start(self) -> None:
        """Start the server, creating its files if there are none, and wait until it answers.

        Raises:
            EmbeddedDatabaseError: It does not start; the detail ends with the last lines of its log.
        """
        if self.is_running():
            if self._wait_until_ready():
                self._require_service()
                return
            if self.is_running():
                raise self._build_failure("PostgreSQL runs but does not answer", "")
        self._remove_stale_locks()  # also when it has just died
        if not self.has_files():
            self._create_files()
        self._check_version()
        self._close_directory()
        if not self._has_service():
            self._run_alone(self._cluster_directory, DATABASE, _ADD_SERVICE)
        self._write_configuration()
        self._start_server()
        if not self._wait_until_ready():
            raise self._build_failure("PostgreSQL does not answer", "")

    def stop(self) -> None:
        """Stop the server: running statements are cancelled, everything committed is on disk."""
        pid = self._read_pid()
        if not self._is_server(pid):
            return
        for mode in ("fast", "immediate"):
            done = self._programs.run(
                "pg_ctl",
                "stop",
                "-D",
                ".",
                "-m",
                mode,
                "-w",
                "-t",
                STOP_TIMEOUT_S,
                "-s",
                folder=self._cluster_directory,
            )
            if done.returncode == 0 or not self._is_server(pid):
                return
        raise self._build_failure("PostgreSQL does not stop", done.stderr)

    def rotate_log(self) -> None:
        """Move what is in the log to another file if it is long; the server goes on writing to the same file."""
        if self._log_file.exists() and self._log_file.stat().st_size > MAX_LOG_BYTES:
            shutil.copy2(self._log_file, self._log_file.with_suffix(".log.1"))
            os.truncate(self._log_file, 0)  # it is appended to

    @property
    def _client_options(self) -> tuple[str, ...]:
        return ("-h", str(self.socket_directory), "-p", str(PORT), "-U", OWNER, "-d", DATABASE)

    def _close_directory(self) -> None:
        """Take the files away from a group that may write to them, as orchestrators let it: PostgreSQL refuses that."""
        found = self._cluster_directory.stat()
        if found.st_mode & 0o027 and os.geteuid() in {0, found.st_uid}:
            self._cluster_directory.chmod(0o700)

    def _start_server(self) -> None:
        self.rotate_log()
        # Started by pg_ctl, the server is a child of init and outlives this process while others use it.
        done = self._programs.run(
            "pg_ctl", "start", "-D", ".", "-l", self._log_file.name, "-w", "-t", START_TIMEOUT_S, "-s",
            folder=self._cluster_directory,
        )  # fmt: skip
        if done.returncode != 0:
            raise self._build_failure("PostgreSQL does not start", done.stderr)

    def _wait_until_ready(self) -> bool:
        """Wait until the server answers; return False when it ends or the timeout elapses."""
        deadline = time.monotonic() + START_TIMEOUT_S
        program = self._programs.directory / "pg_isready"
        while True:
            done = subprocess.run(  # noqa: S603  fixed program and arguments
                [program, "-q", *self._client_options], check=False, env={}
            )
            if done.returncode == 0:
                return True
            if (
                done.returncode not in (1, 2) or time.monotonic() > deadline or not self.is_running()
            ):  # 1 and 2: not yet
                return False
            time.sleep(0.05)

    def _create_files(self) -> None:
        """Create the files in a temporary directory and rename it: an interrupted set-up leaves nothing partial."""
        fresh = self._cluster_directory.with_name("postgres.new")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o700)
        self._account.set_owner(fresh)
        done = self._programs.run(
            "initdb", "-D", ".", f"--username={SUPERUSER}", "--encoding=UTF8", "--data-checksums",
            "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8",
            "--auth-local=peer", "--auth-host=reject",
            folder=fresh,
        )  # fmt: skip
        if done.returncode != 0:
            raise self._build_failure("PostgreSQL's files cannot be made", done.stderr or done.stdout)
        self._run_alone(fresh, "template1", f"CREATE ROLE {OWNER} LOGIN", f"CREATE DATABASE {DATABASE} OWNER {OWNER}")
        self._run_alone(fresh, DATABASE, "CREATE EXTENSION vector", _ADD_SERVICE)  # which only a superuser may
        if self._cluster_directory.exists():
            self._cluster_directory.rmdir()  # an empty directory, such as a mount point; never one with files
        fresh.rename(self._cluster_directory)

    def _run_alone(self, folder: Path, database: str, *statements: str) -> None:
        """Run statements as superuser on the files of a server that does not run."""
        text = "".join(f"{statement}\n" for statement in statements)
        done = self._programs.run("postgres", "--single", "-D", ".", database, folder=folder, input_text=text)
        if done.returncode != 0 or "ERROR" in done.stderr:
            raise self._build_failure("The database cannot be made", done.stderr)

    def _write_configuration(self) -> None:
        # `peer`: the kernel identifies the client. Root may connect; it can become the server's user anyway.
        self._write_file(
            "postgresql.conf", tuning.build_configuration(self.socket_directory, tuning.get_memory_bytes())
        )
        self._write_file("pg_hba.conf", "local all all peer map=vultus\n")
        users = dict.fromkeys((self._account.name, "root"))
        lines = (f'vultus "{user}" {role}\n' for user in users for role in (OWNER, SERVICE, SUPERUSER))
        self._write_file("pg_ident.conf", "".join(lines))

    def _has_service(self) -> bool:
        """Return whether the files have the role that serves, which those of earlier versions lack."""
        try:
            return f" {SERVICE}\n" in (self._cluster_directory / "pg_ident.conf").read_text(encoding="utf-8")
        except OSError:
            return False

    def _require_service(self) -> None:
        if not self._has_service():
            raise EmbeddedDatabaseError(
                f"An earlier version of Vultus runs on {self._data_dir}; stop it, and this one will make the role that "
                "serves from now on."
            )

    def _write_file(self, name: str, text: str) -> None:
        path = self._cluster_directory / name
        path.write_text(text, encoding="utf-8")
        path.chmod(0o600)
        self._account.set_owner(path)

    def _check_version(self) -> None:
        found = (self._cluster_directory / "PG_VERSION").read_text().strip()
        if found != str(SERVER_MAJOR_VERSION):
            raise EmbeddedDatabaseError(
                f"The files in {self._cluster_directory} are PostgreSQL {found}'s, this version of Vultus brings "
                f"{SERVER_MAJOR_VERSION}. Export them with the version of Vultus that made them, set another "
                "VULTUS_DATA_DIR and import them there."
            )

    def _remove_stale_locks(self) -> None:
        """Remove the lock files of a server that died without removing them.

        PostgreSQL does so itself, unless the dead server's process id belongs to another process of the same user or
        to a zombie. Removing the file disables PostgreSQL's check for surviving processes of the dead server, so they
        are checked here.
        """
        lock = self._cluster_directory / "postmaster.pid"
        if not lock.exists():
            return
        deadline = time.monotonic() + 10
        while remaining := [process.pid for process in psutil.process_iter() if self._is_server(process.pid)]:
            if time.monotonic() > deadline:
                raise EmbeddedDatabaseError(
                    f"Processes of a dead PostgreSQL still work on {self._cluster_directory}: {remaining}. Wait until "
                    "they end, or end them with 'kill', and start again."
                )
            time.sleep(0.05)
        lock.unlink(missing_ok=True)
        (self.socket_directory / f".s.PGSQL.{PORT}.lock").unlink(missing_ok=True)
        self.__dict__.pop("socket_directory", None)  # the next server may choose another

    def _is_server(self, pid: int | None) -> bool:
        """Return whether a process is a PostgreSQL on these files: its working directory is theirs."""
        if pid is None:
            return False
        try:
            process = psutil.Process(pid)
            if process.name() != "postgres" or process.status() == psutil.STATUS_ZOMBIE:
                return False
            return Path(process.cwd()) == self._cluster_directory
        except psutil.Error:  # ended, or another user's
            return False

    def _is_accepting_connections(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(1)
            try:
                probe.connect(str(self.socket_directory / f".s.PGSQL.{PORT}"))
            except OSError:
                return False
        return True

    def _read_pid(self) -> int | None:
        lines = self._read_pid_file()
        return int(lines[0]) if lines and lines[0].isdigit() and int(lines[0]) else None

    def _read_pid_file(self) -> list[str]:
        try:
            return (self._cluster_directory / "postmaster.pid").read_text().splitlines()
        except OSError:
            return []

    def _create_socket_directory(self) -> Path:
        for path, parents in ((self._data_dir / "run", False), (self._get_digest_directory(), True)):
            # Other characters mean something in postgresql.conf, in URLs or to libpq, as a comma does.
            if not _PLAIN_PATH.fullmatch(str(path)) or len(os.fsencode(path)) > MAX_SOCKET_DIRECTORY_BYTES:
                continue
            path.mkdir(mode=0o700, parents=parents, exist_ok=True)
            found = path.lstat()
            if found.st_uid == os.geteuid():
                path.chmod(0o700)
                self._account.set_owner(path)
            elif not stat.S_ISDIR(found.st_mode) or found.st_uid != self._account.uid:
                raise EmbeddedDatabaseError(
                    f"{path} belongs to somebody else; remove it or set TMPDIR to a private directory."
                )
            return path
        raise EmbeddedDatabaseError(
            f"No directory has a short and plain enough path for a Unix socket ({MAX_SOCKET_DIRECTORY_BYTES} bytes; "
            "letters, digits and ./ +:=~-); set VULTUS_DATA_DIR or TMPDIR to another one."
        )

    def _get_digest_directory(self) -> Path:
        digest = hashlib.sha256(os.fsencode(self._data_dir)).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"vultus-{digest}"

    def _build_failure(self, summary: str, output: str) -> EmbeddedDatabaseError:
        try:
            lines = self._log_file.read_text(errors="replace").splitlines()
        except OSError:
            lines = []
        tail = "\n".join([*output.strip().splitlines()[-10:], *lines[-10:]])
        return EmbeddedDatabaseError(
            f"{summary}. See the last lines below and {self._log_file}; free disk space or memory if they say so, or "
            f"use a PostgreSQL of your own: VULTUS_DATABASE__URL=postgresql://user:password@host/database\n{tail}"
        )
