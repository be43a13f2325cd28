"""The decision log's database lies in the data folder, whatever that folder is called."""

from contextlib import closing
from pathlib import Path

import pytest

from coe.decision_log.database import Database
from coe.decision_log.default_database import default_database_url
from coe.decision_log.sql_engine import open_log
from coe.gateway.settings import read_settings


@pytest.mark.parametrize("name", ["what?", "a#b", "100%", "a%20b", "a b+c", "user:pass@host", "größe"])
def test_a_data_folder_of_any_name_holds_its_own_database(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    url = read_settings({"COE_DATA_DIR": str(folder)}).database_url.get_secret_value()
    assert url == default_database_url(folder)
    with closing(Database(url)):
        assert (folder / "coe.db").is_file()
    with open_log(url) as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM decisions").scalar() == 0
    assert [path.name for path in tmp_path.iterdir()] == [name]
