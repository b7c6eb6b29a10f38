"""The embedded server: private, shared, durable, and stopped when no process uses it."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg
import psutil
import pytest

from vultus.db import migrate
from vultus.db.database import Database
from vultus.db.embedded import tuning
from vultus.db.embedded.account import get_server_account
from vultus.db.embedded.cluster import MAX_LOG_BYTES, OWNER, SERVICE
from vultus.db.embedded.programs import SERVER_PACKAGE
from vultus.db.embedded.server import EmbeddedPostgres
from vultus.db.upgrades import create_embedded_schema, upgrade_embedded
from vultus.errors import DatabaseUnavailableError, EmbeddedDatabaseError, SchemaNotCurrentError
from vultus.settings import DatabaseSettings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vultus.domain import DecisionPolicy

ROOT = os.geteuid() == 0
as_root = pytest.mark.skipif(not ROOT, reason="only root runs the server as somebody else")

USER = """
import sys
from pathlib import Path
from vultus.db.embedded.server import EmbeddedPostgres
server = EmbeddedPostgres(Path(sys.argv[1]))
print(server.start().owner, flush=True)
sys.stdin.read()
server.stop()
"""


@pytest.fixture(scope="module")
def made() -> Iterator[Path]:
    """A data directory with a stopped server's files; creating them takes a second, copying them little."""
    path = Path(tempfile.mkdtemp(prefix="vultus-made-"))
    with EmbeddedPostgres(path):
        pass
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def server(made: Path, data_dir: Path) -> Iterator[EmbeddedPostgres]:
    """A stopped server of its own."""
    subprocess.run(["cp", "-a", made / "postgres", data_dir], check=True)
    server = EmbeddedPostgres(data_dir)
    yield server
    server.stop()


def postmaster(data_dir: Path) -> psutil.Process:
    return psutil.Process(int((data_dir / "postgres" / "postmaster.pid").read_text().split()[0]))


def has_ended(process: psutil.Process) -> bool:
    """Whether a process ends within seconds: it is told that PostgreSQL stopped a moment before its process is gone.

    A zombie has ended; a container's first process may not reap it.
    """
    for _ in range(100):
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.05)
    return False


