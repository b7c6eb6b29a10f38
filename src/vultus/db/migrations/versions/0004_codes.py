"""Numbers that say which faces are newer than an index, one-bit codes, and what the codes are made with.

Revision ID: 0004
Revises: 0003
"""

from __future__ import annotations

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

STATEMENTS = (
    "CREATE SEQUENCE face_numbers",
    # In one statement, which makes no TOAST table: all its columns are plain when it ends.
    """
    ALTER TABLE faces
        ADD number bigint NOT NULL DEFAULT nextval('face_numbers'),
        ADD code bytea,
        ALTER code SET STORAGE PLAIN,
        ALTER code SET STATISTICS 0
    """,
    "CREATE INDEX ix_faces_number ON faces (number)",
    """
    CREATE TABLE codings (
        collection_id uuid NOT NULL
            CONSTRAINT fk_codings_collection_id_collections REFERENCES collections (id) ON DELETE CASCADE,
        contract_id text NOT NULL,
        centre halfvec NOT NULL,
        bits integer NOT NULL,
        made_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT pk_codings PRIMARY KEY (collection_id, contract_id)
    )
    """,
    "ALTER TABLE codings ALTER centre SET STORAGE PLAIN, ALTER centre SET STATISTICS 0",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP TABLE codings")
    op.execute("ALTER TABLE faces DROP number, DROP code")
    op.execute("DROP SEQUENCE face_numbers")
