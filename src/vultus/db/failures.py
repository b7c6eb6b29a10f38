"""Converts the exceptions of the driver and of SQLAlchemy into errors a caller can handle.

PostgreSQL's messages repeat values: "Key (name)=(Ada) already exists", "Failing row contains (…, [0.1,0.2,…])". Names
and vectors must reach neither a log nor a traceback, so messages that may hold values are redacted.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from asyncpg import InterfaceError as AsyncpgInterfaceError
from asyncpg import InternalClientError, PostgresError
from sqlalchemy import event, exc
from sqlalchemy.dialects.postgresql.asyncpg import AsyncAdapt_asyncpg_dbapi

from vultus.db.tables import Base
from vultus.errors import (
    AlreadyExistsError,
    ConflictError,
    DatabaseUnavailableError,
    ExtensionMissingError,
    InvalidInputError,
    NotFoundError,
    OverloadedError,
    SchemaNotCurrentError,
    SetupError,
    StorageFullError,
    UnavailableError,
    VultusError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.engine import ExceptionContext
    from sqlalchemy.ext.asyncio import AsyncEngine

ENDED_DETAIL = "The consent has ended meanwhile; record a new one."
CONSTRAINT_FAILURES: dict[str, tuple[type[VultusError], str]] = {
    "uq_collections_name": (AlreadyExistsError, "A collection with this name exists; choose another name."),
    "uq_persons_collection_id_external_id": (
        AlreadyExistsError,
        "A person with this external id exists in the collection.",
    ),
    "uq_api_keys_secret_sha256": (AlreadyExistsError, "A key with this secret exists."),
    "pk_idempotency": (AlreadyExistsError, "An answer is stored under this Idempotency-Key."),
    "uq_faces_source": (AlreadyExistsError, "This photo is already enrolled for the person."),
    "ck_faces_consent_live": (
        ConflictError,
        "Faces still rest on this consent; they must be erased before it is withdrawn.",
    ),
    "ck_crops_consent_live": (
        ConflictError,
        "Crops still rest on this consent; they must be erased before it is withdrawn.",
    ),
    "tg_consent_ended": (NotFoundError, ENDED_DETAIL),
    "tg_consent_ended_update": (NotFoundError, ENDED_DETAIL),
    "tg_consent_final": (ConflictError, "The consent has ended, which is final; record a new one."),
    "ck_collections_retention_days": (InvalidInputError, "The retention must be at least one day."),
    "ck_collections_unseen_days": (InvalidInputError, "The time without being seen must be at least one day."),
    "fk_persons_collection_id_collections": (NotFoundError, "There is no such collection."),
    "fk_consents_person_id_persons": (NotFoundError, "There is no such person in the collection."),
    "fk_faces_consent_id_consents": (NotFoundError, "The person has no such live consent with this expiry."),
    "fk_codings_collection_id_collections": (NotFoundError, "There is no such collection."),
    "fk_crops_consent_id_consents": (NotFoundError, "The person has no such live consent with this expiry."),
    "fk_carry_failures_collection_id_transitions": (NotFoundError, "The collection is not changing its network."),
    "fk_shadow_disagreements_collection_id_transitions": (
        NotFoundError,
        "The collection is not changing its network.",
    ),
    "fk_shadow_disagreements_active_person_id_persons": (NotFoundError, "There is no such person."),
    "fk_shadow_disagreements_second_person_id_persons": (NotFoundError, "There is no such person."),
    "tg_face_exists": (NotFoundError, "There is no such face."),
    "fk_idempotency_person_id_persons": (NotFoundError, "There is no such person."),
}

_VALUE_QUOTING_CLASSES = ("22", "XX", "P0")  # SQLSTATE classes whose messages quote values

UNREACHABLE_DETAIL = "The database cannot be reached. It may be starting; try again."
POOLING_DETAIL = (
    "A connection pooler such as PgBouncer is between Vultus and PostgreSQL and pools by transaction. Vultus needs its "
    "settings, prepared statements and locks for as long as a connection lasts: set pool_mode = session for this "
    "database, or connect to PostgreSQL directly."
)
CREATE_EXTENSION_DETAIL = (
    "The role of VULTUS_DATABASE__URL may not create the extension pgvector. Run once as a superuser, in this "
    "database: CREATE EXTENSION vector; then run 'vultus db upgrade'."
)
SCHEMA_GONE_DETAIL = (
    "The database lacks tables of Vultus: it was replaced or restored while the server ran. Run 'vultus db status', "
    "and start the server again once that is in order."
)
BUSY_DETAIL = "The database is busy; try again."

# SQLSTATE classes and codes, https://www.postgresql.org/docs/current/errcodes-appendix.html
_SQLSTATE_FAILURES: dict[str, tuple[type[VultusError], str]] = {
    "08": (DatabaseUnavailableError, UNREACHABLE_DETAIL),
    "57P": (DatabaseUnavailableError, UNREACHABLE_DETAIL),
    "28": (DatabaseUnavailableError, "The database refused the user or password of VULTUS_DATABASE__URL."),
    "3D": (DatabaseUnavailableError, "The database named in VULTUS_DATABASE__URL does not exist."),
    "57014": (UnavailableError, "The database took longer than database.statement_timeout_ms; try again."),
    "53100": (
        StorageFullError,
        "The disk of the database is full: nothing was stored. Searches go on; writes are accepted again as soon as it "
        "has space.",
    ),
    "53": (OverloadedError, BUSY_DETAIL),
    "55P03": (OverloadedError, BUSY_DETAIL),
    "40": (OverloadedError, BUSY_DETAIL),
    "26": (SetupError, POOLING_DETAIL),  # a prepared statement of another server
    "42P05": (SetupError, POOLING_DETAIL),
    "42501": (
        SetupError,
        "The database's role lacks a privilege. The role of VULTUS_DATABASE__OWNER_URL, or of VULTUS_DATABASE__URL if "
        "there is no other, must own Vultus' tables and may create tables in the schema public (as the database's "
        "owner: GRANT CREATE ON SCHEMA public TO that role); 'vultus db upgrade' grants the role that serves what it "
        "needs.",
    ),
    "25006": (UnavailableError, "The database is read-only."),
    "58": (UnavailableError, "The database server has a problem with its disk; see its log."),
    "XX": (UnavailableError, "The database server reports damage or an internal error; see its log."),
    "22": (InvalidInputError, "A value cannot be stored: a character PostgreSQL does not allow, or out of range."),
}

_TABLES = ("alembic_version", *Base.metadata.tables)


def register_error_handler(engine: AsyncEngine) -> None:
    """Redact the values in every exception of an engine and convert those that a caller can handle."""
    event.listen(engine.sync_engine, "handle_error", _handle_engine_error, retval=True)


# OSError includes TimeoutError and every kind of broken connection; asyncpg raises its internal error when the server
# dies between two messages.
_CONNECTION_ERRORS = (OSError, AsyncpgInterfaceError, InternalClientError)

# SQLAlchemy's wrappers of the driver's exceptions: its own, and inside it the adapter's, which the pool passes on.
_WRAPPER_ERRORS = (exc.DBAPIError, AsyncAdapt_asyncpg_dbapi.Error)


@contextmanager
def translate_errors() -> Iterator[None]:
    """Convert exceptions that bypass the engine's event: pool exhausted, socket refused or broken."""
    try:
        yield
    except exc.TimeoutError as error:  # SQLAlchemy's pool, not the socket
        raise OverloadedError("Every database connection is in use; try again.") from error
    except (PostgresError, *_WRAPPER_ERRORS, *_CONNECTION_ERRORS) as error:
        _remove_values(error)
        failure = find_failure(error)
        if failure is None:
            raise
        raise failure from error


