"""Sightings in the outbox, which go with their person; ids of events; how far the outbox was deleted.

Revision ID: 0011
Revises: 0010
"""

from __future__ import annotations

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

STATEMENTS = (
    """
    ALTER TABLE outbox
        ADD id uuid NOT NULL DEFAULT gen_random_uuid() CONSTRAINT uq_outbox_id UNIQUE,
        ADD sighted_person_id uuid
            CONSTRAINT fk_outbox_sighted_person_id_persons REFERENCES persons (id) ON DELETE CASCADE
    """,
    "CREATE INDEX ix_outbox_sighted_person_id ON outbox (sighted_person_id) WHERE sighted_person_id IS NOT NULL",
    "CREATE TABLE outbox_floor (number bigint NOT NULL CONSTRAINT pk_outbox_floor PRIMARY KEY)",
    "INSERT INTO outbox_floor (number) VALUES (0)",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP TABLE outbox_floor")
    op.execute("DELETE FROM outbox WHERE sighted_person_id IS NOT NULL")
    op.execute("ALTER TABLE outbox DROP sighted_person_id, DROP id")
