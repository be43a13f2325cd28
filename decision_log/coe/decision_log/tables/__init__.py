"""Tables of the database, a SQLModel class for each: `log` for decisions, `access` for keys and batches, `files` for
vector stores.

Begin with `base.py`, which has the column types. Importing the package registers every table in `METADATA`.
"""

from coe.decision_log.tables import access, files, log
from coe.decision_log.tables.base import METADATA

__all__ = ["METADATA", "access", "files", "log"]
