"""Keys have permissions, collections, an owner, an end, and a secret from before their last rotation.

Revision ID: 0008
Revises: 0007
"""

from __future__ import annotations

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

ADD = """
    ALTER TABLE api_keys
        ALTER role DROP NOT NULL,
        ADD owner text,
        ADD permissions text[],
        ADD collections uuid[],
        ADD previous_sha256 bytea CONSTRAINT uq_api_keys_previous_sha256 UNIQUE,
        ADD previous_until timestamptz,
        ADD expires_at timestamptz,
        ADD last_used_at timestamptz,
        ADD CONSTRAINT ck_api_keys_permissions CHECK ((role IS NULL) <> (permissions IS NULL)),
        ADD CONSTRAINT ck_api_keys_previous CHECK ((previous_sha256 IS NULL) = (previous_until IS NULL))
"""
# What `enrol` was until now, erasure and scores included, is `manage` from here on.
KEEP_ABILITIES = "UPDATE api_keys SET role = 'manage' WHERE role = 'enrol'"

# A key that was confined must not come back as one that may do more.
REVOKE_CONFINED = """
    UPDATE api_keys SET revoked_at = coalesce(revoked_at, now())
    WHERE role IS NULL OR role = 'enrol' OR collections IS NOT NULL OR expires_at IS NOT NULL
"""
RENAME_ROLES = """
    UPDATE api_keys SET role = CASE role WHEN 'admin' THEN role WHEN 'manage' THEN 'enrol' ELSE 'recognize' END
"""
DROP_CHECKS = "ALTER TABLE api_keys DROP CONSTRAINT ck_api_keys_permissions, DROP CONSTRAINT ck_api_keys_previous"
DROP = """
    ALTER TABLE api_keys
        ALTER role SET NOT NULL,
        DROP owner, DROP permissions, DROP collections, DROP previous_sha256, DROP previous_until, DROP expires_at,
        DROP last_used_at
"""


def upgrade() -> None:
    for statement in (ADD, KEEP_ABILITIES):
        op.execute(statement)


def downgrade() -> None:
    for statement in (REVOKE_CONFINED, DROP_CHECKS, RENAME_ROLES, DROP):
        op.execute(statement)
