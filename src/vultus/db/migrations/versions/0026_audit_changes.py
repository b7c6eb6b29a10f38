"""Values about persons that changed, beside the audit record.

Revision ID: 0026
Revises: 0025
"""

from __future__ import annotations

from alembic import op

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None

STATEMENTS = (
    """
    CREATE TABLE audit_changes (
        entry_id uuid CONSTRAINT pk_audit_changes PRIMARY KEY
            CONSTRAINT fk_audit_changes_entry_id_audit REFERENCES audit (id) ON DELETE CASCADE,
        person_id uuid NOT NULL
            CONSTRAINT fk_audit_changes_person_id_persons REFERENCES persons (id) ON DELETE CASCADE,
        changes text NOT NULL
    )
    """,
    "CREATE INDEX ix_audit_changes_person_id ON audit_changes (person_id)",
    "ALTER TABLE audit_changes ALTER changes SET STATISTICS 0",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP TABLE audit_changes")