def another_user(data_dir: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", USER, data_dir], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline().startswith("postgresql+asyncpg://")
    return process


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def fetch_value(url: str, query: str) -> object:
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


async def test_a_private_server(server: EmbeddedPostgres, data_dir: Path) -> None:
    url = server.start().owner

    assert mode(data_dir) == (0o710 if ROOT else 0o700)
    assert mode(data_dir / "postgres") == mode(data_dir / "run") == 0o700
    for name in ("postgresql.conf", "pg_hba.conf", "server.log"):
        assert mode(data_dir / "postgres" / name) == 0o600
    assert await fetch_value(url, "SHOW listen_addresses") == ""
    assert postmaster(data_dir).net_connections(kind="inet") == []
    assert postmaster(data_dir).username() == get_server_account(data_dir / "postgres").name != "root"
    assert os.getsid(postmaster(data_dir).pid) != os.getsid(0)  # Ctrl-C here does not reach it
    durable = [await fetch_value(url, f"SHOW {name}") for name in ("fsync", "full_page_writes", "synchronous_commit")]
    assert durable == ["on", "on", "on"]
    assert await fetch_value(url, "SHOW data_checksums") == "on"


async def test_the_service_is_no_superuser_and_owns_nothing(server: EmbeddedPostgres) -> None:
    urls = server.start()
    await create_embedded_schema(urls)
    database = await Database.connect(urls.serving, DatabaseSettings())
    await database.close()

    power = "SELECT rolsuper OR rolcreaterole OR rolcreatedb FROM pg_roles WHERE rolname = current_user"
    owned = "SELECT count(*) FROM pg_shdepend JOIN pg_roles ON pg_roles.oid = refobjid AND deptype = 'o'"
    assert [await fetch_value(url, power) for url in urls] == [False, False]
    assert await fetch_value(urls.owner, f"{owned} AND rolname = '{SERVICE}'") == 0
    assert await fetch_value(urls.owner, f"{owned} AND rolname = '{OWNER}'") != 0
    assert await fetch_value(server.superuser_url, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user") is True
    for forbidden in (
        "COPY (SELECT 1) TO PROGRAM 'cat'",
        "ALTER SYSTEM SET fsync = off",
        "SELECT pg_read_file('PG_VERSION')",
    ):
        for url in urls:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await fetch_value(url, forbidden)


async def test_files_of_an_earlier_version_get_the_role_that_serves(server: EmbeddedPostgres, data_dir: Path) -> None:
    """Their schema is migrated, and what was granted counts; the earlier version is not served beside this one."""
    urls = server.start()
    await migrate.upgrade_schema(urls.owner, "0023")
    await fetch_value(server.superuser_url, f"DROP OWNED BY {SERVICE}")
    await fetch_value(server.superuser_url, f"DROP ROLE {SERVICE}")
    ident = data_dir / "postgres" / "pg_ident.conf"
    ident.write_text("".join(line for line in ident.read_text().splitlines(True) if SERVICE not in line))
    with pytest.raises(EmbeddedDatabaseError, match="An earlier version of Vultus runs on"):
        EmbeddedPostgres(data_dir).start()
    server.stop()

    urls = server.start()
    with pytest.raises(SchemaNotCurrentError):
        await create_embedded_schema(urls)
    await upgrade_embedded(urls, data_dir)
    database = await Database.connect(urls.serving, DatabaseSettings())
    await database.close()


async def test_a_long_log_is_moved_while_the_server_runs(server: EmbeddedPostgres, data_dir: Path) -> None:
    url, file = server.start().owner, data_dir / "postgres" / "server.log"
    with file.open("a") as log:
        log.write("x" * (MAX_LOG_BYTES + 1))
    server.rotate_log()
    with pytest.raises(asyncpg.PostgresError):
        await fetch_value(url, "SELECT nothing")

    assert file.stat().st_size < 10_000
    assert "nothing" in file.read_text()
    assert (data_dir / "postgres" / "server.log.1").stat().st_size > MAX_LOG_BYTES


async def test_statements_never_reach_the_log(server: EmbeddedPostgres, data_dir: Path) -> None:
    connection = await asyncpg.connect(server.start().owner.replace("+asyncpg", ""))
    await connection.execute("CREATE TABLE t (a text CHECK (a <> 'canary7'))")
    for query in ("INSERT INTO t VALUES ($1)", "SELECT $1::text::int", "SELECT 'canary7'::int + length($1)"):
        with pytest.raises(asyncpg.PostgresError):
            await connection.fetch(query, "canary7")
    await connection.close()

    log = (data_dir / "postgres" / "server.log").read_text()
    assert "starting PostgreSQL" in log
    assert "INSERT" not in log
    assert "Failing row" not in log
    assert "$1" not in log


async def test_stored_rows_survive_a_stop(server: EmbeddedPostgres, data_dir: Path) -> None:
    await fetch_value(server.start().owner, "CREATE TABLE t AS SELECT 42 AS a")
    process = postmaster(data_dir)
    server.stop()
    assert has_ended(process)
    assert not server.is_running()

    assert await fetch_value(server.start().owner, "SELECT a FROM t") == 42
    assert server.is_running()


async def test_the_last_of_two_processes_stops_the_server(server: EmbeddedPostgres, data_dir: Path) -> None:
    with another_user(data_dir) as other:
        url = server.start().owner
        process = postmaster(data_dir)
        server.stop()
        assert await fetch_value(url, "SELECT 1") == 1
        assert server.start().owner == url
        assert postmaster(data_dir).pid == process.pid

        other.communicate()  # closes its input: it exits

    assert await fetch_value(url, "SELECT 1") == 1
    server.stop()
    assert has_ended(process)


async def test_a_killed_process_leaves_nothing_running(server: EmbeddedPostgres, data_dir: Path) -> None:
    with another_user(data_dir) as other:
        server.start()
        other.kill()
        other.wait()
        process = postmaster(data_dir)

        server.stop()

        assert has_ended(process)


async def test_after_a_kill_every_acknowledged_row_is_stored(
    server: EmbeddedPostgres, data_dir: Path, policy: DecisionPolicy
) -> None:
    url = server.start().owner
    await migrate.upgrade_schema(url)
    database = await Database.connect(url, DatabaseSettings())
    async with database.transaction() as work:
        collection = await work.collections.add_collection("home", "contract", policy)
        ada = await work.persons.add_person(collection.id, "ada", None, {})

    os.kill(postmaster(data_dir).pid, signal.SIGKILL)
    with pytest.raises(DatabaseUnavailableError):
        while True:
            await database.ping()
    assert not server.is_running()
    started = time.monotonic()
    assert server.start().owner == url

    async with database.transaction(read_only=True) as work:
        assert await work.persons.get_person(collection.id, ada.id) == ada
    assert time.monotonic() - started < 5
    await database.close()


async def test_a_server_found_dying_is_restarted(server: EmbeddedPostgres, data_dir: Path) -> None:
    url = server.start().owner
    for _ in range(5):
        os.kill(postmaster(data_dir).pid, signal.SIGKILL)

        assert server.start().owner == url

        assert await fetch_value(url, "SELECT 1") == 1


async def test_a_restart_creates_no_files_in_place_of_those_that_are_gone(
    server: EmbeddedPostgres, data_dir: Path
) -> None:
    """An empty database would answer, and everybody who was enrolled would be lost in silence."""
    url = server.start().owner
    (data_dir / "postgres").rename(data_dir / "elsewhere")
    process = psutil.Process(int((data_dir / "elsewhere" / "postmaster.pid").read_text().split()[0]))
    process.kill()
    assert has_ended(process)

    with pytest.raises(EmbeddedDatabaseError, match="are gone"):
        server.start()
    assert not (data_dir / "postgres").exists()

    (data_dir / "elsewhere").rename(data_dir / "postgres")
    assert server.start().owner == url


async def test_a_stale_process_id_of_another_process_is_ignored(server: EmbeddedPostgres, data_dir: Path) -> None:
    url = server.start().owner
    pid_file = data_dir / "postgres" / "postmaster.pid"
    lines = pid_file.read_text().splitlines()
    server.stop()
    # A process of the server's user, even in its directory, which PostgreSQL itself would take for the old server.
    account = get_server_account(data_dir / "postgres")
    options = account.build_popen_options() | {"cwd": data_dir / "postgres"}
    with subprocess.Popen(["sleep", "60"], **options) as stranger:
        pid_file.write_text("\n".join([str(stranger.pid), *lines[1:]]) + "\n")
        (data_dir / "run" / ".s.PGSQL.5432.lock").write_text("\n".join([str(stranger.pid), *lines[1:]]) + "\n")
        account.set_owner(pid_file)

        assert server.start().owner == url
        assert await fetch_value(url, "SELECT 1") == 1

        stranger.kill()


async def test_a_broken_server_says_why(server: EmbeddedPostgres, data_dir: Path) -> None:
    server.start()
    server.stop()
    (data_dir / "postgres" / "global" / "pg_control").unlink()

    with pytest.raises(EmbeddedDatabaseError, match=r"(?s)does not start.*VULTUS_DATABASE__URL.*pg_control"):
        server.start()


def test_files_of_another_version_are_refused(server: EmbeddedPostgres, data_dir: Path) -> None:
    server.start()
    server.stop()
    (data_dir / "postgres" / "PG_VERSION").write_text("17\n")

    with pytest.raises(EmbeddedDatabaseError, match="PostgreSQL 17's, this version of Vultus brings 18"):
        server.start()


def test_an_interrupted_set_up_is_restarted(data_dir: Path) -> None:
    (data_dir / "postgres.new" / "base").mkdir(parents=True)

    with EmbeddedPostgres(data_dir):
        assert (data_dir / "postgres" / "PG_VERSION").exists()

    assert not (data_dir / "postgres.new").exists()


@as_root
async def test_programs_closed_to_the_servers_user_are_copied(
    server: EmbeddedPostgres, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = importlib.util.find_spec(SERVER_PACKAGE)
    assert spec is not None
    assert spec.submodule_search_locations
    package = Path(spec.submodule_search_locations[0])
    closed = tmp_path / "closed"  # as below /root
    closed.mkdir(mode=0o700)
    (closed / SERVER_PACKAGE).mkdir()
    (closed / SERVER_PACKAGE / "pginstall18").symlink_to(package / "pginstall18")
    (closed / f"{SERVER_PACKAGE}.libs").symlink_to(package.with_name(f"{SERVER_PACKAGE}.libs"))
    spec.submodule_search_locations = [str(closed / SERVER_PACKAGE)]
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: spec)

    assert await fetch_value(server.start().owner, "SELECT 1") == 1

    assert Path(postmaster(data_dir).exe()).is_relative_to(data_dir)


@pytest.mark.parametrize(("memory_gb", "shared", "connections"), [(0.25, 32, 40), (4, 512, 100), (64, 1024, 100)])
def test_memory_settings_are_proportional(memory_gb: float, shared: int, connections: int) -> None:
    text = tuning.build_configuration(Path("/run/it's"), int(memory_gb * 2**30))

    assert f"shared_buffers = '{shared}MB'" in text
    assert f"max_connections = '{connections}'" in text
    assert "unix_socket_directories = '\"/run/it''s\"'" in text


def test_a_containers_limit_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(tuning, "CGROUP_LIMITS", (tmp_path / "missing", limit))
    limit.write_text("max\n")
    assert tuning.get_memory_bytes() == psutil.virtual_memory().total

    limit.write_text(f"{2**27}\n")
    assert tuning.get_memory_bytes() == 2**27
