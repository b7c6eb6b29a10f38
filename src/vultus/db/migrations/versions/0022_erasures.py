"""Erasures, how far their bytes are gone, and the runs that rewrite the files.

Revision ID: 0022
Revises: 0021
"""

from __future__ import annotations

from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None

TABLES = (
    """
    CREATE TABLE scrubs (
        id uuid CONSTRAINT pk_scrubs PRIMARY KEY,
        started_at timestamptz NOT NULL DEFAULT now(),
        finished_at timestamptz,
        rewritten jsonb NOT NULL DEFAULT '{}',
        report jsonb
    )
    """,
    """
    CREATE TABLE erasures (
        id uuid CONSTRAINT pk_erasures PRIMARY KEY,
        erased_at timestamptz NOT NULL DEFAULT now(),
        action text NOT NULL,
        actor text NOT NULL,
        collection_id uuid NOT NULL,
        person_id uuid,
        object_id uuid,
        persons integer NOT NULL,
        faces integer NOT NULL,
        consents integer NOT NULL,
        crops integer NOT NULL,
        is_sealed boolean NOT NULL DEFAULT false,
        unreadable_at timestamptz,
        scrub_id uuid CONSTRAINT fk_erasures_scrub_id_scrubs REFERENCES scrubs (id),
        scrubbed_at timestamptz,
        backups_expire_at timestamptz
    )
    """,
    "CREATE INDEX ix_erasures_scrub_id ON erasures (scrub_id)",
    "CREATE INDEX ix_erasures_collection_id_id ON erasures (collection_id, id)",
    "CREATE INDEX ix_erasures_person_id_id ON erasures (person_id, id) WHERE person_id IS NOT NULL",
    "CREATE INDEX ix_erasures_unscrubbed ON erasures (id) WHERE scrubbed_at IS NULL",
    # What ended before there was this table is as unscrubbed as what ends from now on.
    """
    INSERT INTO erasures (id, erased_at, action, actor, collection_id, person_id, object_id,
        persons, faces, consents, crops)
    SELECT id, at, action, actor, collection_id, person_id, object_id,
        coalesce((detail->>'persons')::integer, (action = 'person.erased')::integer),
        coalesce((detail->>'faces')::integer, (action = 'face.deleted')::integer),
        coalesce((detail->>'consents')::integer, 0), 0
    FROM audit WHERE collection_id IS NOT NULL
        AND action IN ('person.erased', 'consent.withdrawn', 'consent.expired', 'face.deleted', 'collection.deleted')
    """,
)


def upgrade() -> None:
    for statement in TABLES:
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP TABLE erasures, scrubs")
