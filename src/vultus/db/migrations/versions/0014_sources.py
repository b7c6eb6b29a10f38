"""Sources: cameras and videos that servers watch, each by one of them.

Revision ID: 0014
Revises: 0013
"""

from __future__ import annotations

from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

STATEMENTS = (
    """
    CREATE TABLE sources (
        id uuid NOT NULL CONSTRAINT pk_sources PRIMARY KEY,
        collection_id uuid NOT NULL
            CONSTRAINT fk_sources_collection_id_collections REFERENCES collections (id) ON DELETE CASCADE,
        key_id uuid CONSTRAINT fk_sources_key_id_api_keys REFERENCES api_keys (id) ON DELETE CASCADE,
        name text NOT NULL,
        label text NOT NULL,
        sealed_address bytea NOT NULL,
        min_face_px double precision,
        zones json NOT NULL,
        fps double precision,
        idle_fps double precision,
        enabled boolean NOT NULL DEFAULT true,
        created_at timestamptz NOT NULL DEFAULT now(),
        updated_at timestamptz NOT NULL DEFAULT now(),
        watcher uuid,
        watched_until timestamptz,
        state text NOT NULL DEFAULT 'connecting',
        since timestamptz NOT NULL DEFAULT now(),
        problem text,
        last_frame_at timestamptz,
        measured_fps double precision NOT NULL DEFAULT 0,
        dropped bigint NOT NULL DEFAULT 0,
        CONSTRAINT ck_sources_state CHECK (state IN ('connecting', 'running', 'lost', 'stopped')),
        CONSTRAINT ck_sources_watcher CHECK ((watcher IS NULL) = (watched_until IS NULL))
    )
    """,
    "CREATE INDEX ix_sources_collection_id ON sources (collection_id)",
    "CREATE INDEX ix_sources_key_id ON sources (key_id)",
    "ALTER TABLE sources ALTER sealed_address SET STATISTICS 0",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP TABLE sources")
