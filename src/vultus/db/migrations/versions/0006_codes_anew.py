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


def upgrade() -> None:
    op.execute("UPDATE faces SET code = NULL WHERE code IS NOT NULL")
    op.execute("DELETE FROM codings")


downgrade = upgrade
