"""No two persons have one slot of the file of keys, and the greatest is found at once.

Revision ID: 0029
Revises: 0028
"""

from __future__ import annotations

from alembic import op

revision = "0029"
down_revision = "0028"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("CREATE UNIQUE INDEX uq_persons_key_slot ON persons (key_slot) WHERE key_slot IS NOT NULL")


def downgrade() -> None:
    op.execute("DROP INDEX uq_persons_key_slot")
