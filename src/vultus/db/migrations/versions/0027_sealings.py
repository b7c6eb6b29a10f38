"""Which collections once were open and have been, or are being, sealed.

Revision ID: 0027
Revises: 0026
"""

from __future__ import annotations

from alembic import op

revision = "0027"
down_revision = "0026"
branch_labels = None
depends_on = None

STATEMENTS = (
    """
    CREATE TABLE sealings (
        collection_id uuid NOT NULL,
        total bigint NOT NULL,
        sealed bigint DEFAULT 0 NOT NULL,
        last_number bigint DEFAULT 0 NOT NULL,
        begun_at timestamp with time zone DEFAULT now() NOT NULL,
        finished_at timestamp with time zone,
        CONSTRAINT pk_sealings PRIMARY KEY (collection_id),
        CONSTRAINT fk_sealings_collection_id_collections FOREIGN KEY (collection_id)
            REFERENCES collections (id) ON DELETE CASCADE
    )
    """,
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP TABLE sealings")
