"""What the role that serves may do: rows, no tables; and of some tables less.

One role owns the tables and migrates them, another serves. Here alone is written what that one is granted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import text

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

COMMON_PRIVILEGES = "SELECT, INSERT, UPDATE, DELETE"
SPECIAL_PRIVILEGES = {
    "alembic_version": "SELECT",
    "audit": "SELECT, INSERT",
    "audit_changes": "SELECT, INSERT",
    "audit_links": "SELECT, INSERT",
    "decisions": "SELECT, INSERT, DELETE",
    "ledgers": "SELECT, INSERT, UPDATE",
    "outbox_floor": "SELECT, UPDATE",
}
"""Of tables whose rows are not the service's to change or delete; audit entries go for their age, by a function."""

_LIST_OWNED = text(
    "SELECT quote_ident(relname) AS quoted, relname AS name, relkind::text AS kind FROM pg_class"
    " WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'p', 'S')"
    " AND pg_has_role(relowner, 'USAGE')"
)
_LIST_FUNCTIONS = text(
    "SELECT oid::regprocedure::text FROM pg_proc WHERE pronamespace = current_schema()::regnamespace AND prosecdef"
    " AND proname LIKE 'vultus\\_%' AND pg_has_role(proowner, 'USAGE')"
)
_LIST_MISSING_ACCESS = text(
    """
    SELECT format('GRANT USAGE ON SCHEMA %I TO %I', current_schema(), CAST(:role AS text))
    WHERE NOT has_schema_privilege(:role, current_schema(), 'USAGE')
    UNION ALL
    SELECT format('GRANT CONNECT, TEMPORARY ON DATABASE %I TO %I', current_database(), CAST(:role AS text))
    WHERE NOT has_database_privilege(:role, current_database(), 'CONNECT')
        OR NOT has_database_privilege(:role, current_database(), 'TEMPORARY')
    """
)


async def fetch_role(connection: AsyncConnection) -> str:
    """Return the role of a connection."""
    return str((await connection.execute(text("SELECT current_user"))).scalar_one())


async def is_granted(connection: AsyncConnection, role: str) -> bool:
    """Return whether a role was granted its privileges on the tables; the connection is the owner's."""
    query = text("SELECT has_table_privilege(:role, 'alembic_version', 'SELECT')")
    return bool((await connection.execute(query, {"role": role})).scalar_one())


async def grant_privileges(connection: AsyncConnection, role: str) -> None:
    """Grant a role what it needs to serve, and take away everything else; nothing if it is the connection's own.

    Args:
        connection: The owner's, in a transaction.
        role: It need not exist longer than this; what it owns is not changed.
    """
    if role == await fetch_role(connection):
        return
    quoted = (await connection.execute(text("SELECT quote_ident(:role)"), {"role": role})).scalar_one()
    statements = list((await connection.execute(_LIST_MISSING_ACCESS, {"role": role})).scalars())
    owned = (await connection.execute(_LIST_OWNED)).all()
    tables = [row for row in owned if row.kind != "S"]
    if tables:
        statements.append(f"REVOKE ALL ON {', '.join(row.quoted for row in tables)} FROM {quoted}")
    if common := [row.quoted for row in tables if row.name not in SPECIAL_PRIVILEGES]:
        statements.append(f"GRANT {COMMON_PRIVILEGES} ON {', '.join(common)} TO {quoted}")
    for row in tables:
        if special := SPECIAL_PRIVILEGES.get(row.name):
            statements.append(f"GRANT {special} ON {row.quoted} TO {quoted}")
    if sequences := [row.quoted for row in owned if row.kind == "S"]:
        statements.append(f"GRANT USAGE, SELECT ON SEQUENCE {', '.join(sequences)} TO {quoted}")
    for function in (await connection.execute(_LIST_FUNCTIONS)).scalars():
        statements += [
            f"REVOKE ALL ON FUNCTION {function} FROM PUBLIC",
            f"GRANT EXECUTE ON FUNCTION {function} TO {quoted}",
        ]
    for statement in statements:
        await connection.exec_driver_sql(statement)
