"""The URL of the decision log's database."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote

DATABASE_FILE = "coe.db"


def database_url_of(data_dir: Path) -> str:
    """Return DATABASE_URL, else the URL of the data folder's own database."""
    return os.environ.get("DATABASE_URL") or default_database_url(data_dir)


def default_database_url(data_dir: Path) -> str:
    """Return the URL of a data folder's SQLite database; characters with a meaning in URLs are quoted."""
    return f"sqlite:///{quote(str(data_dir / DATABASE_FILE), safe=' +/')}"  # as SQLAlchemy writes and reads it
