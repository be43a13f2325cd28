"""The end of a database: nothing stays open."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from coe.decision_log.database import Database
from coe.decision_log.sql_engine import POSTGRES_PATIENCE, close_engine, open_engine


def test_a_connection_that_is_in_use_closes_when_it_is_returned(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'coe.db'}")
    with database.transaction("read") as connection:
        driver = connection.connection.dbapi_connection
        assert isinstance(driver, sqlite3.Connection)
        database.close()
        assert connection.exec_driver_sql("SELECT 1").scalar_one() == 1
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        driver.execute("SELECT 1")


def test_postgres_is_not_waited_for_without_end_and_the_url_may_say_how_long(postgres_url: str) -> None:
    engine = open_engine(str(make_url(postgres_url).update_query_dict({"connect_timeout": "3"})))
    with engine.connect() as connection:
        told = connection.connection.dbapi_connection.info.get_parameters()
    close_engine(engine)
    assert told["connect_timeout"] == "3"
    assert told["tcp_user_timeout"] == POSTGRES_PATIENCE["tcp_user_timeout"]
