"""The log of what admins did: every line once, in one chain, whoever writes at the same time."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from coe.base.errors import StoreError
from coe.decision_log.admin_log import AdminLog, first_broken, note_command, operator
from coe.decision_log.database import Database

DATABASES = ("sqlite",)


def test_lines_written_at_once_are_one_chain(store: Database) -> None:
    log = AdminLog(store)
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda n: log.note("ann@host", "promote", "router", str(n), str(n + 1)), range(40)))
    actions = log.actions()
    assert sorted(int(each.before) for each in actions) == list(range(40))
    assert [each.number for each in actions] == list(range(1, 41))
    assert first_broken(actions) is None


def test_a_command_is_of_its_user(store: Database, tmp_path: Path) -> None:
    note_command(tmp_path, "rollback", "configuration", "4", "3")
    (action,) = AdminLog(store).actions()
    assert action[2:7] == (operator(), "rollback", "configuration", "4", "3")


def test_what_was_done_without_a_line_is_said(store: Database) -> None:
    log = AdminLog(store)
    with store.transaction("break") as connection:
        connection.exec_driver_sql("DROP TABLE access_log")
    with pytest.raises(StoreError, match="this was done, but the admin log does not have it"):
        log.note("ann@host", "promote", "router", "1", "2")
