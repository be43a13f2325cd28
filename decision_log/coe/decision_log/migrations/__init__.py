"""Migrations of the database by Alembic, one module for each change of a table.

`schema.py` runs them. After a new one in `versions`, set `schema.HEAD`; tests compare the result with the tables.
"""
