"""Persons end who are not seen; decision records.

Revision ID: 0023
Revises: 0022
"""

from __future__ import annotations

from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None

STATEMENTS = (
    "ALTER TABLE collections ADD unseen_days integer CONSTRAINT ck_collections_unseen_days CHECK (unseen_days > 0)",
    "ALTER TABLE consents ADD seen_at timestamptz, ADD granted_until timestamptz",
    "ALTER TABLE consents ADD CONSTRAINT ck_consents_seen CHECK ((seen_at IS NULL) = (granted_until IS NULL))",
    """
    CREATE TABLE decisions (
        id uuid NOT NULL CONSTRAINT pk_decisions PRIMARY KEY,
        at timestamptz NOT NULL DEFAULT now(),
        kind text NOT NULL,
        actor text NOT NULL,
        request_id text,
        collection_id uuid NOT NULL
            CONSTRAINT fk_decisions_collection_id_collections REFERENCES collections (id) ON DELETE CASCADE,
        person_id uuid CONSTRAINT fk_decisions_person_id_persons REFERENCES persons (id) ON DELETE SET NULL,
        consent_id uuid CONSTRAINT fk_decisions_consent_id_consents REFERENCES consents (id) ON DELETE SET NULL,
        origin_id uuid,
        track_id uuid,
        verdict text NOT NULL,
        band text,
        similarity real,
        threshold real NOT NULL,
        detail jsonb NOT NULL
    )
    """,
    "CREATE INDEX ix_decisions_at ON decisions (at)",
    "CREATE INDEX ix_decisions_collection_id_id ON decisions (collection_id, id)",
    "CREATE INDEX ix_decisions_person_id_id ON decisions (person_id, id) WHERE person_id IS NOT NULL",
    "CREATE INDEX ix_decisions_consent_id ON decisions (consent_id) WHERE consent_id IS NOT NULL",
    "CREATE INDEX ix_decisions_request_id ON decisions (request_id) WHERE request_id IS NOT NULL",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP TABLE decisions")
    op.execute(
        "UPDATE consents SET expires_at = granted_until WHERE live AND expires_at > now() AND seen_at IS NOT NULL"
    )
    op.execute("ALTER TABLE consents DROP seen_at, DROP granted_until")
    op.execute("ALTER TABLE collections DROP unseen_days")
