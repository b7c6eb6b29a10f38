"""Opens connections to PostgreSQL, and says why one cannot be opened.

Settings of a session are sent after it has begun: a connection pooler refuses unknown ones in the start-up message.
"""

from __future__ import annotations

import os
import socket
import ssl
from typing import TYPE_CHECKING, Any

import asyncpg
from sqlalchemy.ext.asyncio import create_async_engine

from vultus.db.failures import POOLING_DETAIL, register_error_handler
from vultus.errors import DatabaseUnavailableError, SetupError, VultusError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy.ext.asyncio import AsyncEngine

    from vultus.db.urls import DatabaseAddress


def create_engine(
    address: DatabaseAddress, session_settings: Mapping[str, str], *, command_timeout_s: float | None, **options: Any
) -> AsyncEngine:
    """Return an engine whose connections have the settings of a session; options are SQLAlchemy's."""

    async def connect() -> asyncpg.Connection:
        return await open_connection(address, session_settings, command_timeout=command_timeout_s)

    # hide_parameters: values must not reach a traceback.
    engine = create_async_engine("postgresql+asyncpg://", async_creator=connect, hide_parameters=True, **options)
    register_error_handler(engine)
    return engine


async def open_connection(
    address: DatabaseAddress, session_settings: Mapping[str, str], **options: Any
) -> asyncpg.Connection:
    """Return a new connection of the driver; options are the driver's."""
    connection = await asyncpg.connect(
        address.dsn,
        timeout=address.timeout_s,
        server_settings={"application_name": address.application_name, "timezone": "UTC"},
        **options,
    )
    try:
        if session_settings:
            await connection.execute("; ".join(f"SET {name} = '{value}'" for name, value in session_settings.items()))
    except BaseException:
        connection.terminate()
        raise
    return connection


