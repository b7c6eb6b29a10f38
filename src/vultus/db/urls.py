"""Parses a database URL: libpq's parameters are understood or refused by name, and nothing secret is repeated."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from vultus.errors import DatabaseUnavailableError, SetupError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pydantic import SecretStr

    from vultus.settings import DatabaseSettings

VARIABLE = "VULTUS_DATABASE__URL"
PASSWORD_VARIABLE = "VULTUS_DATABASE__PASSWORD_FILE"  # noqa: S105  a name
OWNER_VARIABLE = "VULTUS_DATABASE__OWNER_URL"
OWNER_PASSWORD_VARIABLE = "VULTUS_DATABASE__OWNER_PASSWORD_FILE"  # noqa: S105  a name
CONNECT_TIMEOUT_S = 5.0
DEFAULT_PORT = 5432
APPLICATION_NAME = "vultus"

_SCHEMES = {"postgres", "postgresql", "postgresql+asyncpg"}

_DRIVER_PARAMETERS = frozenset(
    [
        *("application_name", "dbname", "gsslib", "host", "krbsrvname", "options", "passfile", "password", "port"),
        *("service", "ssl_max_protocol_version", "ssl_min_protocol_version", "sslcert", "sslcrl", "sslkey", "sslmode"),
        *("sslnegotiation", "sslpassword", "sslrootcert", "target_session_attrs", "user"),
    ]
)
"""Parameters that the driver understands as libpq does."""

FILE_PARAMETERS = ("passfile", "sslcert", "sslcrl", "sslkey", "sslrootcert")
"""Parameters that name files to be read."""

_OWN_PARAMETERS = frozenset({"connect_timeout", "fallback_application_name"})

_SUPPORTED_VALUES: Mapping[str, tuple[str, ...]] = {
    "sslmode": ("disable", "allow", "prefer", "require", "verify-ca", "verify-full"),
    "target_session_attrs": ("any", "primary", "standby", "read-write", "read-only", "prefer-standby"),
    # What follows has no effect in these values, which are what hosted databases hand out and libpq's defaults.
    "channel_binding": ("prefer", "disable"),
    "client_encoding": ("utf8", "auto"),
    "gssencmode": ("prefer", "disable"),
    "keepalives": ("1",),
    "load_balance_hosts": ("disable",),
    "sslcertmode": ("allow",),
    "sslcompression": ("0",),
    "sslsni": ("1",),
}

_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_ENCODING_ADVICE = (
    "cannot be read. In user and password, characters that mean something in a URL are written percent-encoded: @ as "
    "%40, : as %3A, / as %2F, ? as %3F, # as %23, % as %25, [ as %5B; "
    f"{VARIABLE}=postgresql://user:password@host/database"
)


class DatabaseUrls(NamedTuple):
    """URLs of one database for its two roles, which may be one.

    Attributes:
        serving: For the role that reads and writes rows.
        owner: For the role that owns the tables, migrates and maintains them.
    """

    serving: str
    owner: str

    @contextmanager
    def name_owner(self) -> Iterator[None]:
        """Let what is wrong with the owner's URL be said of its variable."""
        try:
            yield
        except (SetupError, DatabaseUnavailableError) as error:
            if self.owner != self.serving:
                for own, other in ((PASSWORD_VARIABLE, OWNER_PASSWORD_VARIABLE), (VARIABLE, OWNER_VARIABLE)):
                    error.detail = error.detail.replace(own, other)
            raise


@dataclass(frozen=True, slots=True)
class DatabaseAddress:
    """How to connect to a database.

    Attributes:
        dsn: For the driver; it may hold a password.
        place: Host and port, for people.
        database: Its name; None if a service file names it.
        timeout_s: Longest time to connect.
        application_name: As PostgreSQL lists the connections.
        files: Path by the parameter that names it.
    """

    dsn: str = field(repr=False)
    place: str
    database: str | None
    timeout_s: float
    application_name: str
    files: Mapping[str, str]


