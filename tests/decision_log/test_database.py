"""The end of a database: nothing stays open."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from decision_log.database import Database


def test_a_connection_that_is_in_use_closes_when_it_is_returned(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'coe.db'}")
    with database.transaction("read") as connection:
        driver = connection.connection.dbapi_connection
        assert isinstance(driver, sqlite3.Connection)
        database.close()
        assert connection.exec_driver_sql("SELECT 1").scalar_one() == 1
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        driver.execute("SELECT 1")
