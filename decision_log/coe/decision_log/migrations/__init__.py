"""Alembic migrations of the database, one module for each change of a table.

`schema.py` runs them. After adding one in `versions`, set `schema.HEAD`; tests compare the result with the tables.
"""
