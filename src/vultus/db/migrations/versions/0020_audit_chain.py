"""The chain of the audit record.

Revision ID: 0020
Revises: 0019
"""

from __future__ import annotations

from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        "CREATE TABLE audit_links (number bigint CONSTRAINT pk_audit_links PRIMARY KEY,"
        " entry_id uuid NOT NULL CONSTRAINT uq_audit_links_entry_id UNIQUE, at timestamptz NOT NULL,"
        " content bytea NOT NULL, digest bytea NOT NULL)"
    )


def downgrade() -> None:
    op.execute("DROP TABLE audit_links")
