"""`vultus doctor`: checks the machine and says how to mend what is wrong."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections.abc import Callable
from http.client import HTTPConnection
from importlib.metadata import PackageNotFoundError, requires, version
from typing import TYPE_CHECKING

import typer
from packaging.requirements import Requirement
from rich.text import Text

from vultus.cli.common import Json, load_settings, out, print_json
from vultus.db import migrate
from vultus.errors import SetupError, VultusError
from vultus.main import listen, open_server, open_store
from vultus.models.pipelines import Pipelines
from vultus.models.runtime import usable_cores
from vultus.models.runtime.choice import Runtime

if TYPE_CHECKING:
    from vultus.settings import Settings

MIN_FREE_BYTES = 2 * 2**30
MIN_MEMORY_BYTES = 2 * 2**30
STAND_INS = {"onnxruntime": "onnxruntime-gpu"}
"""Packages that are installed instead of a needed one, under the same name for Python."""


class TroubleError(Exception):
    """A check that did not pass; the text says how to mend it."""


def doctor(as_json: Json = False) -> None:
    """Check packages, weights, database, disk and port, and say how to mend what is wrong."""
    settings = load_settings()
    checks: dict[str, Callable[[Settings], str]] = {
        "packages": _packages,
        "data folder": _data_folder,
        "memory": _memory,
        "runtime": _runtime,
        "networks": _networks,
        "database": _database,
        "port": _port,
    }
    findings: list[dict[str, object]] = []
    for name, check in checks.items():
        try:
            finding = {"check": name, "ok": True, "detail": check(settings)}
        except (TroubleError, VultusError, OSError) as error:
            finding = {"check": name, "ok": False, "detail": getattr(error, "detail", str(error))}
        findings.append(finding)
        if not as_json:
            word = ("ok  ", "green") if finding["ok"] else ("mend", "red")
            out.print(Text.assemble(word, f" {name}: {finding['detail']}"), soft_wrap=True)
    healthy = all(finding["ok"] for finding in findings)
    if as_json:
        print_json({"healthy": healthy, "checks": findings})
    if not healthy:
        raise typer.Exit(1)


def _packages(_: Settings) -> str:
    wrong = []
    needed = [Requirement(line) for line in requires("vultus") or ()]
    needed = [one for one in needed if one.marker is None or one.marker.evaluate()]
    for one in needed:
        found = _installed(one.name)
        if found is None:
            wrong.append(f"{one.name} is missing")
        elif not one.specifier.contains(found, prereleases=True):
            wrong.append(f"{one.name} is {found}, needed {one.specifier}")
    if wrong:
        raise TroubleError(f"{'; '.join(wrong)}. Install again: pip install -r requirements/runtime.txt")
    return f"{len(needed)} packages fit"


def _installed(name: str) -> str | None:
    """Return the version of a package, or of the one that stands in for it."""
    for package in (name, STAND_INS.get(name, name)):
        with contextlib.suppress(PackageNotFoundError):
            return version(package)
    return None


def _data_folder(settings: Settings) -> str:
    folder = settings.data_dir
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if not os.access(existing, os.W_OK):
        raise TroubleError(f"{existing} cannot be written; set VULTUS_DATA_DIR to a folder of yours.")
    if folder.exists() and folder.stat().st_mode & 0o067:  # the database's user may pass through, not read
        raise TroubleError(f"{folder} can be read by others: chmod 700 '{folder}'")
    free = shutil.disk_usage(existing).free
    if free < MIN_FREE_BYTES:
        raise TroubleError(f"only {free / 2**30:.1f} GiB are free at {existing}; 2 GiB are needed.")
    return f"{folder}, {free / 2**30:.0f} GiB free"


def _memory(_: Settings) -> str:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if total < MIN_MEMORY_BYTES:
        raise TroubleError(f"the machine has {total / 2**30:.1f} GiB of memory; 2 GiB are needed.")
    return f"{total / 2**30:.0f} GiB, {usable_cores()} cores"


def _runtime(settings: Settings) -> str:
    return Runtime(settings.inference).words


def _networks(settings: Settings) -> str:
    loaded = Pipelines.load(settings.inference, settings.photos, open_store(settings))
    packs = ", ".join(
        f"pack '{one.pack.name}' makes contract {one.contract.id} (embedder in {one.runtime['embedder']})"
        for one in loaded
    )
    return f"{packs}; digests verified"


def _database(settings: Settings) -> str:
    async def look() -> str | None:
        async with open_server(settings) as url:
            return await migrate.current(url)

    found = asyncio.run(look())
    if settings.database.url is None:
        return "embedded PostgreSQL starts and stops; its schema follows the program"
    if found != migrate.head():
        raise TroubleError("the schema is not current: vultus db upgrade")
    return f"external PostgreSQL, schema {found} is current"


def _port(settings: Settings) -> str:
    try:
        listen(settings.server.host, settings.server.port).close()
    except SetupError:
        if _vultus_answers(settings):
            return f"{settings.server.host}:{settings.server.port} is in use by a Vultus that answers"
        raise
    return f"{settings.server.host}:{settings.server.port} is free"


def _vultus_answers(settings: Settings) -> bool:
    connection = HTTPConnection(settings.server.host, settings.server.port, timeout=2)
    try:
        connection.request("GET", "/v1/health/live")
        return connection.getresponse().getheader("X-Request-ID") is not None
    except OSError:
        return False
    finally:
        connection.close()
