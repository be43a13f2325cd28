from __future__ import annotations

import json
from pathlib import Path

import pytest

from coe.base.errors import ConfigError
from coe.decision_log.database import Database
from coe.decision_log.erase import erase_decisions
from tests.decision_log.running_log import make_record
from tests.gateway.running import config_of

DATABASES = ("sqlite",)

pytestmark = pytest.mark.usefixtures("command_environment")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "experts.yaml"
    path.write_text(json.dumps(config_of().model_dump(mode="json", exclude_none=True)))
    return path


def test_erase(
    tmp_path: Path, store: Database, config: Path, redis_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    store.write_decisions([make_record(0).model_copy(update={"key_id": "key-1"}), make_record(1)])
    for erased in (1, 0):
        assert erase_decisions("key-1", tmp_path, config) == 0
        assert f"erased {erased} decisions and 0 pieces of feedback from SQL" in capsys.readouterr().out
    assert store.count() == 1


def test_an_empty_subject_is_refused(tmp_path: Path, config: Path, redis_url: str) -> None:
    with pytest.raises(ConfigError, match="--subject is empty"):
        erase_decisions(" ", data_dir=tmp_path, config=config)
