"""Place of the decision log's database."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote

DATABASE_FILE = "coe.db"


def database_url_of(data_dir: Path) -> str:
    """The database that DATABASE_URL names; without it, that of a data folder."""
    return os.environ.get("DATABASE_URL") or default_database_url(data_dir)


def default_database_url(data_dir: Path) -> str:
    """The SQLite database of a data folder, whose name may hold what has a meaning in a URL."""
    return f"sqlite:///{quote(str(data_dir / DATABASE_FILE), safe=' +/')}"  # as SQLAlchemy writes and reads it
