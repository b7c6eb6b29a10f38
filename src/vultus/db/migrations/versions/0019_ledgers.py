"""Up to where ledgers of erasures have been applied.

Revision ID: 0019
Revises: 0018
"""

from __future__ import annotations

from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        "CREATE TABLE ledgers (id uuid CONSTRAINT pk_ledgers PRIMARY KEY, bytes bigint NOT NULL, digest text NOT NULL,"
        " compared_at timestamptz NOT NULL, database text NOT NULL)"
    )


def downgrade() -> None:
    op.execute("DROP TABLE ledgers")
