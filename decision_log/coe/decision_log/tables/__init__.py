"""Tables of the database, one SQLModel class each: `log` for decisions, `access` for keys, `files` for vector stores.

Begin with `base.py`, which has the column types. Importing the package registers every table in `METADATA`.
"""

from coe.decision_log.tables import access, files, log
from coe.decision_log.tables.base import METADATA

__all__ = ["METADATA", "access", "files", "log"]
