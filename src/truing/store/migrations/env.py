"""Alembic's door to the tables: run on the connection that the caller opened, in batch mode because SQLite can't alter columns."""

from alembic import context

from truing.store.tables import Base

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=Base.metadata, render_as_batch=True, compare_type=True)
with context.begin_transaction():
    context.run_migrations()
