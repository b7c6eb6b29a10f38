"""How a collection is searched, and the HNSW graph of one that is searched along it.

Revision ID: 0005
Revises: 0004
"""

from __future__ import annotations

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

ADD = """
    ALTER TABLE collections
        ADD search text NOT NULL DEFAULT 'auto',
        ADD graph jsonb,
        ADD CONSTRAINT ck_collections_search CHECK (search IN ('auto', 'exact', 'hnsw')),
        ADD CONSTRAINT ck_collections_graph CHECK ((search = 'hnsw') = (graph IS NOT NULL))
"""
DROP_GRAPHS = r"""
    DO $$ DECLARE partition text; BEGIN
        FOR partition IN SELECT tablename FROM pg_indexes WHERE indexname = tablename || '_hnsw'
            AND tablename LIKE 'faces\_%' AND schemaname = current_schema()
        LOOP
            EXECUTE format('DROP INDEX %I', partition || '_hnsw');
            EXECUTE format('ALTER TABLE %I RESET (vacuum_index_cleanup, autovacuum_vacuum_threshold,'
                           ' autovacuum_vacuum_scale_factor)', partition);
        END LOOP;
    END $$
"""


def upgrade() -> None:
    op.execute(ADD)


def downgrade() -> None:
    op.execute(DROP_GRAPHS)
    op.execute("ALTER TABLE collections DROP search, DROP graph")
