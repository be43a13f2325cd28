"""The environment of a migration: Alembic uses the connection, and so the transaction, of `schema.py`."""

from alembic import context

from coe.decision_log.tables import METADATA

if hasattr(context, "config"):  # Alembic sets it while it runs this file; a plain import does nothing
    connection = context.config.attributes["connection"]
    context.configure(connection=connection, target_metadata=METADATA, render_as_batch=True)
    context.run_migrations()
