"""Runs the revisions on the connection that `vultus.db.migrate` hands over."""

from __future__ import annotations

from alembic import context

from vultus.db.migrate import is_schema_object
from vultus.db.tables import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    include_object=is_schema_object,
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
