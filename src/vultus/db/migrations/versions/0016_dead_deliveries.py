"""An index for dead deliveries, which are few among all that are kept.

Revision ID: 0016
Revises: 0015
"""

from __future__ import annotations

from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        "CREATE INDEX ix_webhook_deliveries_dead ON webhook_deliveries (webhook_id, number) WHERE state = 'dead'"
    )


def downgrade() -> None:
    op.execute("DROP INDEX ix_webhook_deliveries_dead")
