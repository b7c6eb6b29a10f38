"""Codes of planes at right angles, with the clearance: those made before are made again, by the server.

Revision ID: 0006
Revises: 0005
"""

from __future__ import annotations

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

# Another column of the same name: no row is written anew, however many there are.
STATEMENTS = (
    "ALTER TABLE faces DROP code, ADD code bytea, ALTER code SET STORAGE PLAIN, ALTER code SET STATISTICS 0",
    "DELETE FROM codings",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


downgrade = upgrade
