"""Runs the revisions on the connection that `vultus.db.migrate` hands over."""

from __future__ import annotations

from alembic import context

from vultus.db import record_tables
from vultus.db.migrate import is_schema_object

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=record_tables.OutboxRow.metadata,
    include_object=is_schema_object,
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
