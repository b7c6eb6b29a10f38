"""Whether a source's last loss was told, and its return was not yet.

Revision ID: 0017
Revises: 0016
"""

from __future__ import annotations

from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE sources ADD COLUMN is_loss_told boolean NOT NULL DEFAULT false")
    op.execute("UPDATE sources SET is_loss_told = true WHERE state = 'lost'")


def downgrade() -> None:
    op.execute("UPDATE sources SET state = 'lost' WHERE is_loss_told")
    op.execute("ALTER TABLE sources DROP COLUMN is_loss_told")
