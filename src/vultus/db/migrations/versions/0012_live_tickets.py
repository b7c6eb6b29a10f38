"""Tickets of live sessions; unlogged, because they live for seconds: a crash of the server voids them.

Revision ID: 0012
Revises: 0011
"""

from __future__ import annotations

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

STATEMENTS = (
    """
    CREATE UNLOGGED TABLE live_tickets (
        secret_sha256 bytea NOT NULL,
        key_id uuid NOT NULL CONSTRAINT fk_live_tickets_key_id_api_keys REFERENCES api_keys (id) ON DELETE CASCADE,
        collection_id uuid NOT NULL
            CONSTRAINT fk_live_tickets_collection_id_collections REFERENCES collections (id) ON DELETE CASCADE,
        permissions text[] NOT NULL,
        frames_per_second double precision NOT NULL,
        session_s double precision NOT NULL,
        expires_at timestamptz NOT NULL,
        CONSTRAINT pk_live_tickets PRIMARY KEY (secret_sha256)
    )
    """,
    "CREATE INDEX ix_live_tickets_key_id ON live_tickets (key_id)",
    "CREATE INDEX ix_live_tickets_collection_id ON live_tickets (collection_id)",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP TABLE live_tickets")
