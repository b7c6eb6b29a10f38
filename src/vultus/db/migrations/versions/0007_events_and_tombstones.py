"""The outbox of events, and tombstones: the numbers of erased templates, for the indexes that held them.

Revision ID: 0007
Revises: 0006
"""

from __future__ import annotations

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

TABLES = (
    """
    CREATE TABLE outbox (
        number bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT pk_outbox PRIMARY KEY,
        created_at timestamptz NOT NULL DEFAULT now(),
        action text NOT NULL,
        collection_id uuid,
        person_id uuid,
        object_id uuid,
        detail jsonb NOT NULL
    )
    """,
    "CREATE INDEX ix_outbox_created_at ON outbox (created_at)",
    """
    CREATE TABLE tombstones (
        collection_id uuid NOT NULL,
        contract_id text NOT NULL,
        number bigint NOT NULL,
        numbers bigint[] NOT NULL,
        created_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT pk_tombstones PRIMARY KEY (collection_id, contract_id, number)
    )
    """,
    "CREATE INDEX ix_tombstones_created_at ON tombstones (created_at)",
)

# One tombstone per statement, collection and contract. The collection's lock (`vultus.db.locks.lock_collection`) makes
# the numbers consecutive in the order of commits, whoever deletes; those who hold it already wait for nobody.
FUNCTION = r"""
    CREATE FUNCTION vultus_template_erased() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM pg_advisory_xact_lock(
            ('x' || encode(substr(sha256(convert_to('10:collection36:' || id, 'UTF8')), 1, 8), 'hex'))::bit(64)::bigint
        ) FROM (SELECT DISTINCT collection_id::text AS id FROM erased ORDER BY 1) AS locked;
        INSERT INTO tombstones (collection_id, contract_id, number, numbers)
        SELECT collection_id, contract_id, 1 + coalesce(
            (
                SELECT max(earlier.number) FROM tombstones AS earlier
                WHERE earlier.collection_id = erased.collection_id AND earlier.contract_id = erased.contract_id
            ), 0
        ), array_agg(number)
        FROM erased GROUP BY collection_id, contract_id;
        RETURN NULL;
    END $$
"""
TRIGGER = (
    "CREATE TRIGGER tg_template_erased AFTER DELETE ON {table} REFERENCING OLD TABLE AS erased"
    " FOR EACH STATEMENT EXECUTE FUNCTION vultus_template_erased()"
)
# A trigger for each statement does not descend to partitions; one that names a partition fires the partition's.
PARTITION_TRIGGERS = f"""
    DO $$ DECLARE partition regclass; BEGIN
        FOR partition IN SELECT inhrelid FROM pg_inherits WHERE inhparent = 'faces'::regclass LOOP
            EXECUTE format('{TRIGGER.format(table="%s")}', partition);
        END LOOP;
    END $$
"""  # noqa: S608  a constant


def upgrade() -> None:
    for statement in (*TABLES, FUNCTION, TRIGGER.format(table="faces"), PARTITION_TRIGGERS):
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP FUNCTION vultus_template_erased CASCADE")  # with its triggers
    op.execute("DROP TABLE outbox, tombstones")