async def check_connection(address: DatabaseAddress) -> None:
    """Connect once, and raise if that fails or a pooler would take the session away between two transactions.

    Raises:
        DatabaseUnavailableError: It cannot be reached now; trying again may help.
        SetupError: It cannot be reached with this URL; trying again does not help.
    """
    for name, path in address.files.items():
        if not os.access(path, os.R_OK):
            raise SetupError(
                f"The file {path}, which the parameter '{name}' of VULTUS_DATABASE__URL names, cannot be read. The "
                "certificates that this machine trusts are usually in /etc/ssl/certs/ca-certificates.crt."
            )
    try:
        first = await open_connection(address, {}, statement_cache_size=0)
        try:
            pid = await _fetch_backend_pid(first)
            if pid == first.get_server_pid():
                return  # a pooler makes up the number it announces
            second = await open_connection(address, {}, statement_cache_size=0)
            try:
                others = await _fetch_backend_pid(second)
                if others == pid or await _fetch_backend_pid(first) != pid:
                    raise SetupError(POOLING_DETAIL)
            finally:
                await second.close()
        finally:
            await first.close()
    except (OSError, ValueError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
        raise describe_failure(error, address) from error


async def _fetch_backend_pid(connection: asyncpg.Connection) -> int:
    async with connection.transaction():  # behind a pooler, the statement is prepared and run by one server
        return int(await connection.fetchval("SELECT pg_backend_pid()"))


def describe_failure(error: BaseException, address: DatabaseAddress) -> VultusError:
    """Return the reason why a connection could not be opened: host and port, the cause, and what to do.

    PostgreSQL's messages at this stage hold names of users and databases, no secrets.
    """
    if isinstance(error, asyncpg.PostgresError):
        state = error.sqlstate or ""
        kind, detail = next((_REFUSALS[state[:n]] for n in (5, 3, 2) if state[:n] in _REFUSALS), _OTHER_REFUSAL)
        if state == "08P01" and "startup parameter" in str(error):
            kind, detail = _REFUSED_PARAMETER
        reason = f"{str(error).rstrip('.')}"
    else:
        kind, detail = next((found for types, found in _FAILURES if isinstance(error, types)), _ENDED)
        if isinstance(error, ConnectionError) and "rejected SSL upgrade" in str(error):
            kind, detail = _NO_TLS
        elif isinstance(error, socket.gaierror) and error.errno == socket.EAI_AGAIN:
            kind, detail = _NO_NAME_SERVER
        reason = getattr(error, "verify_message", "") or getattr(error, "reason", "") or getattr(error, "strerror", "")
        reason = reason or str(error).rstrip(".")
    return kind(detail.format(place=address.place, database=address.database, reason=reason))


_ENDED: tuple[type[VultusError], str] = (
    DatabaseUnavailableError,
    "{place} ended the connection. PostgreSQL may be starting or stopping; otherwise check that it is PostgreSQL that "
    "listens there.",
)
_NO_TLS = (
    SetupError,
    "PostgreSQL at {place} offers no TLS, which sslmode in VULTUS_DATABASE__URL requires. Turn it on there (ssl = on), "
    "or write sslmode=prefer where the network is private.",
)
_NO_NAME_SERVER = (DatabaseUnavailableError, "No name server answers for {place}; try again.")
_REFUSED_PARAMETER = (
    SetupError,
    "A connection pooler such as PgBouncer at {place} refuses a parameter of the start-up message: {reason}. Take it "
    "out of VULTUS_DATABASE__URL, or list it in the pooler's ignore_startup_parameters.",
)

# The first that fits holds: an exception comes before those it is derived from.
_FAILURES: tuple[tuple[type[BaseException], tuple[type[VultusError], str]], ...] = (
    (socket.gaierror, (SetupError, "{place} has no address: check the host in VULTUS_DATABASE__URL.")),
    (
        ssl.SSLCertVerificationError,
        (SetupError, "The certificate of {place} is not accepted: {reason}. Check sslmode and sslrootcert."),
    ),
    (ssl.SSLError, (SetupError, "TLS with {place} fails: {reason}. Check sslmode and the certificates of the URL.")),
    (
        asyncpg.TargetServerAttributeNotMatched,
        (DatabaseUnavailableError, "No server of {place} is what target_session_attrs of the URL requires."),
    ),
    (
        asyncpg.InterfaceError,  # of parameters, or a way to authenticate that the driver lacks
        (SetupError, "The connection to {place} cannot be set up: {reason}. Check VULTUS_DATABASE__URL."),
    ),
    (
        ConnectionRefusedError,
        (
            DatabaseUnavailableError,
            "Nothing listens on {place}. PostgreSQL may be starting; otherwise check host and port.",
        ),
    ),
    (
        TimeoutError,
        (
            DatabaseUnavailableError,
            "{place} does not answer in time. Check host, port and firewall, and that PostgreSQL is not overloaded.",
        ),
    ),
    (
        FileNotFoundError,
        (
            DatabaseUnavailableError,
            "There is no socket of PostgreSQL at {place}. It may be starting; otherwise check the path.",
        ),
    ),
    (PermissionError, (SetupError, "This user may not open the socket of PostgreSQL at {place}.")),
    (ConnectionError, _ENDED),
    (OSError, (DatabaseUnavailableError, "{place} cannot be reached: {reason}.")),
    (ValueError, (SetupError, "The connection to {place} cannot be set up: {reason}. Check VULTUS_DATABASE__URL.")),
)

# SQLSTATE classes and codes, https://www.postgresql.org/docs/current/errcodes-appendix.html
_REFUSALS: dict[str, tuple[type[VultusError], str]] = {
    "28P01": (SetupError, "PostgreSQL at {place} refused the user or the password of VULTUS_DATABASE__URL."),
    "28": (SetupError, "PostgreSQL at {place} does not let this user in: {reason}."),
    "3D": (SetupError, "PostgreSQL at {place} has no database '{database}': create it, or correct the URL."),
    "08P01": (SetupError, "The connection pooler at {place} does not let this user in: {reason}."),
    "08": _ENDED,
    "57P": (DatabaseUnavailableError, "PostgreSQL at {place} is starting or stopping; try again."),
    "53300": (DatabaseUnavailableError, "PostgreSQL at {place} has no connection left: raise its max_connections."),
    # A pooler prepares statements of one client on the server of another.
    "26": (SetupError, POOLING_DETAIL),
    "42P05": (SetupError, POOLING_DETAIL),
}
_OTHER_REFUSAL: tuple[type[VultusError], str] = (
    DatabaseUnavailableError,
    "PostgreSQL at {place} refused the connection: {reason}.",
)
