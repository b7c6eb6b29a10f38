"""The secret of the key that made a ticket, by its digest: a session ends when that is no longer accepted.

Tickets that were made before live for seconds, and are void.

Revision ID: 0018
Revises: 0017
"""

from __future__ import annotations

from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("DELETE FROM live_tickets")
    op.execute("ALTER TABLE live_tickets ADD COLUMN key_sha256 bytea NOT NULL")


def downgrade() -> None:
    op.execute("ALTER TABLE live_tickets DROP COLUMN key_sha256")
