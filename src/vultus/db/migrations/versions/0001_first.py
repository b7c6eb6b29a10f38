"""Collections, persons, consents, faces, keys, stored answers and the audit.

Revision ID: 0001
Revises:
"""

from __future__ import annotations

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TABLES = (
    "CREATE EXTENSION IF NOT EXISTS vector",
    """
    CREATE TABLE collections (
        id uuid CONSTRAINT pk_collections PRIMARY KEY,
        name text NOT NULL CONSTRAINT uq_collections_name UNIQUE,
        contract_id text NOT NULL,
        policy jsonb NOT NULL,
        retention_days integer CONSTRAINT ck_collections_retention_days CHECK (retention_days > 0),
        created_at timestamptz NOT NULL DEFAULT now(),
        updated_at timestamptz NOT NULL DEFAULT now()
    )
    """,
    """
    CREATE TABLE persons (
        id uuid CONSTRAINT pk_persons PRIMARY KEY,
        collection_id uuid NOT NULL
            CONSTRAINT fk_persons_collection_id_collections REFERENCES collections (id) ON DELETE CASCADE,
        external_id text,
        name text,
        metadata jsonb NOT NULL DEFAULT '{}',
        created_at timestamptz NOT NULL DEFAULT now(),
        updated_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT uq_persons_collection_id_external_id UNIQUE (collection_id, external_id),
        CONSTRAINT uq_persons_id_collection_id UNIQUE (id, collection_id)
    )
    """,
    "CREATE INDEX ix_persons_collection_id_id ON persons (collection_id, id)",
    """
    CREATE TABLE consents (
        id uuid CONSTRAINT pk_consents PRIMARY KEY,
        collection_id uuid NOT NULL,
        person_id uuid NOT NULL,
        purpose text NOT NULL,
        recorded_by text NOT NULL,
        evidence_ref text,
        granted_at timestamptz NOT NULL,
        expires_at timestamptz NOT NULL DEFAULT 'infinity',
        withdrawn_at timestamptz,
        live boolean NOT NULL GENERATED ALWAYS AS (withdrawn_at IS NULL) STORED,
        CONSTRAINT uq_consents_face UNIQUE (id, person_id, collection_id, live, expires_at),
        CONSTRAINT fk_consents_person_id_persons FOREIGN KEY (person_id, collection_id)
            REFERENCES persons (id, collection_id) ON DELETE CASCADE
    )
    """,
    "CREATE INDEX ix_consents_person_id_id ON consents (person_id, id)",
    "CREATE INDEX ix_consents_ending ON consents (expires_at) WHERE live AND expires_at < 'infinity'",
    """
    CREATE TABLE faces (
        collection_id uuid NOT NULL,
        id uuid NOT NULL,
        person_id uuid NOT NULL,
        consent_id uuid NOT NULL,
        consent_live boolean NOT NULL DEFAULT true CONSTRAINT ck_faces_consent_live CHECK (consent_live),
        consent_expires_at timestamptz NOT NULL,
        contract_id text NOT NULL,
        embedding halfvec NOT NULL,
        size_px real NOT NULL,
        sharpness real NOT NULL,
        brightness real NOT NULL,
        yaw_deg real NOT NULL,
        pitch_deg real NOT NULL,
        roll_deg real NOT NULL,
        score real NOT NULL,
        source_sha256 bytea NOT NULL,
        created_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT pk_faces PRIMARY KEY (collection_id, id),
        CONSTRAINT uq_faces_source UNIQUE (collection_id, person_id, source_sha256, contract_id),
        CONSTRAINT fk_faces_consent_id_consents
            FOREIGN KEY (consent_id, person_id, collection_id, consent_live, consent_expires_at)
            REFERENCES consents (id, person_id, collection_id, live, expires_at)
            ON UPDATE CASCADE ON DELETE CASCADE
    ) PARTITION BY LIST (collection_id)
    """,
    """
    CREATE TABLE api_keys (
        id uuid CONSTRAINT pk_api_keys PRIMARY KEY,
        name text NOT NULL,
        role text NOT NULL,
        secret_sha256 bytea NOT NULL CONSTRAINT uq_api_keys_secret_sha256 UNIQUE,
        created_at timestamptz NOT NULL DEFAULT now(),
        revoked_at timestamptz
    )
    """,
    """
    CREATE TABLE idempotency (
        api_key_id text NOT NULL,
        key text NOT NULL,
        request_sha256 bytea NOT NULL,
        status integer NOT NULL,
        body jsonb NOT NULL,
        person_id uuid CONSTRAINT fk_idempotency_person_id_persons REFERENCES persons (id) ON DELETE CASCADE,
        created_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT pk_idempotency PRIMARY KEY (api_key_id, key)
    )
    """,
    "CREATE INDEX ix_idempotency_person_id ON idempotency (person_id)",
    "CREATE INDEX ix_idempotency_created_at ON idempotency (created_at)",
    """
    CREATE TABLE audit (
        id uuid CONSTRAINT pk_audit PRIMARY KEY,
        at timestamptz NOT NULL DEFAULT now(),
        actor text NOT NULL,
        request_id text,
        action text NOT NULL,
        collection_id uuid,
        person_id uuid,
        object_id uuid,
        detail jsonb NOT NULL DEFAULT '{}'
    )
    """,
    "CREATE INDEX ix_audit_person_id_id ON audit (person_id, id) WHERE person_id IS NOT NULL",
)

# Without TOAST there is no second copy of a template; without statistics ANALYZE makes none.
INLINE = ("embedding", "source_sha256", "contract_id")
UNSAMPLED = {
    "persons": ("external_id", "name", "metadata"),
    "consents": ("purpose", "recorded_by", "evidence_ref"),
    "faces": ("embedding", "source_sha256"),
    "idempotency": ("key", "request_sha256", "body"),
}


def upgrade() -> None:
    for statement in TABLES:
        op.execute(statement)
    for column in INLINE:
        op.execute(f"ALTER TABLE faces ALTER {column} SET STORAGE PLAIN")
    for table, columns in UNSAMPLED.items():
        for column in columns:
            op.execute(f"ALTER TABLE {table} ALTER {column} SET STATISTICS 0")


def downgrade() -> None:
    # The extension stays: other schemas of the database may use it.
    for table in ("audit", "idempotency", "api_keys", "faces", "consents", "persons", "collections"):
        op.execute(f"DROP TABLE {table}")
