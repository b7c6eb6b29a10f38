"""Faces under two contracts at once, retained crops, and the move of a collection from one contract to another.

Revision ID: 0003
Revises: 0002
"""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

TABLES = (
    "ALTER TABLE faces DROP CONSTRAINT pk_faces",
    "ALTER TABLE faces ADD CONSTRAINT pk_faces PRIMARY KEY (collection_id, id, contract_id)",
    """
    CREATE TABLE crops (
        collection_id uuid NOT NULL,
        face_id uuid NOT NULL,
        person_id uuid NOT NULL,
        consent_id uuid NOT NULL,
        consent_live boolean NOT NULL DEFAULT true CONSTRAINT ck_crops_consent_live CHECK (consent_live),
        consent_expires_at timestamptz NOT NULL,
        key_id text NOT NULL,
        sealed bytea NOT NULL,
        CONSTRAINT pk_crops PRIMARY KEY (collection_id, face_id),
        CONSTRAINT fk_crops_consent_id_consents
            FOREIGN KEY (consent_id, person_id, collection_id, consent_live, consent_expires_at)
            REFERENCES consents (id, person_id, collection_id, live, expires_at)
            ON UPDATE CASCADE ON DELETE CASCADE
    )
    """,
    "CREATE INDEX ix_crops_consent_id ON crops (consent_id)",
    "CREATE INDEX ix_crops_key_id ON crops (key_id)",
    "ALTER TABLE crops ALTER sealed SET STORAGE EXTERNAL",  # ciphertext does not compress
    """
    CREATE TABLE transitions (
        collection_id uuid CONSTRAINT pk_transitions PRIMARY KEY
            CONSTRAINT fk_transitions_collection_id_collections REFERENCES collections (id) ON DELETE CASCADE,
        contract_id text NOT NULL,
        shadow_share real NOT NULL,
        begun_at timestamptz NOT NULL DEFAULT now(),
        switched_at timestamptz,
        worker_id uuid,
        leased_until timestamptz,
        policies jsonb,
        shadow_compared integer NOT NULL DEFAULT 0,
        shadow_agreed integer NOT NULL DEFAULT 0
    )
    """,
    """
    CREATE TABLE carry_failures (
        collection_id uuid NOT NULL
            CONSTRAINT fk_carry_failures_collection_id_transitions
            REFERENCES transitions (collection_id) ON DELETE CASCADE,
        face_id uuid NOT NULL,
        contract_id text NOT NULL,
        reason text NOT NULL,
        at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT pk_carry_failures PRIMARY KEY (collection_id, face_id, contract_id)
    )
    """,
    """
    CREATE TABLE shadow_disagreements (
        id uuid CONSTRAINT pk_shadow_disagreements PRIMARY KEY,
        collection_id uuid NOT NULL
            CONSTRAINT fk_shadow_disagreements_collection_id_transitions
            REFERENCES transitions (collection_id) ON DELETE CASCADE,
        at timestamptz NOT NULL DEFAULT now(),
        kind text NOT NULL,
        active_person_id uuid CONSTRAINT fk_shadow_disagreements_active_person_id_persons
            REFERENCES persons (id) ON DELETE CASCADE,
        second_person_id uuid CONSTRAINT fk_shadow_disagreements_second_person_id_persons
            REFERENCES persons (id) ON DELETE CASCADE,
        answers jsonb NOT NULL
    )
    """,
    "CREATE INDEX ix_shadow_disagreements_active_person_id ON shadow_disagreements (active_person_id)",
    "CREATE INDEX ix_shadow_disagreements_second_person_id ON shadow_disagreements (second_person_id)",
    "CREATE INDEX ix_shadow_disagreements_collection_id_id ON shadow_disagreements (collection_id, id)",
)

# Neither a crop nor a failure can exist without its face: whoever adds one holds the face until the transaction ends,
# and the last row of a face takes them with it, by whatever way it goes.
TRIGGERS = (
    """
    CREATE FUNCTION vultus_face_exists() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM FROM faces WHERE collection_id = NEW.collection_id AND id = NEW.face_id FOR KEY SHARE;
        IF NOT FOUND THEN
            RAISE foreign_key_violation USING
                MESSAGE = 'there is no such face', TABLE = TG_TABLE_NAME, CONSTRAINT = 'tg_face_exists';
        END IF;
        RETURN NEW;
    END $$
    """,
    """
    CREATE FUNCTION vultus_face_gone() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF NOT EXISTS (SELECT FROM faces WHERE collection_id = OLD.collection_id AND id = OLD.id) THEN
            DELETE FROM crops WHERE collection_id = OLD.collection_id AND face_id = OLD.id;
            DELETE FROM carry_failures WHERE collection_id = OLD.collection_id AND face_id = OLD.id;
        END IF;
        RETURN NULL;
    END $$
    """,
    """
    CREATE TRIGGER tg_face_exists BEFORE INSERT OR UPDATE OF collection_id, face_id ON crops
        FOR EACH ROW EXECUTE FUNCTION vultus_face_exists()
    """,
    """
    CREATE TRIGGER tg_face_exists BEFORE INSERT OR UPDATE OF collection_id, face_id ON carry_failures
        FOR EACH ROW EXECUTE FUNCTION vultus_face_exists()
    """,
    "CREATE TRIGGER tg_face_gone AFTER DELETE ON faces FOR EACH ROW EXECUTE FUNCTION vultus_face_gone()",
)

UNSAMPLED = {
    "crops": ("sealed",),
}


def upgrade() -> None:
    for statement in (*TABLES, *TRIGGERS):
        op.execute(statement)
    for table, columns in UNSAMPLED.items():
        for column in columns:
            op.execute(f"ALTER TABLE {table} ALTER {column} SET STATISTICS 0")


def downgrade() -> None:
    op.execute("DROP TRIGGER tg_face_gone ON faces")
    for table in ("shadow_disagreements", "carry_failures", "transitions", "crops"):
        op.execute(f"DROP TABLE {table}")
    op.execute("DROP FUNCTION vultus_face_exists(), vultus_face_gone()")
    # One row a face: that of the contract that is searched, else the one there is.
    op.execute(
        """
        DELETE FROM faces USING collections
        WHERE collections.id = faces.collection_id AND faces.contract_id <> collections.contract_id AND EXISTS (
            SELECT FROM faces AS kept
            WHERE kept.collection_id = faces.collection_id AND kept.id = faces.id
                AND kept.contract_id = collections.contract_id
        )
        """
    )
    op.execute("UPDATE collections SET second_contract_id = NULL")
    op.execute("ALTER TABLE faces DROP CONSTRAINT pk_faces")
    op.execute("ALTER TABLE faces ADD CONSTRAINT pk_faces PRIMARY KEY (collection_id, id)")
