"""Turns what the driver and SQLAlchemy raise into the failures a caller can act on.

PostgreSQL's messages repeat values: "Key (name)=(Ada) already exists", "Failing row contains (…, [0.1,0.2,…])". Names
and vectors must reach neither a log nor a traceback, so every message is replaced by what cannot hold a value.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from asyncpg import InterfaceError as AsyncpgInterfaceError
from asyncpg import InternalClientError, PostgresError
from sqlalchemy import event, exc
from sqlalchemy.dialects.postgresql.asyncpg import AsyncAdapt_asyncpg_dbapi

from vultus.errors import (
    AlreadyExistsError,
    ConflictError,
    DatabaseUnavailableError,
    InvalidInputError,
    NotFoundError,
    OverloadedError,
    UnavailableError,
    VultusError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.engine import ExceptionContext
    from sqlalchemy.ext.asyncio import AsyncEngine

BY_CONSTRAINT: dict[str, tuple[type[VultusError], str]] = {
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
    "ck_collections_retention_days": (InvalidInputError, "The retention must be at least one day."),
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

_QUOTING = ("22", "XX", "P0")  # classes of SQLSTATE whose messages quote values

DOWN = "The database cannot be reached. It may be starting; try again."
BUSY = "The database is busy; try again."

# SQLSTATE classes and codes, https://www.postgresql.org/docs/current/errcodes-appendix.html
_BY_STATE: dict[str, tuple[type[VultusError], str]] = {
    "08": (DatabaseUnavailableError, DOWN),
    "57P": (DatabaseUnavailableError, DOWN),
    "28": (DatabaseUnavailableError, "The database refused the user or password of VULTUS_DATABASE__URL."),
    "3D": (DatabaseUnavailableError, "The database named in VULTUS_DATABASE__URL does not exist."),
    "57014": (UnavailableError, "The database took longer than database.statement_timeout_ms; try again."),
    "53": (OverloadedError, BUSY),
    "55P03": (OverloadedError, BUSY),
    "40": (OverloadedError, BUSY),
    "25006": (UnavailableError, "The database is read-only."),
    "58": (UnavailableError, "The database server has a problem with its disk; see its log."),
    "XX": (UnavailableError, "The database server reports damage or an internal error; see its log."),
    "22": (InvalidInputError, "A value cannot be stored: a character PostgreSQL does not allow, or out of range."),
}


def watch(engine: AsyncEngine) -> None:
    """Make everything an engine raises value-free and, where a caller can act on it, one of the project's errors."""
    event.listen(engine.sync_engine, "handle_error", _on_error, retval=True)


# OSError includes TimeoutError and every kind of broken connection; asyncpg's internal error is what it says when the
# server dies between two messages.
_BROKEN = (OSError, AsyncpgInterfaceError, InternalClientError)

# What SQLAlchemy makes of the driver's exceptions: its own, and beneath it the adapter's, which a pool lets through.
_WRAPPED = (exc.DBAPIError, AsyncAdapt_asyncpg_dbapi.Error)


@contextmanager
def translated() -> Iterator[None]:
    """Translate what an engine's event does not see: a full pool, a socket that cannot be opened or broke."""
    try:
        yield
    except exc.TimeoutError as error:  # SQLAlchemy's pool, not the socket
        raise OverloadedError("Every database connection is in use; try again.") from error
    except (PostgresError, *_WRAPPED, *_BROKEN) as error:
        _withhold(error)
        failure = failure_of(error)
        if failure is None:
            raise
        raise failure from error


def failure_of(error: BaseException) -> VultusError | None:
    """Return the failure that an exception of the driver or the socket means; None for a programming error."""
    cause = _driver_error(error)
    if isinstance(cause, PostgresError):
        return _of_postgres(cause)
    if isinstance(cause, _BROKEN):
        return DatabaseUnavailableError(DOWN)
    # A value that could not be made a parameter, such as a number JSON does not know.
    if isinstance(cause, ValueError) and isinstance(error, exc.StatementError):
        return InvalidInputError(_BY_STATE["22"][1])
    return None


def _on_error(context: ExceptionContext) -> BaseException | None:
    _withhold(context.original_exception)
    _withhold(context.sqlalchemy_exception)
    if isinstance(_driver_error(context.original_exception), InternalClientError | OSError):
        context.is_disconnect = True  # whatever state the connection is in, nobody should get it again
    # The pool asks whether a connection still lives; it handles the answer itself.
    return None if context.is_pre_ping else failure_of(context.sqlalchemy_exception or context.original_exception)


def _driver_error(error: BaseException) -> BaseException:
    """Return asyncpg's exception behind SQLAlchemy's, which wraps it twice."""
    while isinstance(inner := getattr(error, "orig", None), BaseException):
        error = inner
    return error


def _withhold(error: BaseException | None) -> None:
    """Remove values from an exception's message and details, in place."""
    if error is None or isinstance(error, OSError):
        return
    cause = _driver_error(error)
    state = getattr(cause, "sqlstate", None) or ""
    if isinstance(cause, PostgresError):
        cause.detail = cause.hint = cause.internal_query = None
    if state.startswith(_QUOTING) or (not state and isinstance(cause, AsyncpgInterfaceError | ValueError)):
        words = f"{type(cause).__name__} {state} (message withheld: it may hold values)"
        for layer in (error, getattr(error, "orig", None), cause):
            if layer is not None:
                layer.args = (words,)


def _of_postgres(cause: Any) -> VultusError | None:
    constraint, table, state = cause.constraint_name or "", cause.table_name or "", cause.sqlstate or ""
    if state == "42P01" and 'relation "faces_' in str(cause):
        return NotFoundError("The collection is gone.")  # its partition was dropped between two statements
    if state == "23505" and table.startswith("faces_"):
        constraint = "uq_faces_source"  # PostgreSQL names a partition's indexes itself
    for found in (BY_CONSTRAINT.get(constraint), *(_BY_STATE.get(state[:length]) for length in (5, 3, 2))):
        if found:
            kind, detail = found
            return kind(detail)
    return None
