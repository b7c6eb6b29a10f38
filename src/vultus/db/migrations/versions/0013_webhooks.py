"""Webhooks, their deliveries, and which persons they have heard of.

Revision ID: 0013
Revises: 0012
"""

from __future__ import annotations

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

STATEMENTS = (
    "ALTER TABLE outbox ADD receivers uuid[]",
    """
    CREATE TABLE webhooks (
        id uuid NOT NULL CONSTRAINT pk_webhooks PRIMARY KEY,
        key_id uuid CONSTRAINT fk_webhooks_key_id_api_keys REFERENCES api_keys (id),
        name text NOT NULL,
        url text NOT NULL,
        collections uuid[],
        actions text[],
        with_names boolean NOT NULL,
        sealed_secret bytea NOT NULL,
        sealed_previous bytea,
        previous_until timestamptz,
        position bigint NOT NULL,
        busy_until timestamptz,
        created_at timestamptz NOT NULL DEFAULT now(),
        failing_since timestamptz,
        disabled_at timestamptz,
        disabled_reason text,
        CONSTRAINT ck_webhooks_previous CHECK ((sealed_previous IS NULL) = (previous_until IS NULL)),
        CONSTRAINT ck_webhooks_disabled CHECK ((disabled_at IS NULL) = (disabled_reason IS NULL))
    )
    """,
    """
    CREATE TABLE webhook_deliveries (
        webhook_id uuid NOT NULL
            CONSTRAINT fk_webhook_deliveries_webhook_id_webhooks REFERENCES webhooks (id) ON DELETE CASCADE,
        number bigint NOT NULL
            CONSTRAINT fk_webhook_deliveries_number_outbox REFERENCES outbox (number) ON DELETE CASCADE,
        lane uuid NOT NULL,
        state text NOT NULL DEFAULT 'waiting',
        attempts integer NOT NULL DEFAULT 0,
        due_at timestamptz NOT NULL,
        leased_until timestamptz,
        last_attempt_at timestamptz,
        last_status integer,
        last_error text,
        CONSTRAINT pk_webhook_deliveries PRIMARY KEY (webhook_id, number),
        CONSTRAINT ck_webhook_deliveries_state CHECK (state IN ('waiting', 'delivered', 'dead'))
    )
    """,
    "CREATE INDEX ix_webhook_deliveries_number ON webhook_deliveries (number)",
    """
    CREATE INDEX ix_webhook_deliveries_waiting ON webhook_deliveries (webhook_id, lane, number)
        WHERE state = 'waiting'
    """,
    """
    CREATE TABLE webhook_persons (
        webhook_id uuid NOT NULL
            CONSTRAINT fk_webhook_persons_webhook_id_webhooks REFERENCES webhooks (id) ON DELETE CASCADE,
        person_id uuid NOT NULL
            CONSTRAINT fk_webhook_persons_person_id_persons REFERENCES persons (id) ON DELETE CASCADE,
        CONSTRAINT pk_webhook_persons PRIMARY KEY (person_id, webhook_id)
    )
    """,
    "CREATE INDEX ix_webhook_persons_webhook_id ON webhook_persons (webhook_id)",
    "ALTER TABLE webhooks ALTER url SET STATISTICS 0, ALTER sealed_secret SET STATISTICS 0,"
    " ALTER sealed_previous SET STATISTICS 0",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP TABLE webhook_persons, webhook_deliveries, webhooks")
    op.execute("ALTER TABLE outbox DROP receivers")