def parse_database_url(url: str) -> DatabaseAddress:
    """Return the address that a URL in libpq's form names.

    Accepts `postgres://`, `postgresql://` and `postgresql+asyncpg://`.

    Raises:
        SetupError: It is not the URL of a PostgreSQL database, or a parameter is not supported. The message omits the
            URL, which may hold a password.
    """
    scheme, separator, rest = url.strip().partition("://")
    if not separator:
        raise _build_error(f"is no URL; write {VARIABLE}=postgresql://user:password@host/database")
    if scheme not in _SCHEMES:
        raise _build_error(f"has the scheme '{scheme}'; write {VARIABLE}=postgresql://user:password@host/database")
    try:
        parts = urlsplit(f"postgresql://{rest}")
        parameters = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError:
        raise _build_error(_ENCODING_ADVICE) from None
    is_ambiguous = parts.netloc.count("@") > 1 or "@" in parts.path or "#" in rest or _BAD_ESCAPE.search(rest)
    if is_ambiguous or any("@" in name for name, _ in parameters):
        raise _build_error(_ENCODING_ADVICE)
    given = _check_parameters(parameters)
    if parts.password is not None and "password" in given:
        raise _build_error(f"has a password twice; write it into the URL or into the file of {PASSWORD_VARIABLE}")
    database = unquote(parts.path.removeprefix("/")) or given.get("dbname")
    if not database and "service" not in given:
        raise _build_error(f"names no database; write {VARIABLE}=postgresql://user:password@host/database")
    hosts = unquote(parts.netloc.rpartition("@")[2]) or given.get("host", "")
    place = _format_place(hosts, given.get("port", ""), given.get("service"))
    passed = {name: value for name, value in given.items() if name in _DRIVER_PARAMETERS - {"application_name"}}
    return DatabaseAddress(
        dsn=f"postgresql://{parts.netloc}{parts.path}?{urlencode(passed, quote_via=quote)}".rstrip("?"),
        place=place,
        database=database,
        timeout_s=_parse_timeout(given.get("connect_timeout")),
        application_name=given.get("application_name") or given.get("fallback_application_name") or APPLICATION_NAME,
        files={name: given[name] for name in FILE_PARAMETERS if name in given},
    )


def add_password(url: str, file: Path) -> str:
    """Return a URL with the password that a file holds; one line break at its end is none of it.

    Raises:
        SetupError: The file cannot be read, or holds no password.
    """
    try:
        password = file.read_text(encoding="utf-8").removesuffix("\n").removesuffix("\r")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise SetupError(
            f"The database's password cannot be read from {file} ({PASSWORD_VARIABLE}): {reason}."
        ) from None
    if not password:
        raise SetupError(f"The file {file} ({PASSWORD_VARIABLE}) is empty; write the database's password into it.")
    return f"{url}{'&' if '?' in url else '?'}password={quote(password, safe='')}"


def read_urls(settings: DatabaseSettings) -> DatabaseUrls:
    """Return the URLs of an external database, with the passwords that lie in files.

    Raises:
        SetupError: A password cannot be read.
        ValueError: The settings name no database.
    """
    if settings.url is None:
        raise ValueError("the settings name no database")
    serving = _read_url(settings.url, settings.password_file)
    if settings.owner_url is None:
        return DatabaseUrls(serving, serving)
    with DatabaseUrls(serving, settings.owner_url.get_secret_value()).name_owner():
        return DatabaseUrls(serving, _read_url(settings.owner_url, settings.owner_password_file))


def _read_url(url: SecretStr, password_file: Path | None) -> str:
    return add_password(url.get_secret_value(), password_file) if password_file else url.get_secret_value()


def _check_parameters(parameters: list[tuple[str, str]]) -> dict[str, str]:
    """Return parameters by name; those that are empty count as unset."""
    given: dict[str, str] = {}
    for name, value in parameters:
        if name in given:
            raise _build_error(f"has the parameter '{name}' twice")
        values = _SUPPORTED_VALUES.get(name)
        if values is not None and value and value.lower().replace("utf-8", "utf8") not in values:
            raise _build_error(
                f"has a value of the parameter '{name}' that is not supported; write one of {', '.join(values)}, or "
                "leave it out"
            )
        if values is None and name not in _DRIVER_PARAMETERS | _OWN_PARAMETERS:
            known = ", ".join(sorted(_DRIVER_PARAMETERS | _OWN_PARAMETERS | _SUPPORTED_VALUES.keys()))
            raise _build_error(f"has the parameter '{name}', which is not supported: leave it out. There are {known}")
        if value:
            given[name] = value
    return given


def _format_place(hosts: str, ports: str, service: str | None) -> str:
    """Return every host with its port, as people write them.

    Raises:
        SetupError: A port is no number from 1 to 65535.
    """
    if not hosts:
        return f"the service '{service}'" if service else f"this machine, port {_parse_port(ports)}"
    listed = ports.split(",") if ports else [""]
    places = []
    for number, entry in enumerate(hosts.split(",")):
        host, separator, port = ("", "", "") if entry.startswith("/") or entry.endswith("]") else entry.rpartition(":")
        own = port if separator else listed[min(number, len(listed) - 1)]
        places.append(f"{host if separator else entry}:{_parse_port(own)}")
    return ", ".join(places)


def _parse_port(port: str) -> int:
    if not port:
        return DEFAULT_PORT
    if not port.isascii() or not port.isdigit():
        raise _build_error(_ENCODING_ADVICE)  # what looks like a port may be a part of the password
    if not 1 <= int(port) <= 65535:
        raise _build_error("has a port that does not exist; ports are numbers from 1 to 65535")
    return int(port)


def _parse_timeout(value: str | None) -> float:
    if value is None:
        return CONNECT_TIMEOUT_S
    if not value.isascii() or not value.isdigit():
        raise _build_error("has a connect_timeout that is no whole number of seconds")
    return float(value) or CONNECT_TIMEOUT_S


def _build_error(problem: str) -> SetupError:
    return SetupError(f"The database URL ({VARIABLE}) {problem}.")
