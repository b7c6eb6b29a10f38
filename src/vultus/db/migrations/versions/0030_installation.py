"""Which installation's keys seal what is sealed here.

Revision ID: 0030
Revises: 0029
"""

from __future__ import annotations

from alembic import op

revision = "0030"
down_revision = "0029"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        "CREATE TABLE installation (is_only boolean DEFAULT true CONSTRAINT pk_installation PRIMARY KEY"
        " CONSTRAINT ck_installation_is_only CHECK (is_only), id uuid NOT NULL)"
    )


def downgrade() -> None:
    op.execute("DROP TABLE installation")
