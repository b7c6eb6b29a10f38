"""Templates that are sealed by a key per person, and the slots of keys that are to be destroyed.

Revision ID: 0021
Revises: 0020
"""

from __future__ import annotations

from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

STATEMENTS = (
    "ALTER TABLE persons ADD COLUMN key_slot bigint",
    # Whichever way a person is deleted or gets another key: the old key is destroyed after the commit.
    "CREATE TABLE spent_keys (slot bigint, person_id uuid, CONSTRAINT pk_spent_keys PRIMARY KEY (slot, person_id))",
    """
    CREATE FUNCTION spend_person_keys() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO spent_keys (slot, person_id) VALUES (OLD.key_slot, OLD.id) ON CONFLICT DO NOTHING;
        RETURN NULL;
    END $$
    """,
    """
    CREATE TRIGGER spend_deleted_key AFTER DELETE ON persons FOR EACH ROW
    WHEN (OLD.key_slot IS NOT NULL) EXECUTE FUNCTION spend_person_keys()
    """,
    """
    CREATE TRIGGER spend_replaced_key AFTER UPDATE OF key_slot ON persons FOR EACH ROW
    WHEN (OLD.key_slot IS NOT NULL AND OLD.key_slot IS DISTINCT FROM NEW.key_slot)
    EXECUTE FUNCTION spend_person_keys()
    """,
    "ALTER TABLE faces ALTER COLUMN embedding DROP NOT NULL",
    # In one statement, so that no TOAST table is made.
    "ALTER TABLE faces ADD sealed bytea, ALTER sealed SET STORAGE PLAIN, ALTER sealed SET STATISTICS 0",
    "ALTER TABLE faces ADD CONSTRAINT ck_faces_sealed CHECK (num_nonnulls(embedding, sealed) = 1)",
    # A code is made of the vector: of a sealed one it is kept in memory alone.
    "ALTER TABLE faces ADD CONSTRAINT ck_faces_sealed_code CHECK (sealed IS NULL OR code IS NULL)",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    op.execute("DELETE FROM faces WHERE sealed IS NOT NULL")
    op.execute("ALTER TABLE faces DROP COLUMN sealed")
    op.execute("ALTER TABLE faces ALTER COLUMN embedding SET NOT NULL")
    op.execute("DROP TRIGGER spend_deleted_key ON persons")
    op.execute("DROP TRIGGER spend_replaced_key ON persons")
    op.execute("DROP FUNCTION spend_person_keys")
    op.execute("DROP TABLE spent_keys")
    op.execute("ALTER TABLE persons DROP COLUMN key_slot")
