"""Crops that the key of their person seals: only those of version 0.1 still name another key.

Revision ID: 0025
Revises: 0024
"""

from __future__ import annotations

from alembic import op

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None

STATEMENTS = (
    "ALTER TABLE crops ALTER COLUMN key_id DROP NOT NULL",
    "DROP INDEX ix_crops_key_id",
    # Empty once they are sealed anew, which is found out at every start.
    "CREATE INDEX ix_crops_old ON crops (collection_id, face_id) WHERE key_id IS NOT NULL",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    op.execute("DELETE FROM crops WHERE key_id IS NULL")
    op.execute("DROP INDEX ix_crops_old")
    op.execute("CREATE INDEX ix_crops_key_id ON crops (key_id)")
    op.execute("ALTER TABLE crops ALTER COLUMN key_id SET NOT NULL")
