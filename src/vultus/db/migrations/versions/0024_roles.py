"""What a role that serves may not do by itself is done by functions of the role that owns the tables.

Revision ID: 0024
Revises: 0023
"""

from __future__ import annotations

from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None

# Attaching an existing table locks the parent against other attachments only; CREATE TABLE … PARTITION OF would wait
# for every search of every collection. A statement that names the partition does not fire the parent's trigger. Columns
# without statistics are those of the parent; whoever may use the parent may use the partition, and nobody else.
CREATE_PARTITION = """
    CREATE FUNCTION vultus_create_partition(collection uuid) RETURNS void LANGUAGE plpgsql STRICT {owned} AS $$
    DECLARE
        partition text := 'faces_' || replace(collection::text, '-', '');
        unsampled text;
        granted record;
    BEGIN
        IF NOT EXISTS (SELECT FROM collections WHERE id = collection) THEN
            RAISE EXCEPTION 'there is no collection %', collection USING ERRCODE = 'foreign_key_violation';
        END IF;
        EXECUTE format(
            'CREATE TABLE %I (LIKE faces INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING STORAGE)', partition
        );
        FOR unsampled IN
            SELECT attname FROM pg_attribute WHERE attrelid = 'faces'::regclass AND attnum > 0 AND attstattarget = 0
        LOOP
            EXECUTE format('ALTER TABLE %I ALTER %I SET STATISTICS 0', partition, unsampled);
        END LOOP;
        EXECUTE format(
            'CREATE TRIGGER tg_template_erased AFTER DELETE ON %I REFERENCING OLD TABLE AS erased'
            ' FOR EACH STATEMENT EXECUTE FUNCTION vultus_template_erased()', partition
        );
        FOR granted IN
            SELECT grantee::regrole AS role, string_agg(privilege_type, ', ') AS privileges
            FROM pg_class, aclexplode(relacl)
            WHERE pg_class.oid = 'faces'::regclass AND grantee NOT IN (0, relowner) GROUP BY grantee
        LOOP
            EXECUTE format('GRANT %s ON %I TO %s', granted.privileges, partition, granted.role);
        END LOOP;
        EXECUTE format('ALTER TABLE faces ATTACH PARTITION %I FOR VALUES IN (%L)', partition, collection);
    END $$
"""
DROP_PARTITION = """
    CREATE FUNCTION vultus_drop_partition(collection uuid) RETURNS void LANGUAGE plpgsql STRICT {owned} AS $$
    BEGIN
        EXECUTE format('DROP TABLE %I', 'faces_' || replace(collection::text, '-', ''));
    END $$
"""
DELETE_OLD_AUDIT = """
    CREATE FUNCTION vultus_delete_old_audit(older_than timestamptz) RETURNS void LANGUAGE plpgsql STRICT {owned} AS $$
    BEGIN
        IF older_than > now() - interval '30 days' THEN
            RAISE EXCEPTION 'entries of the audit record are kept for 30 days' USING ERRCODE = 'check_violation';
        END IF;
        DELETE FROM audit WHERE at < older_than;
    END $$
"""


def upgrade() -> None:
    schema = op.get_bind().exec_driver_sql("SELECT quote_ident(current_schema())").scalar_one()
    for function in (CREATE_PARTITION, DROP_PARTITION, DELETE_OLD_AUDIT):
        op.execute(function.format(owned=f"SECURITY DEFINER SET search_path = {schema}, pg_temp"))


def downgrade() -> None:
    op.execute(
        "DROP FUNCTION vultus_create_partition(uuid), vultus_drop_partition(uuid), vultus_delete_old_audit(timestamptz)"
    )
