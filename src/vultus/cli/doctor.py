"""`vultus doctor`: checks the machine and says how to fix what is wrong."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection, HTTPSConnection
from importlib.metadata import PackageNotFoundError, requires, version
from typing import TYPE_CHECKING

import typer
from packaging.requirements import Requirement

from vultus.cli.common import JsonOption, load_settings, out, print_json
from vultus.cli.key_check import CheckFailedError, check_keys, ensure_keys_of_sealed
from vultus.cli.opening import name_program
from vultus.db import migrate
from vultus.db.database import Database
from vultus.db.embedded.tuning import get_memory_bytes
from vultus.errors import SetupError, VultusError
from vultus.main import open_postgres, open_weights_store
from vultus.models.pipelines import PipelineRegistry
from vultus.models.runtime import count_usable_cores
from vultus.models.runtime.choice import Runtime
from vultus.sealing.custody import open_custody
from vultus.server.serving import bind_metrics_socket, bind_socket, open_tls
from vultus.services.backups.schedule import find_newest_backup, is_backup_due, list_future_backups
from vultus.services.old_seals import OLD_KEY_FILE
from vultus.utils.chained_file import ChainedFile

if TYPE_CHECKING:
    from vultus.settings import Settings

MIN_FREE_BYTES = 2 * 2**30
BACKUP_PATIENCE = timedelta(hours=1)
"""A backup that is due for longer is missing."""

MIN_MEMORY_BYTES = 2 * 2**30
PACKAGE_ALTERNATIVES = {"onnxruntime": "onnxruntime-gpu"}
"""Packages that are installed instead of a needed one, under the same name for Python."""


def check_installation(as_json: JsonOption = False) -> None:
    """Check this installation, and name remedies.

    Packages, weights, database, disk and port.
    """
    settings = load_settings()
    checks: dict[str, Callable[[Settings], str]] = {
        "packages": _check_packages,
        "data folder": _check_data_folder,
        "memory": _check_memory,
        "runtime": _check_runtime,
        "networks": _check_networks,
        "database": _check_database,
        "ledger": _check_ledger,
        "keys": check_keys,
        "backups": _check_backups,
        "port": _check_port,
    }
    findings: list[dict[str, object]] = []
    for name, check in checks.items():
        try:
            finding = {"check": name, "ok": True, "detail": check(settings)}
        except (CheckFailedError, VultusError, OSError) as error:
            finding = {"check": name, "ok": False, "detail": getattr(error, "detail", str(error))}
        findings.append(finding)
        if not as_json:
            label, style = ("ok  ", "green") if finding["ok"] else ("fail", "red")
            out.print_labelled(label, style, f" {name}: {finding['detail']}")
    healthy = all(finding["ok"] for finding in findings)
    if as_json:
        print_json({"healthy": healthy, "checks": findings})
    if not healthy:
        raise typer.Exit(1)


def _check_packages(_: Settings) -> str:
    wrong = []
    needed = [Requirement(line) for line in requires("vultus") or ()]
    needed = [package for package in needed if package.marker is None or package.marker.evaluate()]
    for package in needed:
        found = _find_installed_version(package.name)
        if found is None:
            wrong.append(f"{package.name} is missing")
        elif not package.specifier.contains(found, prereleases=True):
            wrong.append(f"{package.name} is {found}, needed {package.specifier}")
    if wrong:
        raise CheckFailedError(f"{'; '.join(wrong)}. Install again: pip install -r requirements/runtime.txt")
    return f"{len(needed)} packages fit"


def _find_installed_version(name: str) -> str | None:
    """Return the installed version of a package or of its alternative; None where there is neither."""
    for package in (name, PACKAGE_ALTERNATIVES.get(name, name)):
        with contextlib.suppress(PackageNotFoundError):
            return version(package)
    return None


def _check_data_folder(settings: Settings) -> str:
    folder = settings.data_dir
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if not os.access(existing, os.W_OK):
        raise CheckFailedError(f"{existing} cannot be written; set VULTUS_DATA_DIR to a folder of yours.")
    if folder.exists() and folder.stat().st_mode & 0o067:  # the database's user may pass through, not read
        raise CheckFailedError(f"{folder} can be read by others: chmod 700 '{folder}'")
    free = shutil.disk_usage(existing).free
    if free < MIN_FREE_BYTES:
        raise CheckFailedError(f"only {free / 2**30:.1f} GiB are free at {existing}; 2 GiB are needed.")
    old_key = folder / OLD_KEY_FILE
    caution = f"; {old_key}, the key of version 0.1, is still there: once a start says so, delete it"
    return f"{folder}, {free / 2**30:.0f} GiB free{caution if old_key.exists() else ''}"


def _check_ledger(settings: Settings) -> str:
    file = settings.ledger_file
    if not file.exists():
        existing = next(parent for parent in file.parents if parent.exists())
        if not os.access(existing, os.W_OK | os.X_OK):
            raise CheckFailedError(f"{file} cannot be made in {existing}; set VULTUS_CUSTODY_DIR to a folder of yours.")
        return f"{file} begins with the first start"
    entries = sum("action" in record for record in ChainedFile(file).read()[0])
    is_inside = file.resolve().is_relative_to(settings.data_dir.resolve())
    caution = "; it lies in the data directory: VULTUS_CUSTODY_DIR names a place that no backup of it brings back"
    return f"{file} is whole, with {entries} endings{caution if is_inside else ''}"


def _check_backups(settings: Settings) -> str:
    folder = settings.backups.dir
    if folder is None:
        return "the server writes none by itself (VULTUS_BACKUPS__DIR)"
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if not os.access(existing, os.W_OK | os.X_OK):
        raise CheckFailedError(f"{existing} cannot be written; give it to the user that runs Vultus.")
    future = list_future_backups(folder)
    caution = f"; {future[0]} is dated in the future and counts for nothing: delete or rename it" if future else ""
    if (newest := find_newest_backup(folder)) is None:
        return f"{folder} has none yet; a running server writes one within minutes{caution}"
    age, now = f"the newest in {folder} is of {newest:%Y-%m-%d %H:%M} UTC", datetime.now(UTC)
    if is_backup_due(newest, now - BACKUP_PATIENCE, settings.backups):
        raise CheckFailedError(f"{age}, and a later one is due: see the server's log for the job 'backup'.")
    return f"{age}; whether it can be restored says 'vultus verify-backup'{caution}"


def _check_memory(_: Settings) -> str:
    total = get_memory_bytes()
    if total < MIN_MEMORY_BYTES:
        raise CheckFailedError(f"{total / 2**30:.1f} GiB of memory may be used here; 2 GiB are needed.")
    return f"{total / 2**30:.0f} GiB, {count_usable_cores()} cores"


def _check_runtime(settings: Settings) -> str:
    return Runtime(settings.inference).description


def _check_networks(settings: Settings) -> str:
    loaded = PipelineRegistry.load(settings.inference, settings.photos, open_weights_store(settings))
    packs = ", ".join(
        f"pack '{pipeline.pack.name}' makes contract {pipeline.space.id} (embedder in {pipeline.runtime['embedder']})"
        for pipeline in loaded
    )
    caution = loaded.default.pack.caution
    offline = " VULTUS_MODELS__OFFLINE is set, so no start fetches it." if settings.models.offline else ""
    warning = f"; {caution.replace('vultus models', f'{name_program()} models')}{offline}" if caution else ""
    return f"{packs}; graphs built from weights whose digests are right{warning}"


def _check_database(settings: Settings) -> str:
    """Run the checks of `vultus serve`, in its words."""

    async def connect() -> tuple[dict[str, tuple[str, ...]], str | None] | None:
        async with open_postgres(settings) as urls:
            revision = await migrate.fetch_current_revision(urls.owner)
            if settings.database.url is None and revision is None:
                return None  # the first start creates it
            migrate.check_revision(revision)
            database = await Database.connect(urls.serving, settings.database, owner_url=urls.owner)
            try:
                database.use_keys(open_custody(settings))
                async with database.transaction(read_only=True) as work:
                    is_sealed, has_keys = await work.sealed_values.has_any(), await work.person_keys.list_keys(None, 1)
                    ensure_keys_of_sealed(settings, is_sealed=is_sealed, has_persons=bool(has_keys))
                    if has_keys:
                        await work.person_keys.check_keys()
                    return await work.inventory.list_names_by_space(), await work.inventory.describe_role()
            finally:
                await database.close()

    if (found := asyncio.run(connect())) is None:
        return "embedded PostgreSQL starts and stops; it has no schema before the first start"
    names_by_space, role = found
    _check_collections(settings, names_by_space)
    kind = "external" if settings.database.url else "embedded"
    caution = f"; the role that serves is {role}, which it need not be (docs/operations.md)" if role else ""
    schema = migrate.get_head_revision()
    return f"{kind} PostgreSQL, schema {schema} is current, durable; every collection is served{caution}"


def _check_collections(settings: Settings, names_by_space: dict[str, tuple[str, ...]]) -> None:
    if not names_by_space:
        return
    try:
        spaces = PipelineRegistry.load(settings.inference, settings.photos, open_weights_store(settings)).spaces
    except VultusError:
        return  # the check of the networks says so
    lost = [
        spaces.describe_unserved(space_id, names)
        for space_id, names in names_by_space.items()
        if spaces.find_space(space_id) is None
    ]
    if lost:
        raise CheckFailedError(" ".join(lost))


def _check_port(settings: Settings) -> str:
    server = settings.server
    open_tls(server)
    address = f"{server.host}:{server.port}"
    try:
        bind_socket(server.host, server.port).close()
        if metrics := bind_metrics_socket(server):
            metrics.close()
    except SetupError:
        if _is_vultus_listening(settings):
            return f"{address} is in use by a Vultus that answers"
        raise
    return f"{address} is free"


def _is_vultus_listening(settings: Settings) -> bool:
    host, port = settings.server.host, settings.server.port
    if settings.server.tls_certificate:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # it is asked whether it answers, no more
        connection: HTTPConnection = HTTPSConnection(host, port, timeout=2, context=context)
    else:
        connection = HTTPConnection(host, port, timeout=2)
    try:
        connection.request("GET", "/v1/health/live")
        return connection.getresponse().getheader("X-Request-ID") is not None
    except OSError:
        return False
    finally:
        connection.close()
