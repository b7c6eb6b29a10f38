"""An idempotency key outlives the person its answer named: the answer goes, and a late retry stores nobody again.

Of the key only its SHA-256 is stored. Answers keep the order of their members.

Revision ID: 0009
Revises: 0008
"""

from __future__ import annotations

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

UPGRADE = (
    """
    ALTER TABLE idempotency
        ALTER key TYPE bytea USING sha256(convert_to(key, 'UTF8')),
        ALTER body TYPE json USING body::json,
        ALTER body DROP NOT NULL,
        DROP CONSTRAINT fk_idempotency_person_id_persons,
        ADD CONSTRAINT fk_idempotency_person_id_persons
            FOREIGN KEY (person_id) REFERENCES persons (id) ON DELETE SET NULL
    """,
    "ALTER TABLE idempotency RENAME key TO key_sha256",
    """
    CREATE FUNCTION vultus_answer_forgotten() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        NEW.body := NULL;
        RETURN NEW;
    END $$
    """,
    """
    CREATE TRIGGER idempotency_person_erased BEFORE UPDATE OF person_id ON idempotency
        FOR EACH ROW WHEN (OLD.person_id IS NOT NULL AND NEW.person_id IS NULL)
        EXECUTE FUNCTION vultus_answer_forgotten()
    """,
    "ALTER TABLE idempotency ALTER key_sha256 SET STATISTICS 0, ALTER body SET STATISTICS 0",
)

DOWNGRADE = (
    "DROP TRIGGER idempotency_person_erased ON idempotency",
    "DROP FUNCTION vultus_answer_forgotten()",
    "DELETE FROM idempotency",  # the words of the keys are not known
    "ALTER TABLE idempotency RENAME key_sha256 TO key",
    """
    ALTER TABLE idempotency
        ALTER key TYPE text USING encode(key, 'hex'),
        ALTER body TYPE jsonb USING body::jsonb,
        ALTER body SET NOT NULL,
        DROP CONSTRAINT fk_idempotency_person_id_persons,
        ADD CONSTRAINT fk_idempotency_person_id_persons
            FOREIGN KEY (person_id) REFERENCES persons (id) ON DELETE CASCADE
    """,
    "ALTER TABLE idempotency ALTER key SET STATISTICS 0, ALTER body SET STATISTICS 0",
)


def upgrade() -> None:
    for statement in UPGRADE:
        op.execute(statement)


def downgrade() -> None:
    for statement in DOWNGRADE:
        op.execute(statement)
