from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from redis import Redis

from coe.base.errors import ConfigError
from coe.decision_log.database import Database
from coe.decision_log.ledger import Ledger
from coe.decision_log.removal_commands import erase_decisions
from coe.decision_log.stream_entries import dead_stream
from tests.decision_log.running_log import make_record
from tests.gateway.running import config_of

DATABASES = ("sqlite",)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "experts.yaml"
    path.write_text(json.dumps(config_of().model_dump(mode="json", exclude_none=True)))
    return path


@pytest.fixture(name="redis_url")
def named_redis(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("REDIS_URL", redis_url)
    return redis_url


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")


def test_what_is_old_is_erased(
    tmp_path: Path, store: Database, config: Path, redis_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    now = time.time()
    store.write_decisions([make_record(seq).model_copy(update={"at": now - 86_400 * seq - 60}) for seq in range(4)])
    with Redis.from_url(redis_url) as client:
        for place, seq in enumerate((9, 10**20)):  # the latter is too large for a column
            client.xadd(
                dead_stream("coe:decisions"),
                {"record": make_record(seq).model_dump_json()},
                id=f"{int((now - 86_400 * 3) * 1000)}-{place}",
            )
        client.xadd(dead_stream("coe:decisions"), {"record": "y"})
        assert erase_decisions(None, "2d", tmp_path, config) == 0
        assert client.xlen(dead_stream("coe:decisions")) == 1
    assert "erased 2 decisions, 0 pieces of feedback, 2 dead letters" in capsys.readouterr().out
    assert store.count() == 2
    assert range(9, 10) in Ledger(store).accounts()[0].removed
    assert erase_decisions(None, "2d", tmp_path, config) == 0
    assert erase_decisions(None, "99999d", tmp_path, config) == 0  # before 1970
    assert capsys.readouterr().out.count("erased 0 decisions, 0 pieces of feedback, 0 dead letters") == 2


def test_erase(
    tmp_path: Path, store: Database, config: Path, redis_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    store.write_decisions([make_record(0).model_copy(update={"key_id": "key-1"}), make_record(1)])
    for erased in (1, 0):
        assert erase_decisions("key-1", None, tmp_path, config) == 0
        assert f"erased {erased} decisions and 0 pieces of feedback from SQL" in capsys.readouterr().out
    assert store.count() == 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "give either --subject or --older-than"),
        ({"subject": "key-1", "older_than": "2d"}, "give either --subject or --older-than"),
        ({"subject": " "}, "--subject is empty"),
    ],
)
def test_what_to_erase_is_said_once(
    tmp_path: Path,
    config: Path,
    redis_url: str,
    given: dict[str, str],
    message: str,
) -> None:
    with pytest.raises(ConfigError, match=message):
        erase_decisions(**given, data_dir=tmp_path, config=config)
