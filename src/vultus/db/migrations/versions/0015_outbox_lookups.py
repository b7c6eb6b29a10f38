"""Indexes for the events of a person, and for the sightings of a session or source.

Revision ID: 0015
Revises: 0014
"""

from __future__ import annotations

from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("CREATE INDEX ix_outbox_person_id_number ON outbox (person_id, number) WHERE person_id IS NOT NULL")
    op.execute("CREATE INDEX ix_outbox_object_id_number ON outbox (object_id, number) WHERE object_id IS NOT NULL")


def downgrade() -> None:
    op.execute("DROP INDEX ix_outbox_person_id_number, ix_outbox_object_id_number")
