"""Parses a database URL into the form the driver requires."""

from __future__ import annotations

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from vultus.errors import SetupError

_SCHEMES = {"postgres", "postgresql", "postgresql+asyncpg"}
_SSL_MODES = {"disable", "allow", "prefer", "require", "verify-ca", "verify-full"}


def parse_database_url(url: str) -> URL:
    """Return the URL for SQLAlchemy's asyncpg dialect.

    Accepts `postgres://`, `postgresql://` and `postgresql+asyncpg://`; libpq's `sslmode` becomes asyncpg's `ssl`.

    Raises:
        SetupError: It is not the URL of a PostgreSQL database. The message omits the URL, which may hold a password.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise SetupError(_INVALID_URL_DETAIL.format("cannot be read")) from None
    if parsed.drivername not in _SCHEMES:
        raise SetupError(_INVALID_URL_DETAIL.format(f"has the scheme '{parsed.drivername}'"))
    if not parsed.database:
        raise SetupError(_INVALID_URL_DETAIL.format("names no database"))
    mode = parsed.query.get("sslmode")
    if mode is not None:
        if mode not in _SSL_MODES:
            raise SetupError(
                _INVALID_URL_DETAIL.format(f"has an sslmode that is none of {', '.join(sorted(_SSL_MODES))}")
            )
        parsed = parsed.difference_update_query(["sslmode"]).update_query_dict({"ssl": str(mode)})
    return parsed.set(drivername="postgresql+asyncpg")


_INVALID_URL_DETAIL = "The database URL {}; write VULTUS_DATABASE__URL=postgresql://user:password@host/database."
