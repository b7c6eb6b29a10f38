"""What keys do within a time, counted for all servers; unlogged, so that no request waits for the disk.

Revision ID: 0010
Revises: 0009
"""

from __future__ import annotations

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

STATEMENTS = (
    """
    ALTER TABLE api_keys ADD searches_per_hour integer,
        ADD CONSTRAINT ck_api_keys_searches_per_hour CHECK (searches_per_hour > 0)
    """,
    """
    CREATE UNLOGGED TABLE key_usage (
        key_id uuid NOT NULL CONSTRAINT fk_key_usage_key_id_api_keys REFERENCES api_keys (id) ON DELETE CASCADE,
        hour timestamptz NOT NULL,
        searches bigint NOT NULL,
        CONSTRAINT pk_key_usage PRIMARY KEY (key_id, hour)
    )
    """,
    """
    CREATE UNLOGGED TABLE verification_failures (
        key_id uuid NOT NULL
            CONSTRAINT fk_verification_failures_key_id_api_keys REFERENCES api_keys (id) ON DELETE CASCADE,
        person_id uuid NOT NULL
            CONSTRAINT fk_verification_failures_person_id_persons REFERENCES persons (id) ON DELETE CASCADE,
        forgotten_at timestamptz NOT NULL,
        blocked_until timestamptz NOT NULL,
        CONSTRAINT pk_verification_failures PRIMARY KEY (key_id, person_id)
    )
    """,
    "CREATE INDEX ix_verification_failures_person_id ON verification_failures (person_id)",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP TABLE key_usage, verification_failures")
    op.execute("ALTER TABLE api_keys DROP searches_per_hour")
