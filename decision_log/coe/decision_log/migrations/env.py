"""The environment in which Alembic runs a migration: the connection, and so the transaction, of `schema.py`."""

from alembic import context

from coe.decision_log.tables import METADATA

context.configure(connection=context.config.attributes["connection"], target_metadata=METADATA, render_as_batch=True)
context.run_migrations()
