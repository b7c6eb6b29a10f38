"""Nothing rests on a consent that has ended, and a consent that has ended stays so.

Revision ID: 0028
Revises: 0027
"""

from __future__ import annotations

from alembic import op

revision = "0028"
down_revision = "0027"
branch_labels = None
depends_on = None

# The condition of a trigger costs a comparison per row, and no call where it does not hold. What has expired and is not
# swept yet stays as it is: a restored dump gets its triggers after its rows.
STATEMENTS = (
    """
    CREATE FUNCTION vultus_consent_ended() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        RAISE EXCEPTION 'the consent has ended' USING ERRCODE = 'check_violation', CONSTRAINT = TG_NAME;
    END $$
    """,
    *(
        f"""
        CREATE TRIGGER tg_consent_ended BEFORE INSERT ON {table} FOR EACH ROW
        WHEN (NEW.consent_expires_at <= clock_timestamp()) EXECUTE FUNCTION vultus_consent_ended()
        """
        for table in ("faces", "crops")
    ),
    *(
        f"""
        CREATE TRIGGER tg_consent_ended_update BEFORE UPDATE OF consent_id ON {table} FOR EACH ROW
        WHEN (NEW.consent_id <> OLD.consent_id AND NEW.consent_expires_at <= clock_timestamp())
        EXECUTE FUNCTION vultus_consent_ended()
        """
        for table in ("faces", "crops")
    ),
    # As the transaction sees the time: it has seen the consent as live.
    """
    CREATE TRIGGER tg_consent_final BEFORE UPDATE ON consents FOR EACH ROW
    WHEN (
        OLD.expires_at <= now() AND NEW.expires_at > OLD.expires_at
        OR OLD.withdrawn_at IS NOT NULL AND NEW.withdrawn_at IS NULL
    )
    EXECUTE FUNCTION vultus_consent_ended()
    """,
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP FUNCTION vultus_consent_ended CASCADE")  # with its triggers
