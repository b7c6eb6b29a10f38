"""Reaching PostgreSQL: URLs as libpq reads them, every failure in a sentence of its own, poolers."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import asyncpg
import pytest
from sqlalchemy import text

from vultus.db import migrate
from vultus.db.connections import check_connection
from vultus.db.database import Database
from vultus.db.urls import CONNECT_TIMEOUT_S, add_password, parse_database_url
from vultus.errors import DatabaseUnavailableError, ErrorKind, SetupError, VultusError
from vultus.settings import DatabaseSettings

SECRET = "geheim"


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+asyncpg"])
def test_urls_as_people_write_them(scheme: str) -> None:
    address = parse_database_url(f"{scheme}://ada:p%40ss@db.example:5433/faces?sslmode=require")

    assert address.dsn == "postgresql://ada:p%40ss@db.example:5433/faces?sslmode=require"
    assert (address.place, address.database, address.timeout_s) == ("db.example:5433", "faces", CONNECT_TIMEOUT_S)
    assert "p%40ss" not in repr(address)


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("postgresql://u@[::1]:5433/d", "[::1]:5433"),
        ("postgresql://u@[::1]/d", "[::1]:5432"),
        ("postgresql://u@one:1,two/d", "one:1, two:5432"),
        ("postgresql://u@/d?host=/run/postgresql&port=5433", "/run/postgresql:5433"),
        ("postgresql:///d?host=one,two&port=1,2", "one:1, two:2"),
        ("postgresql:///?service=faces", "the service 'faces'"),
        ("postgresql:///d", "this machine, port 5432"),
    ],
)
def test_hosts_in_every_form_are_named(url: str, place: str) -> None:
    assert parse_database_url(url).place == place


@pytest.mark.parametrize(
    ("parameters", "passed"),
    [
        ("application_name=faces", {}),
        ("connect_timeout=10&fallback_application_name=faces", {}),
        ("channel_binding=prefer&gssencmode=disable&sslsni=1&keepalives=1", {}),
        ("client_encoding=UTF-8&sslmode=", {}),
        ("options=-c%20search_path%3Dpublic", {"options": ["-c search_path=public"]}),
        ("target_session_attrs=read-write", {"target_session_attrs": ["read-write"]}),
        ("sslmode=verify-full&sslrootcert=/ca.pem", {"sslmode": ["verify-full"], "sslrootcert": ["/ca.pem"]}),
        ("passfile=/run/pgpass", {"passfile": ["/run/pgpass"]}),
    ],
)
def test_parameters_of_libpq_are_accepted(parameters: str, passed: dict[str, list[str]]) -> None:
    address = parse_database_url(f"postgresql://u@h/d?{parameters}")

    assert parse_qs(urlsplit(address.dsn).query) == passed
    assert address.application_name == ("faces" if "faces" in parameters else "vultus")
    assert address.timeout_s == (10 if "connect_timeout=10" in parameters else CONNECT_TIMEOUT_S)


@pytest.mark.parametrize(("url", "joint"), [("postgresql://u@h/d", "?"), ("postgresql://u@h/d?sslmode=require", "&")])
def test_a_password_may_lie_in_a_file(tmp_path: Path, url: str, joint: str) -> None:
    file = tmp_path / "password"
    file.write_text(f" {SECRET}@/&?\r\n")

    complete = add_password(url, file)

    assert complete == f"{url}{joint}password=%20{SECRET}%40%2F%26%3F"
    assert parse_qs(urlsplit(parse_database_url(complete).dsn).query)["password"] == [f" {SECRET}@/&?"]
    with pytest.raises(SetupError, match="a password twice") as twice:
        parse_database_url(add_password(url.replace("u@", f"u:{SECRET}@"), file))
    assert SECRET not in str(twice.value)


@pytest.mark.parametrize(("content", "words"), [(None, "No such file"), (b"\n", "is empty"), (b"\xff", "is no text")])
def test_a_file_without_a_password_is_named(tmp_path: Path, content: bytes | None, words: str) -> None:
    file = tmp_path / "password"
    if content is not None:
        file.write_bytes(content)

    with pytest.raises(SetupError, match=words) as refused:
        add_password("postgresql://u@h/d", file)
    assert str(file) in str(refused.value)
    assert "VULTUS_DATABASE__PASSWORD_FILE" in str(refused.value)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        (f"mysql://ada:{SECRET}@host/faces", "scheme 'mysql'"),
        (SECRET, "no URL"),
        (f"host=h password={SECRET}", "no URL"),
        (f"postgresql://ada:{SECRET}@host", "no database"),
        (f"postgresql://u:{SECRET}@h/d?sslmode=no", "'sslmode'.* verify-full"),
        (f"postgresql://u:{SECRET}@h/d?channel_binding=require", "'channel_binding'.* prefer"),
        (f"postgresql://u:{SECRET}@h/d?pgbouncer=true", "'pgbouncer', which is not supported"),
        (f"postgresql://u:{SECRET}@h/d?keepalives_idle=3", "'keepalives_idle', which is not supported"),
        (f"postgresql://u:{SECRET}@h/d?sslmode=prefer&sslmode=require", "'sslmode' twice"),
        (f"postgresql://u:{SECRET}@h/d?connect_timeout=soon", "connect_timeout"),
        (f"postgresql://u:{SECRET}@h:99999/d", "port that does not exist"),
        (f"postgresql://u:{SECRET}@h/d?host=x&port=0", "port that does not exist"),
        *((f"postgresql://u:{SECRET}{sign}x@h/d", "percent-encoded") for sign in "@/?#%[]"),
        (f"postgresql://u:12/{SECRET}@h/d", "percent-encoded"),
    ],
)
def test_other_urls_are_refused_without_repeating_them(url: str, words: str) -> None:
    with pytest.raises(SetupError, match=words) as caught:
        parse_database_url(url)

    assert "VULTUS_DATABASE__URL" in caught.value.detail
    assert SECRET not in caught.value.detail


@pytest.fixture
def tcp_url(server_url: str) -> Iterator[str]:
    """The URL of the server by a TCP port, forwarded to its socket as root or its user, so that peers are let in."""
    (folder,) = parse_qs(urlsplit(server_url).query)["host"]
    listener = socket.create_server(("127.0.0.1", 0))
    opened = [listener]

    def forward(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):  # closed at the end of the test
            while part := source.recv(65536):
                target.sendall(part)
            target.shutdown(socket.SHUT_WR)

    def accept() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            server.connect(f"{folder}/.s.PGSQL.5432")
            opened.extend((client, server))
            for pair in ((client, server), (server, client)):
                threading.Thread(target=forward, args=pair, daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    yield f"postgresql://postgres@127.0.0.1:{listener.getsockname()[1]}/vultus"
    for one in opened:
        one.close()


async def fail(url: str) -> VultusError:
    with pytest.raises(VultusError) as caught:
        await check_connection(parse_database_url(url))
    assert SECRET not in caught.value.detail
    return caught.value


async def test_every_parameter_is_used_by_the_driver(tcp_url: str) -> None:
    url = f"{tcp_url}?application_name=faces&connect_timeout=3&options=-c%20jit%3Doff&target_session_attrs=read-write"
    await check_connection(parse_database_url(url))


async def test_a_server_without_tls_is_named(tcp_url: str) -> None:
    failure = await fail(f"{tcp_url.replace('postgres@', f'postgres:{SECRET}@')}?sslmode=require")

    assert failure.kind is ErrorKind.SETUP
    assert "127.0.0.1:" in failure.detail
    assert "offers no TLS" in failure.detail


@pytest.mark.parametrize(
    ("url", "kind", "words"),
    [
        ("postgresql://u:geheim@127.0.0.1:1/d", ErrorKind.UNAVAILABLE, "Nothing listens on 127.0.0.1:1."),
        (
            "postgresql://u:geheim@/d?host=/nonexistent",
            ErrorKind.UNAVAILABLE,
            "no socket of PostgreSQL at /nonexistent",
        ),
        ("postgresql://u@h/d?sslmode=verify-full&sslrootcert=/none.pem", ErrorKind.SETUP, "/none.pem"),
    ],
)
async def test_what_cannot_be_reached_is_named_with_its_cause(url: str, kind: ErrorKind, words: str) -> None:
    failure = await fail(url)

    assert failure.kind is kind
    assert words in failure.detail


@pytest.mark.parametrize(
    ("number", "kind", "words"),
    [
        (socket.EAI_NONAME, ErrorKind.SETUP, "nowhere.example:5432 has no address"),
        (socket.EAI_AGAIN, ErrorKind.UNAVAILABLE, "No name server answers for nowhere.example:5432"),
    ],
)
async def test_a_host_without_an_address_is_named(
    monkeypatch: pytest.MonkeyPatch, number: int, kind: ErrorKind, words: str
) -> None:
    def look_up(*_: object, **__: object) -> None:
        raise socket.gaierror(number, "not known")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    failure = await fail("postgresql://u:geheim@nowhere.example/d")

    assert failure.kind is kind
    assert words in failure.detail


@pytest.mark.parametrize("mode", ["disable", "prefer", "require"])
async def test_what_is_not_postgresql_is_named(mode: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def refuse_all() -> None:
            with suppress(OSError):
                while True:
                    listener.accept()[0].close()

        threading.Thread(target=refuse_all, daemon=True).start()
        failure = await fail(f"postgresql://u:geheim@127.0.0.1:{listener.getsockname()[1]}/d?sslmode={mode}")

    assert failure.kind is ErrorKind.UNAVAILABLE
    assert "ended the connection" in failure.detail


async def test_refusals_of_the_server_are_told_apart(server_url: str) -> None:
    nowhere = await fail(server_url.replace("/vultus?", "/nowhere?"))
    stranger = await fail(server_url.replace("postgres@", f"stranger:{SECRET}@"))

    assert (nowhere.kind, stranger.kind) == (ErrorKind.SETUP, ErrorKind.SETUP)
    assert "has no database 'nowhere'" in nowhere.detail
    assert "does not let this user in" in stranger.detail


async def test_variables_of_libpq_do_not_redirect_the_embedded_server(
    server_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    variables = {
        "PGPORT": "1", "PGSSLMODE": "require", "PGHOST": "nowhere", "PGDATABASE": "other", "PGUSER": "nobody",
        "PGSSLNEGOTIATION": "direct", "PGTARGETSESSIONATTRS": "standby", "PGSERVICE": "none", "PGPASSFILE": "/none",
    }  # fmt: skip
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    await check_connection(parse_database_url(server_url))


PGBOUNCER = shutil.which("pgbouncer", path=f"{os.defpath}:/usr/sbin")


def bounce(server_url: str, folder: Path, mode: str) -> Iterator[str]:
    """Yield the URL of a PgBouncer in front of the server."""
    if PGBOUNCER is None:
        pytest.skip("pgbouncer is not installed")
    (backend,) = parse_qs(urlsplit(server_url).query)["host"]
    owner = pwd.getpwuid(Path(backend).stat().st_uid)
    settings = {
        "unix_socket_dir": folder, "listen_port": 6432, "auth_type": "any", "pool_mode": mode,
        "logfile": folder / "log", "default_pool_size": 20,
    }  # fmt: skip
    lines = "\n".join(f"{name} = {value}" for name, value in settings.items())
    configuration = folder / "pgbouncer.ini"
    configuration.write_text(f"[databases]\n* = host={backend} port=5432 user=postgres\n[pgbouncer]\n{lines}\n")
    os.chown(folder, owner.pw_uid, owner.pw_gid)  # it does not run as root
    process = subprocess.Popen([PGBOUNCER, "-q", configuration], user=owner.pw_uid, group=owner.pw_gid)
    try:
        while not (folder / ".s.PGSQL.6432").exists():
            assert process.poll() is None, (folder / "log").read_text()
        name = urlsplit(server_url).path
        yield f"postgresql://postgres@{name}?host={folder}&port=6432"
    finally:
        process.terminate()
        process.wait()


@pytest.fixture
def by_session(bare_database_url: str, data_dir: Path) -> Iterator[str]:
    yield from bounce(bare_database_url, data_dir, "session")


@pytest.fixture
def by_transaction(bare_database_url: str, data_dir: Path) -> Iterator[str]:
    yield from bounce(bare_database_url, data_dir, "transaction")


async def test_a_pooler_by_session_serves(by_session: str) -> None:
    await migrate.upgrade_schema(by_session)
    database = await Database.connect(by_session, DatabaseSettings())
    async with database.transaction(read_only=True) as work:
        assert await work.keys.list_keys(after=None, limit=1) == ()
    async with database.hot_queries() as queries:
        (row,) = await queries.keys._session.execute(text("SELECT current_setting('statement_timeout') AS setting"), {})
    await database.close()

    assert row.setting == "15s"


async def test_a_pooler_by_transaction_is_refused_by_name(by_transaction: str) -> None:
    for attempt in (
        migrate.fetch_current_revision(by_transaction),
        Database.connect(by_transaction, DatabaseSettings()),
    ):
        with pytest.raises(SetupError, match=r"PgBouncer.*pool_mode = session"):
            await attempt


async def test_a_start_up_parameter_that_a_pooler_refuses_is_named(by_session: str) -> None:
    with pytest.raises(SetupError, match=r"refuses a parameter.*options"):
        await check_connection(parse_database_url(f"{by_session}&options=-c%20jit%3Doff"))


async def test_a_busy_server_is_no_wrong_url(server_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(*_: object, **__: object) -> None:
        raise asyncpg.TooManyConnectionsError("sorry, too many clients already")

    monkeypatch.setattr(asyncpg, "connect", refuse)

    with pytest.raises(DatabaseUnavailableError, match="max_connections"):
        await check_connection(parse_database_url(server_url))