def find_failure(error: BaseException) -> VultusError | None:
    """Return the error that corresponds to an exception of driver or socket; None for a programming error."""
    cause = _get_driver_error(error)
    if isinstance(cause, PostgresError):
        return _convert_postgres_error(cause)
    if isinstance(cause, _CONNECTION_ERRORS):
        return DatabaseUnavailableError(UNREACHABLE_DETAIL)
    # A value that could not be encoded as a parameter, such as a number that JSON lacks.
    if isinstance(cause, ValueError) and isinstance(error, exc.StatementError):
        return InvalidInputError(_SQLSTATE_FAILURES["22"][1])
    return None


def _handle_engine_error(context: ExceptionContext) -> BaseException | None:
    _remove_values(context.original_exception)
    _remove_values(context.sqlalchemy_exception)
    if isinstance(_get_driver_error(context.original_exception), InternalClientError | OSError):
        context.is_disconnect = True  # its state is unknown: it must not return to the pool
    # A pre-ping's failure is handled by the pool.
    return None if context.is_pre_ping else find_failure(context.sqlalchemy_exception or context.original_exception)


def _get_driver_error(error: BaseException) -> BaseException:
    """Return asyncpg's exception, which SQLAlchemy wraps twice."""
    while isinstance(inner := getattr(error, "orig", None), BaseException):
        error = inner
    return error


def _remove_values(error: BaseException | None) -> None:
    """Redact values in an exception's message and details, in place."""
    if error is None or isinstance(error, OSError):
        return
    cause = _get_driver_error(error)
    state = getattr(cause, "sqlstate", None) or ""
    if isinstance(cause, PostgresError):
        cause.detail = cause.hint = cause.internal_query = None
    if state.startswith(_VALUE_QUOTING_CLASSES) or (
        not state and isinstance(cause, AsyncpgInterfaceError | ValueError)
    ):
        message = f"{type(cause).__name__} {state} (message withheld: it may hold values)"
        for layer in (error, getattr(error, "orig", None), cause):
            if layer is not None:
                layer.args = (message,)


def _convert_postgres_error(cause: Any) -> VultusError | None:
    if cause.sqlstate == "42501" and "create extension" in str(cause):
        return ExtensionMissingError(CREATE_EXTENSION_DETAIL)
    constraint, table, state = cause.constraint_name or "", cause.table_name or "", cause.sqlstate or ""
    if state == "42P01" and 'relation "faces_' in str(cause):
        return NotFoundError("The collection is gone.")  # its partition was dropped between two statements
    if state == "42P01" and any(f'relation "{name}"' in str(cause) for name in _TABLES):
        return SchemaNotCurrentError(SCHEMA_GONE_DETAIL)
    if state == "23505" and table.startswith("faces_"):
        constraint = "uq_faces_source"  # PostgreSQL names a partition's indexes itself
    for found in (
        CONSTRAINT_FAILURES.get(constraint),
        *(_SQLSTATE_FAILURES.get(state[:length]) for length in (5, 3, 2)),
    ):
        if found:
            kind, detail = found
            return kind(detail)
    return None
